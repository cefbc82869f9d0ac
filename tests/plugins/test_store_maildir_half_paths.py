"""An index in which an earlier version has noted half of a path: it was started with a configuration named from the current
folder, and made no mailbox."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from murder.errors import Code, Refusal
from murder.model.name import MailboxName
from plugins.store_maildir.store import MaildirStore, Settings
from plugins.store_maildir.tree import INDEX

INBOX, BOX = MailboxName(b"user.ana"), MailboxName(b"user.ana.box")


async def with_half_paths(data: Path, *notes: tuple[str, str]) -> None:
    """Mailboxes whose folders were never made, and what is to be done."""
    store = MaildirStore(Settings(), data)
    await store.start()
    for name in (INBOX, BOX):
        await store.create(name, "default")
    await store.stop()
    top = data / "maildir/users/ana"
    shutil.rmtree(top / ".box")
    for part in ("cur", "new", "tmp"):
        (top / part).rmdir()
    with closing(sqlite3.connect(top / INDEX, isolation_level=None)) as db:
        db.executemany("INSERT INTO todo (old, new) VALUES (?,?)", notes)


@pytest.mark.parametrize("half", ["27/data", "./data", "../27/data"])
async def test_half_a_path_is_made_whole(half: str, tmp_path: Path) -> None:
    data, top = tmp_path / "27/data", f"{half}/maildir/users/ana"
    await with_half_paths(data, ("", top), ("", f"{top}/.box"))
    store = MaildirStore(Settings(), data)
    await store.start()
    assert {box.name for box in await store.mailboxes()} == {INBOX, BOX}
    for name in (INBOX, BOX):
        assert (await (await store.open(name, "ana")).status()).messages == 0
    await store.stop()
    with closing(sqlite3.connect(data / "maildir/users/ana" / INDEX)) as db:
        assert db.execute("SELECT * FROM todo").fetchall() == []


async def test_half_a_path_to_elsewhere_is_told_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await with_half_paths(tmp_path, ("", "other/place/ana/.box"))
    store = MaildirStore(Settings(), tmp_path)
    await store.start()
    other = MailboxName(b"user.eve")
    await store.create(other, "default")
    assert [box.name for box in await store.mailboxes()] == [other]
    with pytest.raises(Refusal) as told:
        await store.open(INBOX, "ana")
    assert told.value.code is Code.UNAVAILABLE
    assert "'other/place/ana/.box'" in caplog.text and "remove that file" in caplog.text
    await store.stop()
