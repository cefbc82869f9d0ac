"""The octets of one message and what is derived from them, each read once and only if asked for.

Its structure is parsed once and kept with the store (`keep_summary`), with ENVELOPE and BODYSTRUCTURE as they are sent:
later FETCHes of these do not look at the message at all.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

from murder.api.disk import DamagedMessageError
from murder.api.store import KeepsToldSize, Mailbox
from murder.errors import Code, Refusal
from murder.mime.envelope import parse_envelope
from murder.mime.header import parse_date
from murder.mime.mapped import let_go
from murder.mime.nul import has_nul, told_pieces, told_size
from murder.mime.preview import preview_of
from murder.mime.section import MAX_SELECTED_OCTETS, HeaderFields, encoded_part, octets_of
from murder.mime.structure import parse_parts, parse_structure
from murder.mime.summary import dump_structure, load_envelope, load_structure
from murder.mime.text import Looking, Needs, Wanted
from murder.model.message import UNSEEN_SIZE, Message, Uid
from murder.model.part import Envelope, Part
from murder.model.query.fetch import BodyItem, Form, Section, SectionText
from murder.net.turns import Turn, aside, aside_if
from murder.roles.backend.messages.made import Made
from murder.wire.imap.mail.body import format_structure_piece
from murder.wire.imap.mail.envelope import format_envelope_piece

LAZY_OCTETS: Final = 64 * 1024  # PREVIEW (LAZY) looks into messages up to this size
SUMMARY_VERSION: Final = 4  # never 0x5b, with which the first version's summaries began
SUBJECT_UNSAID: Final = 3  # the same, of what has several Subject fields, or has not been asked
SUMMARY_HEAD: Final = struct.Struct("!BII")
SMALL_OCTETS: Final = 64 * 1024  # looked through in some microseconds
LOOK_OCTETS: Final = 1024 * 1024  # looked through before others may have their turn
_PLAIN_TEXT: Final = ((b"TEXT", b"PLAIN"), ())  # a part's media and parameters
_SUBJECT: Final = re.compile(rb"^subject[ \t]*+:", re.MULTILINE | re.IGNORECASE)
# of a message that a search takes apart sooner than it reads what is known of it, and lines that may begin parts in it
FEW_OCTETS: Final = 16 * 1024
FEW_PARTS: Final = 50
BOUNDARY_LINE: Final = b"\n--"
ASIDE_OCTETS: Final = 16 * 1024  # of a message: more can be some thousand parts, and milliseconds


@dataclass(frozen=True, slots=True)
class Kept:
    """A summary: the pieces of FETCH answers as they are sent, and the structure behind them. `has_subject`: what is looked
    for in Subject fields is found in that of the structure's envelope."""

    envelope: bytes
    body_structure: bytes
    structure: bytes
    has_subject: bool = False


def pack(kept: Kept) -> bytes:
    version = SUMMARY_VERSION if kept.has_subject else SUBJECT_UNSAID
    lengths = SUMMARY_HEAD.pack(version, len(kept.envelope), len(kept.body_structure))
    return b"".join((lengths, kept.envelope, kept.body_structure, kept.structure))


def unpack(summary: bytes) -> Kept | None:
    """None for what another version has packed: the message is parsed again."""
    if len(summary) < SUMMARY_HEAD.size:
        return None
    version, envelope, body_structure = SUMMARY_HEAD.unpack_from(summary)
    first = SUMMARY_HEAD.size + envelope
    second = first + body_structure
    if version not in (SUMMARY_VERSION, SUBJECT_UNSAID) or second > len(summary):
        return None
    pieces = summary[SUMMARY_HEAD.size : first], summary[first:second], summary[second:]
    return Kept(*pieces, version == SUMMARY_VERSION)


