"""A program run over a message, in slices, without waiting for anything."""
