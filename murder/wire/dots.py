"""Text that ends with a line of one dot: RFC 5321 §4.5.2 (SMTP, LMTP), RFC 1939 §3 (POP3).

Only CR LF `.` CR LF ends it. Software that also takes LF `.` LF for an end lets one message carry a second one that its
sender never was allowed to send ("SMTP smuggling"); so the end and the stuffing are looked for in the octets as they came,
and bare LFs are made CR LF behind that: IMAP's sizes and readers count on CR LF, and what is passed on to a laxer server
holds no bare LF that it could misread.
"""

from typing import Final

_END: Final = b"\r\n.\r\n"


def canonical(octets: bytes) -> bytes:
    """Bare LFs as CR LF. A bare CR stays: it ends no line for anybody. All of 256 KiB may be LFs, read at once: by a regular
    expression that is 80 ms, so 11."""
    if octets.count(b"\n") == octets.count(b"\r\n"):
        return octets
    return octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


class LineEnds:
    """`canonical` for octets that come in pieces."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, octets: bytes, last: bool = False) -> bytes:
        octets = self._held + octets
        self._held = b""
        if octets.endswith(b"\r") and not last:
            self._held = b"\r"
            octets = octets[:-1]
        return canonical(octets)


class Unstuffer:
    """Takes the dots off again, and finds the end. It holds back four octets at most."""

    __slots__ = ("_held", "_virtual")

    def __init__(self) -> None:
        self._held = b"\r\n"  # as if a line had ended: a dot may be the very first octet
        self._virtual = 2

    def feed(self, octets: bytes) -> tuple[bytes, bytes | None]:
        """`(text, rest)`: rest is None as long as the end has not come, else what follows it."""
        octets = self._held + octets
        at = octets.find(_END)
        if at >= 0:
            return self._text(octets[: at + 2]), octets[at + len(_END) :]
        keep = next(n for n in (4, 3, 2, 1, 0) if octets.endswith(_END[:n]))
        self._held = octets[len(octets) - keep :]
        return self._text(octets[: len(octets) - keep]), None

    def _text(self, octets: bytes) -> bytes:
        text = octets.replace(b"\r\n.", b"\r\n")
        if self._virtual and text:
            text, self._virtual = text[2:], 0
        return canonical(text)


class Stuffer:
    """Puts them on; bare LFs become CR LF."""

    __slots__ = ("_ends", "_tail")

    def __init__(self) -> None:
        self._ends = LineEnds()
        self._tail = b"\r\n"

    def feed(self, octets: bytes) -> bytes:
        return self._stuffed(self._ends.feed(octets))

    def end(self) -> bytes:
        """What is left, and the end."""
        rest = self._stuffed(self._ends.feed(b"", last=True))
        return rest + (b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n")

    def _stuffed(self, octets: bytes) -> bytes:
        if not octets:
            return b""
        stuffed = (self._tail + octets).replace(b"\r\n.", b"\r\n..")[len(self._tail) :]
        self._tail = (self._tail + octets)[-2:]
        return stuffed
