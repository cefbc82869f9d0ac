"""What passes between a supervisor and its workers, and the socket that it passes over."""

import asyncio
import pickle
import socket
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self

from murder.config import Config
from murder.node.process.server import Port

HEAD: Final = struct.Struct("!cI")


class Message(Enum):
    """What passes between supervisor and worker: an octet, a length, a pickled body or nothing."""

    ASSIGN = b"A"
    RELOAD = b"L"
    DRAIN = b"D"
    PING = b"?"
    ADOPT = b"O"  # a worker's number: serve its sockets too
    GIVE_BACK = b"B"  # no longer
    READY = b"R"  # the folder that its code is in; empty where it is no archive's
    RELOADED = b"l"  # why not; nothing: it was taken
    PONG = b"!"
    FAILED = b"F"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker is to do. `ports` has the number of each inherited socket, `others` those of the role's other workers;
    `counts` is the file that all of them count in, `stack` the one to write to where it is, when it is asked."""

    config: Config
    role: str
    worker: int
    ports: tuple[tuple[Port, int], ...]
    target: str
    others: tuple[tuple[int, tuple[tuple[Port, int], ...]], ...] = ()
    counts: int = -1
    stack: int = -1


class Channel:
    """One end of the socket between supervisor and worker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def of(cls, sock: socket.socket) -> Self:
        sock.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=sock))

    def send(self, message: Message, body: object = None) -> None:
        """Send; to an end that has gone it is lost, which its reader notices."""
        if self._writer.transport.is_closing():
            return  # uvloop would raise
        octets = b"" if body is None else pickle.dumps(body)
        self._writer.write(HEAD.pack(message.value, len(octets)) + octets)

    async def receive(self) -> tuple[Message, object] | None:
        """The next message; None when the other end has gone. Only ever between a process and its own child."""
        try:
            kind, length = HEAD.unpack(await self._reader.readexactly(HEAD.size))
            octets = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError):
            return None
        return Message(kind), pickle.loads(octets) if octets else None

    def close(self) -> None:
        self._writer.close()
