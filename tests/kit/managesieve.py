"""A client of ManageSieve (RFC 5804) for tests: it says what it is told, and gives back what was answered."""

import base64
import re
import socket
from typing import Self

_LITERAL = re.compile(rb"\{([0-9]+)\+?\}\r\n$")


class Answer(str):
    """All lines of one answer, as one text; literals stand in their lines."""

    @property
    def is_ok(self) -> bool:
        return self.splitlines()[-1].startswith("OK")


class ManageSieve:
    """One connection, with its greeting read."""

    def __init__(self, host: str, port: int = 4190, timeout_s: float = 30) -> None:
        self._socket = socket.create_connection((host, port), timeout_s)
        self._file = self._socket.makefile("rwb")
        self.greeting = self.answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def answer(self) -> Answer:
        """Up to and with the next OK, NO or BYE."""
        text = b""
        while True:
            line = self._file.readline()
            assert line, text
            whole = line
            while (literal := _LITERAL.search(line)) is not None:
                whole += self._file.read(int(literal[1]))
                line = self._file.readline()
                whole += line
            text += whole
            if re.match(rb"(?:OK|NO|BYE)(?: |\r)", whole):
                return Answer(text.decode().rstrip("\r\n"))

    def attempt(self, command: str, literal: bytes | None = None) -> Answer:
        octets = command.encode()
        if literal is not None:
            octets += b" {%d+}\r\n%s" % (len(literal), literal)
        self._file.write(octets + b"\r\n")
        self._file.flush()
        return self.answer()

    def ask(self, command: str, literal: bytes | None = None) -> Answer:
        """Fails where it is not OK."""
        answer = self.attempt(command, literal)
        assert answer.is_ok, (command, answer)
        return answer

    def login(self, user: str, password: str = "secret", owner: str = "") -> Answer:
        plain = base64.b64encode(f"{owner}\0{user}\0{password}".encode()).decode()
        return self.attempt(f'AUTHENTICATE "PLAIN" "{plain}"')

    def scripts(self) -> dict[str, bool]:
        """By name whether it is active."""
        lines = self.ask("LISTSCRIPTS").splitlines()[:-1]
        return {line.split('"')[1]: line.endswith("ACTIVE") for line in lines}
