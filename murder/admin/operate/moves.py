"""Moves of mailboxes as an operator sees them: planned, begun at their sources, followed, ended; many at once.

The sources do the work and go on without us (`backend.moves`); who begins a move only watches.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from murder.admin.operate.backends import find_backend
from murder.admin.operate.parts import names_meant, rows_meant
from murder.admin.operate.reach import Reach
from murder.api.placement import BackendLoad, NewMailbox
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.model.entry import Location, MailboxEntry
from murder.model.name import (
    MailboxName,
    ancestors_of,
    is_below,
    is_deleted,
    is_inbox,
    owner_of,
)
from murder.model.query.listmatch import compile_pattern
from murder.wire.nodes.move_words import (
    MoveCompared,
    MoveRecord,
    parse_compared,
    parse_progress,
    parse_record,
)
from murder.wire.token import string


@dataclass(slots=True)
class Planned:
    """One tree that is to move, and how far it is. `state` ends as done, failed or skipped."""

    root: MailboxName
    source: str
    target: str
    partition: str = ""
    mailboxes: int = 0
    move_id: str = ""
    state: str = "waiting"
    messages: int = 0
    total: int = 0
    octets: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What a backend remembers of a move."""

    backend: str
    move: MoveRecord

    @property
    def id(self) -> str:
        return self.move.id

    @property
    def state(self) -> str:
        return self.move.state

    @property
    def is_out(self) -> bool:
        return self.move.is_out

    @property
    def root(self) -> MailboxName:
        return self.move.root


def trees_of(entries: Iterable[MailboxEntry]) -> list[MailboxEntry]:
    """The topmost of these mailboxes at each server: what moves together. A user's move with their INBOX."""
    entries = list(entries)
    places = {(entry.name, entry.server) for entry in entries}
    return [
        entry
        for entry in entries
        if not any((above, entry.server) in places for above in ancestors_of(entry.name))
    ]


def chosen(reach: Reach, rows: Sequence[MailboxEntry], what: str) -> list[MailboxEntry]:
    """The rows meant by a mailbox name, a pattern with `*` or `%`, or a user's name. Raises Refusal(NONEXISTENT)."""
    active = [row for row in rows if row.is_active and not is_deleted(row.name)]
    names = names_meant(reach, what)
    if not names:
        pattern = compile_pattern(what.encode(), reach.namespace.separator)
        entries = [row for row in active if pattern.fullmatch(reach.external(row.name))]
    else:
        entries = [row for row in active if any(is_below(row.name, name) for name in names)]
    if not entries:
        raise Refusal(Code.NONEXISTENT, f"No mailbox is called {what}")
    return entries


def plan(
    entries: Sequence[MailboxEntry], target: str, partition: str, everything: Sequence[MailboxEntry]
) -> list[Planned]:
    """One Planned for each tree that is not there yet."""
    tops = [top for top in trees_of(entries) if top.server != target]
    sizes = _sizes(tops, everything)
    return [
        Planned(top.name, top.server, target, partition, sizes.get(top.name, 0)) for top in tops
    ]


async def plan_of(
    reach: Reach, what: str, to: str, partition: str = ""
) -> tuple[str, list[Planned]]:
    """What is meant, on its way to a backend; and that backend's name. Raises Refusal, UpstreamFailure."""
    rows = await rows_meant(reach, what)
    if to not in reach.config.servers and not any(row.server == to for row in rows):
        to = await find_backend(reach, to)
    entries = chosen(reach, rows, what)
    return to, await asyncio.to_thread(plan, entries, to, partition, rows)


async def carry_out(
    reach: Reach, planned: Sequence[Planned], parallel: int, tell: Callable[[Planned], None]
) -> None:
    """Move them, `parallel` at once; each ends as done or failed with its problem. Raises nothing of a move's."""
    places = asyncio.Semaphore(parallel)
    idle: dict[str, list[Reach]] = {}  # connections that an earlier move has left, by source

    async def one(each: Planned) -> None:
        async with places:
            try:
                await _carry_out(reach, each, tell, idle.setdefault(each.source, []))
                each.state = "done"
            except Refusal as problem:
                each.state, each.problem = "failed", str(problem)
            except UpstreamFailure as problem:
                each.state, each.problem = "failed", str(problem)
                if each.move_id:  # its source has died, and not the move
                    each.problem += f"; the move {each.move_id} goes on by itself"
            tell(each)

    try:
        async with asyncio.TaskGroup() as group:
            for each in planned:
                group.create_task(one(each))
    finally:
        for own in [own for left in idle.values() for own in left]:
            await own.close()


