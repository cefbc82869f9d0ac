"""Dialogues with a backend, as tests/transcripts/backend tells them, on every store."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from murder.api.store import MailboxStore
from tests.backend.server import memory_store, running_backend, spool_store
from tests.dialogue import Player, Streams

FOLDER = Path(__file__).parent.parent / "transcripts" / "backend"
STORES: dict[str, Callable[[Path], MailboxStore]] = {
    "memory": lambda _: memory_store(),
    "spool": spool_store,
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.txt")))
def test_a_backend_says_what_the_transcript_says(name: str, store: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_backend(tmp_path, lambda: STORES[store](tmp_path)) as running:

            async def connect(_: str) -> Streams:
                return await asyncio.open_connection(*running.address)

            await Player(connect).play((FOLDER / f"{name}.txt").read_text(encoding="utf-8"))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scene(), 30))
