"""A move whose source is damaged: no other attempt will find it whole, so it ends at once, and says where and what to do."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from murder.errors import Code, Refusal
from murder.model.name import MailboxName, display, inbox_of
from murder.roles.backend.moves import mover
from murder.roles.backend.moves.journal import State
from tests.kit.peer import Peer
from tests.rooms.backend.moves.test_moves_renamed import Target
from tests.rooms.backend.server import running_backend, spool_store

ANA = inbox_of("ana")
BOX = MailboxName(ANA + b".box")
MAIL = "Subject: one\r\n\r\n" + "0123456789abcde\n" * 20_000


class Taking(Target):
    """It takes what comes, up to the end of the copy."""

    names: Any = ()

    def __init__(self, asked: list[str]) -> None:
        super().__init__()
        self._asked = asked

    async def do(self, request: Any) -> None:
        self._asked.append(type(request).__name__)

    def close(self) -> None:
        pass


def overwrite_page(folder: Path) -> None:
    """The first of the messages' rows, as a disk may lose it."""
    for file in files(folder):
        if file.read_bytes()[:15] != b"SQLite format 3":
            continue
        with closing(sqlite3.connect(file)) as db:
            (size,) = db.execute("PRAGMA page_size").fetchone()
            pages = db.execute("SELECT rootpage FROM sqlite_master WHERE name='message'").fetchall()
            if not pages or db.execute("SELECT count(*) FROM message").fetchone() == (0,):
                continue
        with file.open("r+b") as octets:
            octets.seek((pages[0][0] - 1) * size)
            octets.write(b"\xff" * size)


def cut_message(folder: Path) -> None:
    """The file of the message."""
    (file,) = [path for path in files(folder) if path.read_bytes().startswith(b"Subject: one")]
    with file.open("r+b") as octets:
        octets.truncate(100)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("spool/**/*") if path.is_file()]


# the mailboxes of a user have their rows in one file: the first that is looked at is told
@pytest.mark.parametrize(("damage", "where"), [(overwrite_page, ANA), (cut_message, BOX)])
async def test_the_damage_is_told_and_it_is_not_tried_again(
    damage: Callable[[Path], None],
    where: MailboxName,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mover, "RETRY_MIN_S", 0.0)
    monkeypatch.setattr(mover, "RETRIES", 3)
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        peer = await Peer.at(*one.address)
        await peer.until(b"* OK")
        await peer.ok("LOGIN ana secret")
        await peer.ok("CREATE INBOX/box")
        await peer.ok(f"APPEND INBOX/box {{{len(MAIL)}+}}\r\n{MAIL}")
        await peer.close()
    damage(tmp_path)
    asked: list[str] = []
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:

        async def open_peer(server: str) -> Any:
            return Taking(asked)

        one.mover._open = open_peer  # type: ignore[method-assign] # no network here
        with pytest.raises(Refusal) as refused:
            await one.mover.move(ANA, "be2.test", "", "admin", lambda _: None)
        assert asked.count("Begin") == 1, "it was tried again"
        (move,) = one.mover.journal.moves()
        assert move.state is State.FAILED  # to be resumed, once it is mended
        for text in (refused.value.text, move.problem):
            assert text.startswith(f"{display(where)} at be1.test: ")
            assert "store repair" in text and f"move resume {move.id}" in text
        assert refused.value.code is Code.UNAVAILABLE
