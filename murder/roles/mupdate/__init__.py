"""The mailbox list: LMDB, master, replica, client (RFC 3656)."""
