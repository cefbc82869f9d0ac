"""What a command over many messages has made is let go of a piece at a time: one call of C that frees it all would keep
everybody waiting, in whatever thread. Blocks of memory are counted, for some messages and twice as many."""

from pathlib import Path

import pytest

from murder.api.store import NewMessage
from murder.model import pieces
from murder.model.name import inbox_of
from murder.model.query import thread
from murder.net import turns
from murder.wire.imap.mail import thread as told
from tests.kit.peer import Peer
from tests.kit.steps import Freed
from tests.rooms.backend.server import running_backend, spool_store

PIECE = 200
MOST = 12_000  # blocks: of a batch of a thousand messages, which are some ten each
LOOKED_AT = ("murder.model.pieces", "murder.roles.backend.imap.lasting")
COMMANDS = {
    "sort": ("UID SORT (SUBJECT REVERSE DATE) UTF-8 ALL",),
    "thread": ("UID THREAD REFERENCES UTF-8 ALL", "UID THREAD ORDEREDSUBJECT UTF-8 ALL"),
    "flags": ("STORE 1:* +FLAGS (x)", "SEARCH KEYWORD x", "SEARCH UNSEEN"),
    "copy": ("COPY 1:* INBOX", "NOOP", "SELECT INBOX"),
    "expunge": ("UID STORE 1:* +FLAGS.SILENT (\\Deleted)", "EXPUNGE", "NOOP"),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pieces, thread, told, turns):
        monkeypatch.setattr(module, "PIECE", PIECE)


@pytest.mark.parametrize("count", [3000, 6000])
@pytest.mark.parametrize("what", COMMANDS)
async def test_what_a_command_has_made_is_freed_a_piece_at_a_time(
    what: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as running:
        client = await Peer.at(*running.address)
        await client.line()
        await client.ok("LOGIN ana secret")
        mailbox = await running.backend.store.open(inbox_of("ana"), "ana")
        incoming = running.backend.store.incoming()
        await incoming.write(b"Subject: x\r\nMessage-ID: <a@b>\r\n\r\nmail\r\n")
        await mailbox.append([NewMessage(incoming)] * count)
        mailbox.close()
        await client.ok("SELECT INBOX")
        monkeypatch.setattr(turns, "_aside", turns._Aside())  # whose thread is looked at, too
        with Freed(*LOOKED_AT) as freed:
            said = [await client.ok(command) for command in COMMANDS[what]]
        assert len(said) == len(COMMANDS[what])
        assert 0 < freed.most <= MOST
