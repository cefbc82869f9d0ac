"""Several masters and the engine that they share, for `status` and `doctor`: how far each is, how its members are."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from murder.admin.operate.reach import Reach
from murder.admin.operate.running.health import Problem
from murder.admin.operate.running.nodes import NodeAnswers, ask
from murder.errors import Code, Refusal, UpstreamFailure
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.remote.client import MasterClient
from murder.roles.mupdate.remote.mark import MAX_DIGITS
from murder.wire.nodes.control_answers import (
    CopyStage,
    EngineFacts,
    ListCopied,
    MemberFacts,
    parse_copying,
)
from murder.wire.nodes.control_words import CopyList

MUCH: Final = 1000  # changes: a master that is so many behind is told; a few are on their way
LOOKS: Final = 5  # at what has just been changed
LOOK_EVERY_S: Final = 0.1
SHOWN: Final = 5  # names
HELP: Final = "`murder help masters`"


@dataclass(frozen=True, slots=True)
class MasterLine:
    """One of several masters: the number of its last change; how many changes the foremost one has more, None where it has
    another history; `problem`: why it takes no changes."""

    node: str
    epoch: str
    seq: int
    behind: int | None
    problem: str
    kept_by: str
    configured: str


@dataclass(frozen=True, slots=True)
class MemberLine:
    """A server of the engine, as the masters see it; `seen_by` names those that see the problem, where others do not."""

    facts: MemberFacts
    seen_by: tuple[str, ...] = ()


def _place(mark: str) -> tuple[str, int]:
    """Epoch and number of a mark; nothing of what is none."""
    epoch, _, rest = mark.partition(":")
    number = rest.partition(":")[0]
    is_number = number.isascii() and number.isdecimal() and len(number) <= MAX_DIGITS
    return (epoch, int(number)) if is_number else ("", 0)


def masters_of(nodes: Sequence[NodeAnswers]) -> list[MasterLine]:
    """Those that share an engine, in the order of their names."""
    states = [
        (node.name, _place(status.role.mark or ""), status.role.engine)
        for node in nodes
        for status in node.statuses
        if status.role.engine is not None
    ]
    last: dict[str, int] = {}
    for _, (epoch, seq), _ in states:
        last[epoch] = max(seq, last.get(epoch, 0))
    chief = max(last, key=lambda epoch: last[epoch], default="")
    return [
        MasterLine(
            name,
            epoch,
            seq,
            last[epoch] - seq if epoch == chief else None,
            _problem(engine),
            engine.kind,
            engine.configured or engine.kind,
        )
        for name, (epoch, seq), engine in sorted(states, key=lambda state: state[:2])
    ]


def _problem(engine: EngineFacts) -> str:
    """Why a master takes no changes: what it was told when it last tried, or what its members are like now."""
    if (
        any(member.is_leader and not member.problem for member in engine.members)
        or not engine.members
    ):
        return engine.problem
    return engine.problem or "none of the members that it reaches leads"


def members_of(nodes: Sequence[NodeAnswers]) -> list[MemberLine]:
    """The engine's servers, by their addresses; one that any master reaches is named as it says itself."""
    seen: dict[str, dict[str, MemberFacts]] = {}
    for node in nodes:
        for status in node.statuses:
            for member in status.role.engine.members if status.role.engine is not None else ():
                seen.setdefault(member.address, {})[node.name] = member
    lines = []
    for address in sorted(seen, key=lambda place: (seen[place][min(seen[place])].name, place)):
        by = seen[address]
        bad = {name: seen_as for name, seen_as in by.items() if seen_as.problem}
        if not bad:
            best = next(
                (seen_as for seen_as in by.values() if seen_as.is_leader), next(iter(by.values()))
            )
            lines.append(MemberLine(best))
            continue
        worst = next(iter(bad.values()))
        known = max(by.values(), key=lambda seen_as: (bool(seen_as.name), seen_as.used_bytes))
        facts = MemberFacts(
            known.name, address, known.is_leader, known.used_bytes, problem=worst.problem
        )
        lines.append(MemberLine(facts, tuple(sorted(bad)) if len(bad) < len(by) else ()))
    return sorted(lines, key=lambda line: line.facts.name or line.facts.address)


