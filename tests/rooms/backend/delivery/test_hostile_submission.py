"""A server of `[backend.submission]` that never ends, or drips: what is to be sent waits for it within bounds, and is sent
later."""

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from murder.config.sections import SubmissionConfig
from murder.config.value import parse_endpoint
from murder.roles.backend.records.deliveries import Mail
from murder.roles.backend.records.taken import Taken
from murder.roles.backend.scripts import smtp
from murder.roles.backend.scripts.smtp import MAX_REPLY, Replies
from murder.roles.backend.scripts.submission import Notes, submit


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
@pytest.mark.parametrize("answers_first", [0, 1, 3])
async def test_a_reply_without_end_is_broken_off(
    protocol: Literal["smtp", "lmtp"], answers_first: int, tmp_path: Path
) -> None:
    """In place of the greeting, of the answer to EHLO, or to RCPT."""
    said = 0
    ended = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal said
        with suppress(OSError):
            for number in range(answers_first):
                writer.write(b"250 go on\r\n" if number else b"220 here\r\n")
                await reader.readline()
            while not writer.transport.is_closing():
                writer.write(b"250-and so on\r\n" * 1000)
                said += 15_000
                await writer.drain()
        ended.set()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        config = SubmissionConfig(
            server=parse_endpoint(f"127.0.0.1:{port}"), tls="none", protocol=protocol, timeout_s=60
        )
        mail = Mail(b"key", "ana", "", ("a@x.example",), b"Subject: x\r\n\r\n")
        sent = await asyncio.to_thread(submit, config, "be.test", Notes(Taken(tmp_path), mail))
        await ended.wait()
    assert said > MAX_REPLY
    assert sent.left == ["a@x.example"] and not sent.taken and not sent.refused
    assert f"a reply of more than {MAX_REPLY} octets" in sent.problem


def test_a_reply_that_drips_takes_no_longer_than_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("murder.roles.backend.scripts.smtp.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(smtp, "READ_OCTETS", 1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"250 one\r\n250-of many")
        replies = Replies(ours, 15.0)
        replies.begin()
        assert replies.readline(100) == b"250 one\r\n"
        assert ours.gettimeout() == 15.0
        with pytest.raises(TimeoutError, match="no whole reply in 15 s"):
            replies.readline(100)
        replies.begin()  # what has come is not lost
        theirs.sendall(b"\r\n")
        assert replies.readline(100) == b"250-of many\r\n"
