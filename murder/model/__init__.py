"""Nouns: values of mail and of a murder. Knows no octets of a protocol, no state, no socket."""
