"""The octets of one message and what is derived from them, each read once and only if asked for.

Its structure is parsed once and kept with the store (`keep_summary`), with ENVELOPE and BODYSTRUCTURE as they are sent:
later FETCHes of these do not look at the message at all.
"""

import asyncio
import struct
from dataclasses import dataclass
from datetime import date
from typing import Final

from murder.api.store import Mailbox
from murder.errors import Code, Refusal
from murder.mime import text as searching
from murder.mime.header import parse_date
from murder.mime.preview import preview_of
from murder.mime.section import decoded_octets, octets_of, select_fields
from murder.mime.structure import parse_structure
from murder.mime.summary import dump_structure, load_structure
from murder.model.fetch import BodyItem, Form, SectionText
from murder.model.message import Message
from murder.model.part import Envelope, Part
from murder.wire.imap.body import format_structure_piece
from murder.wire.imap.envelope import format_envelope_piece

LAZY_OCTETS: Final = 64 * 1024  # PREVIEW (LAZY) looks into messages up to this size
SUMMARY_VERSION: Final = 2  # never 0x5b, with which the first version's summaries began
SUMMARY_HEAD: Final = struct.Struct("!BII")
THREAD_OCTETS: Final = 256 * 1024  # larger messages are parsed in a thread: some milliseconds


@dataclass(frozen=True, slots=True)
class Kept:
    """A summary: the pieces of FETCH answers as they are sent, and the structure behind them."""

    envelope: bytes
    body_structure: bytes
    structure: bytes


def pack(kept: Kept) -> bytes:
    lengths = SUMMARY_HEAD.pack(SUMMARY_VERSION, len(kept.envelope), len(kept.body_structure))
    return b"".join((lengths, kept.envelope, kept.body_structure, kept.structure))


def unpack(summary: bytes) -> Kept | None:
    """None for what another version has packed: the message is parsed again."""
    if len(summary) < SUMMARY_HEAD.size:
        return None
    version, envelope, body_structure = SUMMARY_HEAD.unpack_from(summary)
    first = SUMMARY_HEAD.size + envelope
    second = first + body_structure
    if version != SUMMARY_VERSION or second > len(summary):
        return None
    return Kept(summary[SUMMARY_HEAD.size : first], summary[first:second], summary[second:])


class Reader:
    """One message during one FETCH, SEARCH, SORT or THREAD."""

    __slots__ = ("_kept", "_mailbox", "_message", "_octets", "_structure")

    def __init__(self, mailbox: Mailbox, message: Message, summary: bytes | None = None) -> None:
        """`summary`: what the store keeps of it, if that has been read already."""
        self._mailbox = mailbox
        self._message = message
        self._octets: memoryview | None = None
        self._structure: Part | None = None
        self._kept = unpack(summary) if summary is not None else None

    async def octets(self) -> memoryview:
        """The whole message. Raises Refusal(EXPUNGE_ISSUED)."""
        if self._octets is None:
            self._octets = await self._mailbox.octets(self._message.uid)
        return self._octets

    async def part(self) -> Part:
        """The structure, from what was kept or from the octets. Raises Refusal(EXPUNGE_ISSUED)."""
        if self._structure is None:
            kept = await self._look()
            self._structure = (load_structure(kept.structure) if kept else None) or (
                await self._parse()
            )
        return self._structure

    async def _look(self) -> "Kept | None":
        """What the store keeps of it."""
        if self._kept is None:
            summary = await self._mailbox.summary(self._message.uid)
            self._kept = unpack(summary) if summary is not None else None
        return self._kept

    async def _parse(self) -> Part:
        octets = await self.octets()
        if len(octets) >= THREAD_OCTETS:
            parsed = await asyncio.to_thread(parse_structure, octets)
        else:
            parsed = parse_structure(octets)
        structure = dump_structure(parsed)
        if structure is not None:
            summary = pack(
                Kept(
                    format_envelope_piece(parsed.envelope or Envelope()),
                    format_structure_piece(parsed, True),
                    structure,
                )
            )
            await self._mailbox.keep_summary(self._message.uid, summary)
        return parsed

    async def section(self, item: BodyItem) -> memoryview | bytes | None:
        """The octets of a section, before `<partial>`; None where there is no such part. Raises Refusal."""
        octets = await self.octets()
        section = item.section
        if item.form in (Form.BINARY, Form.BINARY_SIZE):
            return decoded_octets(octets, await self.part(), section.part)
        if section.part:
            return octets_of(octets, await self.part(), section)
        if section.text is SectionText.WHOLE:
            return octets
        return _of_message(octets, item)

    async def envelope(self) -> bytes:
        """The ENVELOPE piece of a FETCH answer."""
        if self._structure is None and (kept := await self._look()) is not None:
            return kept.envelope
        return format_envelope_piece((await self.part()).envelope or Envelope())

    async def structure(self, extended: bool) -> bytes:
        """The BODY or BODYSTRUCTURE piece."""
        if extended and self._structure is None and (kept := await self._look()) is not None:
            return kept.body_structure
        return format_structure_piece(await self.part(), extended)

    async def preview(self, lazy: bool) -> str | None:
        """The first words; None where they would cost something and the client is not willing to wait."""
        if lazy and self._message.size > LAZY_OCTETS:
            return None
        return preview_of(await self.octets(), await self.part())

    def close(self) -> None:
        """Let the mapping go."""
        self._octets = None
        self._structure = None


def _of_message(octets: memoryview, item: BodyItem) -> memoryview | bytes:
    """HEADER, HEADER.FIELDS or TEXT of the whole message: no structure is needed for these."""
    end = end_of_header(octets)
    match item.section.text:
        case SectionText.TEXT:
            return octets[end:]
        case SectionText.HEADER:
            return octets[:end]
        case _:
            wanted = item.section.text is SectionText.HEADER_FIELDS
            return select_fields(bytes(octets[:end]), item.section.fields, wanted)


HEADER_LOOK: Final = 16 * 1024  # nearly every header ends within; else more and more is looked at


def end_of_header(octets: memoryview) -> int:
    """Behind the blank line; the end of the message where there is none. As `mime.structure` has it."""
    look = HEADER_LOOK
    while True:
        head = bytes(octets[:look])
        if head.startswith(b"\r\n"):
            return 2
        if head.startswith(b"\n"):
            return 1
        ends = [at + len(mark) for mark in (b"\n\r\n", b"\n\n") if (at := head.find(mark)) >= 0]
        if ends:
            return min(ends)
        if look >= len(octets):
            return len(octets)
        look *= 8


class MessageContent:
    """The searchable side of one message (`searching.Content`)."""

    __slots__ = ("_octets", "_part")

    def __init__(self, octets: memoryview, part: Part) -> None:
        self._octets = octets
        self._part = part

    def header_has(self, field: str, text: str) -> bool:
        return searching.header_has(self._octets, self._part, field, text)

    def body_has(self, text: str) -> bool:
        return searching.body_has(self._octets, self._part, text)

    def text_has(self, text: str) -> bool:
        return searching.text_has(self._octets, self._part, text)

    def sent_on(self) -> date | None:
        envelope = self._part.envelope
        moment = parse_date(envelope.date) if envelope is not None else None
        return None if moment is None else moment.date()


async def read_content(mailbox: Mailbox, message: Message) -> MessageContent | None:
    """The searchable side of a message; None where it has just been expunged."""
    reader = Reader(mailbox, message)
    try:
        return MessageContent(await reader.octets(), await reader.part())
    except Refusal as refusal:
        if refusal.code is Code.EXPUNGE_ISSUED:
            return None
        raise
