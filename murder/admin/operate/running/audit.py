"""Who did what: the audit trails of all nodes, put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from murder.admin.operate.reach import Reach
from murder.admin.operate.running.nodes import NodeAnswers, ask_all
from murder.trail.audit import KIND
from murder.wire.nodes.control_answers import parse_chain_checked, parse_trail_line
from murder.wire.nodes.control_words import AskChain, AskTrail

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Acts:
    """In the order of time, each with `node` and `role`; and the nodes that did not answer."""

    lines: Sequence[Line]
    silent: Sequence[NodeAnswers]


async def acts(reach: Reach, word: str, within_s: float) -> Acts:
    """By or on whom or what the word names ("": all), not longer ago (0: ever)."""
    nodes = await ask_all(reach, AskTrail(KIND, (word,) if word else (), within_s))
    by_key: dict[tuple[object, ...], Line] = {}
    for node in nodes:
        for answer in node.answers:
            line = parse_trail_line(answer)
            # what concerns the whole node each of its roles says
            by_key.setdefault((line.node, line.chain, line.at, line.event), line.with_place())
    lines = sorted(by_key.values(), key=lambda line: str(line.get("at", "")))
    return Acts(lines, [node for node in nodes if node.problem])


async def breaks(reach: Reach) -> tuple[dict[str, list[str]], list[NodeAnswers]]:
    """Where lines were taken out or altered, by node, `file:line` each; and the nodes that did not answer."""
    nodes = await ask_all(reach, AskChain(KIND))
    found: dict[str, dict[str, None]] = {}
    for node in nodes:
        for answer in node.answers:
            checked = parse_chain_checked(answer)
            if checked.breaks:
                found.setdefault(checked.node, {}).update(dict.fromkeys(checked.breaks))
    return {name: list(places) for name, places in found.items()}, [
        node for node in nodes if node.problem
    ]


def is_meant(line: Line, user: str, mailbox: str, operator: str) -> bool:
    """Whether it is by the user or names them, names the mailbox, and is of that operator; "" is any."""
    named = str(line.get("arguments", ""))
    by = (line.get("user"), line.get("proxy"))
    if user and user not in by and user not in named and user not in str(line.get("wanted", "")):
        return False
    return mailbox in named and (not operator or operator in by)
