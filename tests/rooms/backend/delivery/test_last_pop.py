"""`lastpop` of Cyrus: when POP3 came last, to the hour, for who may read the mailbox's annotations."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from murder.model import protocol as protocols
from murder.model.name import inbox_of
from murder.roles.backend.moves.verify import told_notes
from murder.roles.backend.records.annotations import SHARED
from murder.roles.backend.records.last_pop import note_login
from tests.kit.dialogue import Player, Streams
from tests.kit.listening import listening
from tests.rooms.backend.server import running_backend

INBOX = inbox_of("ana")
ASKED = "GETMETADATA INBOX /shared/vendor/cmu/cyrus-imapd/lastpop"
TOLD = "* METADATA INBOX (/shared/vendor/cmu/cyrus-imapd/lastpop"


async def test_a_login_is_noted_once_an_hour(tmp_path: Path) -> None:
    async with running_backend(tmp_path) as running:
        annotations = running.backend.annotations
        told: list[bytes] = []
        for day, hour, minute in ((9, 10, 5), (9, 10, 59), (9, 11, 0), (10, 11, 0)):
            now = datetime(2026, 11, day, hour, minute, tzinfo=UTC)
            await note_login(annotations, INBOX, now)
            told += annotations.of(INBOX, SHARED).values()
        assert told == [
            b"9-Nov-2026 10:05:00 +0000",
            b"9-Nov-2026 10:05:00 +0000",
            b"9-Nov-2026 11:00:00 +0000",
            b"10-Nov-2026 11:00:00 +0000",
        ]
        assert told_notes(running.backend, INBOX) == {}  # no difference after a move


async def test_pop3_tells_and_nobody_sets_it(tmp_path: Path) -> None:
    async with running_backend(tmp_path) as running:

        async def connect(_: str) -> Streams:
            return await asyncio.open_connection(*running.address)

        await Player(connect).play(f"""
C1= LOGIN ana secret
C1: a1 {ASKED}
S1: {TOLD} NIL)
S1: a1 OK Completed
C1: a2 SETMETADATA INBOX (/shared/vendor/cmu/cyrus-imapd/lastpop "x")
S1: a2 NO [CANNOT] $_
""")
        async with listening(running.role.services()[protocols.POP3]) as pop3:
            reader, writer = await asyncio.open_connection(*pop3.address)
            writer.write(b"USER ana\r\nPASS secret\r\nQUIT\r\n")
            assert b"+OK 0 messages" in await reader.read()
        year = datetime.now(UTC).year
        await Player(connect).play(f"""
C1= LOGIN ana secret
C1: a1 {ASKED}
S1: {TOLD} "$day-$month-{year} $time +0000")
S1: a1 OK Completed
""")
