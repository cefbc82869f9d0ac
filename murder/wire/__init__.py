"""Grammar: octets to nouns and back, both directions in one file. Knows no state, no socket."""
