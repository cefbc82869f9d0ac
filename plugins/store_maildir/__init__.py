"""A store on Maildir++ trees, as Dovecot and Courier leave them and may go on using them.

Messages, flags and UIDs stand where other software looks for them: file names, `dovecot-uidlist`, `dovecot-keywords`,
`subscriptions`. What Maildir++ has no place for (mod-sequences, counts, ids, each reader's `\\Seen`) stands in an index of
our own beside it, `murder-index.db`, which is built anew from the tree where it is missing. `files` is names and small
files, `tree` one tree with its index, `sync` notices what others changed, `mailbox` and `store` are the contract.
"""

from plugins.store_maildir.store import Settings, make_store

__all__ = ["Settings", "make_store"]