def engine_problems(nodes: Sequence[NodeAnswers]) -> list[tuple[str, Problem]]:
    """Whose problem, and which: masters that take no changes or are late, members that are not well."""
    masters = masters_of(nodes)
    problems: list[tuple[str, Problem]] = []
    for master in masters:
        if master.problem:
            what = f"it takes no changes of the mailbox list: {master.problem}"
            problems.append((master.node, Problem(what, f"are the engine's members up? {HELP}")))
        if master.kept_by != master.configured:
            what = f"its list is kept by {master.kept_by}, its murder.toml says {master.configured}"
            problems.append(
                (master.node, Problem(what, f'set [mupdate] engine = "{master.kept_by}" there'))
            )
        if master.behind is None:
            what = "its mailbox list has another history than the other masters'"
            problems.append((master.node, Problem(what, f"it follows them no more: {HELP}")))
        elif master.behind >= MUCH:
            what = f"its mailbox list is {master.behind} changes behind the other masters'"
            problems.append((master.node, Problem(what, "its log says why")))
    for line in members_of(nodes):
        if problem := line.facts.problem:
            by = f", seen from {', '.join(line.seen_by)}" if line.seen_by else ""
            problems.append(
                (line.facts.name or line.facts.address, Problem(f"{problem}{by}", _cure(problem)))
            )
    return problems


def _cure(problem: str) -> str:
    if "NOSPACE" in problem:
        return f"compact, defragment, disarm: {HELP}, “etcd is full”"
    return f"start it again, or replace it; masters need nothing: {HELP}"


@dataclass(slots=True)
class MastersCompared:
    """What `check` finds of several masters' lists: differences in words, and which could not be asked, and why."""

    differences: list[str] = field(default_factory=list)
    unreachable: dict[str, str] = field(default_factory=dict)


async def compare_masters(reach: Reach, rows: Sequence[MailboxEntry]) -> MastersCompared:
    """Every master's list against the rows that one of them has told. What has changed since is asked for again. Raises
    nothing of a master's."""
    target, compared = reach.target, MastersCompared()
    if not target.others:
        return compared
    for host, port in ((target.host, target.port), *target.others):
        client = MasterClient(replace(target, host=host, port=port, others=()))
        try:
            left = _differing(rows, await client.list_all())
            for _ in range(LOOKS):
                left = [name for name in left if not await _is_alike(reach.master, client, name)]
                if not left:
                    break
                await asyncio.sleep(LOOK_EVERY_S)
            if left:
                names = ", ".join(reach.shown(name) for name in left[:SHOWN])
                more = " and more" if len(left) > SHOWN else ""
                what = f"the master {host}:{port} has another row of {names}{more}"
                compared.differences.append(what)
        except (Refusal, UpstreamFailure) as problem:
            compared.unreachable[f"{host}:{port}"] = str(problem)
        finally:
            await client.close()
    return compared


def _differing(rows: Sequence[MailboxEntry], others: Sequence[MailboxEntry]) -> list[MailboxName]:
    mine = {row.name: row for row in rows}
    theirs = {row.name: row for row in others}
    return [
        name for name in sorted(mine.keys() | theirs.keys()) if mine.get(name) != theirs.get(name)
    ]


async def _is_alike(client: MasterClient, other: MasterClient, name: MailboxName) -> bool:
    return await client.find(name) == await other.find(name)


async def copy_list(reach: Reach, place: str, to: str) -> AsyncIterator[CopyStage | ListCopied]:
    """Have a master bring the list to another engine. Raises Refusal with its words, OSError, BadSyntax."""
    async for answer in ask(reach, place, CopyList(to)):
        if "no" in answer:
            raise Refusal(Code.CANNOT, str(answer["no"]))
        stage = parse_copying(answer)
        if stage is not None:
            yield stage
