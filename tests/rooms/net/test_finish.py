"""A connection whose last word has been said ends when the peer closes: nobody counts it any more."""

import asyncio
from pathlib import Path

import pytest

from tests.rooms.backend.server import running_backend


@pytest.mark.parametrize("closes_first", [False, True])
async def test_a_session_that_has_logged_out_is_over(
    tmp_path: Path, closes_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("murder.net.dialogue.CLOSE_GRACE_S", 600.0)
    async with running_backend(tmp_path) as one:
        ended = asyncio.Event()
        for _ in range(3):
            ended.clear()
            reader, writer = await asyncio.open_connection(*one.address)
            await reader.readline()
            (connection,) = one.listener.connections
            before = connection._on_lost

            def lost(which: object, before: object = before) -> None:
                before(which)  # type: ignore[operator] # the listener's
                ended.set()

            connection._on_lost = lost
            writer.write(b"a LOGIN ana secret\r\nb LOGOUT\r\n")
            if closes_first:
                writer.write_eof()
            said = await reader.read()
            assert b"\r\nb OK" in said, said
            writer.close()
            await asyncio.wait_for(ended.wait(), 60)  # a peer that stays is waited for longer
            assert not one.listener.connections and not one.backend.sessions
        assert not one.backend.gate.connections.counter._of.get("ana")
