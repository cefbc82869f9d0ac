"""A plain blocking IMAP client for comparing servers: a command in, all that comes back as values.

It reads what any server may write, so it is made of nothing of ours. A response is a list of values: an atom is `str` in
upper case, a string (quoted or literal) `bytes`, NIL None, parentheses a list.
"""

import re
import socket
from dataclasses import dataclass, field
from typing import Any

SILENCE_S = 5.0

Value = Any  # str | bytes | None | list[Value]

_TOKEN = re.compile(rb'\s*(?:(\()|(\))|"((?:[^"\\]|\\.)*)"|~?\{(\d+)\}\r\n|([^\s()"]+))', re.DOTALL)


@dataclass
class Answer:
    """What one command brought: untagged responses, and the tagged one as its word and the rest of the line."""

    untagged: list[bytes] = field(default_factory=list)
    word: str = ""
    text: bytes = b""

    @property
    def code(self) -> str:
        """The response code's name; "" if there is none."""
        match = re.match(rb"\[([^\] ]+)", self.text)
        return match.group(1).decode().upper() if match else ""

    def values(self, name: str) -> list[list[Value]]:
        """All untagged responses of this name, without the `*`."""
        parsed = [parse(line) for line in self.untagged]
        return [one for one in parsed if name in one[:2]]


class Client:
    """One connection. `name` is for reports."""

    def __init__(self, name: str, host: str, port: int, user: str, password: str) -> None:
        self.name = name
        self._where = (host, port)
        self._login = b'LOGIN "%s" "%s"' % (user.encode(), password.encode())
        self._selected = b"NOOP"
        self._count = 0
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._where, timeout=SILENCE_S)
        self._file = self._socket.makefile("rb")
        self._response()
        for command in (self._login, self._selected):
            assert self._command(command).word == "OK", f"{self.name}: {command!r}"

    def must(self, command: bytes) -> Answer:
        """A command that has to succeed."""
        answer = self.command(command)
        assert answer.word == "OK", f"{self.name}: {command[:200]!r}: {answer}"
        return answer

    def command(self, command: bytes) -> Answer:
        """Send `command` (literals as `{n+}`) and wait for its end. Behind a BAD goes a NOOP: after too many of them in a
        row servers hang up. One that does all the same (its word is BYE) is connected to again."""
        answer = self._command(command)
        if (answer.word == "BAD" and self._command(b"NOOP").word != "OK") or answer.word == "BYE":
            self._socket.close()
            self._connect()
        elif answer.word == "OK" and command.startswith(b"SELECT "):
            self._selected = command
        return answer

    def _command(self, command: bytes) -> Answer:
        self._count += 1
        tag = b"t%d" % self._count
        self._socket.sendall(tag + b" " + command + b"\r\n")
        answer = Answer()
        while True:
            try:
                line = self._response()
            except OSError as error:  # a silent server is one that has gone
                answer.text = str(error).encode()
                line = b""
            if not line:
                answer.word = "BYE"
                return answer
            if line.startswith(b"* "):
                answer.untagged.append(line[2:])
            elif line.startswith(tag + b" "):
                word, _, answer.text = line[len(tag) + 1 :].strip().partition(b" ")
                answer.word = word.decode()
                return answer

    def _response(self) -> bytes:
        """A whole response with its literals in place."""
        pieces = []
        while True:
            line = self._file.readline()
            pieces.append(line)
            match = re.search(rb"\{(\d+)\}\r\n\Z", line)
            if match is None:
                return b"".join(pieces)
            pieces.append(self._file.read(int(match.group(1))))

    def append(self, mailbox: str, message: bytes, more: bytes = b"") -> Answer:
        return self.command(
            b"APPEND %s%s {%d+}\r\n%s" % (mailbox.encode(), more, len(message), message)
        )

    def close(self) -> None:
        self._socket.close()


def parse(line: bytes) -> list[Value]:
    """The values of one response. `BODY[HEADER.FIELDS (X)]` becomes one atom."""
    stack: list[list[Value]] = [[]]
    at = 0
    while at < len(line):
        match = _TOKEN.match(line, at)
        if match is None:
            break
        at = match.end()
        opened, closed, quoted, size, atom = match.groups()
        if opened:
            stack.append([])
        elif closed:
            if len(stack) > 1:
                done = stack.pop()
                stack[-1].append(done)
        elif quoted is not None:
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", quoted, flags=re.DOTALL))
        elif size is not None:
            stack[-1].append(line[at : at + int(size)])
            at += int(size)
        else:
            if b"[" in atom and b"]" not in atom:
                end = line.index(b"]", match.start(5))
                while end + 1 < len(line) and line[end + 1 : end + 2] == b"<":
                    end = line.index(b">", end)
                atom = line[match.start(5) : end + 1]
                at = end + 1
            text = atom.decode("latin-1").upper()
            stack[-1].append(None if text == "NIL" else text)
    while len(stack) > 1:
        done = stack.pop()
        stack[-1].append(done)
    return stack[0]


def pairs(values: list[Value]) -> dict[str, Value]:
    """`(NAME value NAME value …)` as a dictionary."""
    return dict(zip(values[0::2], values[1::2], strict=False))
