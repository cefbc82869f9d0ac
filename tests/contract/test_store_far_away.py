"""A store over a network is held to the contract, too: no method of it answers at once."""

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from murder.api import Mailbox, MailboxStore, NewMessage
from murder.api.contract.check import Check
from murder.api.contract.store import STORE_CHECKS
from murder.model.message import Uid
from murder.model.name import MailboxName
from plugins.store_memory import MemoryStore

SLOW = 3  # turns of the loop that a word takes there, and back


class Network:
    """What is between the backend and where the mail is: all that is asked is late, and counted."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    async def cross(self, what: str) -> None:
        self.asked[what] = self.asked.get(what, 0) + 1
        for _ in range(SLOW):
            await asyncio.sleep(0)


class Far:
    """Something that is far away: each of its coroutines is late on the way there and on the way back."""

    def __init__(self, near: Any, network: Network) -> None:
        self.near = near
        self.network = network

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.near, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def late(*arguments: Any, **named: Any) -> Any:
            await self.network.cross(name)
            answer = await found(*arguments, **named)
            await self.network.cross(name)
            return answer

        return late


class FarIncoming(Far):
    """Pieces are on their way while the next are not yet asked for."""

    def __init__(self, near: Any, network: Network) -> None:
        super().__init__(near, network)
        self._is_writing = False

    async def write(self, data: bytes | memoryview) -> None:
        assert not self._is_writing, "two writes at once"
        self._is_writing = True
        await self.network.cross("write")
        await self.near.write(data)
        self._is_writing = False

    async def close(self) -> None:
        await self.network.cross("close")
        await self.near.close()


class FarMailbox(Far):
    """What is given to it is of its own kind."""

    async def append(self, messages: Sequence[NewMessage]) -> Sequence[Uid]:
        near = [
            replace(one, incoming=one.incoming.near)  # type: ignore[attr-defined]
            for one in messages
        ]
        await self.network.cross("append")
        found: Sequence[Uid] = await self.near.append(near)
        return found

    async def copy(self, uids: Sequence[Uid], target: Any) -> Mapping[Uid, Uid]:
        await self.network.cross("copy")
        found: Mapping[Uid, Uid] = await self.near.copy(uids, target.near)
        return found

    async def move(self, uids: Sequence[Uid], target: Any) -> Mapping[Uid, Uid]:
        await self.network.cross("move")
        found: Mapping[Uid, Uid] = await self.near.move(uids, target.near)
        return found


class FarStore(Far):
    """An in-memory store at the other end of the network. It has no powers but the required."""

    def __init__(self, network: Network) -> None:
        super().__init__(MemoryStore(), network)

    def __getattr__(self, name: str) -> Any:
        if name in {"portrait", "rows", "freeze", "is_frozen", "hold", "receive", "complete"}:
            raise AttributeError(name)
        return super().__getattr__(name)

    def incoming(self) -> FarIncoming:
        return FarIncoming(self.near.incoming(), self.network)

    async def open(self, name: MailboxName, reader: str) -> Mailbox:
        await self.network.cross("open")
        far: Any = FarMailbox(await self.near.open(name, reader), self.network)
        return far  # type: ignore[no-any-return]


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
def test_a_store_over_a_network_keeps_the_contract(check: Check) -> None:
    network = Network()

    async def make() -> MailboxStore:
        store: Any = FarStore(network)
        await store.start()
        return store  # type: ignore[no-any-return]

    asyncio.run(asyncio.wait_for(check(make), 60))
    assert network.asked["start"]
