"""A message by octet offsets (RFC 2045..2049, 5322). Knows no store, no session, no IMAP."""
