"""A RENAME to another owner that its store has stopped half-way, and that is undone."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from murder.api.store import MailboxStore
from murder.kit.transfer import Leaving
from murder.model.name import MailboxName
from tests.rooms.backend.hierarchy.test_announce import ANA, BELOW, CHILD, Node
from tests.rooms.backend.server import maildir_store, spool_store
from tests.rooms.mupdate.nodes import Server


@pytest.mark.parametrize("store_in", [spool_store, maildir_store])
async def test_what_is_undone_half_way_is_not_done_by_the_next_start(
    store_in: Callable[[Path], MailboxStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store finished it then, under a name that the list had no more: the mailbox was nowhere."""

    def stops(leaving: Leaving, db: sqlite3.Connection, is_done: bool) -> None:
        monkeypatch.undo()
        db.close()
        raise sqlite3.OperationalError("disk I/O error")

    master, store = Server(tmp_path / "master"), store_in(tmp_path)
    await master.start()
    await store.start()
    node = Node(tmp_path / "be1", store, master, "be1.test")
    await node.fill()
    monkeypatch.setattr(Leaving, "_end", stops)
    with pytest.raises(OSError, match="disk I/O error"):
        await node.announcer.rename([(BELOW, MailboxName(b"user.bob"))])
    await node.check_agreement()
    assert {entry.name for entry in node.list.walk()} == {ANA, CHILD, BELOW}
    assert await node.mail_in(BELOW) == 1
    await node.close()
    await store.stop()
    await master.stop()
