"""The last lines of the nodes' logs, put together."""

from collections.abc import Sequence
from dataclasses import dataclass

from murder.admin.operate.reach import Reach
from murder.admin.operate.running.nodes import NodeAnswers, ask_all
from murder.wire.nodes.control_answers import LogLine, parse_log_line
from murder.wire.nodes.control_words import AskLog


@dataclass(frozen=True, slots=True)
class Tail:
    """In the order of time; and the nodes that did not answer."""

    lines: Sequence[LogLine]
    silent: Sequence[NodeAnswers]


async def tail(reach: Reach, word: str, least: str) -> Tail:
    """Those in which the word stands ("": all), from that level on: what each process still holds."""
    nodes = await ask_all(reach, AskLog(word, least))
    lines: dict[tuple[str, float, str], LogLine] = {}  # roles of one process tell the same
    for node in nodes:
        for line in map(parse_log_line, node.answers):
            lines.setdefault((line.node, line.at, line.text), line)
    ordered = sorted(lines.values(), key=lambda line: line.at)
    return Tail(ordered, [node for node in nodes if node.problem])
