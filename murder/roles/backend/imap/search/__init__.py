"""SEARCH, SORT, THREAD, and searches that are kept up to date."""
