"""Every hook a plugin may implement: the whole plugin interface of murder on one page.

Hooks that *make* something return an object that fulfils a Protocol of `murder.api`, or several; of an auth backend and a
store a role asks the one plugin that its configuration names, of all else every plugin of `[plugins] use`. Hooks that
*decide* are plain functions of values, without I/O; the first plugin of `[plugins] use` that does not answer None decides.
Hooks that are *told* something are called of every plugin. Which hook makes a plugin of which kind: `murder.api.kinds`.
"""

from collections.abc import Awaitable, Sequence
from pathlib import Path

import pluggy

from murder.api.auth import AuthBackend
from murder.api.delivery import DeliveryFilter
from murder.api.events import EventListener
from murder.api.list_log import ListLog
from murder.api.placement import BackendLoad, NewMailbox
from murder.api.referral import Conduct, ReferralQuestion
from murder.api.sasl import Mechanism
from murder.api.service import Service
from murder.api.store import MailboxStore
from murder.model.entry import Location

PROJECT = "murder"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class HookSpecs:
    """The hooks. A plugin is a module; its settings, if any, are its frozen dataclass `Settings`, filled from the
    table `[plugins.NAME]` of murder.toml (NAME is the module's) and handed over as `settings`. A hook may leave out
    any argument it does not need."""

    @hookspec(firstresult=True)
    def make_auth_backend(self, settings: object, data_dir: Path) -> AuthBackend | None:
        """Make the authentication backend. `data_dir` is the node's `[node] data`."""

    @hookspec(firstresult=True)
    def make_store(self, settings: object, data_dir: Path) -> MailboxStore | None:
        """Make the mailbox store of a backend; each worker process makes its own."""

    @hookspec(firstresult=True)
    def make_list_log(self, settings: object, data_dir: Path) -> ListLog | None:
        """Make the log that several masters share: what `[mupdate] engine` names. It must not wait for its servers."""

    @hookspec
    def make_mechanisms(self, settings: object, data_dir: Path) -> Sequence[Mechanism] | None:
        """SASL mechanisms that are offered besides murder's own, wherever somebody logs in. Names that are taken stop
        the start."""

    @hookspec
    def make_delivery_filter(self, settings: object, data_dir: Path) -> DeliveryFilter | None:
        """What a backend asks about each message that comes by LMTP, for each recipient, before it is stored."""

    @hookspec
    def make_event_listener(self, settings: object, data_dir: Path) -> EventListener | None:
        """Who is told of all that happens, in each process of the node."""

    @hookspec
    def make_service(self, settings: object, data_dir: Path) -> Service | None:
        """A protocol that is listened on besides murder's own, where the configuration says so. Names that are taken stop
        the start."""

    @hookspec(firstresult=True)
    def choose_backend(
        self, settings: object, mailbox: NewMailbox, candidates: Sequence[BackendLoad]
    ) -> Location | None:
        """Where a new mailbox goes, or None to let the next plugin decide."""

    @hookspec(firstresult=True)
    def relay_or_refer(self, settings: object, question: ReferralQuestion) -> Conduct | None:
        """Relay a command, or refer the client; None to let the next plugin decide. Nobody decides: relay."""

    @hookspec
    def refers_unable(self, settings: object) -> bool | None:
        """Whether this plugin's `relay_or_refer` may refer a client that has not shown that it can follow one
        (`referrals_on` is False). Where it says no it is not asked about those, who are nearly all, at every login and
        SELECT. A plugin that does not say: yes."""

    @hookspec(firstresult=True)
    def refers_logins(self, settings: object) -> bool | None:
        """Whether `relay_or_refer` may refer somebody who logs in (command LOGIN): LOGIN-REFERRALS is announced then (RFC
        2221). None to let the next plugin say; nobody says: no."""

    @hookspec
    def role_starts(self, settings: object, role: str, worker: int) -> Awaitable[None] | None:
        """A role (`frontend`, `backend`, `mupdate`; `web`: the page for operators) is about to take connections in this
        process, one of its workers. May be a coroutine function. What it raises ends the start."""

    @hookspec
    def role_stops(self, settings: object, role: str, worker: int) -> Awaitable[None] | None:
        """It has ended: its connections are gone. Called of the plugins whose `role_starts` came through, the last first;
        not where a process is killed. May be a coroutine function; they have two seconds together."""
