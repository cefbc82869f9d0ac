"""Which backend a new mailbox goes to: its parent's; where that leaves a choice, the hook's."""

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final

from murder.api.placement import BackendLoad, NewMailbox
from murder.errors import Code, Refusal
from murder.frontend.shared import Frontend
from murder.login.gate import Login
from murder.model.entry import Location, MailboxEntry
from murder.model.name import (
    USER_ROOT,
    MailboxName,
    ancestors_of,
    display,
    owner_of,
    split_domain,
)

MAX_KIN: Final = 10_000  # mailboxes looked at
WEIGHT_WORD: Final = b"X-WEIGHT="


def servers(frontend: Frontend) -> frozenset[str]:
    """Every backend that this host knows by its list or its configuration."""
    return frozenset({*frontend.mailboxes.count_by_server(), *frontend.whole_config.servers})


async def home_for(
    frontend: Frontend, name: MailboxName, login: Login, ask: Callable[[str], Awaitable[object]]
) -> str:
    """The backend for a new mailbox. A user's goes where its parent is, since rights are inherited there; an
    administrator's where the policy says. Raises Refusal, UpstreamFailure."""
    parent = await parent_of_new(frontend, name)
    if parent is not None and not login.is_admin:
        return parent.server
    if not login.is_admin and owner_of(name) != login.user:
        raise Refusal(Code.NO_PERMISSION, "You may not create a mailbox there")
    if parent is None and (server := _among_its_kin(frontend, name, login)):
        return server
    new = NewMailbox(name, owner_of(name), login.user, parent)
    for _ in servers(frontend):
        chosen = frontend.plugins.choose_backend(new, loads(frontend))
        if chosen is None:
            break
        if await _still_takes(frontend, chosen.server, ask):
            return chosen.server
    raise Refusal(
        Code.CANNOT,
        "No backend takes new mailboxes; name one: CREATE mailbox server!partition",
    )


def _among_its_kin(frontend: Frontend, name: MailboxName, login: Login) -> str:
    """Where a level above that is no mailbox has all it holds; "" where no level holds anything. Raises Refusal where that
    is on several servers: then only the administrator knows."""
    for above in ancestors_of(name):
        if split_domain(above)[1] == USER_ROOT:
            break  # every user is below it
        rows = islice(frontend.mailboxes.below(above), MAX_KIN)
        found = sorted({row.server for row in rows if row.is_active})
        if len(found) == 1:
            return found[0]
        if found:
            shown = display(frontend.namespace.external(above, login.user))
            raise Refusal(
                Code.CANNOT,
                f"What is below {shown} is on several servers ({', '.join(found)}): name one, as in "
                f"CREATE mailbox {found[0]}",
            )
    return ""


async def _still_takes(
    frontend: Frontend, server: str, ask: Callable[[str], Awaitable[object]]
) -> bool:
    """Whether its own word does not forbid it; `ask` connects, and so hears it. Raises UpstreamFailure."""
    await ask(server)
    return weight_of(frontend, server) > 0


def weight_of(frontend: Frontend, server: str) -> float:
    """A backend's share of new mailboxes: as it says itself (`murder ctl backend weight`), else as configured."""
    for word in frontend.capabilities.of(server):
        if word.startswith(WEIGHT_WORD):
            try:
                return max(0.0, float(word[len(WEIGHT_WORD) :]))
            except ValueError:
                break
    return frontend.whole_config.server(server).weight


def loads(frontend: Frontend) -> list[BackendLoad]:
    """All backends that take new mailboxes, by name."""
    counts = frontend.mailboxes.count_by_server()
    return [
        BackendLoad(
            Location(server),
            counts.get(server, 0),
            weight=weight_of(frontend, server),
            reachable=frontend.upstreams.is_tried(server),
        )
        for server in sorted(servers(frontend))
        if weight_of(frontend, server) > 0
    ]


async def parent_of_new(frontend: Frontend, name: MailboxName) -> MailboxEntry | None:
    """The nearest mailbox above that exists, by the master's present where this host knows none."""
    above = ancestors_of(name)
    found = nearest(frontend, above)
    if found is None and above:
        await frontend.locator.catch_up()
        found = nearest(frontend, above)
    return found


def nearest(frontend: Frontend, above: list[MailboxName]) -> MailboxEntry | None:
    """The first of these that this host knows."""
    rows = (frontend.locator.known(name) for name in above)
    return next((row for row in rows if row is not None), None)
