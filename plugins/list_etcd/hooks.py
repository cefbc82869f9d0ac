"""What makes the log."""

from murder.api import hookimpl
from murder.api.list_log import ListLog
from plugins.list_etcd.settings import Settings


@hookimpl
def make_list_log(settings: Settings) -> ListLog:
    """Called once, in the master's process. The client's libraries are loaded only then."""
    from plugins.list_etcd.log import EtcdLog

    return EtcdLog(settings)
