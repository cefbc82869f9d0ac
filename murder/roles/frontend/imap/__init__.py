"""IMAP commands as a frontend carries them out, one family a file."""
