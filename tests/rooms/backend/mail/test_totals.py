"""How many messages a store has, and of how many octets, whatever store it is."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from murder.api.store import MailboxStore
from murder.errors import Code, Refusal
from murder.kit.root import Root
from murder.model.name import MailboxName, inbox_of
from murder.roles.backend.records.totals import EVERY_S, Totals
from plugins.store_spool.store import Settings, SpoolStore
from tests.rooms.backend.server import (
    USERS,
    maildir_store,
    memory_store,
    running_backend,
    spool_store,
)


@pytest.mark.parametrize("make", [spool_store, maildir_store, lambda _: memory_store()])
async def test_all_mailboxes_are_counted_in_turns(
    make: Callable[[Path], MailboxStore], tmp_path: Path
) -> None:
    async with running_backend(tmp_path, partial(make, tmp_path)) as running:
        walk = running.backend.mailboxes.list.walk
        totals = Totals(running.backend.store, lambda: (entry.name for entry in walk()))
        assert (totals.messages, totals.octets) == (None, None)
        for user, octets in zip(USERS, (b"a: b\r\n", b"longer: than that\r\n"), strict=True):
            reader, writer = await asyncio.open_connection(*running.address)
            writer.write(b"a LOGIN %b secret\r\nb CREATE INBOX/x\r\n" % user.encode())
            for name in (b"INBOX", b"INBOX/x"):
                writer.write(b"c APPEND %b {%d+}\r\n%b\r\n" % (name, len(octets), octets))
            writer.write(b"d LOGOUT\r\n")
            assert b"d OK" in await reader.read()
            writer.close()
        await totals.count()
        assert (totals.messages, totals.octets) == (4, 2 * (6 + 19))


async def test_each_database_is_opened_once(tmp_path: Path) -> None:
    """Of more users than the store keeps open."""
    names = [inbox_of(user) + end for user in ("ana", "bob", "cy") for end in (b"", b".x")]
    made = spool_store(tmp_path)
    await made.start()
    for name in names:
        await made.create(MailboxName(name), "default")
    await made.stop()
    store = Opening(Settings(max_open=1), tmp_path / "spool")
    await store.start()
    totals = Totals(store, lambda: [*map(MailboxName, names), MailboxName(b"user.gone")])
    await totals.count()
    await store.stop()
    assert (totals.messages, totals.octets) == (0, 0)
    assert store.opened == ["user.ana", "user.bob", "user.cy"]


class Opening(SpoolStore):
    """Notes what it opens."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.opened: list[str] = []

    def open_root(self, key: str, pool: ThreadPoolExecutor) -> Root:
        self.opened.append(key)
        return super().open_root(key, pool)


class Over(Exception):
    pass


@pytest.mark.parametrize(
    "error", [Refusal(Code.UNAVAILABLE, "It is stopped"), OSError("no disk"), RuntimeError("a bug")]
)
async def test_a_store_that_tells_nothing_is_asked_again(error: Exception) -> None:
    """Who counts goes on, in the usual time."""

    def broken() -> Iterator[MailboxName]:
        raise error

    totals, slept = Totals(memory_store(), broken), []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)
        if len(slept) == 2:
            raise Over

    with pytest.raises(Over):
        await totals.keep_counting(sleep)
    assert slept[0] >= EVERY_S