async def _carry_out(
    reach: Reach, each: Planned, tell: Callable[[Planned], None], idle: list[Reach]
) -> None:
    """A connection is busy until its move is over; it is left for the next where all went well."""

    def progress(line: bytes) -> None:
        state = parse_progress(line)
        if state is not None:
            each.total, each.state, each.move_id = state.total, state.state, state.id
            each.messages, each.octets, each.problem = state.messages, state.octets, state.problem
            if each.state != "done":
                tell(each)

    place = each.target + (f"!{each.partition}" if each.partition else "")
    command = b"XFER %s %s" % (string(reach.external(each.root)), string(place.encode()))
    own = idle.pop() if idle else _own_connection(reach)
    try:
        await own.execute(each.source, command, untagged=progress)
    except BaseException:
        await own.close()
        raise
    idle.append(own)


def _own_connection(reach: Reach) -> Reach:
    own = Reach(reach.config, lambda _: reach.credential.password or "")
    own.credential = reach.credential
    return own


# --- what the backends remember


async def records(reach: Reach, servers: Collection[str]) -> tuple[list[Record], dict[str, str]]:
    """All moves of these backends, the latest last; and who could not be asked, with the reason."""
    collected: list[Record] = []
    failures: dict[str, str] = {}

    async def one(server: str) -> None:
        try:
            collected.extend(await _records(reach, server, b"XFERS LIST"))
        except (UpstreamFailure, Refusal) as problem:
            failures[server] = str(problem)

    async with asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(one(server))
    collected.sort(key=lambda record: record.move.started_at)
    return collected, failures


async def _records(reach: Reach, server: str, command: bytes) -> list[Record]:
    reply = await reach.execute(server, command)
    try:
        records = [parse_record(line) for line in reply.untagged]
    except BadSyntax as error:
        raise Refusal(Code.CANNOT, f"{server}: {error.text}") from None
    return [Record(server, record) for record in records if record is not None]


async def act(reach: Reach, server: str, verb: str, move_id: str) -> Record:
    """RESUME, ABORT or FORGET at the source. Raises Refusal, UpstreamFailure."""
    command = b"XFERS %s %s" % (verb.encode(), string(move_id.encode()))
    changed = await _records(reach, server, command)
    if not changed:
        raise Refusal(Code.NONEXISTENT, f"{server} knows no move {move_id}")
    return changed[0]


async def verify(
    reach: Reach, server: str, move_id: str, tell: Callable[[MoveCompared], None]
) -> None:
    """Let the source compare both ends; `tell` gets each mailbox as it is done. Raises Refusal, UpstreamFailure."""

    def untagged(line: bytes) -> None:
        result = parse_compared(line)
        if result is not None:
            tell(result)

    command = b"XFERS VERIFY %s" % string(move_id.encode())
    await reach.execute(server, command, untagged=untagged)


async def find_record(
    reach: Reach, servers: Collection[str], move_id: str
) -> tuple[Record, list[Record]]:
    """A move at its source (at its target where no source tells of it), and everything else the backends remember.
    Raises Refusal(NONEXISTENT)."""
    kept, failures = await records(reach, servers)
    ends = sorted(
        (record for record in kept if record.id == move_id), key=lambda record: not record.is_out
    )
    if ends:
        return ends[0], kept
    away = f" ({', '.join(failures)} could not be asked)" if failures else ""
    raise Refusal(Code.NONEXISTENT, f"No backend knows a move {move_id}{away}")


