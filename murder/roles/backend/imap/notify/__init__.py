"""Telling a client of changes when no command asks: IDLE and NOTIFY."""
