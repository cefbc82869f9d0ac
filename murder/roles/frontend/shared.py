"""What all sessions of one worker of a frontend share, whatever their protocol."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from murder.api.placement import BackendLoad, NewMailbox
from murder.api.referral import Conduct, ReferralQuestion
from murder.auth.gate import Gate
from murder.config import Config, FrontendConfig
from murder.model.entry import Location
from murder.model.name import Namespace
from murder.net.outgoing.leaving import Leaving
from murder.net.outgoing.pool import Pool
from murder.net.outgoing.upstream import Address, Upstreams
from murder.net.sweep import Sweep, here
from murder.roles.frontend.capabilities import Capabilities, Languages, Maildrops
from murder.roles.frontend.locate import Locator
from murder.roles.frontend.multiplexor.reach import Multiplexor
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.serve.service import Session


class Policies(Protocol):
    """The deciding hooks, as this role asks them."""

    def choose_backend(
        self, mailbox: NewMailbox, candidates: Sequence[BackendLoad]
    ) -> Location | None:
        """The first answer of the placement plugins; None where all pass."""
        ...

    def relay_or_refer(self, question: ReferralQuestion) -> Conduct:
        """The first answer of the referral plugins; RELAY where all pass."""
        ...

    def refers_logins(self) -> bool:
        """Whether a LOGIN may be answered with a referral."""
        ...

    def refers_unable(self) -> bool:
        """Whether one of them may refer a client that has not shown that it can follow."""
        ...


@dataclass(slots=True)
class Frontend:
    """One worker's parts. `looked_at`: backends that did not tell what they offer. `pop3_ways`: of users, where their
    maildrop is and the octets of their login there, by the list and the configuration that said so (`pop3_express`)."""

    whole_config: Config
    config: FrontendConfig
    server_name: str
    namespace: Namespace
    gate: Gate
    mailboxes: MailboxList
    locator: Locator
    plugins: Policies
    upstreams: Upstreams
    pool: Pool
    capabilities: Capabilities
    refers_logins: bool = False
    refers_unable: bool = True  # clients, too, that have not shown that they can follow
    maildrops: Maildrops = field(default_factory=Maildrops)
    pop3_ways: dict[str, tuple[int, Config, Address, bytes]] = field(default_factory=dict)
    sweep: Sweep = field(default_factory=here)
    leaving: Leaving = field(default_factory=Leaving)
    languages: Languages = field(default_factory=Languages)
    sieve_looked_at: dict[str, float] = field(default_factory=dict)  # until when not to look again
    looked_at: dict[str, float] = field(default_factory=dict)  # until when not to look again
    # the list and configuration of which each backend was known
    all_known_at: tuple[int, Config] | None = None
    sessions: set[Session] = field(default_factory=set)
    multiplexor: Multiplexor | None = None  # with `frontend.mode = "multiplexor"`

    def refers(self, question: ReferralQuestion) -> bool:
        """Whether the policy sends a client to another server; what is on this one is served here."""
        if question.entry.server == self.upstreams.home:
            return False
        return self.plugins.relay_or_refer(question) is Conduct.REFER
