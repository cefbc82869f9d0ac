"""How texts are compared: comparators (RFC 4790) and match types. Knows no script and no message."""
