"""Who did what: the audit trails of all nodes, put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from murder.operate.nodes import NodeAnswers, ask_all
from murder.operate.reach import Reach
from murder.trail.audit import KIND
from murder.wire.control_words import AskChain, AskTrail

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
            line = answer.get("line")
            if isinstance(line, dict):  # what concerns the whole node each of its roles says
                key = (answer["node"], line.get("chain"), line.get("at"), line.get("event"))
                by_key.setdefault(key, {"node": answer["node"], "role": answer["role"], **line})
    lines = sorted(by_key.values(), key=lambda line: str(line.get("at", "")))
    return Acts(lines, [node for node in nodes if node.problem])


async def breaks(reach: Reach) -> tuple[dict[str, list[str]], list[NodeAnswers]]:
    """Where lines were taken out or altered, by node, `file:line` each; and the nodes that did not answer."""
    told = await ask_all(reach, AskChain(KIND))
    found: dict[str, list[str]] = {}
    for node in told:
        for answer in node.answers:
            for place in answer.get("breaks", ()):
                places = found.setdefault(str(answer["node"]), [])
                if place not in places:
                    places.append(str(place))
    return found, [node for node in told if node.problem]
