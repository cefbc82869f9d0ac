"""How many messages a store has, and of how many octets, whatever store it is."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from murder.api.store import MailboxStore
from murder.roles.backend.records.totals import EVERY_S, Totals
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
        totals = Totals(running.backend.store)
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


class Over(Exception):
    pass


@pytest.mark.parametrize("error", [None, RuntimeError("a bug")])
async def test_a_store_that_tells_nothing_is_asked_again(
    error: Exception | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it is one that has been stopped, or breaks; who counts goes on, in the usual time."""
    async with running_backend(tmp_path, partial(spool_store, tmp_path)) as running:
        store = running.backend.store
    totals, slept = Totals(store), []
    if error is not None:

        async def broken() -> None:
            raise error

        monkeypatch.setattr(totals, "count", broken)

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)
        if len(slept) == 2:
            raise Over

    with pytest.raises(Over):
        await totals.keep_counting(sleep)
    assert slept[0] >= EVERY_S
