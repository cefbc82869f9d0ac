"""Which backend a new mailbox goes to: its parent's; where that leaves a choice, the hook's."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from murder.api.placement import BackendLoad, NewMailbox
from murder.errors import Code, Refusal, UpstreamFailure
from murder.model.entry import Location, MailboxEntry
from murder.model.identity import Identity, Login
from murder.model.name import (
    USER_ROOT,
    MailboxName,
    ancestors_of,
    display,
    is_inbox,
    owner_of,
    split_domain,
)
from murder.roles.frontend.shared import Frontend

MAX_KIN: Final = 10_000  # mailboxes looked at
WEIGHT_WORD: Final = b"X-WEIGHT="
Ask = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a new mailbox goes, and why; `server` is "" where the policy names none. `quota`: what its user may have, as
    the plugins of [auth] say."""

    server: str
    reason: str
    loads: list[BackendLoad]
    quota: str = ""


def servers(frontend: Frontend) -> frozenset[str]:
    """Every backend that this host knows by its list or its configuration, or is itself."""
    known = {*frontend.mailboxes.count_by_server(), *frontend.whole_config.servers}
    home = frontend.upstreams.home
    return frozenset({*known, home} if home else known)


async def home_for(frontend: Frontend, name: MailboxName, login: Login, ask: Ask) -> str:
    """The backend for a new mailbox. A user's goes where its parent is, since rights are inherited there; an
    administrator's where the policy says. `ask` hears what a backend offers now. Raises Refusal, UpstreamFailure."""
    parent = await parent_of_new(frontend, name)
    if parent is not None and not login.is_admin:
        return parent.server
    owner = owner_of(name)
    if not login.is_admin and owner != login.user:
        raise Refusal(Code.NO_PERMISSION, "You may not create a mailbox there")
    if parent is None and owner is not None:
        own = login.identity if owner == login.user else await known_as(frontend, owner)
        if own is not None and (home := _home_of(frontend, own)):
            await ask(home)
            return home
    asked: dict[str, float] = {}
    away: UpstreamFailure | None = None
    for server in [
        candidate for candidate in servers(frontend) if _may_take_again(frontend, candidate)
    ]:
        with contextlib.suppress(UpstreamFailure):
            await ask(server)
    for _ in servers(frontend):
        chosen = _decide(frontend, name, login.user, parent, loads(frontend, asked)).server
        if not chosen:
            break
        try:
            await ask(chosen)
            asked[chosen] = weight_of(frontend, chosen)
            if asked[chosen] > 0:
                return chosen
        except UpstreamFailure as failure:
            asked[chosen], away = 0.0, failure
    if away is not None:
        raise away
    raise Refusal(
        Code.CANNOT,
        "No backend takes new mailboxes; name one: CREATE mailbox server!partition",
    )


async def place(
    frontend: Frontend, name: MailboxName, weights: Mapping[str, float] | None = None
) -> Placed:
    """What `home_for` would decide for an administrator, asking no backend: by these weights, where they have just been
    asked for (0: it does not answer); and what the user may have. Raises Refusal, UpstreamFailure."""
    parent, owner = await parent_of_new(frontend, name), owner_of(name)
    offered = loads(frontend, weights)
    own = None if parent is not None or owner is None else await known_as(frontend, owner)
    quota = own.fields.get("quota", "") if own is not None and is_inbox(name) else ""
    if own is not None and (home := _home_of(frontend, own)):
        return Placed(
            home, f"it is the home of {own.user}, by the plugins of [auth]", offered, quota
        )
    return replace(_decide(frontend, name, "", parent, offered), quota=quota)


async def known_as(frontend: Frontend, user: str) -> Identity | None:
    """Who that is, by the plugins of [auth]; None where none knows. Raises UpstreamFailure."""
    return await frontend.gate.in_time(frontend.gate.auth.lookup(user))


