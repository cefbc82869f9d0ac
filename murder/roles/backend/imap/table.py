"""Every IMAP command of a backend: in which states it is allowed, and who carries it out."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from murder.model.message import Uid
from murder.model.query.fetch import FetchItem
from murder.net.connection import Connection
from murder.roles.backend.imap import basic, idle
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.express import Express
from murder.roles.backend.imap.mail import append, copy, expunge, fetch, store, unexpunge, urlauth
from murder.roles.backend.imap.mailboxes import (
    acl,
    expire,
    joint,
    mailbox,
    metadata,
    quota,
    select,
    status,
    xfer,
)
from murder.roles.backend.imap.mailboxes import list as listing
from murder.roles.backend.imap.notify import notify
from murder.roles.backend.imap.search import search, sort
from murder.roles.backend.worker import BackendWorker
from murder.serve.compress import run_compress
from murder.serve.imap import ANY, AUTHENTICATED, SELECTED, Row, Table
from murder.serve.imap_commands import LOGIN_ROWS
from murder.serve.list import run_namespace
from murder.serve.service import ClientService

TABLE: Final[Table] = MappingProxyType(
    {
        **LOGIN_ROWS,
        b"NOOP": Row(ANY, basic.run_noop, inside=True),
        b"ENABLE": Row(AUTHENTICATED, basic.run_enable),
        b"UNAUTHENTICATE": Row(AUTHENTICATED, basic.run_unauthenticate),
        b"COMPRESS": Row(AUTHENTICATED, run_compress),
        b"NAMESPACE": Row(AUTHENTICATED, run_namespace),
        b"NOTIFY": Row(AUTHENTICATED, notify.run_notify),
        b"IDLE": Row(AUTHENTICATED, idle.run_idle, inside=True),
        b"SELECT": Row(AUTHENTICATED, select.run_select),
        b"EXAMINE": Row(AUTHENTICATED, select.run_examine),
        b"CREATE": Row(AUTHENTICATED, mailbox.run_create, audited=True, names=1),
        b"DELETE": Row(AUTHENTICATED, mailbox.run_delete, audited=True, names=1),
        b"RENAME": Row(AUTHENTICATED, mailbox.run_rename, audited=True, names=2),
        b"SUBSCRIBE": Row(AUTHENTICATED, listing.run_subscribe),
        b"UNSUBSCRIBE": Row(AUTHENTICATED, listing.run_unsubscribe),
        b"LIST": Row(AUTHENTICATED, listing.run_list),
        b"LSUB": Row(AUTHENTICATED, listing.run_lsub),
        b"RLIST": Row(AUTHENTICATED, listing.run_rlist),
        b"RLSUB": Row(AUTHENTICATED, listing.run_rlsub),
        b"XLIST": Row(AUTHENTICATED, listing.run_xlist),
        b"STATUS": Row(AUTHENTICATED, status.run_status),
        b"APPEND": Row(AUTHENTICATED, append.run_append, streams=True),
        b"LOCALAPPEND": Row(AUTHENTICATED, append.run_localappend, streams=True),
        b"GETMETADATA": Row(AUTHENTICATED, metadata.run_getmetadata),
        b"SETMETADATA": Row(AUTHENTICATED, metadata.run_setmetadata, audited=True, names=1),
        b"GETQUOTA": Row(AUTHENTICATED, quota.run_getquota),
        b"GETQUOTAROOT": Row(AUTHENTICATED, quota.run_getquotaroot),
        b"SETQUOTA": Row(AUTHENTICATED, quota.run_setquota, audited=True, names=1),
        b"GENURLAUTH": Row(AUTHENTICATED, urlauth.run_genurlauth),
        b"RESETKEY": Row(AUTHENTICATED, urlauth.run_resetkey, audited=True, names=1),
        b"URLFETCH": Row(AUTHENTICATED, urlauth.run_urlfetch),
        b"REPLACE": Row(SELECTED, append.run_replace, streams=True, numbered=True),
        b"UID REPLACE": Row(SELECTED, append.run_uid_replace, streams=True),
        b"SETACL": Row(AUTHENTICATED, acl.run_setacl, audited=True, names=1),
        b"DELETEACL": Row(AUTHENTICATED, acl.run_deleteacl, audited=True, names=1),
        b"GETACL": Row(AUTHENTICATED, acl.run_getacl),
        b"LISTRIGHTS": Row(AUTHENTICATED, acl.run_listrights),
        b"MYRIGHTS": Row(AUTHENTICATED, acl.run_myrights),
        b"XRENAME": Row(AUTHENTICATED, mailbox.run_xrename, audited=True, names=2),
        b"XDELETE": Row(AUTHENTICATED, joint.run_xdelete, audited=True, names=1),
        b"XUNDELETE": Row(AUTHENTICATED, joint.run_xundelete, audited=True, names=1),
        b"XUNEXPUNGE": Row(AUTHENTICATED, unexpunge.run_unexpunge, audited=True, names=1),
        b"XEXPIRE": Row(AUTHENTICATED, expire.run_expire),
        b"XPART": Row(AUTHENTICATED, joint.run_xpart),
        b"XSETTLE": Row(AUTHENTICATED, joint.run_xsettle, audited=True),
        b"XFER": Row(AUTHENTICATED, xfer.run_xfer, audited=True, names=1),
        b"XFERS": Row(AUTHENTICATED, xfer.run_xfers),
        b"XCOMPARE": Row(AUTHENTICATED, xfer.run_xcompare),
        b"XTAKE": Row(AUTHENTICATED, xfer.run_xtake),
        b"XBACKUP": Row(AUTHENTICATED, xfer.run_xbackup),
        b"SYNCGET": Row(AUTHENTICATED, xfer.run_sync),
        b"SYNCAPPLY": Row(AUTHENTICATED, xfer.run_sync),
        b"SYNCRESTART": Row(AUTHENTICATED, xfer.run_sync),
        b"MUPDATEPUSH": Row(AUTHENTICATED, xfer.run_mupdatepush),
        b"CHECK": Row(SELECTED, basic.run_noop, inside=True),
        b"CLOSE": Row(SELECTED, select.run_close, inside=True),
        b"UNSELECT": Row(SELECTED, select.run_unselect),
        b"EXPUNGE": Row(SELECTED, expunge.run_expunge, inside=True),
        b"UID EXPUNGE": Row(SELECTED, expunge.run_uid_expunge, inside=True),
        b"UID XREMOVE": Row(SELECTED, expunge.run_uid_xremove),
        b"FETCH": Row(SELECTED, fetch.run_fetch, numbered=True, inside=True),
        b"UID FETCH": Row(SELECTED, fetch.run_uid_fetch, inside=True),
        b"STORE": Row(SELECTED, store.run_store, numbered=True, inside=True),
        b"UID STORE": Row(SELECTED, store.run_uid_store, inside=True),
        b"COPY": Row(SELECTED, copy.run_copy, numbered=True, inside=True),
        b"UID COPY": Row(SELECTED, copy.run_uid_copy, inside=True),
        b"MOVE": Row(SELECTED, copy.run_move, numbered=True, inside=True),
        b"UID MOVE": Row(SELECTED, copy.run_uid_move, inside=True),
        b"SEARCH": Row(SELECTED, search.run_search, numbered=True, inside=True),
        b"UID SEARCH": Row(SELECTED, search.run_uid_search, inside=True),
        b"CANCELUPDATE": Row(SELECTED, search.run_cancelupdate),
        b"SORT": Row(SELECTED, sort.run_sort, numbered=True, inside=True),
        b"UID SORT": Row(SELECTED, sort.run_uid_sort, inside=True),
        b"THREAD": Row(SELECTED, sort.run_thread, numbered=True, inside=True),
        b"UID THREAD": Row(SELECTED, sort.run_uid_thread, inside=True),
    }
)


class _Imap(Express):
    """The dialogue with its table: apart, because the commands know the dialogue."""

    TABLE = TABLE

    async def tell_items(self, wanted: Mapping[Uid, Sequence[FetchItem]]) -> None:
        await fetch.tell_items(self, wanted)


def serve_imap(
    connection: Connection, service: ClientService, backend: BackendWorker
) -> BackendImap:
    """The service of the `imap` listeners."""
    return _Imap(connection, service, backend)
