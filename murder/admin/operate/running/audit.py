"""Who did what: the audit trails of all nodes, put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from murder.admin.operate.reach import Reach
from murder.admin.operate.running.nodes import NodeAnswers, ask_all
from murder.errors import Refusal
from murder.model.name import display
from murder.trail.audit import KIND
from murder.wire.nodes.control_answers import parse_chain_checked, parse_trail_line
from murder.wire.nodes.control_words import AskChain, AskTrail

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Acts:
    """In the order of time, each with `node` and `role`; and the nodes that did not answer."""

    lines: Sequence[Line]
    silent: Sequence[NodeAnswers]


@dataclass(frozen=True, slots=True)
class Meant:
    """Whose acts, or on whom and what; "" is any."""

    user: str = ""
    mailbox: str = ""
    operator: str = ""


async def acts(reach: Reach, meant: Meant, within_s: float) -> Acts:
    """Those meant, not longer ago (0: ever)."""
    names = _names_of(reach, meant.mailbox)
    words = (meant.user,) if meant.user else names or (meant.operator,)
    asked = tuple(word for word in words if word)
    nodes = await ask_all(reach, AskTrail(KIND, asked, within_s))
    by_key: dict[tuple[object, ...], Line] = {}
    for node in nodes:
        for answer in node.answers:
            line = parse_trail_line(answer)
            # what concerns the whole node each of its roles says
            by_key.setdefault((line.node, line.chain, line.at, line.event), line.with_place())
    meant_lines = [line for line in by_key.values() if _is_meant(line, meant, names)]
    lines = sorted(meant_lines, key=lambda line: str(line.get("at", "")))
    return Acts(lines, [node for node in nodes if node.problem])


async def breaks(reach: Reach) -> tuple[dict[str, list[str]], list[NodeAnswers]]:
    """Where lines were taken out or altered, by node, `file:line` each; and the nodes that did not answer."""
    nodes = await ask_all(reach, AskChain(KIND))
    by_node: dict[str, dict[str, None]] = {}
    for node in nodes:
        for answer in node.answers:
            checked = parse_chain_checked(answer)
            if checked.breaks:
                by_node.setdefault(checked.node, {}).update(dict.fromkeys(checked.breaks))
    return {name: list(places) for name, places in by_node.items()}, [
        node for node in nodes if node.problem
    ]


def _names_of(reach: Reach, mailbox: str) -> tuple[str, ...]:
    """As it was written, and as the list calls it: what a node does by itself is told so."""
    if not mailbox:
        return ()
    try:
        return tuple(dict.fromkeys((mailbox, display(reach.name(mailbox)))))
    except Refusal:  # a part of a name
        return (mailbox,)


def _is_meant(line: Line, meant: Meant, names: Sequence[str]) -> bool:
    """Whether it is by the user or names them, names the mailbox in one of these ways, and is of that operator."""
    named = " ".join(str(line.get(key, "")) for key in ("arguments", "mailbox", "target", "wanted"))
    by = (line.get("user"), line.get("proxy"))
    if meant.user and meant.user not in by and meant.user not in named:
        return False
    if names and not any(name.lower() in named.lower() for name in names):
        return False
    return not meant.operator or meant.operator in by
