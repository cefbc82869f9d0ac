"""The answers of an IMAP server, cut while they pass: sans-IO, for who relays them and for who reads them.

`ResponseCutter` finds the tagged line of the oldest command in flight and counts literals, and looks at nothing else: what a
frontend does with octets it only passes on. RFC 3501 §7, §2.2.2.
"""

import re
from typing import Final

from murder.errors import BadSyntax
from murder.wire.imap.mailboxes.moved import LEFT
from murder.wire.literal import announced_at_end, awaited_size

# of a line without end; beyond it an untagged line is passed on in parts
MAX_HELD_OCTETS: Final = 64 * 1024
_STAR, _PLUS = b"*+"
_TAGGED: Final = re.compile(rb"(?i)[^ \r\n]++ ++(?:OK|NO|BAD)\b")
_WORTH_A_LOOK: Final = re.compile(rb"\n(?:[^*]|\* (?:[Bb]|OK \[X))")
_WORTH_SKIPPING: Final = 256  # octets
STEPS: Final = 1000  # lines and literals looked at in one turn of a loop: some milliseconds
COPIED_OCTETS: Final = 16 * 1024  # copied in the time of such a step
_TAIL: Final = 40  # octets of an unfinished line that could announce a literal


class ResponseCutter:
    """Octets in by `feed`; out come octets to pass on, up to and with a tagged line each time."""

    __slots__ = ("bye", "held", "inside", "is_behind", "left", "literal", "steps")

    def __init__(self) -> None:
        self.held = b""  # an unfinished line, or (`is_behind`) all that has not been looked at
        self.steps = 0  # of this turn: who feeds begins one with 0
        self.is_behind = False  # the last `feed` has stopped before the end, for this turn
        # the next line continues a response (behind a literal, or a long line's rest)
        self.inside = False
        self.literal = 0  # octets of a literal still to come
        self.bye = b""  # the server's last word
        self.left = b""  # the line that says that a watched mailbox has moved away

    @property
    def is_inside(self) -> bool:
        """Whether what was given out ends in the middle of a response."""
        return self.inside or bool(self.literal)

    def feed(self, data: bytes, tag: bytes) -> tuple[bytes, bytes | None, bytes]:
        """`(octets to pass on, the tagged line that ends them or None, octets to feed again)`. A BYE is left out, and what
        goes into `left`: the frontend's own business. Where it `is_behind` then, feed b"" in the next turn (`steps`).

        `tag`: of the oldest command in flight, b"" if there is none. Raises BadSyntax for a line with another tag (a server
        that is not the client's could answer for one that is), and for a literal that the client may read otherwise.
        """
        if self.held:
            data = self.held + data
            self.held, self.is_behind = b"", False
        elif not self.literal and not self.inside and tag and data.startswith(tag):
            end = data.find(b"\r\n") + 2  # the common case: one tagged line and no more
            if end == len(data) and data[len(tag) : len(tag) + 1] == b" ":
                return data, data, b""
        elif not self.literal and not self.inside and tag and data[:2] == b"* ":
            # the next one: a whole answer, of lines that nothing is to be looked for in
            end = data.rfind(b"\n", 0, -1) + 1
            if (
                data.startswith(tag + b" ", end)
                and data[-2:] == b"\r\n"
                and data[2:5].upper() != b"BYE"
                and data.find(b"}\r\n", 0, end) < 0
                and _WORTH_A_LOOK.search(data, 0, end) is None
            ):
                return data, data[end:], b""
        at, size, plain = 0, len(data), 0
        worth: _Worth | None = None
        while at < size:
            self.steps += 1
            if self.steps > STEPS:
                self.held, self.is_behind = data[at:], True
                return data[:at], None, b""
            if self.literal:
                step = min(self.literal, size - at)
                self.literal -= step
                at += step
                continue
            end = data.find(b"\n", at) + 1
            if not end:
                return self._hold(data, at), None, b""
            if not self.inside and tag and data.startswith(tag + b" ", at):
                self.steps += (size - end) // COPIED_OCTETS
                return data[:end], data[at:end], data[end:]
            if not self.inside and data[at : at + 5].upper() == b"* BYE":
                self.bye = data[at:end]  # the backend leaves; the client does not
                self.steps += (size - end) // COPIED_OCTETS
                return data[:at], None, data[end:]
            if not self.inside and data.startswith(LEFT, at):
                self.left = data[at:end]
                self.steps += (size - end) // COPIED_OCTETS
                return data[:at], None, data[end:]
            if not self.inside and data[at] != _STAR and _is_smuggled(data, at, tag):
                raise BadSyntax("a tagged response to what nobody asked")
            self.literal, self.inside = 0, False
            if data[end - 3 : end - 2] == b"}":
                octets = awaited_size(data, at, end)
                if octets is not None:
                    self.literal, self.inside = octets, True
            at = end
            plain = 0 if self.inside else plain + 1
            if plain > 1 and size - at > _WORTH_SKIPPING:
                worth = worth or _Worth(data)
                at, plain = worth.skip(at), 0
        return data, None, b""

    def finish(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """`(octets to pass on, octets behind them, whether more of it waits)`: those of the response that it `is_inside`,
        and what is not of it. Where more waits, `finish` b"" in the next turn. Raises BadSyntax for a literal that the
        client may read otherwise."""
        data, self.held = self.held + data, b""
        at = looked_at = 0
        while self.is_inside and at < len(data):
            if looked_at >= STEPS:
                self.held = data[at:]
                return data[:at], b"", True
            looked_at += 1
            end = at + self.literal if self.literal else data.find(b"\n", at) + 1 or len(data)
            self.steps = 0
            self.feed(data[at:end], b"")
            at = end
        return data[: at - len(self.held)], data[at:], False

    def _hold(self, data: bytes, at: int) -> bytes:
        """Keep the unfinished line; of one that is too long pass on all but its tail."""
        if len(data) - at > MAX_HELD_OCTETS:
            if not self.inside and not data.startswith(b"* ", at):
                raise BadSyntax("an endless line that is not an untagged response")
            self.inside = True
            at = len(data) - _TAIL
        self.held = data[at:]
        return data[:at]


def is_tagged(line: bytes) -> bool:
    """Whether a line, whatever its tag, ends a command."""
    return _TAGGED.match(line) is not None


def _is_smuggled(data: bytes, at: int, tag: bytes) -> bool:
    """Whether a line that is no untagged response would be the answer to something: what else is odd, the client sees."""
    return _TAGGED.match(data, at) is not None or (data[at] == _PLUS and not tag)


class _Worth:
    """Where a block of lines is worth a look. It is searched once, however often it is asked."""

    __slots__ = ("_announced", "_data", "_last")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._announced = self._last = -1

    def skip(self, at: int) -> int:
        """From the beginning of a line on: where the first line begins that may be no untagged response or a BYE, announce
        a literal, or be unfinished. A FETCH of all flags has thousands of others."""
        data = self._data
        if self._announced < at:
            announced = data.find(b"}\r\n", at)
            self._announced = announced if announced >= 0 else len(data)
            self._last = data.rfind(b"\n", at - 1, self._announced) + 1
        match = _WORTH_A_LOOK.search(data, at - 1, self._last)
        return match.start() + 1 if match is not None else self._last


def non_synchronising(octets: bytes) -> bytes:
    """A whole command with each `{n}` made `{n+}`, so that the server sends no continuation for it (RFC 7888).
    Raises BadSyntax for a literal that the server may read otherwise."""
    if b"}\r\n" not in octets and b"}\n" not in octets:
        return octets
    parts, at, copied = [], 0, 0
    while end := octets.find(b"\n", at) + 1:
        announced = announced_at_end(octets, at, end)
        at = end
        if announced is None:
            continue
        if announced.problem is not None:
            raise announced.problem
        at += announced.size
        if not announced.synchronising and octets.startswith(b"\r\n", end - 2):
            continue  # it is written so already
        tilde = b"~" if announced.is_binary else b""
        parts += [octets[copied : announced.begin], b"%s{%d+}\r\n" % (tilde, announced.size)]
        copied = end
    if not copied:
        return octets  # not once more
    parts.append(octets[copied:])
    return b"".join(parts)
