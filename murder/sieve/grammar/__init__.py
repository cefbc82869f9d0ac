"""Octets of a script to its commands: RFC 5228 §8. Knows no command, only how they are written."""
