"""The default mailbox store: one SQLite database per user or shared root, large messages in files.

Rows, writers, mailboxes and copies are those of `murder.kit`; `store` puts them together, `inspection` checks them, and
`salvage` saves what can be read of a damaged database.
"""

from plugins.store_spool.store import Settings, make_store

__all__ = ["Settings", "make_store"]