async def undoing(reach: Reach, rows: Sequence[MailboxEntry], record: Record) -> list[Planned]:
    """The way back of a move that is over. Raises Refusal where there is none, UpstreamFailure."""
    if not record.is_out or record.state not in ("done", "removed"):
        raise Refusal(Code.CANNOT, f"The move {record.id} is {record.state}: nothing to undo")
    entry = await reach.find(record.root)
    if entry.server == record.backend:
        raise Refusal(Code.CANNOT, f"{reach.shown(record.root)} is at {record.backend} already")
    return plan([entry], record.backend, "", rows)


# --- many: drain and rebalance


Choose = Callable[[NewMailbox, Sequence[BackendLoad]], Awaitable[Location | None]]
"""The placement policy, as `placing.Placing.choose` asks for it."""


class _Loads:
    """What each backend has, as the plan goes on."""

    def __init__(self, rows: Sequence[MailboxEntry], weights: Mapping[str, float]) -> None:
        self._weights = weights
        self.counts = dict.fromkeys(weights, 0)
        for row in rows:
            if row.is_active and row.server in self.counts:
                self.counts[row.server] += 1

    async def choose(
        self, choose: Choose, top: MailboxEntry, without: Collection[str]
    ) -> str | None:
        new = NewMailbox(top.name, owner_of(top.name), "", None)
        loads = [
            BackendLoad(Location(server), count, weight=self._weights[server])
            for server, count in sorted(self.counts.items())
            if server not in without and self._weights[server] > 0
        ]
        chosen = await choose(new, loads) if loads else None
        return chosen.server if chosen is not None else None

    def moved(self, size: int, source: str, target: str) -> None:
        if source in self.counts:
            self.counts[source] -= size
        self.counts[target] += size


async def drain_plan(
    rows: Sequence[MailboxEntry], server: str, weights: Mapping[str, float], choose: Choose
) -> list[Planned]:
    """All trees of a backend, each to where the policy would place it among the others. Raises Refusal."""
    here = [row for row in _visible(rows) if row.server == server]
    loads = _Loads(rows, weights)
    made = []
    for top, size in _sized(here):
        target = await loads.choose(choose, top, {server})
        if target is None:
            raise Refusal(
                Code.CANNOT, f"No other backend takes mailboxes (of {len(weights)} known)"
            )
        loads.moved(size, server, target)
        made.append(Planned(top.name, server, target, "", size))
    return made


async def rebalance_plan(
    rows: Sequence[MailboxEntry], weights: Mapping[str, float], choose: Choose
) -> list[Planned]:
    """The users who leave backends that have more than their share, each to where the policy would place them, until
    none has: large ones first, so that few move."""
    loads = _Loads(rows, weights)
    whole, sum_of_weights = sum(loads.counts.values()), sum(weights.values())
    if not sum_of_weights:
        return []
    share = {server: whole * weight / sum_of_weights for server, weight in weights.items()}
    made: list[Planned] = []
    users = [(top, size) for top, size in _sized(_visible(rows)) if is_inbox(top.name)]
    for top, size in sorted(users, key=lambda pair: (-pair[1], pair[0].name)):
        source = top.server
        if source not in share or loads.counts[source] - share[source] < size:
            continue
        target = await loads.choose(choose, top, {source})
        if target is None or loads.counts[target] + size > share[target] + size / 2:
            continue
        loads.moved(size, source, target)
        made.append(Planned(top.name, source, target, "", size))
    return made


def _visible(rows: Sequence[MailboxEntry]) -> list[MailboxEntry]:
    return [row for row in rows if row.is_active and not is_deleted(row.name)]


def _sized(rows: Sequence[MailboxEntry]) -> list[tuple[MailboxEntry, int]]:
    """The topmost of these rows, each with how many of them it takes along."""
    tops = trees_of(rows)
    sizes = _sizes(tops, rows)
    return [(top, sizes.get(top.name, 1)) for top in tops]


def _sizes(
    tops: Sequence[MailboxEntry], everything: Sequence[MailboxEntry]
) -> dict[MailboxName, int]:
    """How many mailboxes each has at its server, itself and those below it: `trees_of` some, none below another there."""
    sizes: dict[MailboxName, int] = {}
    places = {(top.name, top.server) for top in tops}
    for row in everything:
        for above in (row.name, *ancestors_of(row.name)):
            if (above, row.server) in places:
                sizes[above] = sizes.get(above, 0) + 1
                break
    return sizes
