"""Every IMAP command of a frontend: in which states it is allowed, and where it runs.

`run_selected`: at the selected backend, untouched. `run_at_mailbox`: at the backend of the mailbox it names. All else has a
handler of its own, which says where.
"""

from types import MappingProxyType
from typing import Final

from murder.model.identity import Login
from murder.roles.frontend.imap import basic, follow, idle, notify, piped, refer
from murder.roles.frontend.imap.dialogue import run_selected
from murder.roles.frontend.imap.lobby import Lobby
from murder.roles.frontend.imap.mail import append, copy, modseqs, urlauth
from murder.roles.frontend.imap.mailboxes import list as listing
from murder.roles.frontend.imap.mailboxes import mailbox, quota, select
from murder.roles.frontend.imap.selected import Moved
from murder.serve.compress import run_compress
from murder.serve.imap import ANY, AUTHENTICATED, SELECTED, Row, Table
from murder.serve.imap_commands import LOGIN_ROWS
from murder.serve.list import run_namespace
from murder.wire.imap.command import Command

TABLE: Final[Table] = MappingProxyType(
    {
        **LOGIN_ROWS,
        # here
        b"NOOP": Row(ANY, basic.run_noop, relayed=True),
        b"ENABLE": Row(AUTHENTICATED, basic.run_enable),
        b"COMPRESS": Row(AUTHENTICATED, run_compress),
        b"NOTIFY": Row(AUTHENTICATED, notify.run_notify),
        b"UNAUTHENTICATE": Row(AUTHENTICATED, basic.run_unauthenticate),
        b"NAMESPACE": Row(AUTHENTICATED, run_namespace),
        b"LIST": Row(AUTHENTICATED, listing.run_list),
        b"XLIST": Row(AUTHENTICATED, listing.run_xlist),
        b"RLIST": Row(AUTHENTICATED, listing.run_rlist),
        # at the backend of the user's INBOX
        b"LSUB": Row(AUTHENTICATED, listing.run_lsub),
        b"RLSUB": Row(AUTHENTICATED, listing.run_rlsub),
        b"SUBSCRIBE": Row(AUTHENTICATED, listing.run_subscribe),
        b"UNSUBSCRIBE": Row(AUTHENTICATED, listing.run_subscribe),
        # at the mailbox named
        b"CREATE": Row(AUTHENTICATED, mailbox.run_create),
        b"DELETE": Row(AUTHENTICATED, mailbox.run_delete),
        b"RENAME": Row(AUTHENTICATED, mailbox.run_rename),
        b"XFER": Row(AUTHENTICATED, mailbox.run_xfer),
        b"SETACL": Row(AUTHENTICATED, mailbox.run_change_acl),
        b"DELETEACL": Row(AUTHENTICATED, mailbox.run_change_acl),
        b"APPEND": Row(AUTHENTICATED, append.run_append, streams=True),
        b"SELECT": Row(AUTHENTICATED, select.run_select),
        b"EXAMINE": Row(AUTHENTICATED, select.run_select),
        b"STATUS": Row(AUTHENTICATED, basic.run_status),
        b"GETACL": Row(AUTHENTICATED, basic.run_at_mailbox),
        b"LISTRIGHTS": Row(AUTHENTICATED, basic.run_at_mailbox),
        b"MYRIGHTS": Row(AUTHENTICATED, basic.run_at_mailbox),
        b"GETQUOTA": Row(AUTHENTICATED, quota.run_quota),
        b"GETQUOTAROOT": Row(AUTHENTICATED, quota.run_quota),
        b"SETQUOTA": Row(AUTHENTICATED, quota.run_quota),
        b"GETMETADATA": Row(AUTHENTICATED, basic.run_metadata),
        b"SETMETADATA": Row(AUTHENTICATED, basic.run_metadata),
        # at the mailboxes that URLs name
        b"GENURLAUTH": Row(AUTHENTICATED, urlauth.run_genurlauth),
        b"RESETKEY": Row(AUTHENTICATED, urlauth.run_resetkey),
        b"URLFETCH": Row(AUTHENTICATED, urlauth.run_urlfetch),
        # at the selected backend and at the mailbox named
        b"REPLACE": Row(SELECTED, append.run_replace, streams=True),
        b"UID REPLACE": Row(SELECTED, append.run_replace, streams=True),
        b"COPY": Row(SELECTED, copy.run_copy),
        b"UID COPY": Row(SELECTED, copy.run_copy),
        b"MOVE": Row(SELECTED, copy.run_copy),
        b"UID MOVE": Row(SELECTED, copy.run_copy),
        # at the selected backend
        b"IDLE": Row(AUTHENTICATED, idle.run_idle),
        b"CLOSE": Row(SELECTED, select.run_close),
        b"UNSELECT": Row(SELECTED, select.run_close),
        **{
            name: Row(SELECTED, run_selected, relayed=True)
            for name in (b"CHECK", b"EXPUNGE", b"UID EXPUNGE", b"CANCELUPDATE")
        },
        **{
            name: Row(SELECTED, modseqs.run, relayed=True)
            for name in (
                *(b"FETCH", b"UID FETCH", b"STORE", b"UID STORE", b"SEARCH", b"UID SEARCH"),
                *(b"SORT", b"UID SORT", b"THREAD", b"UID THREAD"),
            )
        },
    }
)


class _Imap(Lobby):
    """The dialogue with its table: apart, because the commands know the dialogue."""

    TABLE = TABLE

    def refer_login(self) -> None:
        refer.refer_login(self, self.user)

    async def enter(self, command: Command, login: Login) -> None:
        if self.frontend.multiplexor is None or not await piped.enter(self, command, login):
            await super().enter(command, login)

    async def follow(self, moved: Moved) -> None:
        await follow.follow(self, moved)

    async def watch_elsewhere(self, left: tuple[tuple[str, bytes], ...]) -> None:
        await follow.watch_elsewhere(self, left)


serve_imap: Final = _Imap  # the service of the `imap` listeners
