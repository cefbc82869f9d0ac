"""Answers go out together: small writes of one turn are one packet, and nothing overtakes them."""

import socket
from pathlib import Path

import pytest

from tests.rooms.backend.delivery.test_lmtp_and_pop3 import against

BURST = b"LHLO x\r\nNOOP\r\nRSET\r\nVRFY ana\r\nHELO x\r\n"  # all answered at once


def test_the_answers_to_a_burst_of_commands_come_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one turn, which must not end before on a busy machine."""
    monkeypatch.setattr("murder.net.dialogue.TURN_S", 60.0)

    def client(lmtp: int, _: int) -> bytes:
        with socket.create_connection(("127.0.0.1", lmtp), timeout=60) as sock:
            sock.recv(65536)
            sock.sendall(BURST)
            return sock.recv(65536)

    said = against(tmp_path, client).splitlines()
    assert sum(line[3:4] == b" " for line in said) == BURST.count(b"\r\n")


def test_the_last_answer_comes_before_the_end(tmp_path: Path) -> None:
    def client(lmtp: int, _: int) -> bytes:
        said = b""
        with socket.create_connection(("127.0.0.1", lmtp), timeout=60) as sock:
            sock.sendall(b"NOOP\r\n" * 10 + b"QUIT\r\n")
            while more := sock.recv(65536):
                said += more
        return said

    said = against(tmp_path, client)
    assert said.count(b"250 2.0.0 Ok\r\n") == 10 and said.endswith(b"221 2.0.0 Goodbye\r\n")
