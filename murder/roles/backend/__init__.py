"""The server that holds mail: IMAP, POP3, LMTP on a pluggable store."""
