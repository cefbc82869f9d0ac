"""What crosses roots where something goes wrong in between: both stores that keep rows in SQLite."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from murder.api import MailboxStore, NewMessage
from murder.errors import Code, Refusal
from murder.kit.mailbox import RowMailbox
from murder.model.message import Uid
from murder.model.name import MailboxName
from plugins.store_maildir.store import MaildirStore
from plugins.store_spool.store import SpoolStore
from tests.faults.storing import make

SOURCE, TARGET = MailboxName(b"user.bob"), MailboxName(b"shared.x")


async def started(kind: str, folder: Path) -> MailboxStore:
    store = make(kind, folder)
    await store.start()
    return store


async def filled(store: MailboxStore) -> None:
    """Two messages in the source."""
    for name in (SOURCE, TARGET):
        await store.create(name, "default")
    box = await store.open(SOURCE, "bob")
    for size in (40, 4000):
        incoming = store.incoming()
        await incoming.write(b"Subject: x\r\n\r\n" + b"y" * size)
        await box.append([NewMessage(incoming)])
        await incoming.close()
    box.close()


async def uids(store: MailboxStore, name: MailboxName) -> list[Uid]:
    box = await store.open(name, "bob")
    try:
        return list(await box.uids())
    finally:
        box.close()


async def crash(store: MailboxStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process had ended: its area stays, without its lock."""
    assert isinstance(store, SpoolStore | MaildirStore)
    area = store._area
    assert area is not None
    monkeypatch.setattr(area, "close", lambda: os.close(area._lock))
    await store.stop()


@pytest.mark.parametrize("kind", ["spool", "maildir"])
async def test_a_move_that_a_disk_stops_is_finished_by_the_next_start_for_what_the_target_still_has(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(box: RowMailbox, uids: Sequence[Uid], *, moves: bool = False) -> Sequence[Uid]:
        raise Refusal(Code.UNAVAILABLE, "The disk fails")

    store = await started(kind, tmp_path)
    await filled(store)
    source, target = await store.open(SOURCE, "bob"), await store.open(TARGET, "bob")
    with monkeypatch.context() as broken:
        broken.setattr(RowMailbox, "expunge", fails)
        with pytest.raises(Refusal):
            await source.move([Uid(1), Uid(2)], target)
    assert await uids(store, SOURCE) == await uids(store, TARGET) == [1, 2]
    await target.expunge([Uid(2)])  # somebody has seen both, and removes one
    beside = await started(kind, tmp_path)  # a worker that starts meanwhile leaves it alone
    await beside.stop()
    assert await uids(store, SOURCE) == [1, 2]
    await crash(store, monkeypatch)
    store = await started(kind, tmp_path)
    assert (await uids(store, SOURCE), await uids(store, TARGET)) == ([2], [1])
    await store.stop()


@pytest.mark.parametrize("kind", ["spool", "maildir"])
async def test_a_folder_taken_for_a_dead_process_s_while_it_is_made_is_made_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    removed: list[Path] = []

    def slow(descriptor: int, how: int) -> None:
        if not removed:
            lock = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            lock.unlink()
            lock.parent.rmdir()
            removed.append(lock.parent)
        flock(descriptor, how)

    monkeypatch.setattr("fcntl.flock", slow)
    store = await started(kind, tmp_path)
    await filled(store)
    await store.stop()
    assert removed
