"""The default mailbox store: one SQLite database per user or shared root, large messages in files.

`schema` is the database, `root` one open database with its writer, `incoming` a message on its way in, `mailbox` what a
session works with, `transfer` what crosses two roots, `store` all of them together.
"""

from plugins.store_spool.store import Settings, make_store

__all__ = ["Settings", "make_store"]
