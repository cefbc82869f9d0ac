"""What has moved away is kept for a while, and never let go of while it is on its way back."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from murder.api import MailboxStore, NewMessage
from murder.errors import Code, Refusal
from murder.model.name import MailboxName, inbox_of
from murder.roles.backend.moves.ending import abort
from murder.roles.backend.moves.journal import ARRIVING, Move, Side, State
from murder.roles.backend.moves.mover import Mover, _arriving
from murder.roles.backend.moves.verify import format_handed
from murder.wire.nodes.carry_words import Prepare
from plugins.store_maildir.store import MaildirStore, Settings
from tests.kit.peer import Peer
from tests.rooms.backend.server import Running, config_in, running_backend, spool_store

GONE = inbox_of("zoe")
STORES: dict[str, Callable[[Path], MailboxStore]] = {
    "spool": spool_store,
    "maildir": lambda folder: MaildirStore(Settings(), folder),
}


async def names(store: MailboxStore) -> set[MailboxName]:
    return {box.name for box in await store.mailboxes()}


async def look_at(mover: Mover, move: Move) -> None:
    """As its keeper does, every few seconds."""
    await mover._look_at(move, _arriving(mover.journal.moves()))


@asynccontextmanager
async def kept(
    folder: Path, make: Callable[[Path], MailboxStore] = spool_store, grace_s: float = 0.0
) -> AsyncIterator[tuple[Running, Mover]]:
    """A backend that keeps for so long what has moved away, whose moves nobody else looks at."""
    config = config_in(folder, move_grace_s=grace_s)
    async with running_backend(folder, partial(make, folder), config=config) as one:
        await one.mover.stop()
        yield one, one.mover


async def hand_over(mover: Mover, left_at: int) -> Move:
    """The move of `GONE` is done: of what was there at this modification."""
    move = Move("a1", Side.OUT, GONE, "be2.test", state=State.DONE, names=(GONE,))
    await mover.journal.save(move)
    handed = format_handed(Prepare([], {}, []), {GONE: left_at})
    await mover.journal.save_handed(move, handed)
    return move


async def beside_what_left(one: Running, name: str) -> Peer:
    """Ana, whose mailbox of that name has left, and is kept; she has a new one with a message."""
    left = MailboxName(inbox_of("ana") + b"." + name.encode())
    await one.backend.store.create(left, "default")
    move = Move("a1", Side.OUT, left, "be2.test", state=State.DONE, names=(left,))
    await one.mover.journal.save(move, finished_at=time.time())
    peer = await Peer.at(*one.address)
    await peer.until(b"* OK")
    await peer.ok("LOGIN ana secret")
    await peer.ok("CREATE INBOX/new")
    await peer.ok("APPEND INBOX/new {3+}\r\na:b")
    return peer


async def test_what_is_on_its_way_back_is_not_let_go_of(tmp_path: Path) -> None:
    async with kept(tmp_path) as (one, mover):
        store = one.backend.store
        await store.create(GONE, "default")
        left = await mover.journal.save(
            Move("a1", Side.OUT, GONE, "be2.test", state=State.DONE, names=(GONE,))
        )
        back = Move("b2", Side.IN, GONE, "be2.test", names=(GONE,))
        for state in (State.COPYING, State.PREPARED, State.COMMITTED):
            await mover.journal.save(back, state=state)
            with pytest.raises(Refusal) as refused:
                await mover.forget(left)
            assert refused.value.code is Code.IN_USE
            await look_at(mover, left)  # its time is over, and it stays
            assert GONE in await names(store)
        await mover.journal.save(back, state=State.ABORTED)
        assert (await mover.forget(left)).state is State.REMOVED
        assert GONE not in await names(store)
        assert not one.backend.mailboxes.list.intents()


async def test_what_has_left_again_is_kept_for_the_move_that_took_it_last(tmp_path: Path) -> None:
    """It was back; before what was kept until then was let go of, the next move had the tree."""
    below = MailboxName(GONE + b".once")
    async with kept(tmp_path) as (one, mover):
        store = one.backend.store
        for name in (GONE, below):
            await store.create(name, "default")
        former = Move("a1", Side.OUT, GONE, "be2.test", state=State.DONE, names=(GONE, below))
        last = Move("b2", Side.OUT, GONE, "be2.test", state=State.DONE, names=(GONE,))
        for move in (former, last):
            await mover.journal.save(move)
        assert (await mover.forget(former)).state is State.UNDONE
        assert await names(store) & {GONE, below} == {GONE}
        assert one.backend.mailboxes.has_left(GONE)
        assert (await mover.forget(last)).state is State.REMOVED
        assert GONE not in await names(store)


async def left_twice(one: Running) -> tuple[Move, Move]:
    """It left, was back, and left again before anybody looked; it has changed since the first time."""
    await one.backend.store.create(GONE, "default")
    journal, moves = one.mover.journal, list[Move]()
    for number, move_id in enumerate(("a1", "b2"), 1):
        move = Move(move_id, Side.OUT, GONE, "be2.test", state=State.DONE, names=(GONE,))
        moves.append(await journal.save(move, started_at=float(number)))
    box = await one.backend.store.open(GONE, "zoe")
    left_at = (await box.status()).highest_modseq
    box.close()
    for move, modseq in zip(moves, (left_at + 1, left_at), strict=True):
        await journal.save_handed(move, format_handed(Prepare([], {}, []), {GONE: modseq}))
    return moves[0], moves[1]


async def test_what_left_twice_goes_with_the_move_that_took_it_last(tmp_path: Path) -> None:
    """A former move, which an operator has yet to look at, holds on to nothing of it."""
    async with kept(tmp_path) as (one, mover):
        former, last = await left_twice(one)
        await mover.journal.save(former, problem="it has changed here since it left")
        for move in (former, last):
            await look_at(mover, mover._known(move.id))
        assert mover._known(former.id).state is State.DONE
        assert mover._known(last.id).state is State.REMOVED
        assert GONE not in await names(one.backend.store)
        await mover.forget(mover._known(former.id))


async def test_what_has_left_again_is_not_taken_for_changed_since_it_left_before(
    tmp_path: Path,
) -> None:
    async with kept(tmp_path) as (one, mover):
        former, last = await left_twice(one)
        await look_at(mover, former)
        assert not mover._known(former.id).problem
        assert mover._known(former.id).state is State.UNDONE
        assert one.backend.mailboxes.has_left(GONE)
        await look_at(mover, last)
        assert mover._known(last.id).state is State.REMOVED


async def test_one_move_that_cannot_go_on_keeps_no_other_from_it(tmp_path: Path) -> None:
    async with kept(tmp_path) as (one, mover):
        stuck = Move("a1", Side.IN, inbox_of("yan"), "be2.test", state=State.COMMITTED)
        await mover.journal.save(stuck, started_at=1.0)  # and nothing is prepared
        await one.backend.store.create(GONE, "default")
        over = Move("b2", Side.OUT, GONE, "be2.test", state=State.DONE, names=(GONE,))
        await mover.journal.save(over, started_at=2.0)
        for move in list(mover.journal.moves()):
            await mover._look_after(move)
        found = mover.journal.find(Side.OUT, "b2")
        assert found is not None and found.state is State.REMOVED


async def test_a_failed_move_that_nobody_resumes_is_given_up_and_its_target_is_owed_that(
    tmp_path: Path,
) -> None:
    async with kept(tmp_path, grace_s=3600.0) as (_, mover):
        failed = Move("a1", Side.OUT, GONE, "be2.test", state=State.FAILED, names=(GONE,))
        await look_at(mover, await mover.journal.save(failed, finished_at=time.time()))
        assert mover._known("a1").state is State.FAILED, "its time is not over"
        await look_at(mover, await mover.journal.save(failed, finished_at=1.0))
        ended = mover._known("a1")
        assert ended.state is State.ABORTED and ended.owes_abort
        mover.journal.forget_old()
        assert mover._known("a1") == ended


async def test_what_was_given_up_takes_nothing_more_in(tmp_path: Path) -> None:
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        journal = one.mover.journal
        move = await journal.save(Move("a1", Side.IN, GONE, "be2.test", names=(GONE,)))
        await one.backend.store.create(GONE, "default")
        await abort(one.backend, journal, move)
        found = await one.backend.store.mailboxes()
        assert GONE not in {box.name for box in found}
        with pytest.raises(Refusal):  # a source that has not heard of it
            await journal.save(move, only_from=ARRIVING, state=State.PREPARED)
        committed = await journal.save(move, state=State.COMMITTED)
        with pytest.raises(Refusal) as refused:
            await abort(one.backend, journal, committed)
        assert "committed" in refused.value.text


@pytest.mark.parametrize("kind", STORES)
async def test_what_came_into_a_kept_copy_is_not_removed_unseen(tmp_path: Path, kind: str) -> None:
    """Other software may go on delivering into a Maildir that has moved away."""
    async with kept(tmp_path, STORES[kind]) as (one, mover):
        store = one.backend.store
        await store.create(GONE, "default")
        box = await store.open(GONE, "zoe")
        incoming = store.incoming()
        await incoming.write(b"Subject: x\r\n\r\nx\r\n")
        await box.append([NewMessage(incoming)])
        move = await hand_over(mover, (await box.status()).highest_modseq)
        if kind == "maildir":
            late = b"Subject: late\n\nx\n"
            (tmp_path / "maildir/users/zoe/new/1700000000.M1P1.host").write_bytes(late)
        else:
            await box.append([NewMessage(incoming)])
        await incoming.close()
        box.close()
        for _ in range(2):
            await look_at(mover, mover._known("a1"))
            assert mover._known("a1").state is State.DONE
            assert "has changed here since" in mover._known("a1").problem
        assert (await mover.forget(mover._known("a1"))).state is State.REMOVED
        assert mover.journal.handed(move) is None


async def test_what_is_as_it_left_is_removed_in_the_end(tmp_path: Path) -> None:
    async with kept(tmp_path) as (one, mover):
        store = one.backend.store
        await store.create(GONE, "default")
        box = await store.open(GONE, "zoe")
        left_at = (await box.status()).highest_modseq
        box.close()
        move = await hand_over(mover, left_at)
        await look_at(mover, move)
        assert mover._known("a1").state is State.REMOVED


async def test_a_mailbox_may_have_the_name_of_one_that_is_kept(tmp_path: Path) -> None:
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        peer = await beside_what_left(one, "kept")
        await peer.ok("RENAME INBOX/new INBOX/kept")
        assert (await peer.ok("STATUS INBOX/kept (MESSAGES)"))[0].endswith(b"(MESSAGES 1)")
        await peer.close()


async def test_a_rename_onto_a_mailbox_that_has_left_is_refused_and_holds_nobody_up(
    tmp_path: Path,
) -> None:
    """It is elsewhere, says the master; what is kept of it here is not taken for what was renamed."""
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        peer = await beside_what_left(one, "left")

        async def refuse(*_: object) -> None:
            raise Refusal(Code.ALREADY_EXISTS, "It is active at be2.test")

        reserve, one.backend.announcer._reserve = one.backend.announcer._reserve, refuse  # type: ignore[method-assign, assignment] # as the master would
        refused = await peer.command("RENAME INBOX/new INBOX/left")
        assert b" NO [ALREADYEXISTS] It is active" in refused[-1], refused
        one.backend.announcer._reserve = reserve  # type: ignore[method-assign]
        await peer.ok("RENAME INBOX/new INBOX/newer")
        assert (await peer.ok("STATUS INBOX/newer (MESSAGES)"))[0].endswith(b"(MESSAGES 1)")
        await peer.close()
