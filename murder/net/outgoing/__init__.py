"""Connections to other servers: opened, logged in, kept in pools, and what is relayed over them."""
