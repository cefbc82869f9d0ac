"""The mailbox list, compared three ways: what the master says, what each backend has, what the frontends' lists say."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from murder.admin.operate.reach import Reach
from murder.errors import Refusal, UpstreamFailure
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, is_deleted
from murder.wire.imap.mailboxes.list import parse_list_response
from murder.wire.token import Scanner, string

LOOKS: Final = 10  # for what comes out of quarantine
LOOK_EVERY_S: Final = 0.1
NO_MAILBOX: Final = frozenset({"\\noselect", "\\nonexistent"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be. `cure` is what `--fix` does, empty where a person has to decide."""

    name: MailboxName
    what: str
    server: str
    cure: str = ""


@dataclass(slots=True)
class Checked:
    """The outcome of a comparison."""

    mailboxes: int = 0
    differences: list[Difference] = field(default_factory=list)
    unreachable: dict[str, str] = field(default_factory=dict)


async def names_at(reach: Reach, server: str) -> set[MailboxName]:
    """All mailboxes that a backend itself has. Raises Refusal, UpstreamFailure, BadSyntax."""
    names = set()

    def take(response: bytes) -> None:  # as it comes: a backend may have millions
        if response[:7].upper() != b"* LIST ":
            return
        entry = parse_list_response(Scanner(response, 6))
        if not NO_MAILBOX & {attribute.lower() for attribute in entry.attributes}:
            names.add(reach.namespace.internal(entry.name, ""))

    await reach.execute(server, b'LIST "" "*"', untagged=take)
    return names


async def check(reach: Reach, rows: Sequence[MailboxEntry], servers: Collection[str]) -> Checked:
    """Master against backends. Raises nothing of a backend's."""
    checked = Checked(len(rows))
    there: dict[str, set[MailboxName]] = {}
    for server in servers:
        try:
            there[server] = await names_at(reach, server)
        except (Refusal, UpstreamFailure) as problem:
            checked.unreachable[server] = str(problem)
    checked.differences = compare(rows, there)
    return checked


def compare(
    rows: Sequence[MailboxEntry], there: Mapping[str, Collection[MailboxName]]
) -> list[Difference]:
    """Pure: what the master's rows and the backends' own names say differently."""
    differences = []
    by_name = {row.name: row for row in rows}
    for row in rows:
        if is_deleted(row.name) or row.server not in there:
            continue
        if not row.is_active:
            differences.append(
                Difference(row.name, "reserved: being created or moved, or left so", row.server)
            )
        elif row.name not in there[row.server]:
            differences.append(
                Difference(row.name, "the master says it is there, it is not", row.server, "forget")
            )
    for server, names in there.items():
        for name in sorted(names):
            known = by_name.get(name)
            if known is None:
                differences.append(
                    Difference(name, "the master does not know it", server, "announce")
                )
            elif known.is_active and known.server != server:
                differences.append(
                    Difference(name, f"the master says it is at {known.server}", server)
                )
    return differences


async def fix(reach: Reach, difference: Difference) -> None:
    """Carry out its cure: the backend compares this name with the master again. Raises Refusal, UpstreamFailure."""
    await _compare_at(reach, difference.server, difference.name)


async def _compare_at(reach: Reach, server: str, name: MailboxName) -> None:
    await reach.execute(server, b"XCOMPARE " + string(reach.external(name)))


async def settle_force(reach: Reach, name: MailboxName, former: str, now: str) -> list[str]:
    """The master has just been told that another server has it: what the former one has goes into quarantine, and comes
    out of it at the new one. What is not so yet."""
    problems = []
    try:
        await _compare_at(reach, former, name)
    except (Refusal, UpstreamFailure) as problem:  # away, or a Cyrus
        problems.append(f"{former} puts what it has aside when it next compares lists ({problem})")
    for left in reversed(range(LOOKS)):
        try:
            await reach.execute(now, b"STATUS %s (MESSAGES)" % string(reach.external(name)))
            break
        except UpstreamFailure as failure:
            problems.append(f"{now} cannot be asked: {failure}")
            break
        except Refusal as refusal:  # who asks has it looked for in quarantine
            if left:
                await asyncio.sleep(LOOK_EVERY_S)
            else:
                problems.append(f"{now} does not have it: {refusal}")
    return problems
