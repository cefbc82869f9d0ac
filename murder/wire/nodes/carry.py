"""What two backends say to each other while a mailbox moves: frames of JSON or octets, behind the command XTAKE.

A frame is a letter (`J` JSON, `O` octets), four octets of length, and that many octets. The source speaks first; what
each word means stands in `backend.moves`. Knows no sockets.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from typing import Any, Final

from murder.errors import BadSyntax
from murder.model.carried import CarriedIdentity, Portrait
from murder.model.message import Message, ModSeq, Uid, UidValidity
from murder.model.name import MailboxName
from murder.model.pieces import slices
from murder.model.seqset import Ranges, compress, merge
from murder.model.uidset import Tombstones, UidSet
from murder.wire.nodes.pieces import Pairs, loads_in_pieces

HEAD: Final = struct.Struct("!cI")
JSON, OCTETS = b"J", b"O"
MAX_JSON: Final = 4 * 1024 * 1024  # a batch of messages with all the keywords that they may have
# the tombstones of a mailbox of a million messages, one by one
MAX_LARGE_JSON: Final = 32 * 1024 * 1024
LARGE: Final = (b'{"do":"complete"', b'{"do":"prepare"')  # of requests, these alone may be so long
_HEAD_OF_LARGE: Final = max(map(len, LARGE))
MAX_OCTETS: Final = 1024 * 1024  # one frame; a message may take many
IN_PIECES: Final = 64 * 1024  # octets of JSON above which it is read in pieces
LONG: Final = 1_000  # items of a list above which it is written in pieces

# a mailbox of a million messages that nine readers have seen; kept as ranges
MAX_UIDS: Final = 10_000_000
MAX_TOMBSTONES: Final = 2_000_000  # of one mailbox; each is a row of the store

_dumps: Final = json.JSONEncoder(separators=(",", ":")).encode

Words = Mapping[str, Any]


def format_name(name: bytes) -> str:
    """A name (or other octets that people may read) as JSON has it: a character for each octet."""
    return name.decode("latin-1")


def parse_name(text: Any) -> MailboxName:
    """The reverse. Raises ValueError."""
    return MailboxName(str(text).encode("latin-1"))


@dataclass(frozen=True, slots=True)
class Frame:
    """One of them. `octets` of a JSON frame are its text."""

    kind: bytes
    octets: bytes

    def words(self) -> dict[str, Any]:
        """The JSON object. Raises BadSyntax."""
        if self.kind != JSON:
            raise BadSyntax("a JSON frame was expected, octets came")
        try:
            is_long = len(self.octets) > IN_PIECES
            fields = loads_in_pieces(self.octets) if is_long else json.loads(self.octets)
        except (ValueError, RecursionError) as error:
            raise BadSyntax(f"not valid JSON: {error}") from None
        if not isinstance(fields, dict):
            raise BadSyntax("a JSON object was expected")
        return fields


class FrameCutter:
    """Cuts a stream into frames; `of_answers`: what the other end of a move sends back, whose kind it does not tell."""

    def __init__(self, *, of_answers: bool = False) -> None:
        self._held = bytearray()
        self._of_answers = of_answers

    @property
    def held(self) -> int:
        return len(self._held)

    def feed(self, data: bytes | memoryview) -> None:
        self._held += data

    def next(self) -> Frame | None:
        """The next whole frame. Raises BadSyntax where it is too long or no frame."""
        if len(self._held) < HEAD.size:
            return None
        kind, length = HEAD.unpack_from(self._held)
        if kind not in (JSON, OCTETS):
            raise BadSyntax("that is no frame")
        end = HEAD.size + length
        if length > MAX_OCTETS and (most := self._most(kind)) < length:
            raise BadSyntax(f"a frame of {length} octets; one of this kind may have {most}")
        if len(self._held) < end:
            return None
        octets = bytes(memoryview(self._held)[HEAD.size : end])
        del self._held[:end]
        return Frame(kind, octets)

    def _most(self, kind: bytes) -> int:
        """Octets of the frame that begins what is held, as far as it can be told by now."""
        if kind != JSON:
            return MAX_OCTETS
        begins = bytes(self._held[HEAD.size : HEAD.size + _HEAD_OF_LARGE])
        is_large = self._of_answers or any(
            begins.startswith(large) or large.startswith(begins) for large in LARGE
        )
        return MAX_LARGE_JSON if is_large else MAX_JSON


def format_words(words: Words) -> bytes:
    """A JSON frame. For a thread where they `are_many`."""
    fields = (f"{_dumps(key)}:{_dumped(value)}" for key, value in words.items())
    octets = f"{{{','.join(fields)}}}".encode()
    return HEAD.pack(JSON, len(octets)) + octets


def are_many(words: Words) -> bool:
    """Whether one of them is a long list: with what was expunged of a mailbox, say."""
    return any(isinstance(value, list) and len(value) > LONG for value in words.values())


def _dumped(value: Any) -> str:
    if not isinstance(value, list) or len(value) <= LONG:
        return _dumps(value)
    return f"[{','.join(_dumps(some)[1:-1] for some in slices(value, LONG))}]"


def format_octets_head(length: int) -> bytes:
    """What stands before so many octets."""
    return HEAD.pack(OCTETS, length)


# --- nouns as JSON


def format_uids(uids: Sequence[Uid]) -> list[list[int]]:
    """Ascending UIDs as ranges."""
    return [[low, high] for low, high in compress(uids)]


def format_ranges(ranges: Ranges) -> list[list[int]]:
    """The same of ranges that are in order."""
    return [list(pair) for pair in ranges]


def parse_uid_ranges(value: Any) -> Ranges:
    """The reverse of `format_uids`, as ranges. Raises BadSyntax."""
    return merge(_checked_ranges(value))


def _checked_ranges(value: Any) -> Sequence[tuple[int, int]]:
    """As they were told. Raises BadSyntax."""
    if isinstance(value, Pairs):
        ranges: Sequence[tuple[int, int]] = value
    else:
        try:
            ranges = tuple((int(low), int(high)) for low, high in value)
        except (ValueError, TypeError, OverflowError) as error:
            raise BadSyntax(f"that is no set of UIDs: {error}") from None
    if any(not 0 < low <= high < 2**32 for low, high in ranges):
        raise BadSyntax("that is no set of UIDs")
    if sum(high - low + 1 for low, high in ranges) > MAX_UIDS:
        raise BadSyntax(f"a set of more than {MAX_UIDS} UIDs")
    return ranges


def parse_uids(value: Any) -> UidSet:
    """The reverse of `format_uids`. Raises BadSyntax."""
    ranges = _checked_ranges(value)
    highs = (high for _, high in ranges)
    lows = islice((low for low, _ in ranges), 1, None)
    if any(low <= high + 1 for high, low in zip(highs, lows, strict=False)):
        ranges = merge(ranges)  # ours are in order
    return UidSet(ranges)


def format_message(message: Message) -> list[Any]:
    """A row as a list."""
    saved = int(message.save_date.timestamp()) if message.save_date else 0
    offset = message.internal_date.utcoffset() or timedelta()
    return [
        message.uid,
        sorted(message.flags),
        int(message.internal_date.timestamp()),
        int(offset.total_seconds() // 60),
        saved,
        message.size,
        message.modseq,
        message.email_id,
    ]


def parse_message(row: Any) -> Message:
    """The reverse of `format_message`. Raises BadSyntax."""
    try:
        uid, flags, date, zone, saved, size, modseq, email_id = row
        return Message(
            Uid(int(uid)),
            frozenset(str(flag) for flag in flags),
            datetime.fromtimestamp(
                int(date), timezone(timedelta(minutes=int(zone))) if zone else UTC
            ),
            int(size),
            ModSeq(int(modseq)),
            datetime.fromtimestamp(int(saved), UTC),
            str(email_id),
        )
    except (
        ValueError,
        TypeError,
        OverflowError,
        OSError,
    ) as error:  # OSError: a year that no clock has
        raise BadSyntax(f"that is no row of a message: {error}") from None


def format_portrait(portrait: Portrait) -> dict[str, Any]:
    """Tombstones are grouped by mod-sequence."""
    expunged: dict[int, list[Uid]] = {}
    for modseq, uid in portrait.expunged:
        expunged.setdefault(modseq, []).append(uid)
    return {
        "mailbox_id": portrait.identity.mailbox_id,
        "uid_validity": portrait.identity.uid_validity,
        "uid_next": portrait.uid_next,
        "highest_modseq": portrait.highest_modseq,
        "recent_from": portrait.recent_from,
        "expunged": [[modseq, format_uids(sorted(uids))] for modseq, uids in expunged.items()],
        "seen": {reader: format_uids(uids) for reader, uids in portrait.seen.items()},
    }


def parse_portrait(words: Words) -> Portrait:
    """The reverse of `format_portrait`. Raises BadSyntax; what follows from it is for `wire.nodes.carry_words` to judge."""
    try:
        seen = {str(reader): parse_uids(uids) for reader, uids in words["seen"].items()}
        if sum(map(len, seen.values())) > MAX_UIDS:
            raise BadSyntax(f"a mailbox has more than {MAX_UIDS} UIDs that are told")
        return Portrait(
            CarriedIdentity(str(words["mailbox_id"]), UidValidity(int(words["uid_validity"]))),
            Uid(int(words["uid_next"])),
            ModSeq(int(words["highest_modseq"])),
            _parse_tombstones(words["expunged"]),
            seen,
            Uid(int(words.get("recent_from", 0))),
        )
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise BadSyntax(f"that is no portrait of a mailbox: {error!r}") from None


def _parse_tombstones(value: Any) -> Tombstones:
    sets = [(int(modseq), parse_uids(uids)) for modseq, uids in value]
    if sum(len(uids) for _, uids in sets) > MAX_TOMBSTONES:
        raise BadSyntax(f"a mailbox has more than {MAX_TOMBSTONES} tombstones that are told")
    return Tombstones((modseq, uid) for modseq, uids in sets for uid in uids)
