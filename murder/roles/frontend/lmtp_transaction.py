"""One LMTP transaction with one backend: MAIL, its recipients as they come, DATA, the text, a reply for each (RFC 2033).

It runs beside the client's dialogue and beside those with other backends. Of a backend that is slow the text is kept
here (in memory, then in a temporary file) while the others go on; it costs its own recipients a 451 if it stays so. What
could be repeated is: a connection that was kept and turns out to be gone is opened again as long as no text went out.

A text that has come whole goes to a backend that takes BDAT (RFC 3030) in one step, without DATA and its answer before.
"""

import asyncio
import tempfile
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import IO, Final, Protocol

from murder.errors import UpstreamFailure, UpstreamKind
from murder.log import Log
from murder.net.outgoing.lines import LineUpstream
from murder.net.turns import line_up
from murder.wire.dots import Stuffer
from murder.wire.lmtp import Envelope

HELD_OCTETS: Final = 256 * 1024  # of a text that may wait for a backend before it counts as behind
MEMORY_OCTETS: Final = 1024 * 1024  # of it in memory; more goes to a file
PIECE_OCTETS: Final = 256 * 1024
CHUNKING: Final = b"CHUNKING"
ANSWERED_AT_ONCE: Final = 16  # recipients; then all others have a turn
OF_THE_CONNECTION: Final = {  # answers that are no answer for a recipient: passed on, they would bounce its mail
    b"421": UpstreamKind.UNAVAILABLE,  # it goes down
    b"530": UpstreamKind.AUTH,  # it does not know us
}


class Connects(Protocol):
    """What a transaction needs of its dialogue."""

    @property
    def log(self) -> Log:
        """Of the client's connection."""
        ...

    async def upstream(self, server: str) -> LineUpstream:
        """Ready for MAIL. Raises UpstreamFailure."""
        ...

    def takes(self, server: str, word: bytes) -> bool:
        """Whether the backend offered that in its LHLO."""
        ...

    def drop(self, server: str) -> None:
        """Its connection is in no state to be used again."""
        ...

    def reply_for(self, error: BaseException) -> bytes:
        """What the client is told of an error."""
        ...

    async def judged(self, server: str, path: bytes, reply: bytes) -> bytes:
        """What to tell of a recipient for whom a backend has said so."""
        ...