def _home_of(frontend: Frontend, own: Identity) -> str:
    """Where somebody is at home; "" where that is not known, or is no server of this murder."""
    home = own.host.lower()
    return (
        next((server for server in servers(frontend) if server.lower() == home), "") if home else ""
    )


def _decide(
    frontend: Frontend,
    name: MailboxName,
    user: str,
    parent: MailboxEntry | None,
    offered: list[BackendLoad],
) -> Placed:
    """For an administrator, and for a user's own first mailbox. Raises Refusal."""
    able = {load.location.server for load in offered if load.reachable}
    if parent is None and (server := _among_its_kin(frontend, name, user)) and server in able:
        return Placed(server, "what is beside it is there", offered)
    new = NewMailbox(name, owner_of(name), user, parent)
    chosen = frontend.plugins.choose_backend(new, offered)
    if chosen is None:
        return Placed("", "the placement policy names none", offered)
    is_parents = parent is not None and parent.server == chosen.server
    reason = "its parent is there" if is_parents else "the placement policy"
    return Placed(chosen.server, reason, offered)


def _among_its_kin(frontend: Frontend, name: MailboxName, user: str) -> str:
    """Where a level above that is no mailbox has all it holds; "" where no level holds anything. Raises Refusal where that
    is on several servers: then only the administrator knows."""
    for above in ancestors_of(name):
        if split_domain(above)[1] == USER_ROOT:
            break  # every user is below it
        rows = islice(frontend.mailboxes.heads_below(above), MAX_KIN)
        kin_servers = sorted({row.server for row in rows if row.is_active})
        if len(kin_servers) == 1:
            return kin_servers[0]
        if kin_servers:
            above_shown = display(frontend.namespace.external(above, user))
            raise Refusal(
                Code.CANNOT,
                f"What is below {above_shown} is on several servers ({', '.join(kin_servers)}): name one, as in "
                f"CREATE mailbox {kin_servers[0]}",
            )
    return ""


def _may_take_again(frontend: Frontend, server: str) -> bool:
    """One that took none when it was last heard: an operator may have changed that since."""
    if weight_of(frontend, server) > 0 or not frontend.upstreams.is_well(server):
        return False
    return frontend.whole_config.server(server).weight > 0


def weight_of(frontend: Frontend, server: str) -> float:
    """A backend's share of new mailboxes: as it says itself (`murder ctl backend weight`), else as configured."""
    for word in frontend.capabilities.of(server):
        if word.startswith(WEIGHT_WORD):
            try:
                return max(0.0, float(word[len(WEIGHT_WORD) :]))
            except ValueError:
                break
    return frontend.whole_config.server(server).weight


def loads(frontend: Frontend, weights: Mapping[str, float] | None = None) -> list[BackendLoad]:
    """All backends that take new mailboxes, by name; `weights` goes before what this worker has heard."""
    counts, asked = frontend.mailboxes.count_by_server(), weights or {}
    known = {
        server: asked[server] if server in asked else weight_of(frontend, server)
        for server in sorted({*servers(frontend), *asked})
    }
    return [
        BackendLoad(
            Location(server),
            counts.get(server, 0),
            weight=weight,
            reachable=server in asked or frontend.upstreams.is_well(server),
        )
        for server, weight in known.items()
        if weight > 0
    ]


async def parent_of_new(frontend: Frontend, name: MailboxName) -> MailboxEntry | None:
    """The nearest mailbox above that exists, by the master's present where this host knows none. Raises UpstreamFailure,
    also where a master may have lost the list: nothing new is made beside what a backend is about to announce."""
    above = ancestors_of(name)
    parent = nearest(frontend, above)
    if parent is None and above:
        await frontend.locator.catch_up()
        parent = nearest(frontend, above)
    if parent is None:
        frontend.locator.check_whole()
    return parent


def nearest(frontend: Frontend, above: list[MailboxName]) -> MailboxEntry | None:
    """The first of these that this host knows."""
    rows = (frontend.locator.known(name) for name in above)
    return next((row for row in rows if row is not None), None)
