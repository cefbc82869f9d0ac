"""IMAP commands on a store, one family a file."""