class Spool:
    """Octets first in, first out; much of them in a file that has no name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._taken = 0  # of the file
        self.size = 0

    def put(self, octets: bytes) -> None:
        """Raises OSError."""
        if self._file is None and self.size + len(octets) <= MEMORY_OCTETS:
            self._held.append(octets)
        else:
            if self._file is None:
                self._file = tempfile.TemporaryFile("w+b", dir=self._folder)
                self._file.write(b"".join(self._held))
                self._held.clear()
            self._file.seek(self._taken + self.size)
            self._file.write(octets)
        self.size += len(octets)

    def take(self) -> bytes:
        """The next piece; b"" where there is none."""
        if self._file is None:
            piece = self._take_held()
        else:
            self._file.seek(self._taken)
            piece = self._file.read(PIECE_OCTETS)
        self._taken += len(piece)
        self.size -= len(piece)
        if not self.size:
            self.close()
        return piece

    def _take_held(self) -> bytes:
        held, most, octets = self._held, 0, 0
        while most < len(held) and (not most or octets + len(held[most]) <= PIECE_OCTETS):
            octets += len(held[most])
            most += 1
        piece = b"".join(held[:most])
        del held[:most]
        return piece

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._held.clear()
        self._taken = self.size = 0


class Stage(Enum):
    """How far a transaction is."""

    ASKING = auto()  # recipients come
    TEXT = auto()  # the message comes
    WHOLE = auto()  # it has come
    OVER = auto()  # nobody waits for an answer any more


class LmtpTransaction:
    """See the module. `former` is the one before it with the same backend, which may not be done yet."""

    def __init__(
        self,
        dialogue: Connects,
        server: str,
        envelope: Envelope,
        *,
        answer_timeout_s: float,
        timeout_s: float,
        folder: Path,
        former: "LmtpTransaction | None" = None,
    ) -> None:
        self.server = server
        self.verdicts: list[asyncio.Future[bytes]] = []  # for the accepted, in their order
        self.progressed: Callable[[], None] = lambda: None
        self._dialogue = dialogue
        self._mail = self._mail_command(envelope)
        self._answer_timeout_s = answer_timeout_s
        self._timeout_s = timeout_s
        self._commands = bytearray()  # all RCPT so far
        self._asked: list[asyncio.Future[bytes]] = []
        self._paths: list[bytes] = []  # of those asked for
        self._answered = 0
        self._stage = Stage.ASKING
        self._loop = asyncio.get_running_loop()
        self._has_news = False
        self._waiter: asyncio.Future[None] | None = None  # for news
        self._upstream: LineUpstream | None = None
        self._takes_text = False
        self._is_ended = False  # the backend has the whole text
        self._stuffer = Stuffer()
        self._spool = Spool(folder)
        # of a text that may go by BDAT, as long as nothing of it has gone: all that has come, a piece at most
        self._text: bytes | None = None
        self._may_chunk = False
        self._said: bytes | None = None  # what every recipient gets, after a failure
        self._task = self._loop.create_task(self._run(former))

    def _mail_command(self, envelope: Envelope) -> Callable[[], bytes]:
        """Made only when the backend has said what it takes."""

        def command() -> bytes:
            words = [b"MAIL FROM:<" + envelope.path + b">"]
            if b"SMTPUTF8" in envelope.parameters and self._dialogue.takes(
                self.server, b"SMTPUTF8"
            ):
                words.append(b"SMTPUTF8")
            if envelope.parameters.get(b"BODY", b"").upper() == b"8BITMIME":
                words.append(b"BODY=8BITMIME")
            return b" ".join(words) + b"\r\n"

        return command

    # --- what the dialogue says

    def recipient(self, path: bytes) -> "asyncio.Future[bytes]":
        """One more recipient: the backend's reply, when it comes."""
        future: asyncio.Future[bytes] = self._loop.create_future()
        if self._said is not None:
            future.set_result(self._said)
            return future
        command = b"RCPT TO:<" + path + b">\r\n"
        self._commands += command
        self._asked.append(future)
        self._paths.append(path)
        if self._upstream is not None:
            self._upstream.send(command)
        self._tell()
        return future

    def begin_text(self) -> None:
        """No more recipients; `verdicts` has one future for each accepted one from here on."""
        create_future = self._loop.create_future
        self.verdicts = [create_future() for _ in self._accepted()]
        if self._said is not None:
            for verdict in self.verdicts:
                verdict.set_result(self._said)
            return
        self._stage = Stage.TEXT
        self._may_chunk = bool(self.verdicts) and self._dialogue.takes(self.server, CHUNKING)
        if not self._may_chunk:
            self._tell()

    def write(self, octets: bytes) -> None:
        """A piece of the message. Never waits, never raises."""
        if self._said is not None or self._stage is not Stage.TEXT:
            return
        if self._may_chunk and self._text is None:
            self._text = octets
            self._tell()  # unless it was all of it: then it has gone when the others have had their turn
            return
        self._begin_to_stream()
        stuffed = self._stuffer.feed(octets)
        upstream = self._upstream
        if self._takes_text and not self._spool.size and upstream is not None:
            if not upstream.connection.writing_paused:
                upstream.connection.gather(stuffed)  # the end may come at once
                if self.is_behind:
                    self._tell()  # somebody has to wait until it goes on
                return
        self._put(stuffed)

    def _put(self, stuffed: bytes) -> None:
        try:
            self._spool.put(stuffed)
        except OSError as error:
            text = f"no room to keep the message while it is slow: {error.strerror}"
            self._fail(UpstreamFailure(UpstreamKind.TIMEOUT, self.server, text))
            self._task.cancel()
        self._tell()

    def _begin_to_stream(self) -> None:
        """The text is not here as a whole: it goes by DATA, as it comes."""
        self._may_chunk = False
        if self._text is not None:
            text, self._text = self._text, None
            self._put(self._stuffer.feed(text))

    def end_text(self) -> None:
        """The client has sent all of the message."""
        if self._stage is Stage.TEXT:
            self._stage = Stage.WHOLE
            upstream = self._upstream if self._said is None else None
            if upstream is not None and self._may_chunk:
                text, self._text = self._text or b"", None
                end = b"" if not text or text.endswith(b"\r\n") else b"\r\n"  # as DATA has it
                size = len(text) + len(end)
                upstream.send(b"BDAT %d LAST\r\n%b%b" % (size, text, end))
                self._is_ended = True
            elif self._takes_text and not self._spool.size and upstream is not None:
                upstream.send(self._stuffer.end())  # behind what is gathered, in one write
                self._is_ended = True
            self._tell()

    @property
    def is_done(self) -> bool:
        """Whether each recipient has its answer, or will have one from us."""
        return self._task.done() or self._said is not None

    @property
    def is_behind(self) -> bool:
        upstream = self._upstream
        return self._spool.size > HELD_OCTETS or (
            self._takes_text and upstream is not None and upstream.connection.writing_paused
        )

    def let_go(self) -> None:
        """The transaction is over, or will not come about. In the middle of a text only the end of the connection says
        "not this one"."""
        if self._stage is Stage.ASKING or (self._stage is Stage.TEXT and self._may_chunk):
            self._stage = Stage.OVER
            self._text = None
            self._tell()
        elif not self._task.done() and not all(verdict.done() for verdict in self.verdicts):
            self._stage = Stage.OVER
            self._task.cancel()
            self._dialogue.drop(self.server)
        self._spool.close()

    # --- the transaction itself

    async def _run(self, former: "LmtpTransaction | None") -> None:
        try:
            if former is not None and not former._task.done():
                await asyncio.wait([former._task])
            await self._converse()
        except UpstreamFailure as failure:
            self._fail(failure)
        except Exception as error:  # noqa: BLE001 - the end of a task
            self._fail(error)
        finally:
            self._spool.close()
            self.progressed()

    async def _converse(self) -> None:
        upstream, mail = await self._begin()
        while True:
            while self._answered < len(self._asked):
                lines = await self._replies(upstream)
                worse = lines if mail[-1][:1] == b"2" else mail
                at = self._answered
                self._asked[at].set_result(await self._judged(self._paths[at], worse))
                self._answered += 1
                if not self._answered % ANSWERED_AT_ONCE:  # they may all be here
                    await line_up()
            if self._stage is not Stage.ASKING and not self._waits_for_text:
                break
            await self._wait_for_news()
        if self._is_ended:
            await self._hear(upstream)
            return
        if self._stage is not Stage.OVER and self.verdicts:
            self._begin_to_stream()
            upstream.send(b"DATA\r\n")
            lines = await self._replies(upstream)
            if lines[-1][:1] == b"3":
                await self._pass_text(upstream)
                await self._hear(upstream)
                return
            for verdict in self.verdicts:
                verdict.set_result(_joined(lines))
            self._spool.close()
        upstream.send(b"RSET\r\n")
        await self._replies(upstream)

    @property
    def _waits_for_text(self) -> bool:
        """Nothing of it has come, or all of it may be here: in the next turn it is."""
        return self._stage is Stage.TEXT and self._may_chunk and self._text is None

    async def _begin(self) -> tuple[LineUpstream, list[bytes]]:
        """Connection, MAIL, and what recipients there are; the answer to MAIL."""
        try:
            return await self._begin_on(await self._dialogue.upstream(self.server))
        except UpstreamFailure as failure:
            if not failure.kind.retry or self._upstream is None or not self._upstream.was_used:
                raise
        self._upstream = None
        self._dialogue.drop(self.server)
        return await self._begin_on(await self._dialogue.upstream(self.server))

    async def _begin_on(self, upstream: LineUpstream) -> tuple[LineUpstream, list[bytes]]:
        upstream.timeout_s = self._answer_timeout_s
        upstream.send(b"".join((self._mail(), self._commands)))
        self._upstream = upstream
        answer = await self._replies(upstream)
        upstream.was_used = True
        return upstream, answer

    async def _pass_text(self, upstream: LineUpstream) -> None:
        """All of it as fast as this backend takes it."""
        upstream.timeout_s = self._timeout_s
        self._takes_text = True
        while not self._is_ended:
            piece = self._spool.take()
            if self._stage is Stage.WHOLE and not self._spool.size:
                upstream.send(piece + self._stuffer.end())
                self._is_ended = True
            elif piece:
                upstream.send(piece)
                await upstream.drain()
                self.progressed()
            else:
                await upstream.drain()  # of what went there directly
                self.progressed()
                await self._wait_for_news()

    async def _hear(self, upstream: LineUpstream) -> None:
        """One reply for each accepted recipient."""
        upstream.timeout_s = self._timeout_s
        accepted = [
            path
            for path, future in zip(self._paths, self._asked, strict=True)
            if future.result().startswith(b"2")
        ]
        for number, (path, verdict) in enumerate(zip(accepted, self.verdicts, strict=True), 1):
            verdict.set_result(await self._judged(path, await self._replies(upstream)))
            if not number % ANSWERED_AT_ONCE:
                await line_up()

    async def _judged(self, path: bytes, lines: list[bytes]) -> bytes:
        reply = _joined(lines)
        return (
            reply
            if lines[-1][:1] == b"2"
            else await self._dialogue.judged(self.server, path, reply)
        )

    def _tell(self) -> None:
        """There is news for our task."""
        self._has_news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait_for_news(self) -> None:
        if not self._has_news:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._has_news = False

    async def _replies(self, upstream: LineUpstream) -> list[bytes]:
        lines = await upstream.replies()
        kind = OF_THE_CONNECTION.get(lines[-1][:3])
        if kind is not None:
            raise upstream.failure(kind, lines[-1].decode("utf-8", "replace"))
        return lines

    def _accepted(self) -> list[asyncio.Future[bytes]]:
        return [
            reply_due
            for reply_due in self._asked
            if reply_due.done() and reply_due.result().startswith(b"2")
        ]

    def _fail(self, error: Exception) -> None:
        """Everybody here who has no answer yet gets this one."""
        if self._said is not None:
            return
        self._dialogue.drop(self.server)
        if self._stage is Stage.OVER:
            self._said = b""
            return
        self._said = self._dialogue.reply_for(error)
        for future in (*self._asked, *self.verdicts):
            if not future.done():
                future.set_result(self._said)
        self._spool.close()
        self.progressed()


def _joined(lines: list[bytes]) -> bytes:
    return b"\r\n".join((*lines, b""))
