"""Commands on messages that cross backends: APPEND, COPY, MOVE, CATENATE, URLs of messages."""
