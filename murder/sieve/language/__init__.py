"""What there is to say in Sieve: RFC 5228 and its extensions, one file each, listed in `language.table`."""
