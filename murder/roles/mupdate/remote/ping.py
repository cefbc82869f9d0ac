"""The read-your-writes barrier between processes of one host: workers ask the replica process to reach the master's
present, over a local socket.

One line a question, `PING n`; one line an answer, `n OK` or `n NO kind text`. The socket's folder is the owner's only, so
nobody else may ask.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, cast

from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.own_folder import make_own_folder, short_path
from murder.roles.mupdate.remote.replica import Replica

SOCKET_NAME: Final = "replica.sock"
MAX_QUESTIONS: Final = 10_000  # waiting at once, from one worker
MASTER: Final = "master"
PING: Final = "PING"


class PingServer:
    """The replica process' end."""

    def __init__(self, replica: Replica, path: Path, timeout_s: float) -> None:
        self._replica = replica
        self._path = path
        self._timeout_s = timeout_s
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Raises OSError."""
        make_own_folder(self._path.parent)
        self._path.unlink(missing_ok=True)
        with short_path(self._path) as path:
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: _ServerEnd(self), path
            )
        self._path.chmod(0o600)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def answer(self, question: str) -> str:
        """What stands behind the number in the answer to one question."""
        if question != PING:
            return f"NO {UpstreamKind.PROTOCOL.value} no such question"
        try:
            await self._replica.ping(self._timeout_s)
        except UpstreamFailure as failure:
            return f"NO {failure.kind.value} {' '.join(failure.text.split())}"
        return "OK"


class _Lines(asyncio.Protocol):
    """Lines in both directions."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's pipes are none by class

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > 4096:
            self.transport.abort()
            return
        for line in lines:
            self.line(line.decode("utf-8", "replace"))

    def line(self, line: str) -> None:
        raise NotImplementedError


class _ServerEnd(_Lines):
    def __init__(self, server: PingServer) -> None:
        super().__init__()
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()

    def line(self, line: str) -> None:
        question, _, number = line.partition(" ")
        if len(self._tasks) >= MAX_QUESTIONS:
            self.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._answer(question, number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, question: str, number: str) -> None:
        answer = await self._server.answer(question)
        if not self.transport.is_closing():
            self.transport.write(f"{number} {answer}\n".encode())

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()


class _ClientEnd(_Lines):
    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[str, asyncio.Future[str]] = {}
        self.is_lost = False

    def line(self, line: str) -> None:
        number, _, answer = line.partition(" ")
        future = self.waiting.pop(number, None)
        if future is not None and not future.done():
            future.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(_failure(UpstreamKind.LOST, "the replica process has gone"))
                future.exception()


def _failure(kind: UpstreamKind, text: str) -> UpstreamFailure:
    return UpstreamFailure(kind, MASTER, text)


class PingClient:
    """A worker's end. Belongs to one event loop; connects when first asked, and again after a loss."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end: _ClientEnd | None = None
        self._connecting = asyncio.Lock()
        self._number = 0

    async def ping(self, timeout_s: float) -> None:
        """Return when the host's list has all that the master had confirmed before this call. Raises UpstreamFailure
        where the master, or the replica process, cannot be asked now."""
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._answered(PING)
        except TimeoutError:
            raise _failure(UpstreamKind.TIMEOUT, f"no answer in {timeout_s:g} s") from None
        word, _, rest = answer.partition(" ")
        if word == "OK":
            return
        kind, _, text = rest.partition(" ")
        known = {member.value: member for member in UpstreamKind}
        raise _failure(known.get(kind, UpstreamKind.PROTOCOL), text)

    async def _answered(self, question: str) -> str:
        end = self._end
        if end is None or end.is_lost:
            end = await self._connect()
        self._number += 1
        number = str(self._number)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        end.waiting[number] = future
        end.transport.write(f"{question} {number}\n".encode())
        try:
            return await future
        finally:
            end.waiting.pop(number, None)

    async def _connect(self) -> _ClientEnd:
        async with self._connecting:
            if self._end is None or self._end.is_lost:
                try:
                    with short_path(self._path) as path:
                        _, self._end = await asyncio.get_running_loop().create_unix_connection(
                            _ClientEnd, path
                        )
                except OSError as error:
                    raise _failure(
                        UpstreamKind.CONNECT, f"the replica process does not answer: {error}"
                    ) from None
            return self._end

    def close(self) -> None:
        if self._end is not None and not self._end.is_lost:
            self._end.transport.close()


Ping = Callable[[float], Coroutine[Any, Any, None]]
"""`PingClient.ping` or, where the replica runs in the same process, `Replica.ping`."""
