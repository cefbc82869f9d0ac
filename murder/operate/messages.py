"""What has happened to a message: the mail logs of all nodes, put together by the ids that stand in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from murder.operate.nodes import NodeAnswers, ask_all
from murder.operate.reach import Reach
from murder.serve.mail_log import KIND
from murder.wire.control_answers import TrailLine, parse_trail_line
from murder.wire.control_words import MAX_WORDS, AskTrail

ROUNDS: Final = 3  # what somebody knows -> ids of it -> what others say of those
IDS: Final = ("id", "message_id", "saved_as")  # facts by which others may know the message

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Traced:
    """The lines in the order of time, each with `node` and `role`; and the nodes that did not answer."""

    lines: Sequence[Line]
    silent: Sequence[NodeAnswers]


async def trace(reach: Reach, word: str, within_s: float) -> Traced:
    """All that is known of the messages with this id, Message-ID, sender or recipient, not longer ago (0: ever)."""
    by_key: dict[tuple[str, ...], TrailLine] = {}
    asked: set[str] = set()
    wanted = set(_spellings(word))
    silent: list[NodeAnswers] = []
    for _ in range(ROUNDS):
        wanted = set(sorted(wanted - asked)[:MAX_WORDS])
        if not wanted:
            break
        asked |= wanted
        nodes = await ask_all(reach, AskTrail(KIND, tuple(sorted(wanted)), within_s))
        silent = [node for node in nodes if node.problem]
        lines = [parse_trail_line(answer) for node in nodes for answer in node.answers]
        for line in lines:
            by_key[_key(line)] = line
        wanted = {id for line in lines for key in IDS if (id := line.text(key))}
    ordered = sorted(by_key.values(), key=lambda line: line.at)
    return Traced([line.with_place() for line in ordered], silent)


def _spellings(word: str) -> list[str]:
    """A Message-ID with its angle brackets and without; an address stands without."""
    bare = word.strip().removeprefix("<").removesuffix(">")
    return [bare, f"<{bare}>"]


def _key(line: TrailLine) -> tuple[str, ...]:
    return line.node, line.at, line.event, line.text("id"), line.text("recipient")
