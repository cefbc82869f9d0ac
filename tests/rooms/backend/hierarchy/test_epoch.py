"""A store that was put back from an older copy notices it, by what the master knows, before anybody opens a mailbox."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from murder.api import CarriesMailboxes
from murder.api.store import KeepsEpoch, MailboxStore, RenewsMailboxes
from murder.errors import Refusal
from murder.kit.epoch import renew_boxes
from murder.kit.rows import box_of, remove_mailbox
from murder.kit.schema import RETAINED, TABLES
from murder.model.message import UidValidity
from murder.model.name import MailboxName
from murder.roles.backend.reconcile.epoch import Epochs
from murder.roles.mupdate.remote.client import MasterClient
from tests.rooms.backend.mail.test_updates import add
from tests.rooms.backend.server import maildir_store, spool_store
from tests.rooms.mupdate.nodes import Server

STORES: dict[str, Callable[[Path], MailboxStore]] = {
    "spool": spool_store,
    "maildir": maildir_store,
}
NAMES = [MailboxName(name) for name in (b"user.ana", b"user.ana.a", b"user.bob")]


class Changes:
    """What a tracker counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        return self.count


async def validities(store: MailboxStore) -> dict[MailboxName, UidValidity]:
    return {name: (await (await store.open(name, "ana")).status()).uid_validity for name in NAMES}


@pytest.mark.parametrize("kind", STORES)
async def test_a_restored_store_has_new_uid_validities(kind: str, tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"

    master = Server(tmp_path / "master")
    await master.start()
    client = MasterClient(master.target)
    changes, forgotten = Changes(), list[bool]()

    async def forget() -> None:
        forgotten.append(True)

    async def begin() -> tuple[MailboxStore, Epochs]:
        store = STORES[kind](data)
        await store.start()
        assert isinstance(store, KeepsEpoch)
        epochs = Epochs(store, client, "be1.test", changes, forget)
        await epochs.start(is_first=True)
        return store, epochs

    async def change(store: MailboxStore, epochs: Epochs) -> None:
        await add(store, await store.open(NAMES[0], "ana"))
        changes.count += 1
        await epochs.beat()

    data.mkdir()
    store, epochs = await begin()
    for name in NAMES:
        await store.create(name, "default")
    before = await validities(store)
    await change(store, epochs)
    await store.stop()

    # started again, also after a crash: nothing has happened
    shutil.copytree(data, copy)
    store, epochs = await begin()
    assert await validities(store) == before
    await epochs.beat()  # nothing has changed: no step
    await change(store, epochs)
    changes.count += 1
    await epochs.stop()  # what has changed since the last ping
    await store.stop()
    assert not forgotten

    # put back: all are others than before, once
    assert await client.epoch("be1.test", 0) == 3
    shutil.rmtree(data)
    shutil.copytree(copy, data)
    store, epochs = await begin()
    after = await validities(store)
    assert all(after[name] > before[name] for name in NAMES), (before, after)
    assert len(forgotten) == 1
    assert len(await (await store.open(NAMES[0], "ana")).uids()) == 1
    await change(store, epochs)
    assert await validities(store) == after
    await store.stop()
    store, epochs = await begin()
    assert await validities(store) == after

    # found out only while it is in use, for the master had been away
    await client.epoch("be1.test", 1000)
    await change(store, epochs)
    late = await validities(store)
    assert all(late[name] > after[name] for name in NAMES)
    assert len(forgotten) == 2
    assert await client.epoch("be1.test", 0) == 1001
    await store.stop()
    store, epochs = await begin()
    assert await validities(store) == late
    await store.stop()
    await client.close()
    await master.stop()


async def test_the_master_keeps_the_largest_number_of_each_server(tmp_path: Path) -> None:
    master = Server(tmp_path / "master")
    await master.start()
    client = MasterClient(master.target)
    told = [await client.epoch(*one) for one in (("be1", 5), ("be1", 3), ("BE2", 0), ("be1", 7))]
    assert told == [5, 5, 0, 7]
    assert await client.epoch("", 1) is None
    assert await client.epoch("x" * 256, 1) is None
    assert not await client.list_all()
    await client.close()
    await master.stop()


@pytest.mark.parametrize("kind", STORES)
async def test_who_is_renewed_has_another_id_and_what_was_unfinished_finds_it(
    kind: str, tmp_path: Path
) -> None:
    """RFC 8474 §4: a MAILBOXID is never that of a mailbox with another UIDVALIDITY."""
    store = STORES[kind](tmp_path)
    await store.start()
    assert isinstance(store, RenewsMailboxes) and isinstance(store, CarriesMailboxes)
    for name in NAMES:
        await store.create(name, "default")
    await store.freeze(NAMES[1], True)

    async def ids() -> dict[MailboxName, tuple[str, UidValidity]]:
        found: dict[MailboxName, tuple[str, UidValidity]] = {}
        for name in NAMES:
            mailbox = await store.open(name, "ana")
            found[name] = mailbox.mailbox_id, (await mailbox.status()).uid_validity
            mailbox.close()
        return found

    before = await ids()
    assert await store.renew_below(NAMES[0]) == 2
    after = await ids()
    for name in NAMES[:2]:
        assert after[name][0] != before[name][0] and after[name][1] > before[name][1]
    assert after[NAMES[2]] == before[NAMES[2]]
    assert await store.is_frozen(NAMES[1]) and not await store.is_frozen(NAMES[0])
    with pytest.raises(Refusal):
        await store.renew_below(MailboxName(b"user.nobody"))
    await store.stop()


def test_a_former_id_finds_its_mailbox() -> None:
    db = sqlite3.connect(":memory:")
    for step in (TABLES, *RETAINED):
        db.executescript(step)
    for number, name in enumerate("ab", start=1):
        db.execute(
            "INSERT INTO mailbox (id, name, mailbox_id, uid_validity) VALUES (?,?,?,1)",
            (number, name.encode(), name),
        )
    renew_boxes(db)
    renew_boxes(db)
    assert (box_of(db, "a"), box_of(db, "b"), box_of(db, "c")) == (1, 2, None)
    remove_mailbox(db, 1)
    assert box_of(db, "a") is None
