"""A trace: from the first octet, only of who is asked for, without what could be a password, bounded."""

from typing import cast

import pytest

from murder.net.connection import Connection, Receiver
from murder.net.tap import MAX_KEPT_LINES, MAX_KEPT_OCTETS, Tap, Traces
from murder.wire.nodes.control_answers import SessionShown


class Transport:
    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def set_protocol(self, protocol: object) -> None: ...


class Session:
    """The receiver of a connection; `user` once it has logged in."""

    def __init__(self) -> None:
        self.user = ""
        self.got = b""

    def describe(self) -> SessionShown:
        return SessionShown("1-1", user=self.user)

    def begin(self) -> None: ...

    def received(self, data: bytes) -> None:
        self.got += data

    def writable(self) -> None: ...

    def lost(self, error: Exception | None) -> None: ...


class Accepted:
    """A connection that is accepted while ana is traced."""

    def __init__(self, traces: Traces) -> None:
        self.session = Session()
        self.connection = Connection(lambda _: cast(Receiver, self.session))
        self.transport = Transport()
        self.connection.transport = self.transport  # type: ignore[assignment]  # as far as it is used
        self.connection.receiver = traces.watch(self.connection, self.session)


def told(lines: object) -> list[str]:
    found = []
    while not lines.empty():  # type: ignore[attr-defined]  # a queue
        line = lines.get_nowait()  # type: ignore[attr-defined]  # a queue
        found.append(f"{line.who}: {line.octets}")
    return found


@pytest.mark.parametrize(
    "login",
    [
        [b"a LOGIN ana sesame\r\n"],
        [b"a LOG", b"IN ana ses", b"ame\r\n"],
        [b"a LOGIN {3}\r\n", b"ana {6}\r\n", b"sesame\r\n"],
        [b"a AUTHENTICATE PLAIN\r\n", b"sesame\r\n"],
        [b"USER ana\r\n", b"PASS sesame\r\n"],
        [b"a NOOP\r\nsesame\r\nb NOOP\r\n"],
    ],
)
def test_a_session_is_told_from_its_first_octet_without_its_password(login: list[bytes]) -> None:
    traces = Traces()
    lines = traces.begin("ana")
    one = Accepted(traces)
    one.connection.write(b"* OK hello\r\n")
    for octets in login:
        one.connection.receiver.received(octets)
        one.connection.write(b"+ \r\n")
    one.session.user = "ana"
    one.connection.write(b"a OK\r\n")
    one.connection.receiver.received(b"b NOOP\r\n")
    said = told(lines)
    assert said[0] == "S: * OK hello\r\n" and said[-2:] == ["S: a OK\r\n", "C: b NOOP\r\n"]
    assert "sesame" not in "".join(said) and "***" in "".join(said)
    assert one.session.got == b"".join(login) + b"b NOOP\r\n"
    assert not traces.end(lines)
    assert one.connection.receiver is one.session
    assert cast(object, one.connection.transport) is one.transport


def test_of_others_nothing_is_told_nor_kept() -> None:
    traces = Traces()
    lines = traces.begin("ana")
    one = Accepted(traces)
    one.connection.write(b"* OK hello\r\n")
    one.session.user = "bob"
    one.connection.write(b"a OK\r\n")
    assert told(lines) == [] and one.connection.receiver is one.session


def test_what_is_kept_before_a_login_is_bounded() -> None:
    traces = Traces()
    traces.begin("ana")
    one = Accepted(traces)
    tap = one.connection.receiver
    assert isinstance(tap, Tap)
    for _ in range(200):
        tap.received(b"a NOOP " + b"x" * 1000 + b"\r\n" + b"y" * 5000)
        one.connection.write(b"* OK " + b"z" * 3000)
    kept = tap._kept
    assert len(kept) <= MAX_KEPT_LINES and len(tap._unfinished) <= 2000
    assert sum(len(line.octets) for line in kept) <= MAX_KEPT_OCTETS


def test_who_is_refused_is_told_with_the_answer_and_nobody_else() -> None:
    traces = Traces()
    lines = traces.begin("ana")
    one = Accepted(traces)
    one.connection.transport.write(b"* OK hello\r\n")
    one.connection.receiver.received(b"a LOGIN bob x\r\n")
    cast(Tap, one.connection.receiver).login_failed("bob")
    one.connection.transport.write(b"a NO\r\n")
    assert told(lines) == []
    one.connection.receiver.received(b"b LOGIN ana secret\r\n")
    cast(Tap, one.connection.receiver).login_failed("ana")
    one.connection.transport.write(b"b NO [AUTHENTICATIONFAILED]\r\n")
    said = told(lines)
    assert said[-2:] == ["C: b LOGIN ***", "S: b NO [AUTHENTICATIONFAILED]\r\n"]
    assert not [line for line in said if "secret" in line or "bob" in line]
    one.connection.transport.write(b"c NO another\r\n")
    assert told(lines) == []
