"""The bus between the workers of one backend: datagrams that say which mailbox has changed.

A hint, not a record: a command looks into the store in any case. What a busy worker cannot take is kept for it, each
thing once, because a client that waits (IDLE, NOTIFY) sends no command. Sockets lie in the data folder, so that only
this node's processes reach them. Knows nothing of mailboxes.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from murder.net.own_folder import make_own_folder
from murder.roles.backend.changes.events import Events, MailboxChanged
from murder.roles.backend.changes.news import EVERYTHING, News, format_news

# two mailbox names and some entries; or what is owed, many lines in one
MAX_DATAGRAM: Final = 32 * 1024
MAX_OWED: Final = 10_000  # texts kept for a worker that does not keep up; beyond that it is told that all has changed
RETRY_S: Final = 0.02
SOCKET_BUFFER: Final = 1024 * 1024
SHORT_OF: Final = frozenset({errno.ENOBUFS, errno.ENOMEM})  # the kernel is, for now


class Bus:
    """One worker's end. `heard` is called with each datagram from another worker."""

    def __init__(
        self, folder: Path, worker: int, heard: Callable[[str], None], events: Events | None = None
    ) -> None:
        self._folder = folder
        self._own = f"worker-{worker}.sock"
        self._heard = heard
        self._directory = -1
        self._socket: socket.socket | None = None
        self._peers: list[str] = []
        self._peers_at = -1
        self._owed: dict[str, dict[str, None]] = {}
        self._retry: asyncio.TimerHandle | None = None
        if events is not None:  # what happens in this worker is told to the others
            events.subscribe(MailboxChanged, lambda event: self.tell(event.mailbox_id))
            events.subscribe(News, lambda news: self.tell(format_news(news)))

    def start(self) -> None:
        """Bind this worker's socket; one left by a process that died is replaced."""
        make_own_folder(self._folder)
        self._directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._own, dir_fd=self._directory)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        sock.bind(self._path(self._own))
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    def _path(self, name: str) -> str:
        """Through the open folder where the system can: socket paths are limited to 107 octets."""
        if os.path.isdir("/proc/self/fd"):
            return f"/proc/self/fd/{self._directory}/{name}"
        return str(self._folder / name)

    def _readable(self) -> None:
        assert self._socket is not None
        for _ in range(100):  # then let the loop see to others
            try:
                data = self._socket.recv(MAX_DATAGRAM)
            except BlockingIOError:
                return
            for text in data.decode("utf-8", "replace").split("\n"):
                self._heard(text)

    def tell(self, text: str) -> None:
        """Send to every other worker; to one that does not keep up as soon as it does. The text is one line."""
        if self._socket is None:
            return
        for peer in self._others():
            if peer in self._owed or not self._send(peer, text):
                self._owe(peer, text)

    def _send(self, peer: str, text: str) -> bool:
        """False where the worker can take nothing now."""
        assert self._socket is not None
        try:
            self._socket.sendto(text.encode(), self._path(peer))
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in SHORT_OF:
                return False
            self._peers_at = -1  # the worker has died; its successor binds anew
        return True

    def _owe(self, peer: str, text: str) -> None:
        owed = self._owed.setdefault(peer, {})
        if len(owed) >= MAX_OWED:
            owed.clear()
            text = EVERYTHING
        owed[text] = None
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._pay)

    def _pay(self) -> None:
        """Send what is owed, in order, as far as it is taken."""
        self._retry = None
        for peer, owed in list(self._owed.items()):
            while owed and self._send(peer, "\n".join(batch := _batch(owed))):
                for text in batch:
                    del owed[text]
            if not owed:
                del self._owed[peer]
        if self._owed:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._pay)

    def _others(self) -> list[str]:
        changed_at = os.stat(self._directory).st_mtime_ns
        if changed_at != self._peers_at:
            names = os.listdir(self._directory)
            self._peers = [n for n in names if n != self._own and n.endswith(".sock")]
            self._peers_at = changed_at
        return self._peers

    def stop(self) -> None:
        """Leave: nothing is heard any more."""
        if self._socket is None:
            return
        if self._retry is not None:
            self._retry.cancel()
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None
        with contextlib.suppress(OSError):
            os.unlink(self._own, dir_fd=self._directory)
        os.close(self._directory)


def _batch(owed: Iterable[str]) -> list[str]:
    """As many of the texts as one datagram takes: a socket holds few datagrams (10, by Linux' default)."""
    batch: list[str] = []
    octets = 0
    for text in owed:
        octets += len(text.encode()) + 1
        if batch and octets > MAX_DATAGRAM:
            break
        batch.append(text)
    return batch
