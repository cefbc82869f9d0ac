"""SORT and THREAD of many messages: what takes longer than a turn is done beside the event loop."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from murder.roles.backend.imap.search import sort
from tests.kit.peer import Peer
from tests.rooms.backend.server import running_backend


async def test_many_are_put_in_order_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[bool] = []

    def watched(name: str) -> None:
        real: Callable[..., Any] = getattr(sort, name)

        def noted(*arguments: Any) -> Any:
            where.append(threading.current_thread() is threading.main_thread())
            return real(*arguments)

        monkeypatch.setattr(sort, name, noted)

    watched("put_in_order")
    watched("_threaded")
    references = b" ".join(b"<%d@x>" % at for at in range(30))
    mails = [
        b"Message-ID: <m%d@x>\r\nReferences: %s\r\nSubject: %d\r\n\r\nx\r\n" % (at, references, at)
        for at in range(260)
    ]
    async with running_backend(tmp_path) as running:
        client = await Peer.at(*running.address)
        await client.line()
        await client.ok("LOGIN ana secret")
        literals = b" ".join(b"{%d+}\r\n%s" % (len(mail), mail) for mail in mails)
        await client.ok(b"APPEND INBOX " + literals)
        await client.ok("SELECT INBOX")
        few = "1:5"
        for question, wanted in (
            (f"SORT (SUBJECT) UTF-8 {few}", True),
            ("SORT (SUBJECT FROM TO CC) UTF-8 ALL", False),
            (f"THREAD REFERENCES UTF-8 {few}", True),
            ("THREAD REFERENCES UTF-8 ALL", False),
            ("THREAD REFERENCES UTF-8 1:20", False),  # with what they refer to
        ):
            where.clear()
            await client.ok(question)
            assert where == [wanted], question
        await client.close()
