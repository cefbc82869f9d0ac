"""HTTP/1.1 (RFC 9112) on one of our connections: small requests in, whole answers out, one after the other.

The grammar is h11's. A request's head has 16 KiB in 200 lines, its body 64 KiB, in 256 chunks; who sends nothing for half a
minute, or takes longer to send one request, is let go. Where many send at once, one is looked at in each turn of the loop.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import h11

from murder.log import logger
from murder.net.connection import Connection
from murder.net.turns import LATE_TURN_S, has_held, is_late, stand_in_line

MAX_HEAD: Final = 16 * 1024
MAX_LINES: Final = 200  # of a head: each costs as much as a whole short one
HEAD_END: Final = re.compile(rb"\n\r?\n")  # as h11 takes it
MAX_BODY: Final = 64 * 1024
MAX_CHUNKS: Final = 256  # of a body: each costs as much as a whole one, and browsers send none
MAX_AHEAD: Final = MAX_HEAD + MAX_BODY  # sent while an answer is on its way
IDLE_S: Final = 30.0
WRITE_S: Final = 30.0
TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """`path` as it came, with its query; names of `headers` in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: Connection


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes = b""
    kind: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


class HttpConnection:
    """A receiver of `net.connection`."""

    def __init__(
        self,
        connection: Connection,
        handle: Handler,
        *,
        is_welcome: Callable[[], bool],
        needs_login: bool = False,
    ) -> None:
        """`is_welcome` is asked at each request: connections are kept for long, and rules may change meanwhile."""
        self._connection = connection
        self._handle = handle
        self._is_welcome = is_welcome
        self._needs_login = needs_login
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._chunks = 0
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._is_amid = False  # a request has begun to come
        self._is_in_line = False  # what has come is looked at in a later turn
        self._lines = 0  # of the head that comes
        self._head_tail = b""  # its last octets: its end may come in two pieces
        self._has_head = False  # it is whole, and was not looked at yet
        self._log = logger(role="pages", cid=connection.cid, peer=connection.peer)

    def begin(self) -> None:
        self._connection.read_at_most(MAX_HEAD)
        if self._is_welcome() and not self._needs_login:
            self._connection.became_known()
        self._wait()

    def _wait(self) -> None:
        """From now on for so long: for a request to begin, or for its end."""
        self._stop_waiting()
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(IDLE_S, self._connection.close)

    def _stop_waiting(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def received(self, data: bytes) -> None:
        if self._task is not None or self._is_in_line:
            held, _ = self._http.trailing_data
            if len(held) + len(data) > MAX_AHEAD:
                self._connection.abort()
                return
        elif not self._is_amid:
            self._is_amid = True
            self._wait()
        self._http.receive_data(data)
        self._note_lines(data)
        self._go_on()

    def _note_lines(self, octets: bytes) -> None:
        """Of the head that begins or goes on in these."""
        if self._request is None and not self._has_head:
            known = len(self._head_tail)
            held = self._head_tail + octets
            end = HEAD_END.search(held)
            self._has_head, self._head_tail = end is not None, held[-2:]
            self._lines += held.count(b"\n", known, end.start() if end is not None else len(held))

    def _go_on(self) -> None:
        """Take what there is, up to a whole request; what is none ends the connection."""
        loop = asyncio.get_running_loop()
        if self._is_in_line:
            return
        if is_late(loop):
            self._is_in_line = True
            stand_in_line(loop, self._go_on_in_turn)
        else:
            self._look()

    def _go_on_in_turn(self) -> None:
        self._is_in_line = False
        if not self._connection.is_lost:
            self._look()

    def _look(self) -> None:
        began = time.perf_counter()
        try:
            if self._request is None and self._lines > MAX_LINES:
                self._refuse(431, f"a head of more than {MAX_LINES} lines")
            else:
                self._take_events()
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, str(error))
        if time.perf_counter() - began >= LATE_TURN_S:
            has_held(asyncio.get_running_loop(), began)

    def _take_events(self) -> None:
        """Raises RemoteProtocolError."""
        while self._task is None:
            event = self._http.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if isinstance(event, h11.Request):
                self._request = event
                self._lines, self._head_tail, self._has_head = 0, b"", False
                self._body.clear()
                self._chunks = 0
            elif isinstance(event, h11.Data):
                self._body += event.data
                self._chunks += event.chunk_start
                if self._chunks > MAX_CHUNKS:
                    self._refuse(413, f"a body in more than {MAX_CHUNKS} chunks")
                    return
                if len(self._body) > MAX_BODY:
                    self._refuse(413, f"a body of more than {MAX_BODY} octets")
                    return
            elif isinstance(event, h11.EndOfMessage):
                self._is_amid = False
                self._stop_waiting()
                self._task = asyncio.get_running_loop().create_task(self._answer())
            else:  # the peer has gone, or half of it
                self._connection.close()
                return

    async def _answer(self) -> None:
        request = self._request
        assert request is not None
        try:
            response = await self._respond(request)
            self._send(response, is_head=request.method == b"HEAD")
            await self._connection.drain(WRITE_S)
        except (OSError, TimeoutError):
            self._connection.abort()
            return
        finally:
            self._task = self._request = None
        if self._http.our_state is h11.MUST_CLOSE:
            self._connection.close()
            return
        with contextlib.suppress(h11.LocalProtocolError):
            self._http.start_next_cycle()
        self._note_lines(self._http.trailing_data[0])
        self._connection.resume_reading()  # a login may have held it off
        self._wait()
        self._go_on()

    async def _respond(self, request: h11.Request) -> Response:
        if not self._is_welcome():
            text = b"This address may not ask here\n"
            return Response(403, text, headers={"Connection": "close"})
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        given = Request(
            request.method.decode("ascii"),
            request.target.decode("latin-1"),
            headers,
            bytes(self._body),
            self._connection,
        )
        try:
            return await self._handle(given)
        except Exception:  # noqa: BLE001 - the end of a request
            self._log.exception("page.crashed", path=given.path[:200])
            return Response(500, b"Internal error; the log has it\n")

    def _send(self, response: Response, *, is_head: bool = False) -> None:
        headers = [
            ("Content-Type", response.kind),
            ("Content-Length", str(len(response.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *response.headers.items(),
        ]
        octets = self._http.send(h11.Response(status_code=response.status, headers=headers)) or b""
        if response.body and not is_head:
            octets += self._http.send(h11.Data(data=response.body)) or b""
        octets += self._http.send(h11.EndOfMessage()) or b""
        self._connection.write(octets)

    def _refuse(self, status: int, why: str) -> None:
        """What is no request; the connection ends behind the answer."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send(Response(status, f"{why}\n".encode(), headers={"Connection": "close"}))
        self._connection.close()

    def input_ended(self) -> bool:
        """The peer has closed its half: what it asked for before is answered."""
        self._http.receive_data(b"")
        self._go_on()
        return True

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        """What has come goes at once: the two of us hold each other, and may stay for long."""
        self._stop_waiting()
        self._http = h11.Connection(h11.SERVER)
        self._body.clear()
        if self._task is not None:
            self._task.cancel()
