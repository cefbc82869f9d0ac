"""What a command has read is let go at its end, also where it is refused: not when the collector comes by."""

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from murder.errors import Code, Refusal
from murder.roles.backend.imap.dialogue import BackendImap
from murder.wire.imap.command import Command
from tests.kit.dialogue import Player, Streams
from tests.kit.peer import Peer
from tests.kit.waiting import until_soon
from tests.rooms.backend.server import running_backend


class Large:
    """Something that a command has made."""


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("chained", [True, False])
async def test_a_refused_command_leaves_nothing_behind(
    at_once: bool, chained: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Large]] = []

    def refuse() -> None:
        large = Large()
        made.append(weakref.ref(large))
        refusal = Refusal(Code.CANNOT, "no")  # in a ring with this frame
        if chained:
            try:
                raise refusal
            except Refusal as error:
                raise Refusal(Code.CANNOT, "no, because of that") from error
        raise refusal

    async def later() -> None:
        await asyncio.sleep(0)
        refuse()

    def handle(self: BackendImap, event: Any) -> Coroutine[Any, Any, None] | None:
        if isinstance(event, Command) and event.name == b"CHECK":
            if not at_once:
                return later()
            refuse()
        return real(self, event)

    real = BackendImap.handle
    monkeypatch.setattr(BackendImap, "handle", handle)

    async with running_backend(tmp_path) as running:

        async def connect(_: str) -> Streams:
            return await asyncio.open_connection(*running.address)

        gc.disable()
        try:
            await Player(connect).play(
                "C= LOGIN ana secret\nC= SELECT INBOX\nC: a CHECK\nS: a NO [CANNOT] no$_\nC= NOOP\n"
            )
            assert [one() for one in made] == [None]
        finally:
            gc.enable()


async def test_a_client_that_goes_while_it_is_waited_for_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Large]] = []

    async def tell_without_end(self: BackendImap) -> None:
        large = Large()
        made.append(weakref.ref(large))
        while True:
            self.send(b"* OK on and on\r\n" * 10_000)
            await self.flush()

    def handle(self: BackendImap, event: Any) -> Coroutine[Any, Any, None] | None:
        if isinstance(event, Command) and event.name == b"CHECK":
            return tell_without_end(self)
        return real(self, event)

    real = BackendImap.handle
    monkeypatch.setattr(BackendImap, "handle", handle)
    async with running_backend(tmp_path) as running:
        client = await Peer.at(*running.address)
        await client.ok("LOGIN ana secret")
        await client.ok("SELECT INBOX")

        def is_stuck() -> bool:
            (dialogue,) = running.backend.sessions
            return isinstance(dialogue, BackendImap) and dialogue.connection.writing_paused

        gc.disable()
        try:
            client.transport.pause_reading()
            client.send(b"a CHECK\r\n")
            await until_soon(is_stuck)
            client.transport.abort()
            await until_soon(lambda: not running.backend.sessions)
            assert [one() for one in made] == [None]
        finally:
            gc.enable()


async def test_a_command_is_answered_though_what_it_waits_for_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By others: nobody cancels a command."""

    async def wait() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.cancel)
        await future

    def handle(self: BackendImap, event: Any) -> Coroutine[Any, Any, None] | None:
        if isinstance(event, Command) and event.name == b"CHECK":
            return wait()
        return real(self, event)

    real = BackendImap.handle
    monkeypatch.setattr(BackendImap, "handle", handle)
    async with running_backend(tmp_path) as running:
        peer = await Peer.at(*running.address)
        await peer.until(b"* OK")
        await peer.ok("LOGIN ana secret")
        await peer.ok("SELECT INBOX")
        peer.send(b"a CHECK\r\nb NOOP\r\n")
        assert (await peer.until(b"a "))[-1].startswith(b"a NO [UNAVAILABLE] ")
        assert (await peer.until(b"b "))[-1].startswith(b"b OK ")
        await peer.close()
