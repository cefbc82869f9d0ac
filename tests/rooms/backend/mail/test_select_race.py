"""Others change a mailbox in the middle of a SELECT: the client is told only what holds together."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from murder.api.store import Mailbox
from murder.model.flag import FlagChange
from murder.model.message import Changes, ModSeq
from murder.model.name import MailboxName
from plugins.store_memory import MemoryStore
from tests.kit.dialogue import Player, Streams
from tests.rooms.backend.server import running_backend

SCENE = """
Ca= LOGIN ana secret
Ca= ENABLE QRESYNC
Ca= APPEND INBOX {...}
Ca> one
Ca= APPEND INBOX {...}
Ca> two
Ca= APPEND INBOX {...}
Ca> three
Ca: s1 SELECT INBOX
Sa~ * OK [UIDVALIDITY $validity] $_
Sa~ s1 OK [READ-WRITE] $_
Ca= UID STORE 2 +FLAGS (\\Flagged)
"""
# the store below expunges UID 1 behind the count of messages, before it tells what has changed
RACE = """
Ca: r1 SELECT INBOX (QRESYNC ($validity 1 1:3))
Sa: * OK [CLOSED] $_
Sa~ * 3 EXISTS
Sa~ * OK [MAILBOXID $_
Sa: * 2 FETCH (UID 2 FLAGS (\\Flagged) MODSEQ ($_))
Sa: * 3 FETCH (UID 3 FLAGS () MODSEQ ($_))
Sa: r1 OK [READ-WRITE] $_
Ca: r2 NOOP
Sa: * VANISHED 1
Sa: r2 OK $_
"""


class Meddled:
    """A mailbox as the store has it; somebody else's EXPUNGE comes in between."""

    def __init__(self, store: "MeddlingStore", mailbox: Mailbox) -> None:
        self._store = store
        self._mailbox = mailbox

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mailbox, name)

    async def changes(self, since: ModSeq) -> Changes:
        if self._store.doomed:
            doomed, self._store.doomed = self._store.doomed, []
            await self._mailbox.change_flags(doomed, FlagChange.ADD, frozenset({"\\Deleted"}))
            await self._mailbox.expunge(doomed)
        return await self._mailbox.changes(since)


class MeddlingStore(MemoryStore):
    """`doomed` goes when changes are next asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.doomed: list[Any] = []

    async def open(self, name: MailboxName, reader: str) -> Any:
        return Meddled(self, await super().open(name, reader))


@pytest.mark.parametrize("known", [" 1:3", ""])
async def test_what_goes_during_a_select_is_told_once_it_is_selected(
    tmp_path: Path, known: str
) -> None:
    store = MeddlingStore()

    async with running_backend(tmp_path, lambda: store) as running:

        async def connect(_: str) -> Streams:
            return await asyncio.open_connection(*running.address)

        player = Player(connect)
        await player.play(SCENE, keep=True)
        store.doomed = [1]
        await player.play(RACE.replace(" 1:3", known))
