"""Grammar of IMAP (RFC 3501, RFC 9051 and extensions), one command family a file."""
