"""The mailbox list in its database: rows, index, log of changes, and what is durable before it is there."""
