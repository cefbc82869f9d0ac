"""What two backends say to each other while a mailbox moves: frames of JSON or octets, behind the command XTAKE.

A frame is a letter (`J` JSON, `O` octets), four octets of length, and that many octets. The source speaks first; what
each word means stands in `backend.moves`. Knows no sockets.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from murder.errors import BadSyntax
from murder.model.carried import CarriedIdentity, Portrait
from murder.model.message import Message, ModSeq, Uid, UidValidity
from murder.model.name import MailboxName
from murder.model.seqset import Ranges, compress, expand, merge, size_of

HEAD: Final = struct.Struct("!cI")
JSON, OCTETS = b"J", b"O"
MAX_JSON: Final = 64 * 1024 * 1024  # the tombstones of a mailbox of a million messages
MAX_OCTETS: Final = 1024 * 1024  # one frame; a message may take many

MAX_UIDS: Final = 10_000_000  # a mailbox of a million messages that nine readers have seen: 400 MiB

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
            told = json.loads(self.octets)
        except (ValueError, RecursionError) as error:
            raise BadSyntax(f"not valid JSON: {error}") from None
        if not isinstance(told, dict):
            raise BadSyntax("a JSON object was expected")
        return told


class FrameCutter:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self._held = bytearray()

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
        if kind not in (JSON, OCTETS) or length > (MAX_JSON if kind == JSON else MAX_OCTETS):
            raise BadSyntax("that is no frame")
        end = HEAD.size + length
        if len(self._held) < end:
            return None
        octets = bytes(memoryview(self._held)[HEAD.size : end])
        del self._held[:end]
        return Frame(kind, octets)


def format_words(words: Words) -> bytes:
    """A JSON frame."""
    octets = json.dumps(words, separators=(",", ":")).encode()
    return HEAD.pack(JSON, len(octets)) + octets


def format_octets_head(length: int) -> bytes:
    """What stands before so many octets."""
    return HEAD.pack(OCTETS, length)


# --- nouns as JSON


def format_uids(uids: Sequence[Uid]) -> list[list[int]]:
    """Ascending UIDs as ranges."""
    return [[low, high] for low, high in compress(uids)]


def parse_uid_ranges(told: Any) -> Ranges:
    """The reverse of `format_uids`, as ranges. Raises BadSyntax."""
    try:
        ranges = tuple((int(low), int(high)) for low, high in told)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadSyntax(f"that is no set of UIDs: {error}") from None
    if size_of(ranges) > MAX_UIDS or any(not 0 < low <= high < 2**32 for low, high in ranges):
        raise BadSyntax("that is no set of UIDs")
    return merge(ranges)


def parse_uids(told: Any) -> list[Uid]:
    """The reverse of `format_uids`. Raises BadSyntax."""
    return [Uid(uid) for uid in expand(parse_uid_ranges(told))]


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
    """The reverse of `format_portrait`. Raises BadSyntax; what follows from it is for `wire.carry_words` to judge."""
    try:
        sets = [*words["seen"].values(), *(uids for _, uids in words["expunged"])]
        if sum(size_of(parse_uid_ranges(uids)) for uids in sets) > MAX_UIDS:
            raise BadSyntax(f"a mailbox has more than {MAX_UIDS} UIDs that are told")
        return Portrait(
            CarriedIdentity(str(words["mailbox_id"]), UidValidity(int(words["uid_validity"]))),
            Uid(int(words["uid_next"])),
            ModSeq(int(words["highest_modseq"])),
            [
                (ModSeq(int(modseq)), uid)
                for modseq, uids in words["expunged"]
                for uid in parse_uids(uids)
            ],
            {str(reader): parse_uids(uids) for reader, uids in words["seen"].items()},
            Uid(int(words.get("recent_from", 0))),
        )
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise BadSyntax(f"that is no portrait of a mailbox: {error!r}") from None
