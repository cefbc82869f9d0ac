"""What a failure has left locked is let go without a restart."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from murder.errors import Code, Refusal
from murder.roles.backend.hierarchy import announce, left
from tests.kit.waiting import turns, until_soon
from tests.rooms.backend.hierarchy.test_announce import ACL, ANA, BELOW, CHILD, MOVED, murder


@pytest.mark.parametrize("act", ["create", "set_acl", "delete", "locked", "locked soon"])
async def test_what_a_full_disk_has_locked_is_free_again_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Each change of that user's mailboxes was IN_USE until the next start."""
    monkeypatch.setattr(announce, "UNDO_WAIT_S", 0.0)
    monkeypatch.setattr(announce, "UNDO_PAUSE_S", 0.0)
    monkeypatch.setattr(left, "RETRY_S", 0.0)

    async with murder(tmp_path) as (_, node):
        commit = node.ledger.commit

        async def refuse(_: object) -> None:
            raise Refusal(Code.UNAVAILABLE, "The mailbox list cannot be written")

        async def lock_and_leave(wait_s: float | None = None) -> None:
            async with node.announcer.locked(BELOW, wait_s):
                pass

        acts: dict[str, Callable[[], Awaitable[object]]] = {
            "create": lambda: node.announcer.create(MOVED, ACL),
            "set_acl": lambda: node.announcer.set_acl(BELOW, lambda acl: acl),
            "delete": lambda: node.announcer.delete([BELOW]),
            "locked": lock_and_leave,
            "locked soon": lambda: lock_and_leave(1.0),
        }
        node.ledger.commit = refuse  # type: ignore[method-assign, assignment]
        with pytest.raises(Refusal):
            await acts[act]()
        assert node.list.intents()
        await turns(20)
        assert node.list.intents(), "the disk is still full"
        node.ledger.commit = commit  # type: ignore[method-assign]
        await until_soon(lambda: not node.list.intents(), "it is free")
        await node.comparer.compare()
        there = {ANA, CHILD} if act == "delete" else {ANA, CHILD, BELOW}
        assert {entry.name for entry in node.list.walk()} == there
        await node.announcer.create(MOVED, ACL)
        await node.check_agreement()


async def test_what_the_master_did_not_let_go_is_not_deleted_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked for it was told NO, and that none of it is gone: it went seconds later."""
    monkeypatch.setattr(left, "RETRY_S", 0.0)
    async with murder(tmp_path) as (master, node):
        commit = node.ledger.commit

        async def refuse(_: object) -> None:
            raise Refusal(Code.UNAVAILABLE, "The mailbox list cannot be written")

        await master.stop()
        node.ledger.commit = refuse  # type: ignore[method-assign, assignment]
        with pytest.raises(Refusal):
            await node.announcer.delete([BELOW])
        assert node.list.intents()
        node.ledger.commit = commit  # type: ignore[method-assign]
        await until_soon(lambda: not node.list.intents(), "it is free")
        await master.start()
        await node.comparer.compare()
        assert await node.mail_in(BELOW) == 1
        await node.check_agreement()


async def test_a_lock_that_somebody_else_has_meanwhile_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two locks of one tree by one process were the same: what had failed behind the end of the first took the second from
    whoever was in it."""
    monkeypatch.setattr(left, "RETRY_S", 0.0)
    async with murder(tmp_path) as (_, node):
        may_end = asyncio.Event()

        async def hold() -> None:
            async with node.announcer.locked(BELOW, 20.0):
                await may_end.wait()

        with pytest.raises(Refusal):
            async with node.announcer.locked(BELOW):
                holding = asyncio.create_task(hold())  # asks with the commit that ends this one
                raise Refusal(Code.CANNOT, "It cannot be done")
        await until_soon(lambda: node.announcer.is_busy(BELOW), "the other one has it")
        await turns(50)
        assert node.announcer.is_busy(BELOW), "it was taken away"
        may_end.set()
        await holding
        assert not node.list.intents()
