"""A session that gives out what it is asked for next (octets, a line, so many octets), sans-IO: below services that plugins
bring, which know their own grammar.
"""

from murder.errors import BadSyntax


class StreamSession:
    """Say what is wanted, then ask `next_event` until it answers something else than None ("need more").

    Raises BadSyntax where a line is longer than wanted; it stays where it is.
    """

    __slots__ = ("_buffer", "_most", "_scanned", "_want")
    is_behind = False  # what it looks through is bounded by a line

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._most = 0
        self._want = self._octets

    def receive(self, data: bytes | memoryview) -> None:
        self._buffer += data

    @property
    def held(self) -> int:
        return len(self._buffer)

    def take_rest(self) -> bytes:
        """All that has come, given up or to be passed on."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._scanned = 0
        return rest

    def want(self, most: int) -> None:
        """Whatever has come, up to so many octets."""
        self._want, self._most = self._octets, most

    def want_exactly(self, count: int) -> None:
        self._want, self._most = self._exactly, count

    def want_line(self, most: int) -> None:
        """A line, without its end."""
        self._want, self._most = self._line, most

    def next_event(self) -> bytes | None:
        return self._want()

    def _octets(self) -> bytes | None:
        return self._cut(min(len(self._buffer), self._most)) if self._buffer else None

    def _exactly(self) -> bytes | None:
        return self._cut(self._most) if len(self._buffer) >= self._most else None

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._scanned)
        if (end if end >= 0 else len(self._buffer)) > self._most:
            raise BadSyntax(f"a line may have {self._most} octets")
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        return self._cut(end + 1)[:-1].removesuffix(b"\r")

    def _cut(self, count: int) -> bytes:
        octets = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._scanned = 0
        return octets
