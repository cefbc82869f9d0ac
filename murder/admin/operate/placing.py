"""Where a new mailbox goes, decided once: by a frontend, with its plugins and what it knows of the backends' health.

The operator asks the backends for their weights (0 where one does not answer) and a frontend, over its control, for the
decision. Only where no frontend can be asked do the plugins of the operator's own configuration decide.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from murder.admin.operate.parts import held
from murder.admin.operate.reach import Reach
from murder.admin.operate.running import nodes
from murder.api.placement import BackendLoad, NewMailbox
from murder.errors import BadSyntax, Code, Refusal
from murder.model.entry import Location, MailboxEntry, parse_location
from murder.model.name import MailboxName, ancestors_of, owner_of
from murder.net.outgoing.connect import why
from murder.wire.nodes.control_words import (
    AskPlace,
    Candidate,
    NotPlaced,
    Placement,
    parse_placement,
)

Hook = Callable[[NewMailbox, Sequence[BackendLoad]], Location | None]


@dataclass(frozen=True, slots=True)
class Explained:
    """Where a new mailbox would go, and why. `by`: the frontend that decided, "" for the plugins here; `quota`: what it says
    that a new user may have."""

    server: str
    reason: str
    loads: Sequence[BackendLoad] = ()
    by: str = ""
    quota: str = ""


class Placing:
    """One a command. `hook` is that of the plugins here, `warn` is told once when it must decide."""

    def __init__(self, reach: Reach, hook: Hook, warn: Callable[[str], None]) -> None:
        self._reach = reach
        self._hook = hook
        self._warn = warn
        self._place: str | None = None  # of the frontend that answers; "" where none does

    async def home(self, name: MailboxName, weights: Mapping[str, float]) -> Explained:
        """As a frontend decides for an administrator. Raises Refusal where nobody takes it, UpstreamFailure."""
        placed = await self._ask(AskPlace(name, weights))
        if placed is None:
            return await self._here(name, weights)
        if placed.server is None:
            raise _nobody()
        loads = [
            _load(candidate.server, candidate.mailboxes, candidate.weight)
            for candidate in placed.candidates
        ]
        return Explained(placed.server, placed.reason, loads, placed.node, placed.quota)

    async def choose(self, new: NewMailbox, loads: Sequence[BackendLoad]) -> Location | None:
        """The policy alone, among these: for plans, in which what is on each changes as they grow. Raises Refusal."""
        candidates = tuple(
            Candidate(load.location.server, load.mailboxes, load.weight) for load in loads
        )
        placed = await self._ask(AskPlace(new.name, {}, candidates))
        if placed is None:
            return self._hook(new, loads)
        return Location(placed.server) if placed.server is not None else None

    async def _here(self, name: MailboxName, weights: Mapping[str, float]) -> Explained:
        parent = await self._parent(name)
        counts = await held(self._reach)
        loads = [
            _load(server, counts.get(server, 0), weights[server])
            for server in sorted(weights)
            if weights[server] > 0
        ]
        chosen = self._hook(NewMailbox(name, owner_of(name), "", parent), loads) if loads else None
        if chosen is None:
            raise _nobody()
        is_parents = parent is not None and parent.server == chosen.server
        reason = "its parent is there" if is_parents else "the placement policy"
        return Explained(chosen.server, reason, loads)

    async def _parent(self, name: MailboxName) -> MailboxEntry | None:
        for above in ancestors_of(name):
            row = await self._reach.master.find(above)
            if row is not None and row.is_active:
                return row
        return None

    # --- a frontend

    async def _ask(self, question: AskPlace) -> Placement | None:
        """Its answer: of the first that has one. None where no frontend can be asked. Raises Refusal."""
        places = await nodes.learn(self._reach) if self._place is None else [self._place]
        silent: list[str] = []
        with nodes.waiting(self._reach, filter(None, places)) as heard:
            asked = (self._ask_one(place, question) for place in places if place)
            tasks = [asyncio.ensure_future(task) for task in asked]
            try:
                for answer in asyncio.as_completed(tasks):
                    place, decision = await answer
                    heard(place)
                    if isinstance(decision, str):
                        silent += [decision] if decision else []
                        continue
                    self._place = place
                    if isinstance(decision, NotPlaced):
                        raise Refusal(Code.CANNOT, decision.problem)
                    return decision
            finally:
                for task in tasks:
                    task.cancel()
        if self._place is None:
            self._warn(self._nobody_asked(silent))
        self._place = ""
        return None

    async def _ask_one(
        self, place: str, question: AskPlace
    ) -> tuple[str, Placement | NotPlaced | str]:
        """Of a node that is no frontend an empty text; of one that cannot be asked why."""
        is_there = False
        try:
            async with asyncio.timeout(nodes.TIMEOUT_S):
                async for answer in nodes.ask(self._reach, place, question):
                    is_there = True
                    if (placed := parse_placement(answer)) is not None:
                        return place, placed
        except TimeoutError:
            return place, f"{place}: no answer in {nodes.TIMEOUT_S:g} s"
        except OSError as error:
            return place, f"{place}: {why(error)}"
        except (ValueError, BadSyntax) as error:
            return place, f"{place}: {error}"
        return place, "" if is_there else f"{place}: it does not run"

    def _nobody_asked(self, silent: Sequence[str]) -> str:
        reason = "; ".join(silent) or "none is known: [operator] nodes, or the master's followers"
        return (
            f"no frontend could be asked where it would go ({reason}; has it just been started?): decided by the "
            f"plugins of {self._reach.config.file}"
        )


def _load(server: str, mailboxes: int, weight: float) -> BackendLoad:
    return BackendLoad(parse_location(server.encode()), int(mailboxes), weight=float(weight))


def _nobody() -> Refusal:
    return Refusal(
        Code.CANNOT,
        "No backend takes new mailboxes by the placement policy (each is away, drained or weightless: `murder ctl "
        "backend list`); choose one with --server",
    )
