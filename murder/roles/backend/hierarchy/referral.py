"""Mailboxes that are not here: where the master says that they are, for clients that talk to this backend themselves.

RFC 2193: a tagged NO with a URL; RFC 2221 and RFC 5804 §1.3: so for a login. POP3 and LMTP have no such answer, and name the
server. Clients that come through a frontend get none of these: the frontend looks for itself.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.log import logger
from murder.model.entry import MailboxEntry
from murder.model.identity import Login
from murder.model.name import MAX_NAME_OCTETS, MailboxName, Namespace, display, inbox_of
from murder.model.protocol import IMAP, ProtocolSpec
from murder.model.rights import MANAGED, Missing, rights_in
from murder.model.url import ImapUrl, UrlServer
from murder.wire import managesieve
from murder.wire.url import format_url

# names of one RLSUB that the master is asked of, one behind the other: some 100 ms
MAX_ASKED: Final = 500
ANY_MECHANISM = "*"  # RFC 2193 §3: lest the client falls back to an anonymous login


class Finder(Protocol):
    """The master as this file needs it."""

    async def find(self, name: bytes) -> MailboxEntry | None: ...


class Referrals:
    """See the module. `server_of` is the address of a server of the list, and its port for a protocol where it is not the
    usual one."""

    def __init__(
        self,
        master: Finder,
        own_server: str,
        namespace: Namespace,
        server_of: Callable[[str, ProtocolSpec], tuple[str, int | None]],
    ) -> None:
        self._master = master
        self._own_server = own_server
        self._namespace = namespace
        self._server_of = server_of

    async def instead(self, refusal: Refusal, login: Login) -> Refusal:
        """The refusal to give in place of one: with a referral, where a mailbox that is missing here lives elsewhere; for
        a RENAME with the pair of URLs of RFC 2193 §4.3."""
        missing = refusal if isinstance(refusal, Missing) else refusal.__cause__
        if not isinstance(missing, Missing) or refusal.code is Code.BAD_URL:
            return refusal
        try:
            entry = await self._master.find(missing.name)
        except (Refusal, UpstreamFailure) as error:
            log = logger(role="backend")
            log.info("referral.unknown", problem=str(error))
            return refusal
        if entry is None or not entry.is_active or entry.server == self._own_server:
            return refusal
        if not rights_in(entry, login.identity, login.is_admin) & MANAGED:
            return refusal
        names = [name for name in (missing.name, missing.new_name) if name is not None]
        urls = b" ".join(self._url(entry, name, login.user) for name in names)
        return Refusal(
            Code.REFERRAL, f"The mailbox is on the server {entry.server}", urls.decode("ascii")
        )

    async def home(self, login: Login, protocol: ProtocolSpec) -> Refusal | None:
        """The answer to a login by IMAP or ManageSieve of somebody whose INBOX lives elsewhere; None where it lives nowhere,
        or that cannot be known now."""
        try:
            server = await self.server_of_home(inbox_of(login.user))
        except (Refusal, UpstreamFailure) as error:
            logger(role="backend").info("referral.unknown", problem=str(error))
            return None
        if not server:
            return None
        text = f"Your mailboxes are on the server {server}"
        host, port = self._server_of(server, protocol)
        if protocol is IMAP:
            url = format_url(ImapUrl(UrlServer(host, port, login.user, ANY_MECHANISM), None))
            return Refusal(Code.REFERRAL, text, url.decode("ascii"))
        return Refusal(Code.REFERRAL, text, managesieve.format_url(host, port))

    async def server_of_home(self, name: MailboxName) -> str:
        """Where an INBOX, or a shared mailbox, lives that is not here; "" where it lives nowhere. Raises Refusal,
        UpstreamFailure also where it is on its way."""
        if len(name) > MAX_NAME_OCTETS:  # no list has it
            return ""
        entry = await self._master.find(name)
        if entry is None:
            return ""
        if not entry.is_active:
            text = f"{display(name)} is being created or moved"
            raise UpstreamFailure(UpstreamKind.MOVING, entry.server, text)
        return "" if entry.server == self._own_server else entry.server

    async def are_missing(
        self, names: Sequence[MailboxName], login: Login
    ) -> frozenset[MailboxName]:
        """Those of `names`, none of which is here, that are nowhere else either, as far as this user may know. In doubt
        (they are too many, the master is away) a name is not among them: who goes there is told."""
        missing = set()
        try:
            for name in names[:MAX_ASKED]:
                entry = await self._master.find(name)
                rights = rights_in(entry, login.identity, login.is_admin) if entry else frozenset()
                if entry is None or not entry.is_active or "l" not in rights:
                    missing.add(name)
        except (Refusal, UpstreamFailure) as error:
            logger(role="backend").info("referral.unknown", problem=str(error))
        return frozenset(missing)

    def _url(self, entry: MailboxEntry, name: MailboxName, user: str) -> bytes:
        host, port = self._server_of(entry.server, IMAP)
        server = UrlServer(host, port, user, ANY_MECHANISM)
        return format_url(ImapUrl(server, self._namespace.external(name, user)))
