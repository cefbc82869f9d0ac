"""What crosses roots where something goes wrong in between: both stores that keep rows in SQLite."""

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest

from murder.api import MailboxStore, NewMessage
from murder.errors import Code, Refusal
from murder.kit.mailbox import RowMailbox
from murder.kit.transfer import Leaving, Transfers
from murder.model.message import Uid
from murder.model.name import MailboxName
from plugins.store_maildir.mailbox import MaildirTransfers
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


COMES_S = 0.3  # what nobody keeps out has come by then


@pytest.mark.parametrize("kind", ["spool", "maildir"])
async def test_what_comes_while_a_mailbox_is_renamed_to_another_root_is_there_or_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was removed with what had been carried over, and its sender had been told that it was kept."""
    store = await started(kind, tmp_path)
    await filled(store)
    await store.delete(TARGET)
    box, loop = await store.open(SOURCE, "bob"), asyncio.get_running_loop()
    incoming = store.incoming()
    await incoming.write(b"Subject: z\r\n\r\nz")
    appending: list[asyncio.Task[Sequence[Uid]]] = []
    has_begun, has_come = threading.Event(), threading.Event()
    transfers = MaildirTransfers if kind == "maildir" else Transfers
    bring = transfers.bring_body

    def append() -> None:
        appending.append(asyncio.create_task(box.append([NewMessage(incoming)])))
        appending[0].add_done_callback(lambda _: has_come.set())

    def bring_body(self: Transfers, db: sqlite3.Connection, *words: Any) -> int:
        if not has_begun.is_set():
            has_begun.set()
            loop.call_soon_threadsafe(append)
            has_come.wait(COMES_S)
        return bring(self, db, *words)

    with monkeypatch.context() as slow:
        slow.setattr(transfers, "bring_body", bring_body)
        await store.rename(SOURCE, TARGET)
    (outcome,) = await asyncio.gather(*appending, return_exceptions=True)
    box.close()
    kept = 2 if isinstance(outcome, Refusal) else 3
    assert len(await uids(store, TARGET)) == kept
    await incoming.close()
    await store.stop()


def stopped_half_way(leaving: Leaving, db: sqlite3.Connection, is_done: bool) -> None:
    db.close()
    raise sqlite3.OperationalError("disk I/O error")


async def half_renamed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MailboxStore:
    """A rename whose target has it all, while the source could not let go."""
    store = await started("spool", folder)
    await filled(store)
    await store.delete(TARGET)
    with monkeypatch.context() as broken:
        broken.setattr(Leaving, "_end", stopped_half_way)
        with pytest.raises(OSError, match="disk I/O error"):
            await store.rename(SOURCE, TARGET)
    return store


async def added(store: MailboxStore, name: MailboxName) -> None:
    """One message more."""
    box, incoming = await store.open(name, "bob"), store.incoming()
    await incoming.write(b"Subject: later\r\n\r\n")
    await box.append([NewMessage(incoming)])
    await incoming.close()
    box.close()


@pytest.mark.parametrize("starts", [False, True])
async def test_what_comes_behind_a_rename_that_has_stopped_half_way_is_renamed_with_it(
    starts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the old name, which the list has until it is finished; other workers live."""
    store = await half_renamed(tmp_path, monkeypatch)
    await added(store, SOURCE)
    if starts:
        await crash(store, monkeypatch)
        store = await started("spool", tmp_path)
    assert await uids(store, SOURCE) == [1, 2, 3]
    await store.rename(SOURCE, TARGET)
    assert await uids(store, TARGET) == [1, 2, 3]
    assert [stored.name for stored in await store.mailboxes()] == [TARGET]
    await store.stop()


async def test_what_was_renamed_back_is_not_removed_for_a_rename_that_had_stopped_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await half_renamed(tmp_path, monkeypatch)
    await store.rename(SOURCE, TARGET)
    await store.rename(TARGET, SOURCE)
    await crash(store, monkeypatch)
    store = await started("spool", tmp_path)
    assert await uids(store, SOURCE) == [1, 2]
    await store.stop()


@pytest.mark.parametrize("kind", ["spool", "maildir"])
async def test_renames_across_each_other_do_not_wait_for_each_other(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each had its target and waited for its source, until SQLite gave up; nobody's mail came into either. Two workers."""
    store, other = await started(kind, tmp_path), make(kind, tmp_path)
    await filled(store)
    await other.start()
    there, back = MailboxName(b"shared.there"), MailboxName(b"user.bob.back")
    both, begin, asked = threading.Barrier(2), Leaving.begin, list[Leaving]()

    def begin_together(self: Leaving) -> sqlite3.Connection:
        asked.append(self)
        if len(asked) <= 2:
            both.wait()
        return begin(self)

    with monkeypatch.context() as together:
        together.setattr(Leaving, "begin", begin_together)
        await asyncio.gather(store.rename(SOURCE, there), other.rename(TARGET, back))
    assert len(asked) > 2
    assert await uids(store, there) == [1, 2]
    assert {stored.name for stored in await store.mailboxes()} == {there, back}
    await other.stop()
    await store.stop()


async def test_renames_across_each_other_of_one_worker_come_one_behind_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await started("spool", tmp_path)
    await filled(store)
    there, back = MailboxName(b"shared.there"), MailboxName(b"user.bob.back")
    begin, asked, at_once = Leaving.begin, list[Leaving](), list[int]()

    def noted(self: Leaving) -> sqlite3.Connection:
        at_once.append(sum(leaving.ending is None for leaving in asked))
        asked.append(self)
        return begin(self)

    with monkeypatch.context() as watched:
        watched.setattr(Leaving, "begin", noted)
        await asyncio.gather(store.rename(SOURCE, there), store.rename(TARGET, back))
    assert at_once == [0, 0]
    await store.stop()


class NoThread(ThreadPoolExecutor):
    """As where the machine has none left."""

    def submit(self, *_: Any, **__: Any) -> NoReturn:
        raise RuntimeError("can't start new thread")


async def test_without_a_thread_a_rename_lets_go_of_its_source_all_the_same(tmp_path: Path) -> None:
    """It was locked until the next start, and whoever waited for the rename waited for ever."""
    store = await started("spool", tmp_path)
    await filled(store)
    await store.delete(TARGET)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(NoThread())
    renaming = asyncio.create_task(store.rename(SOURCE, TARGET))
    await asyncio.wait([renaming], timeout=5)
    loop.set_default_executor(ThreadPoolExecutor())
    assert renaming.done()
    await renaming
    assert await uids(store, TARGET) == [1, 2]
    await store.create(SOURCE, "default")
    await store.stop()
