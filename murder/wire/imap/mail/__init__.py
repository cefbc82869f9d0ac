"""Grammar of the commands on messages: APPEND, FETCH, STORE, COPY, SEARCH and their kin."""
