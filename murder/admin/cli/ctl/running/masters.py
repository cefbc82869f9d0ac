"""Masters that share a list, and the members of their engine, as lines of `murder ctl status` and `top`."""

from collections.abc import Sequence

from murder.admin.cli.screen import BAD, CAUTION, DIM, Painted, Table, octets
from murder.admin.operate.running.masters import (
    MUCH,
    MasterLine,
    MemberLine,
    masters_of,
    members_of,
)
from murder.admin.operate.running.nodes import NodeAnswers


def engine_lines(told_by: Sequence[NodeAnswers], width: int = 0) -> list[str]:
    """Two tables, each with an empty line before it; nothing where there is one master alone."""
    masters, members = masters_of(told_by), members_of(told_by)
    if not masters:
        return []
    heads = ("master", "changes", "behind", "takes changes")
    rows = [_of_master(master) for master in masters]
    table = Table(heads, rows, right=("changes", "behind"), hosts=("master",))
    output = ["", *table.lines(width or 1000)]
    if members:
        members_table = Table(
            ("member", "at", "state", "size"),
            [_of_member(member) for member in members],
            right=("size",),
        )
        output += ["", *members_table.lines(width or 1000)]
    return output


def _of_master(line: MasterLine) -> list[str]:
    behind = Painted("another history", BAD)
    if line.behind is not None:
        behind = Painted(str(line.behind), CAUTION if line.behind >= MUCH else "")
    return [line.node, str(line.seq), behind, Painted("no", BAD) if line.problem else "yes"]


def _of_member(line: MemberLine) -> list[str]:
    facts = line.facts
    state = Painted(facts.problem, BAD) if facts.problem else "follows"
    if facts.is_leader and not facts.problem:
        state = "leads"
    size = octets(facts.used_bytes) if facts.used_bytes else Painted("-", DIM)
    return [facts.name or Painted("-", DIM), facts.address, state, size]
