"""Commands on messages: FETCH, STORE, COPY, APPEND, EXPUNGE, URLs of messages."""
