"""smtplib's clients, with bounds for whoever answers them: each reply within the timeout, and of so many octets.

smtplib waits so long for each piece of a line, and for as many lines of a reply as come: who drips, or never ends, would
have the thread, or the memory, for ever.
"""

import smtplib
import socket
from time import monotonic
from typing import Final

MAX_REPLY: Final = 64 * 1024  # octets; an EHLO has twenty lines
READ_OCTETS: Final = 4096


class Replies:
    """In place of the file that smtplib reads."""

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self._sock = sock
        self._timeout_s = timeout_s
        self._held = bytearray()
        self._left = 0
        self._ends_at = 0.0

    def begin(self) -> None:
        """A reply is waited for from now on."""
        self._left = MAX_REPLY
        self._ends_at = monotonic() + self._timeout_s

    def readline(self, most: int) -> bytes:
        """As of a file. Raises OSError for what takes too long, or is too much."""
        while (end := self._held.find(b"\n", 0, most) + 1) == 0 and len(self._held) < most:
            octets = self._receive()
            if not octets:
                end = len(self._held)
                break
            self._held += octets
        end = end or most
        line = bytes(self._held[:end])
        del self._held[:end]
        self._left -= len(line)
        if self._left < 0:
            raise OSError(f"a reply of more than {MAX_REPLY} octets")
        return line

    def _receive(self) -> bytes:
        left_s = self._ends_at - monotonic()
        if left_s <= 0:
            raise TimeoutError(f"no whole reply in {self._timeout_s:g} s")
        self._sock.settimeout(left_s)
        try:
            return self._sock.recv(READ_OCTETS)
        finally:
            self._sock.settimeout(self._timeout_s)

    def close(self) -> None:
        """The socket is smtplib's."""


class _Bounded(smtplib.SMTP):
    timeout: float

    def getreply(self) -> tuple[int, bytes]:
        """Raises OSError, smtplib.SMTPException."""
        if self.file is None and self.sock is not None:
            self.file = Replies(self.sock, self.timeout)
        if isinstance(self.file, Replies):
            self.file.begin()
        return super().getreply()


class Smtp(_Bounded):
    """See the module."""


class SmtpOverTls(_Bounded, smtplib.SMTP_SSL):
    """See the module."""


class Lmtp(_Bounded, smtplib.LMTP):
    """See the module."""