class _Clean:
    """Large messages that were found to have no NUL: each is looked through once, and not for every piece of it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[tuple[str, Uid], None] = {}

    def __contains__(self, message: tuple[str, Uid]) -> bool:
        return message in self._known

    def add(self, message: tuple[str, Uid]) -> None:
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[message] = None


_clean: Final = _Clean(10_000)


def _told(raw: memoryview) -> memoryview:
    made = Made()
    for piece in told_pieces(raw, parse_structure(raw)):
        made.write(piece)
    return made.octets()


def parse_and_format(octets: memoryview | bytes) -> tuple[Part, Kept]:
    """The structure, and the pieces of answers; `structure` of them is empty where it is too large to be kept."""
    parsed = parse_structure(octets)
    return parsed, Kept(
        format_envelope_piece(parsed.envelope or Envelope()),
        format_structure_piece(parsed, True),
        dump_structure(parsed) or b"",
        _has_subject(octets, parsed),
    )


def _has_subject(octets: memoryview | bytes, parsed: Part) -> bool:
    """See `Kept`. Of a long header nothing is said."""
    subject = parsed.envelope.subject if parsed.envelope is not None else None
    if parsed.body_start > HEADER_LOOK or (subject is not None and b"\n" in subject):
        return False
    fields = len(_SUBJECT.findall(octets, 0, parsed.body_start))
    return fields == (0 if subject is None else 1)


class Reader:
    """One message during one FETCH, SEARCH, SORT or THREAD."""

    __slots__ = (
        "_decoded",
        "_fields",
        "_has_looked",
        "_header_end",
        "_kept",
        "_mailbox",
        "_message",
        "_octets",
        "_raw",
        "_structure",
        "_turn",
    )

    def __init__(
        self,
        mailbox: Mailbox,
        message: Message,
        summary: bytes | None = None,
        turn: Turn | None = None,
    ) -> None:
        """`summary`: what the store keeps of it, if that has been read already (b"": nothing); `turn`: of the command, where
        it has one."""
        self._mailbox = mailbox
        self._message = message
        self._octets: memoryview | None = None
        self._raw: memoryview | None = None  # as it is stored, where it has NUL
        self._structure: Part | None = None
        self._header_end: int | None = None
        self._fields: dict[tuple[int, ...], HeaderFields] = {}  # of the headers that were asked for
        # the last part asked for
        self._decoded: tuple[tuple[int, ...], memoryview | bytes] | None = None
        self._turn = Turn() if turn is None else turn
        self._kept = unpack(summary) if summary is not None else None
        self._has_looked = summary is not None

    async def octets(self) -> memoryview:
        """The whole message, as it can be told without NUL. Raises Refusal(EXPUNGE_ISSUED)."""
        if self._octets is None:
            raw = await self._mailbox.octets(self._message.uid)
            if await self._has_nul(raw):
                self._raw = raw
                self._octets = await aside(_told, raw)
            else:
                self._octets = raw
            await self._note_size(len(self._octets))
        return self._octets

    async def _note_size(self, size: int) -> None:
        """For whoever asks for RFC822.SIZE alone."""
        message, mailbox = self._message, self._mailbox
        differing = 0 if size == message.size else size
        if differing != message.told_size and isinstance(mailbox, KeepsToldSize):
            await mailbox.keep_told_size(message.uid, differing)

    async def _has_nul(self, raw: memoryview) -> bool:
        if len(raw) < SMALL_OCTETS:
            return has_nul(raw)
        message = (self._mailbox.mailbox_id, self._message.uid)
        if message in _clean:
            return False
        for at in range(0, len(raw), LOOK_OCTETS):  # it may come from the disk
            if has_nul(raw, at, at + LOOK_OCTETS):
                return True
            let_go(raw)  # many may do this at once, and it stays in memory for all others
            if self._turn.is_over:
                await self._turn.rest()
        _clean.add(message)
        return False

    async def part(self) -> Part:
        """The structure, from what was kept or from the octets. Raises Refusal(EXPUNGE_ISSUED)."""
        if self._structure is None:
            kept = await self._look()
            known = load_structure(kept.structure) if kept and kept.structure else None
            self._structure = known or (await self._parse())[0]
        return self._structure

    async def part_for(self, needs: Needs) -> Part:
        """As much of the structure as a search needs. Raises Refusal(EXPUNGE_ISSUED)."""
        if self._structure is not None or needs is Needs.ENVELOPE:
            return await self.part()
        if needs is Needs.HEADER:
            octets = await self.octets()
            return Part(*_PLAIN_TEXT, 0, await self._find_body(octets), len(octets), 0)
        kept = await self._look()
        known = load_structure(kept.structure, envelopes=False) if kept and kept.structure else None
        return known or await self.part()

    async def envelope_alone(self, *, subject: bool) -> tuple[bytes, Part] | None:
        """A message with this one's envelope and, with `subject`, its Subject field, and nothing else: from what is kept,
        which is made of a small message where it is not there. None where that does not tell it."""
        kept = await self._look()
        if kept is None and self._message.size < ASIDE_OCTETS:
            kept = (await self._parse())[1]
        if kept is None or (subject and not kept.has_subject):
            return None
        envelope = load_envelope(kept.structure) if kept.structure else None
        if envelope is None:
            return None
        header = b"" if envelope.subject is None else b"Subject: %b\r\n" % envelope.subject
        return header, Part(*_PLAIN_TEXT, 0, len(header), len(header), 0, envelope=envelope)

    async def _look(self) -> "Kept | None":
        """What the store keeps of it."""
        if self._kept is None and not self._has_looked:
            self._has_looked = True
            summary = await self._mailbox.summary(self._message.uid)
            self._kept = unpack(summary) if summary is not None else None
        return self._kept

    async def _parse(self) -> tuple[Part, Kept]:
        octets = await self.octets()
        if len(octets) >= ASIDE_OCTETS:
            parsed, kept = await aside(parse_and_format, octets)
        else:
            parsed, kept = parse_and_format(octets)
        self._structure, self._kept = parsed, kept
        if kept.structure:
            await self._mailbox.keep_summary(self._message.uid, pack(kept))
        return parsed, kept

    async def section(self, item: BodyItem) -> memoryview | bytes | None:
        """The octets of a section, before `<partial>`; None where there is no such part. Raises Refusal."""
        octets = await self.octets()
        if self._turn.is_over:
            await self._turn.rest()
        section = item.section
        is_binary = item.form in (Form.BINARY, Form.BINARY_SIZE)
        if is_binary and section.text is SectionText.WHOLE:
            if self._decoded is not None and self._decoded[0] == section.part:
                return self._decoded[1]  # many pieces of one part
            if self._raw is None:
                return await self._binary(octets, await self.part(), section.part)
            return await self._binary(
                self._raw, await aside(parse_structure, self._raw), section.part
            )
        if section.text in (SectionText.HEADER_FIELDS, SectionText.HEADER_FIELDS_NOT):
            return await self._header_fields(octets, section)
        if section.part:
            return octets_of(octets, await self.part(), section)
        if section.text is SectionText.WHOLE:
            return octets
        end = await self._find_body(octets)
        return octets[end:] if section.text is SectionText.TEXT else octets[:end]

    async def _binary(
        self, octets: memoryview, root: Part, path: tuple[int, ...]
    ) -> memoryview | bytes | None:
        """A part with its transfer encoding undone, piece by piece. Raises Refusal(UNKNOWN_CTE)."""
        part = encoded_part(octets, root, path)
        if part is None:
            return None
        if not part.encoding:
            self._decoded = path, part.body
            return part.body
        decoded = Made()
        for piece in part.pieces():
            await decoded.take(piece)
            if self._turn.is_over:
                await self._turn.rest()
        self._decoded = path, await decoded.taken()
        return self._decoded[1]

    async def _header_fields(self, octets: memoryview, section: Section) -> bytes | None:
        """The fields of some names, or all others, of a header that may be long and asked for often."""
        if section.part:
            header = octets_of(octets, await self.part(), replace(section, text=SectionText.HEADER))
            if header is None:
                return None
        else:
            header = octets[: await self._find_body(octets)]
        fields = self._fields.get(section.part)
        if fields is None:
            fields = self._fields[section.part] = HeaderFields(header[:MAX_SELECTED_OCTETS])
            for _ in fields.read():
                if self._turn.is_over:
                    await self._turn.rest()
        return fields.select(section.fields, section.text is SectionText.HEADER_FIELDS)

    async def _find_body(self, octets: memoryview) -> int:
        if self._header_end is None:
            for end in ends_of_header(octets):
                self._header_end = end
                if end is None and self._turn.is_over:
                    await self._turn.rest()
        assert self._header_end is not None  # the last of them
        return self._header_end

    async def envelope(self) -> bytes:
        """The ENVELOPE piece of a FETCH answer."""
        kept = await self._look() or (await self._parse())[1]
        return kept.envelope

    async def structure(self, extended: bool) -> bytes:
        """The BODY or BODYSTRUCTURE piece."""
        if extended:
            kept = await self._look() or (await self._parse())[1]
            return kept.body_structure
        part = await self.part()
        if self._message.size < ASIDE_OCTETS:
            return format_structure_piece(part, extended)
        return await aside(format_structure_piece, part, extended)

    async def preview(self, lazy: bool) -> str | None:
        """The first words; None where they would cost something and the client is not willing to wait."""
        if lazy and self._message.size > LAZY_OCTETS:
            return None
        return preview_of(await self.octets(), await self.part())

    def close(self) -> None:
        """Let the mapping go."""
        self._octets = self._raw = None
        self._structure = None
        self._decoded = None
        self._fields.clear()


async def small_octets(mailbox: Mailbox, message: Message) -> bytes | None:
    """A message that is told as it is stored and needs no care; None of any other, which a `Reader` reads. Raises Refusal,
    as that does."""
    if message.told_size or message.size >= SMALL_OCTETS:
        return None
    octets = bytes(await mailbox.octets(message.uid))
    return None if len(octets) != message.size or b"\x00" in octets else octets


async def sized(mailbox: Mailbox, message: Message) -> Message:
    """With the size that it is told with, where nobody has looked yet and the store says so. One that has just been
    expunged stays as it is."""
    if message.told_size != UNSEEN_SIZE:
        return message
    reader = Reader(mailbox, message)
    try:
        size = len(await reader.octets())
    except Refusal as refusal:
        if refusal.code is not Code.EXPUNGE_ISSUED:
            raise
        return message
    finally:
        reader.close()
    return replace(message, told_size=0 if size == message.size else size)


async def size_told(octets: memoryview) -> int:
    """`NewMessage.told_size` of what comes in."""
    if len(octets) < SMALL_OCTETS and not has_nul(octets):  # mostly
        return 0
    return await aside_if(len(octets) >= SMALL_OCTETS, told_size, octets)


HEADER_LOOK: Final = 16 * 1024  # nearly every header ends within; else more and more is looked at


def end_of_header(octets: memoryview | bytes) -> int:
    """Behind the blank line; the end of the message where there is none. As `mime.structure` has it."""
    return next(end for end in ends_of_header(octets) if end is not None)


def ends_of_header(octets: memoryview | bytes) -> Iterator[int | None]:
    """The same at last, and None before for each piece in which it is not: a message may have no blank line at all."""
    start = 0
    while True:
        head = bytes(octets[start : start + HEADER_LOOK])
        if not start and head.startswith((b"\r\n", b"\n")):
            yield head.index(b"\n") + 1
            return
        ends = [at + len(mark) for mark in (b"\n\r\n", b"\n\n") if (at := head.find(mark)) >= 0]
        if ends:
            yield start + min(ends)
            return
        start += len(head) - 2  # a line end may be cut in two
        if start + 2 >= len(octets):
            yield len(octets)
            return
        yield None


class MessageContent(Looking):
    """The searchable side of one message (`searching.Content`), with its Date."""

    __slots__ = ()

    def sent_on(self) -> date | None:
        envelope = self._root.envelope
        moment = parse_date(envelope.date) if envelope is not None else None
        return None if moment is None else moment.date()


def _header_part(octets: bytes, wanted: Wanted) -> Part:
    """What a search that looks for nothing in bodies needs of a small message."""
    end = end_of_header(octets)
    envelope = parse_envelope(octets, 0, end, wanted.envelope) if wanted.envelope else None
    return Part(*_PLAIN_TEXT, 0, end, len(octets), 0, envelope=envelope)


async def read_content(
    mailbox: Mailbox, message: Message, wanted: Wanted, turn: Turn, summary: bytes | None = None
) -> MessageContent | None:
    """The searchable side of a message, of which nothing has been looked at; None where it has just been expunged,
    or is damaged: that is logged. `summary` as `Reader` has it: where that tells enough, no octets are read."""
    try:
        reader = Reader(mailbox, message, summary, turn)
        if wanted.is_in_envelope:
            alone = await reader.envelope_alone(subject=bool(wanted.fields))
            if alone is not None:
                return MessageContent(*alone, wanted)
        octets = await small_octets(mailbox, message) if message.size <= FEW_OCTETS else None
        if octets is not None and not wanted.bodies:
            return MessageContent(octets, _header_part(octets, wanted), wanted)
        if octets is not None and octets.count(BOUNDARY_LINE) <= FEW_PARTS:
            return MessageContent(octets, parse_parts(octets, wanted.envelope), wanted)
        return MessageContent(await reader.octets(), await reader.part_for(wanted.needs), wanted)
    except Refusal as refusal:
        if refusal.code is Code.EXPUNGE_ISSUED or isinstance(refusal, DamagedMessageError):
            return None
        raise
