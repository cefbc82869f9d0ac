"""What a backend tells of moves over IMAP, to whoever has asked for one: its progress during XFER, and the answers to XFERS.

Values with parse and format. A newer backend may tell more than is known here: that is passed over.
"""

import json
from dataclasses import asdict, dataclass
from typing import Final

from murder.errors import BadSyntax
from murder.model.name import MailboxName
from murder.wire.imap.response import status_line, untagged
from murder.wire.nodes.carry import format_name
from murder.wire.nodes.json_fields import Fields, parse_fields
from murder.wire.token import Scanner, string

RECORD_FORMAT: Final = 2
# how two copies of a mailbox stand to each other: the later ones outweigh the earlier
RESULTS: Final = ("same", "changed", "different")
MAX_DIGITS: Final = 19  # 2^63 - 1
_HEAD: Final = b"* OK [INPROGRESS ("
_XFERS: Final = b"* XFERS "


@dataclass(frozen=True, slots=True)
class MoveProgress:
    """How far a move is: `* OK [INPROGRESS (tag done total)] state id: N messages, N octets; problem` (RFC 9585).

    `messages` and `octets` are those that went over the wire; `problem` says why it waits, "" where it does not.
    """

    tag: bytes
    total: int
    state: str
    id: str
    messages: int
    octets: int
    problem: str = ""

    def format(self) -> bytes:
        """The whole response."""
        done = min(self.messages, self.total)
        code = b"INPROGRESS (%s %d %d)" % (string(self.tag), done, self.total)
        text = f"{self.state} {self.id}: {self.messages} messages, {self.octets} octets"
        if self.problem:
            text += f"; {self.problem}"
        return status_line(b"*", b"OK", text, code)


def parse_progress(response: bytes) -> MoveProgress | None:
    """The reverse; None for any other response, also another server's INPROGRESS, whose text may be anything."""
    if not response.startswith(_HEAD):
        return None
    try:
        scanner = Scanner(response, len(_HEAD))
        tag = scanner.astring()
        scanner.space()
        scanner.number()
        scanner.space()
        total = scanner.number()
        scanner.expect(b")]")
        scanner.space()
    except BadSyntax:
        return None
    counts, _, problem = scanner.rest().decode("utf-8", "replace").partition("; ")
    who, _, what = counts.partition(": ")
    match [*who.split(" "), *what.split(" ")]:
        case [state, move_id, messages, "messages,", octets, "octets"]:
            if _is_number(messages) and _is_number(octets):
                numbers = int(messages), int(octets)
                return MoveProgress(tag, total, state, move_id, *numbers, problem.strip())
    return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


@dataclass(frozen=True, slots=True)
class MoveRecord:
    """What a backend remembers of a move, as its journal has it. `server` is the other end; times are Unix seconds, 0 where
    not yet. `--json` has the same fields in this order."""

    id: str
    side: str  # out, in
    root: MailboxName
    server: str
    partition: str = ""
    state: str = ""
    names: tuple[MailboxName, ...] = ()
    process: str = ""
    by: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    stop_s: float = 0.0  # how long nobody could write
    messages: int = 0
    octets: int = 0
    problem: str = ""
    shown_seq: int = 0
    owes_abort: bool = False
    format: int = RECORD_FORMAT

    @property
    def is_out(self) -> bool:
        return self.side == "out"

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        names = [format_name(name) for name in self.names]
        return {**asdict(self), "root": format_name(self.root), "names": names}


@dataclass(frozen=True, slots=True)
class MoveCompared:
    """What `XFERS VERIFY` found of one mailbox. `result` is same, changed or different; `flags` counts messages whose flags
    changed since; `told` are findings in words, `more` counts those left out."""

    mailbox: MailboxName
    result: str
    messages: int = 0
    octets: int = 0
    arrived: int = 0
    expunged: int = 0
    flags: int = 0
    told: tuple[str, ...] = ()
    more: int = 0

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        return {**asdict(self), "mailbox": format_name(self.mailbox), "told": list(self.told)}


def format_answer(answer: MoveRecord | MoveCompared) -> bytes:
    """`* XFERS` with one line of JSON."""
    return untagged(_XFERS[2:] + string(json.dumps(answer.shown()).encode()))


def parse_record(response: bytes) -> MoveRecord | None:
    """A move as LIST, SHOW and the acts tell it; None for any other response. Raises BadSyntax."""
    fields = _fields_of(response)
    if fields is None:
        return None
    return MoveRecord(
        id=fields.text("id"),
        side=fields.text("side"),
        root=fields.name("root"),
        server=fields.text("server"),
        partition=fields.text("partition", ""),
        state=fields.text("state"),
        names=fields.names("names", ()),
        process=fields.text("process", ""),
        by=fields.text("by", ""),
        started_at=fields.number("started_at"),
        finished_at=fields.number("finished_at", 0.0),
        stop_s=fields.number("stop_s", 0.0),
        messages=fields.integer("messages", 0),
        octets=fields.integer("octets", 0),
        problem=fields.text("problem", ""),
        shown_seq=fields.integer("shown_seq", 0),
        owes_abort=fields.flag("owes_abort", False),
        format=fields.integer("format", RECORD_FORMAT),
    )


def parse_compared(response: bytes) -> MoveCompared | None:
    """A mailbox as VERIFY tells it; None for any other response. Raises BadSyntax."""
    fields = _fields_of(response)
    if fields is None:
        return None
    result = fields.text("result")
    if result not in RESULTS:
        raise BadSyntax(f"{result[:40]!r} is no result of a comparison")
    return MoveCompared(
        fields.name("mailbox"),
        result,
        messages=fields.integer("messages", 0),
        octets=fields.integer("octets", 0),
        arrived=fields.integer("arrived", 0),
        expunged=fields.integer("expunged", 0),
        flags=fields.integer("flags", 0),
        told=fields.texts("told", ()),
        more=fields.integer("more", 0),
    )


def _fields_of(response: bytes) -> Fields | None:
    if response[: len(_XFERS)].upper() != _XFERS:
        return None
    return parse_fields(Scanner(response, len(_XFERS)).string())
