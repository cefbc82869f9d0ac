"""The mailbox list of several masters: a log on etcd (version 3.4 or later), which they share.

A commit is one transaction, guarded by the position behind which it was decided. See `layout` for what is kept where, and
`settings` for the keys.
"""

from plugins.list_etcd.hooks import make_list_log
from plugins.list_etcd.settings import Settings

__all__ = ["Settings", "make_list_log"]
