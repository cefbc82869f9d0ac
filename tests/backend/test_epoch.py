"""A store that was put back from an older copy notices it, by what the master knows, before anybody opens a mailbox."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from murder.api.store import KeepsEpoch, MailboxStore
from murder.backend.reconcile.epoch import Epochs
from murder.model.message import UidValidity
from murder.model.name import MailboxName
from murder.mupdate.client import MasterClient
from tests.backend.server import maildir_store, spool_store
from tests.backend.test_updates import add
from tests.mupdate.nodes import Server

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
    changes = Changes()

    async def begin() -> tuple[MailboxStore, Epochs]:
        store = STORES[kind](data)
        await store.start()
        assert isinstance(store, KeepsEpoch)
        epochs = Epochs(store, client, "be1.test", changes)
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

    # put back: all are others than before, once
    assert await client.epoch("be1.test", 0) == 3
    shutil.rmtree(data)
    shutil.copytree(copy, data)
    store, epochs = await begin()
    after = await validities(store)
    assert all(after[name] > before[name] for name in NAMES), (before, after)
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
