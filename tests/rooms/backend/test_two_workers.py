"""The dialogues of several sessions once more, with the sessions in different workers of one backend."""

import asyncio
from pathlib import Path

import pytest

from tests.kit.dialogue import Player, Streams
from tests.rooms.backend.workers import two_workers

TRANSCRIPTS = Path(__file__).parent.parent.parent / "transcripts" / "backend"
SEVERAL = (
    *("condstore", "condstore-enabling", "context", "expunge", "gone", "idle", "keywords"),
    *("notify", "notify-names", "others", "recent", "uidonly"),
)


@pytest.mark.parametrize("name", SEVERAL)
async def test_sessions_in_different_workers_hear_of_each_other(name: str, tmp_path: Path) -> None:
    text = next(TRANSCRIPTS.rglob(f"{name}.txt")).read_text(encoding="utf-8")
    with two_workers(tmp_path) as ports:

        async def connect(peer: str) -> Streams:
            return await asyncio.open_connection("127.0.0.1", ports[int(peer) % 2])

        await Player(connect).play(text)
