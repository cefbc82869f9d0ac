"""Messages that move leave the clients of both backends their turns of the loop."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final, cast

import pytest

from murder.api import CarriedMessage
from murder.api.store import Incoming, Mailbox
from murder.model.carried import CarriedIdentity, Portrait
from murder.model.message import Message, ModSeq, Uid, UidValidity
from murder.model.name import inbox_of
from murder.net.frames import FrameChannel
from murder.net.turns import SHORT_TURN_S, TURN_S, Turn
from murder.roles.backend.moves import batches
from murder.roles.backend.moves.batches import Taken, read, with_sizes
from murder.roles.backend.moves.peer import Peer
from murder.wire.nodes.carry import JSON, OCTETS, Frame
from murder.wire.nodes.carry_words import Complete

MESSAGES: Final = 200
CONTENT: Final = b"a: b\r\n\r\nc\r\n"


class Octets:
    """What comes, what is read and what is written: the same octets each time."""

    async def receive(self) -> Frame:
        return Frame(OCTETS, CONTENT)

    async def octets(self, uid: Uid) -> memoryview:
        return memoryview(CONTENT)


class Content:
    """One of them, on its way in."""

    def octets(self) -> memoryview:
        return memoryview(CONTENT)

    async def write(self, data: bytes) -> None:
        pass

    async def close(self) -> None:
        pass


def hurried(share_s: float = TURN_S) -> Turn:
    """A turn of which each look at the clock takes a quarter of a short one."""
    ticks = count()
    return Turn(share_s, lambda: next(ticks) * SHORT_TURN_S / 4)


async def turns_of(work: Awaitable[object]) -> int:
    """How many turns of the loop the others have had meanwhile."""
    loop, seen, is_over = asyncio.get_running_loop(), 0, False

    def note() -> None:
        nonlocal seen
        seen += 1
        if not is_over:
            loop.call_soon(note)

    note()
    await work
    is_over = True
    return seen


async def read_all(rows: list[Message], taken: Taken) -> None:
    await read(cast(Mailbox, Octets()), rows, lambda row: True)


async def size_all(rows: list[Message], taken: Taken) -> None:
    await with_sizes([CarriedMessage(row, cast(Incoming, Content())) for row in rows])


async def write_all(rows: list[Message], taken: Taken) -> None:
    await taken.write()


async def close_all(rows: list[Message], taken: Taken) -> None:
    await taken.close()


@pytest.mark.parametrize("work", [read_all, size_all, write_all, close_all])
async def test_a_batch_takes_short_turns(
    work: Callable[[list[Message], Taken], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    facts: Any = (frozenset(), at, len(CONTENT), ModSeq(1), at, "m")
    rows = [Message(Uid(number), *facts) for number in range(1, MESSAGES + 1)]
    taken = Taken([(row, True) for row in rows])
    await taken.take(cast(FrameChannel, Octets()), lambda: cast(Incoming, Content()))
    monkeypatch.setattr(batches, "Turn", hurried)
    assert await turns_of(work(rows, taken)) >= MESSAGES // 6


class Tombstones(list[Any]):
    """Those of a mailbox, and in which threads they were gone through."""

    def __init__(self, count: int) -> None:
        super().__init__((ModSeq(number), Uid(number)) for number in range(1, count + 1))
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[Any]:
        self.threads.add(threading.get_ident())
        return super().__iter__()


class Answering:
    """A target that is asked, and says it is done."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def send(self, words: Any) -> None:
        self.asked.append(words)

    async def receive(self) -> Frame:
        return Frame(JSON, b'{"ok":true}')


async def test_what_was_expunged_is_made_words_of_in_a_thread() -> None:
    """Of 20,000 messages it took 60 ms, in which nobody was answered."""
    gone, channel = Tombstones(20), Answering()
    identity = CarriedIdentity("box1", UidValidity(7))
    portrait = Portrait(identity, Uid(60), ModSeq(70), gone)
    await Peer(cast(FrameChannel, channel), "be2.test").do(Complete(inbox_of("ana"), portrait))
    assert len(channel.asked[0]["expunged"]) == 20
    assert gone.threads and threading.get_ident() not in gone.threads
