"""SORT and THREAD of many messages: what takes longer than a turn is done beside the event loop."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from murder.roles.backend.imap.search import sort, sortables
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


@pytest.mark.parametrize("most", [1, 100])
async def test_of_many_messages_a_user_has_one_sort_or_thread_at_a_time(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compared of them is kept meanwhile."""
    monkeypatch.setattr(sort, "FEW_KEPT", most)
    kept: list[int] = [0]
    at_once: list[int] = []
    real = sortables.each_envelope

    async def noted(*arguments: Any, **named: Any) -> Any:
        kept[0] += 1
        at_once.append(kept[0])
        try:
            async for each in real(*arguments, **named):
                await asyncio.sleep(0)
                yield each
        finally:
            kept[0] -= 1

    monkeypatch.setattr(sort, "each_envelope", noted)
    monkeypatch.setattr(sortables, "each_envelope", noted)
    async with running_backend(tmp_path) as running:
        clients = [await Peer.at(*running.address) for _ in range(4)]
        for number, client in enumerate(clients):
            await client.line()
            await client.ok(f"LOGIN {'bob' if number == 3 else 'ana'} secret")
            await client.ok(b"APPEND INBOX {5+}\r\nA: b\n {5+}\r\nA: b\n {5+}\r\nA: b\n")
            await client.ok("SELECT INBOX")
        said = await asyncio.gather(*(_in_turn(client) for client in clients))
        for lines in said:
            assert sum(line.startswith((b"* THREAD (", b"* SORT 1")) for line in lines) == 2
        for client in clients:
            await client.close()
    assert len(at_once) == 8
    assert max(at_once) <= 2 if most == 1 else max(at_once) > 2  # of ana one, and bob's


async def _in_turn(client: Peer) -> list[bytes]:
    return [
        *await client.ok("THREAD REFERENCES UTF-8 ALL"),
        *await client.ok("SORT (SUBJECT) UTF-8 ALL"),
    ]
