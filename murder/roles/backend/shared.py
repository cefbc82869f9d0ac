"""What all sessions of one worker of a backend share, whatever their protocol."""

import functools
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from murder.api.delivery import DeliveryFilter
from murder.api.store import CountsAtOnce, MailboxStore, NumbersOf
from murder.auth.gate import Gate
from murder.auth.turnstile import Turnstile
from murder.config import BackendConfig
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.log import logger
from murder.model.acl import ANONYMOUS
from murder.model.identity import Login
from murder.model.name import MailboxName, Namespace, display, inbox_of
from murder.model.protocol import ProtocolSpec
from murder.model.quota import parse_limits
from murder.model.rights import Missing
from murder.net.outgoing.upstream import Upstreams
from murder.roles.backend.changes.events import Events
from murder.roles.backend.changes.tracker import Tracker
from murder.roles.backend.hierarchy.announce import Announcer
from murder.roles.backend.hierarchy.mailboxes import Mailboxes
from murder.roles.backend.hierarchy.policies import Policies
from murder.roles.backend.hierarchy.referral import Finder, Referrals
from murder.roles.backend.imap.answers import Answers
from murder.roles.backend.moves.journal import Journal
from murder.roles.backend.reconcile.discovery import Noticer
from murder.roles.backend.records.annotations import Annotations
from murder.roles.backend.records.deliveries import Deliveries
from murder.roles.backend.records.duplicates import Duplicates
from murder.roles.backend.records.quota import Quotas
from murder.roles.backend.records.urlauth import UrlKeys
from murder.roles.backend.scripts.kept import Scripts
from murder.roles.backend.scripts.site import Site
from murder.roles.backend.scripts.srs import RedirectSenders
from murder.serve.mail_log import MailLog
from murder.serve.service import NO_MAIL_LOG, Session
from murder.trail.figures import Figures
from murder.wire import mutf7


@dataclass(slots=True)
class Backend:
    """One worker's parts. `server_name` is the name in locations and greetings."""

    config: BackendConfig
    server_name: str
    namespace: Namespace
    gate: Gate
    store: MailboxStore
    mailboxes: Mailboxes
    announcer: Announcer
    tracker: Tracker
    annotations: Annotations
    quotas: Quotas
    url_keys: UrlKeys
    policies: Policies  # of mail that goes by its age
    maildrop_locks: Path
    events: Events
    journal: Journal  # of moves
    scripts: Scripts
    site: Site  # what it adds to scripts
    deliveries: Deliveries  # of scripts, begun and to be sent
    master: Finder | None = None  # of the mailbox list; None for a backend alone
    referrals: Referrals | None = None  # None without a master
    domains: bool = False  # users are `user@domain`
    master_url: str = ""  # for the capability MUPDATE=, empty without a master
    noticer: Noticer | None = None  # None where nobody else makes mailboxes in the store
    duplicates: Duplicates | None = None  # None where all that comes is kept
    filters: Sequence[tuple[str, DeliveryFilter]] = ()  # of plugins, for what arrives
    upstreams: Upstreams | None = None  # to other nodes
    mail_log: MailLog = NO_MAIL_LOG  # of what a worker does by itself
    sends_mail: bool = False  # there is a [backend.submission]
    # who has scripts make large versions of a message, until these are safe
    large_runs: Turnstile = field(default_factory=functools.partial(Turnstile, 1))
    redirect_senders: RedirectSenders = field(default_factory=RedirectSenders)
    answers: Answers = field(default_factory=Answers)
    figures: Figures = field(default_factory=Figures)  # of this worker
    sessions: set[Session] = field(default_factory=set)  # all protocols': drained at the end
    # the store's power, if it has it
    count_at_once: Callable[[MailboxName, str], NumbersOf | None] | None = field(init=False)

    def __post_init__(self) -> None:
        store = self.store
        self.count_at_once = store.numbers_of if isinstance(store, CountsAtOnce) else None

    def shown(self, name: MailboxName) -> str:
        """As administrators write it: for the audit trail."""
        return mutf7.decode_leniently(self.namespace.external(name, ""))

    async def notice(self, name: MailboxName) -> None:
        """Before a mailbox is looked for: what other software has made there meanwhile is there."""
        if self.noticer is not None:
            await self.noticer.look(name)

    def check_partition(self, partition: str) -> None:
        """Raises Refusal(CANNOT) for one that this server does not have; "" is its own."""
        if partition not in ("", self.config.partition):
            raise Refusal(
                Code.CANNOT,
                f"{self.server_name} has no partition {partition}; it has {self.config.partition}",
            )

    async def ensure_inbox(self, login: Login) -> None:
        """Make the user's INBOX at their first login, where the configuration says so and they are not at home at another
        server; with the quota that the plugins of [auth] know."""
        await self.notice(inbox_of(login.user))
        if not self.config.create_inbox or login.is_admin or login.user == ANONYMOUS:
            return
        if login.user == login.proxy or login.user in self.config.proxies:
            return  # a node that speaks for itself, as one that moves somebody here, or looks whether we are well
        name = inbox_of(login.user)
        if self.mailboxes.list.find(name) is not None or self.mailboxes.has_left(name):
            return
        try:
            self._check_home(login)
            await self.announcer.create(name, self.mailboxes.default_acl(name))
            limits = parse_limits(login.identity.fields.get("quota", "").split())
            if limits:
                await self.quotas.set_limits(name, limits)
        except (
            Refusal,
            UpstreamFailure,
            BadSyntax,
        ) as error:  # it lives elsewhere, or the master is away
            log = logger(role="backend")
            log.info("mailbox.not_created", mailbox=display(name), problem=str(error))

    async def refer_login(self, login: Login, protocol: ProtocolSpec) -> None:
        """Raises Refusal(REFERRAL) for who has come here themselves, and is at home elsewhere, where the site wants that."""
        if self.config.refers_logins and (referral := await self.home_elsewhere(login, protocol)):
            raise referral

    async def home_elsewhere(self, login: Login, protocol: ProtocolSpec) -> Refusal | None:
        """The answer to who has come here themselves, and is at home elsewhere; None to others."""
        if self.referrals is None or login.proxy or login.is_admin:
            return None
        if self.mailboxes.find(inbox_of(login.user)) is not None:
            return None
        return await self.referrals.home(login, protocol)

    async def without_maildrop(self, login: Login, missing: Missing) -> Refusal:
        """What POP3 says to who has no maildrop here: for good only where that is known. Who comes by a proxy comes by the
        list that it has, and goes by a newer one next time."""
        if self.referrals is None or login.is_admin or missing.code is not Code.NONEXISTENT:
            return missing
        if self.mailboxes.find(inbox_of(login.user)) is not None:
            return missing
        try:
            server = await self.referrals.server_of_home(inbox_of(login.user))
        except (Refusal, UpstreamFailure) as error:
            logger(role="backend").info("referral.unknown", problem=str(error))
            text = "It cannot be known now where your mailboxes are: try again later"
            return Refusal(Code.UNAVAILABLE, text)
        if not server:
            return missing
        text = f"Your mailboxes are on the server {server}"
        if login.proxy:
            return Refusal(Code.UNAVAILABLE, f"{text}: try again in a moment")
        return Refusal(Code.NONEXISTENT, text)

    def _check_home(self, login: Login) -> None:
        """Raises Refusal where they are at home elsewhere. An address, as auth_http tells it, is no server of a murder."""
        home = login.identity.host
        if home and not _is_address(home) and home.lower() != self.server_name.lower():
            raise Refusal(
                Code.CANNOT, f"{login.user} is at home at {home}, by the plugins of [auth]"
            )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
