"""A Cyrus backend at the other end of an IMAP connection: its replication protocol, cut into commands and answered.

Commands are `tag SYNCAPPLY word value`, `tag SYNCGET word value`, `tag SYNCRESTART` and a few of IMAP; messages come in the
middle of one (`wire.dlist`). One at a time.
"""

from typing import Final

from murder.errors import BadSyntax, Refusal
from murder.net.octets import OctetChannel
from murder.net.turns import aside
from murder.roles.backend.moves.from_cyrus import FromCyrus
from murder.wire.dlist import Held, MessageOctets, Value, announced_by, parse_values
from murder.wire.imap.response import continuation, status_line

MAX_LINE: Final = 512 * 1024 * 1024  # all messages of a mailbox stand in one: about 300 octets each
MAX_LITERAL: Final = 64 * 1024 * 1024  # of scripts and annotations; messages go to a file
PART_OCTETS: Final = 100  # what a line or a literal takes beside its octets
LARGE_LINE: Final = 16 * 1024  # read apart, so that others are served meanwhile
SIEVE_MAILBOX: Final = b"SIEVE-MAILBOX"
ENABLED: Final = b"* ENABLED (SIEVE-MAILBOX)"


class CyrusPeer:
    """See the module."""

    def __init__(self, channel: OctetChannel, arriving: FromCyrus) -> None:
        self._channel = channel
        self._arriving = arriving
        self._refusal: Refusal | None = None  # met in the middle of a command

    async def serve(self, first: bytes, rest: bytes) -> None:
        """Answer until it says SYNCRESTART: IMAP goes on then. `first` is its first command, `rest` what came behind.
        Raises UpstreamFailure, BadSyntax where the stream cannot go on."""
        self._channel.received(first + b"\r\n" + rest)
        while True:
            parts = await self._command()
            head = parts[0] if isinstance(parts[0], bytes) else b""
            tag, _, head = head.partition(b" ")
            name, _, head = head.partition(b" ")
            try:
                values = await _parsed([head, *parts[1:]])
                said = await self._answer(name.upper(), values)
                answer = status_line(tag, b"OK", "Completed")
            except Refusal as refusal:
                said, answer = [], status_line(tag, b"NO", refusal.text)
                await self._arriving.told_no(refusal.text)
            except BadSyntax as error:
                said, answer = [], status_line(tag, b"BAD", str(error))
                await self._arriving.told_no(f"{name.decode('ascii', 'replace')[:40]}: {error}")
            await self._channel.send(b"".join(line + b"\r\n" for line in said) + answer)
            if name.upper() == b"SYNCRESTART":
                return

    async def _command(self) -> list[bytes | Held | MessageOctets]:
        """The next one: its texts, and what stands between them."""
        self._refusal = None
        parts: list[bytes | Held | MessageOctets] = []
        left = MAX_LINE
        while True:
            line = await self._channel.line(left)
            left -= len(line) + PART_OCTETS
            if left <= 0:
                raise BadSyntax(f"a command has more than {MAX_LINE} octets")
            announced = announced_by(line)
            if announced is None:
                parts.append(line)
                return parts
            text, literal = announced
            parts.append(text)
            if isinstance(literal, MessageOctets):
                await self._stage(literal)
                parts.append(literal)
                continue
            left -= literal.length
            if literal.length > MAX_LITERAL or left <= 0:
                raise BadSyntax(f"a literal has more than {MAX_LITERAL} octets, or a command")
            if literal.waits:
                await self._channel.send(continuation())
            parts.append(Held(await self._channel.exactly(literal.length)))

    async def _stage(self, message: MessageOctets) -> None:
        try:
            await self._arriving.staged.take(message, self._channel)
        except Refusal as refusal:
            self._refusal = self._refusal or refusal

    async def _answer(self, name: bytes, values: list[Value]) -> list[bytes]:
        """Untagged lines, without their ends. Raises Refusal, BadSyntax."""
        if self._refusal is not None:
            raise self._refusal
        match name, values:
            case b"NOOP", []:
                return []
            case b"SYNCRESTART", []:
                return []
            case b"SYNCAPPLY", [bytes(b"CAPABILITIES"), list() as offered]:
                # scripts come as the mailbox that they are in, not as files
                return [ENABLED] if SIEVE_MAILBOX in offered else []
            case b"SYNCAPPLY", [bytes() as what, value]:
                return await self._arriving.apply(what.decode("ascii", "replace").upper(), value)
            case b"SYNCGET", [bytes() as what, value]:
                return await self._arriving.get(what.decode("ascii", "replace").upper(), value)
            case b"MUPDATEPUSH", [bytes() as external]:
                await self._arriving.push(external)
                return []
            case _:
                raise BadSyntax(f"{name.decode('ascii', 'replace')[:40]} is not understood here")


async def _parsed(parts: list[bytes | Held | MessageOctets]) -> list[Value]:
    size = sum(len(part) for part in parts if isinstance(part, bytes))
    if size < LARGE_LINE:
        return parse_values(parts)
    return await aside(parse_values, parts)
