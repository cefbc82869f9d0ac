"""A Maildir store whose file system is not mounted any more, or is empty for a good reason."""

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from murder.api import disk
from murder.errors import Code, Refusal
from murder.model.name import MailboxName
from plugins.store_maildir.store import MaildirStore, Settings

INBOX, NEW = MailboxName(b"user.ana"), MailboxName(b"user.eve")
ASKED: list[Callable[[MaildirStore], Awaitable[object]]] = [
    lambda store: store.open(INBOX, "ana"),
    lambda store: store.create(NEW, "default"),
    lambda store: store.mailboxes(),
    lambda store: store.subscriptions("ana"),
    lambda store: store.subscribe("eve", NEW, True),
    lambda store: store.rename(INBOX, NEW),
    lambda store: store.delete(INBOX),
]


def store_in(folder: Path) -> MaildirStore:
    """Where nothing is shared, and nothing can be: that is no trouble."""
    return MaildirStore(Settings(users="mail/%u", shared="/proc/none/%n"), folder)


@pytest.mark.parametrize("leaves_mount_point", [True, False])
async def test_trees_that_are_away_are_not_taken_for_none(
    leaves_mount_point: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(disk, "_told_at", {})
    first = store_in(tmp_path)
    await first.start()
    await first.create(INBOX, "default")
    await first.stop()
    store = store_in(tmp_path)
    await store.start()
    (tmp_path / "mail").rename(tmp_path / "away")
    if leaves_mount_point:
        (tmp_path / "mail").mkdir()
    for ask in ASKED:
        with pytest.raises(Refusal) as told:
            await ask(store)
        assert told.value.code is Code.UNAVAILABLE
        assert str(told.value) == "The mail of this server cannot be reached now"
    assert "a folder from a backup is put back while the node is stopped" in caplog.text
    if leaves_mount_point:
        (tmp_path / "mail").rmdir()  # and nothing has been put there
    (tmp_path / "away").rename(tmp_path / "mail")
    await store.create(NEW, "default")
    assert [box.name for box in await store.mailboxes()] == [INBOX, NEW]
    await store.stop()


async def test_who_takes_the_last_tree_away_may_have_another(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    await store.start()
    assert await store.mailboxes() == []
    await store.create(INBOX, "default")
    shutil.rmtree(tmp_path / "mail" / "ana")
    assert await store.mailboxes() == []
    await store.create(NEW, "default")
    assert [box.name for box in await store.mailboxes()] == [NEW]
    await store.stop()
