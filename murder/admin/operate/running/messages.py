"""What has happened to a message: the mail logs of all nodes, put together by the ids that stand in them."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final

from murder.admin.operate.reach import Reach
from murder.admin.operate.running.nodes import NodeAnswers, ask_all
from murder.model.name import MailboxName
from murder.serve.mail_log import KIND
from murder.trail.lines import rows_in
from murder.wire.nodes.control_answers import TrailLine, parse_trail_line
from murder.wire.nodes.control_words import MAX_WORDS, AskTrail

ROUNDS: Final = 12  # what somebody knows -> ids of it -> what others say of those; a message may have moved several times
IDS: Final = ("id", "message_id", "saved_as")  # facts by which others may know the message
PLACES: Final = ("place", "to", "message_id")  # and of each of its copies

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Traced:
    """The lines in the order of time, each with `node` and `role`; and the nodes that did not answer."""

    lines: Sequence[Line]
    silent: Sequence[NodeAnswers]


async def trace(reach: Reach, word: str, within_s: float) -> Traced:
    """All that is known of the messages with this id, Message-ID, sender, recipient, or place, not longer ago (0: ever); and
    of what the user of this name did with messages. Of a line about many messages: only those that are meant."""
    by_key: dict[tuple[str, ...], TrailLine] = {}
    asked: set[str] = set()
    wanted = set(_spellings(word))
    silent: list[NodeAnswers] = []
    for _ in range(ROUNDS):
        wanted = set(sorted(wanted - asked)[:MAX_WORDS])
        if not wanted:
            break
        asked |= wanted | {word.lower() for word in wanted}  # as they are looked for
        nodes = await ask_all(reach, AskTrail(KIND, tuple(sorted(wanted)), within_s))
        silent = [node for node in nodes if node.problem]
        lines = [parse_trail_line(answer) for node in nodes for answer in node.answers]
        for line in lines:
            by_key[_key(line)] = line
        wanted = {id for line in by_key.values() for id in _ids(line, asked)}
    ordered = sorted(by_key.values(), key=lambda line: line.at)
    return Traced([_narrowed(line, asked) for line in ordered], silent)


def _ids(line: TrailLine, asked: Set[str]) -> Iterator[str]:
    """By which others may know the messages of this line that are meant. What else a user did in the same command is not."""
    for key in IDS:
        if id := line.text(key):
            yield id
    for copy in rows_in(line.facts, "copies"):
        yield from (str(copy[key]) for key in PLACES if key in copy)
    for row in rows_in(line.facts, "messages"):
        if line.text("message_id") or _is_meant(row, asked):
            yield from (str(row[key]) for key in PLACES if key in row)


def _is_meant(row: Line, asked: Set[str]) -> bool:
    return any(row[key] in asked or str(row[key]).lower() in asked for key in PLACES if key in row)


def _narrowed(line: TrailLine, asked: Set[str]) -> Line:
    """The line without the messages that are not meant, where some are."""
    facts = line.with_place()
    meant = [row for row in rows_in(facts, "messages") if _is_meant(row, asked)]
    return {**facts, "messages": meant} if meant else facts


def called(reach: Reach, line: Line) -> Line:
    """The line with mailboxes as operators write them; in logs they stand as the list has them."""

    def shown(row: Line, *keys: str) -> Line:
        names = {key: MailboxName(str(row[key]).encode()) for key in keys if row.get(key)}
        return {**row, **{key: reach.shown(name) for key, name in names.items()}}

    copies = [shown(copy, "mailbox") for copy in rows_in(line, "copies")]
    return {**shown(line, "mailbox", "target"), **({"copies": copies} if copies else {})}


def _spellings(word: str) -> list[str]:
    """A Message-ID with its angle brackets and without; an address stands without."""
    bare = word.strip().removeprefix("<").removesuffix(">")
    return [bare, f"<{bare}>"]


def _key(line: TrailLine) -> tuple[str, ...]:
    return line.node, line.at, line.event, line.text("id"), line.text("recipient")
