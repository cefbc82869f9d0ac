"""A master elsewhere, seen from here: connections to it, what is asked of it, the replica that follows it."""
