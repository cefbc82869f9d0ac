"""A backend behind a frontend knows whose connection it is: the log of both has the same client and session, by every
protocol, also where the frontend goes the short way, and where it uses a connection again."""

import base64
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.demo import Demo
from tests.kit.waiting import until

CLIENT = "127.0.0.45"
SAID = {
    "imap": ["a LOGIN {user} {password}", "b SELECT INBOX"],
    "pop3": ["USER {user}", "PASS {password}"],
    "sieve": ['AUTHENTICATE "PLAIN" "{plain}"'],
}
ENDS = {"imap": ("a ", "b "), "pop3": ("+OK", "-ERR"), "sieve": ("OK", "NO")}
BYE = {"imap": b"z LOGOUT\r\n", "pop3": b"QUIT\r\n", "sieve": b"LOGOUT\r\n"}


@contextmanager
def entered(demo: Demo, kind: str, number: int) -> Iterator[None]:
    """A client that has come in from `CLIENT`; in the end it is heard that it is out, or a maildrop were in use yet."""
    user, password = demo.user(number), demo.password
    plain = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    node = demo.frontend
    where = (node["host"], node[kind])
    with (
        socket.create_connection(where, 60, source_address=(CLIENT, 0)) as sock,
        sock.makefile("rb") as stream,
    ):

        def until_end(*ends: str) -> str:
            while not (line := stream.readline().decode()).startswith(ends):
                assert line
            return line

        until_end("* OK", "+OK", "OK")
        for command in SAID[kind]:
            said = command.format(user=user, password=password, plain=plain)
            sock.sendall(said.encode() + b"\r\n")
            assert "OK" in until_end(*ENDS[kind])
        yield
        sock.sendall(BYE[kind])
        assert stream.read()


def logins(file: Path, kind: str, user: str) -> list[dict[str, str]]:
    whole, _, _ = file.read_text().rpartition("\n")  # behind it one may be half written
    lines = [line for line in whole.splitlines() if "login.succeeded" in line]
    found = [dict(re.findall(r"([a-z]+)=(\S*)", line)) for line in lines]
    return [line for line in found if (line["protocol"], line["user"]) == (kind, user)]


@pytest.mark.parametrize("kind", SAID)
def test_the_log_of_a_backend_has_the_client(demo: Demo, kind: str, number: int) -> None:
    user, home = demo.user(number), demo.home(number)
    before, behind = (demo.folder / str(node["node"]) / "log" for node in (demo.frontend, home))
    known = len(logins(behind, kind, user))  # by who looked for their home
    for round_number in range(1, 4):
        # of IMAP a connection is in use again, without a login
        wanted = known + (1 if kind == "imap" else round_number)
        with entered(demo, kind, number):
            until(lambda least=wanted: len(logins(behind, kind, user)) >= least, "a login there")  # type: ignore[misc]
    clients = logins(before, kind, user)
    assert {line["peer"] for line in clients} == {CLIENT}
    for line in logins(behind, kind, user)[known:]:
        assert (line["peer"], line["through"]) == (CLIENT, "127.0.0.1")
        assert line["session"] in {client["cid"] for client in clients}
