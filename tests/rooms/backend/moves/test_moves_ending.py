"""How what has come ends: behind what is in its way, once, and again where something failed."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest

from murder.errors import Code, Refusal
from murder.model.name import MailboxName
from murder.net.frames import FrameChannel
from murder.roles.backend.moves import arriving as arriving_module
from murder.roles.backend.moves import ending
from murder.roles.backend.moves.arriving import Arriving
from murder.roles.backend.moves.journal import (
    CYRUS,
    FROM_BACKUP,
    Move,
    Side,
    State,
    intent_of,
)
from murder.roles.backend.moves.outgoing import Outgoing, Pace
from murder.wire.nodes.carry_words import Begin, Prepare
from tests.kit.waiting import until_soon
from tests.rooms.backend.moves.test_moves_kept import look_at
from tests.rooms.backend.moves.test_moves_renamed import Target, hold
from tests.rooms.backend.server import Running, running_backend, spool_store

COMING, LEAVING = MailboxName(b"shared.coming"), MailboxName(b"shared.leaving")
ACL = b"ana\tlrswipkxtecda\t"


@asynccontextmanager
async def backend_in(folder: Path) -> AsyncIterator[Running]:
    async with running_backend(folder, lambda: spool_store(folder)) as one:
        yield one


async def arriving_at(one: Running, server: str = "be2.test") -> Arriving:
    """A connection by which `COMING` comes, or goes on to come."""
    arriving = Arriving(one.backend, one.mover.journal, cast(FrameChannel, None), server)
    await arriving._begin(Begin("b1", COMING, ""))
    await arriving._hold(hold(COMING, "coming"))
    return arriving


async def prepared(arriving: Arriving) -> None:
    await arriving._prepare(Prepare([(COMING, ACL)], {}, []))


def state_of(one: Running) -> State | None:
    move = one.mover.journal.find(Side.IN, "b1")
    return move.state if move is not None else None


def is_locked(one: Running) -> bool:
    return bool(one.backend.mailboxes.list.intents())


async def leaving(one: Running) -> Outgoing:
    """`LEAVING`, on its way out of the same tree."""
    await one.backend.announcer.create(LEAVING, ACL)
    move = Move("a1", Side.OUT, LEAVING, "be2.test", state=State.COPYING)
    outgoing = Outgoing(one.backend, one.mover.journal, move, cast(Any, Target()), Pace(0))
    await outgoing.copy()
    return outgoing


async def test_nothing_is_prepared_while_something_of_its_tree_is_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that cross, each prepared at its target, waited for each other's lock for ever, and nobody had the mailboxes."""
    monkeypatch.setattr(arriving_module, "PREPARE_WAIT_S", 0.0, raising=False)
    async with backend_in(tmp_path) as one:
        arriving, outgoing = await arriving_at(one), await leaving(one)
        await one.backend.announcer.hold(intent_of(outgoing.move))
        with pytest.raises(Refusal) as refused:
            await prepared(arriving)
        assert refused.value.code is Code.IN_USE
        assert state_of(one) is State.COPYING
        await one.backend.announcer.finish(intent_of(outgoing.move), [])
        await prepared(arriving)
        await arriving._commit("b1")
        assert one.backend.mailboxes.find(COMING) is not None


async def test_nothing_of_a_tree_stops_before_what_is_prepared_for_it_is_shown(
    tmp_path: Path,
) -> None:
    """It would have the lock for as long as its target is away, and what has come be nowhere for so long."""
    async with backend_in(tmp_path) as one:
        arriving, outgoing = await arriving_at(one), await leaving(one)
        await prepared(arriving)
        with pytest.raises(Refusal) as refused:
            await outgoing.stop_and_hand_over()
        assert refused.value.code is Code.IN_USE and "b1" in refused.value.text
        assert outgoing.move.state is State.COPYING and not is_locked(one)
        await arriving._commit("b1")
        assert state_of(one) is State.DONE


async def test_a_source_that_is_away_holds_nothing_up_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with backend_in(tmp_path) as one:
        arriving, outgoing = await arriving_at(one), await leaving(one)
        await prepared(arriving)
        monkeypatch.setattr("murder.roles.backend.moves.journal.PREPARED_S", 0.0)
        outgoing._let_others_first()


@pytest.mark.parametrize("names_problem", [False, True])
async def test_who_ends_a_move_while_a_full_disk_takes_nothing_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names_problem: bool
) -> None:
    """What failed then took the place of the end: the move went on, and who gave it up, or stopped the node, waited."""
    async with backend_in(tmp_path) as one:
        outgoing, stands = await leaving(one), asyncio.Event()

        async def verify(names: Sequence[MailboxName]) -> None:
            stands.set()
            await asyncio.Event().wait()

        async def fails(*_: object, **__: object) -> NoReturn:
            if names_problem:
                raise Refusal(Code.OVER_QUOTA, "The disk of this server is full")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(outgoing, "_verify", verify)
        task = asyncio.create_task(outgoing.stop_and_hand_over())
        await stands.wait()
        with monkeypatch.context() as full:
            full.setattr(outgoing, "release", fails)
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled()
        await outgoing.release()


def failing(one: Running, *names: str) -> Callable[[], None]:
    """The list takes nothing from these methods of the announcer, until what is returned is called."""
    announcer = cast(Any, one.backend.announcer)
    were = {name: getattr(announcer, name) for name in names}

    async def refuse(*_: object, **__: object) -> None:
        raise Refusal(Code.UNAVAILABLE, "The mailbox list cannot be written")

    for name in names:
        setattr(announcer, name, refuse)

    def mend() -> None:
        for name, was in were.items():
            setattr(announcer, name, was)

    return mend


@pytest.mark.parametrize("fails", [("commit",), ("commit", "finish")])
async def test_a_restore_goes_on_that_could_not_be_shown(
    tmp_path: Path, fails: tuple[str, ...]
) -> None:
    """Its own lock was in its way, until an operator gave it up; all others of the tree waited for that, too."""
    async with backend_in(tmp_path) as one:
        arriving = await arriving_at(one, FROM_BACKUP)
        await prepared(arriving)
        mend = failing(one, *fails)
        with pytest.raises(Refusal, match="cannot be written"):
            await arriving._commit("b1")
        mend()
        assert is_locked(one) is ("finish" in fails)
        async with asyncio.timeout(10):
            again = await arriving_at(one, FROM_BACKUP)
        await prepared(again)
        await again._commit("b1")
        assert one.backend.mailboxes.find(COMING) is not None
        assert state_of(one) is State.DONE and not is_locked(one)


async def test_what_was_noted_of_deliveries_is_forgotten_before_a_restore_is_shown(
    tmp_path: Path,
) -> None:
    """Whoever goes on with it behind a crash does no more than show it: what came here once would have been dropped."""
    async with backend_in(tmp_path) as one:
        arriving, deliveries = await arriving_at(one, FROM_BACKUP), one.backend.deliveries
        await prepared(arriving)
        await deliveries.begin(b"key", {"": 1})
        begun_when: list[str] = []

        def step(name: str) -> None:
            if name == "shown":
                rows = deliveries._db.execute("SELECT count(*) FROM begun").fetchone()
                begun_when.append(f"{name}: {rows[0]}")

        arriving._step = step
        await arriving._commit("b1")
        assert begun_when == ["shown: 0"]


async def test_a_restore_that_is_shown_and_could_not_say_so_ends_by_itself(tmp_path: Path) -> None:
    """Whoever asks for it once more hears that it is there."""
    async with backend_in(tmp_path) as one:
        await one.mover.stop()
        arriving = await arriving_at(one, FROM_BACKUP)
        await prepared(arriving)
        journal = cast(Any, one.mover.journal)
        save = journal.save

        async def refuse(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        journal.save = refuse
        with pytest.raises(OSError, match="No space"):
            await arriving._commit("b1")
        journal.save = save
        assert state_of(one) is State.PREPARED and is_locked(one)
        move = journal.find(Side.IN, "b1")
        await look_at(one.mover, move)
        assert state_of(one) is State.DONE and not is_locked(one)


async def test_what_one_connection_shows_no_other_shows_or_removes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks after moves told the master once more, of what its users had deleted by then."""
    monkeypatch.setattr(ending, "ADDING_S", 0.0, raising=False)
    async with backend_in(tmp_path) as one:
        await one.mover.stop()
        arriving = await arriving_at(one)
        await prepared(arriving)
        announcer, told, goes_on = cast(Any, one.backend.announcer), list[int](), asyncio.Event()
        announce = announcer.announce

        async def wait(rows: list[object]) -> None:
            told.append(len(rows))
            await goes_on.wait()
            await announce(rows)

        announcer.announce = wait
        committing = asyncio.create_task(arriving._commit("b1"))
        await until_soon(lambda: told, "the master is being told", every_s=0.01)
        move = one.mover.journal.find(Side.IN, "b1")
        assert move is not None and move.state is State.COMMITTED
        await look_at(one.mover, move)
        with pytest.raises(Refusal) as refused:
            await ending.abort(one.backend, one.mover.journal, move)
        assert refused.value.code is Code.IN_USE
        goes_on.set()
        await committing
        assert told == [1]
        await look_at(one.mover, move)  # it had read this state before
        assert told == [1] and state_of(one) is State.DONE


async def test_the_master_hears_what_is_there_now(tmp_path: Path) -> None:
    """Of one that was shown before this server died: it has other rights since, or is deleted."""
    async with backend_in(tmp_path) as one:
        await one.mover.stop()
        arriving = await arriving_at(one)
        await prepared(arriving)
        await arriving._commit("b1")
        journal, announcer = one.mover.journal, cast(Any, one.backend.announcer)
        done = journal.find(Side.IN, "b1")
        assert done is not None
        octets = b'{"rows": [["shared.coming", "ana\\tlrs\\t"]], "notes": {}, "subscriptions": []}'
        await announcer.delete([COMING])
        committed = await journal.save(done, state=State.COMMITTED, prepared=octets)
        told: list[Any] = []

        async def note(rows: list[object]) -> None:
            told.extend(rows)

        announcer.announce = note
        await look_at(one.mover, committed)
        assert told == [] and state_of(one) is State.DONE
        assert one.backend.mailboxes.find(COMING) is None


async def test_no_file_of_it_is_left(tmp_path: Path) -> None:
    async with backend_in(tmp_path) as one:
        for ends in ("_commit", "_abort"):
            arriving = Arriving(
                one.backend, one.mover.journal, cast(FrameChannel, None), "be2.test"
            )
            name = MailboxName(COMING + ends.encode())
            await arriving._begin(Begin(ends[1:], name, ""))
            await arriving._hold(hold(name, ends[1:]))
            await arriving._prepare(Prepare([(name, ACL)], {}, []))
            await getattr(arriving, ends)(ends[1:])
        files = {file.name for file in one.mover.journal.folder.iterdir()}
        assert files == {"in-commit.json", "in-abort.json"}


async def test_nor_of_one_that_is_refused(tmp_path: Path) -> None:
    """Each left an empty file behind, for ever."""
    async with backend_in(tmp_path) as one:
        await one.backend.announcer.create(COMING, ACL)
        with pytest.raises(Refusal, match="is here already"):
            await arriving_at(one)
        assert not list(one.mover.journal.folder.iterdir())


@pytest.mark.parametrize("is_prepared", [False, True])
async def test_what_a_later_move_brings_stays_as_an_earlier_one_is_given_up(
    tmp_path: Path, is_prepared: bool
) -> None:
    """A source tells of what it gave up when it reaches the target again: behind the beginning of the next move. Prepared,
    that could never be shown, and its source had let go of it."""
    async with backend_in(tmp_path) as one:
        await one.mover.stop()
        earlier = await arriving_at(one)
        later = Arriving(one.backend, one.mover.journal, cast(FrameChannel, None), "be2.test")
        await later._begin(Begin("b2", COMING, ""))
        await later._hold(hold(COMING, "coming"))
        if is_prepared:
            await prepared(later)
        await earlier._abort("b1")
        assert state_of(one) is State.ABORTED
        if not is_prepared:
            await prepared(later)
        await later._commit("b2")
        assert one.backend.mailboxes.find(COMING) is not None
        assert await ending.id_of(one.backend, COMING) == "coming"


async def test_what_two_moves_bring_goes_with_the_last_of_them(tmp_path: Path) -> None:
    async with backend_in(tmp_path) as one:
        await one.mover.stop()
        earlier = await arriving_at(one)
        later = Arriving(one.backend, one.mover.journal, cast(FrameChannel, None), "be2.test")
        await later._begin(Begin("b2", COMING, ""))
        await later._hold(hold(COMING, "coming"))
        await earlier._abort("b1")
        await later._abort("b2")
        assert await ending.id_of(one.backend, COMING) is None


@pytest.mark.parametrize(
    "other",
    [
        Move("c1", Side.IN, COMING, "cyrus.test", names=(COMING,), by=CYRUS),
        Move("c1", Side.IN, COMING, FROM_BACKUP, names=(COMING,)),
        Move("c1", Side.IN, COMING, "be3.test", names=(COMING,), state=State.PREPARED),
    ],
    ids=["Cyrus", "restore", "prepared"],
)
async def test_a_move_removes_nothing_that_may_be_nowhere_else(tmp_path: Path, other: Move) -> None:
    """It made room for itself, and the next try took it for its own."""
    async with backend_in(tmp_path) as one:
        await one.mover.stop()
        kept = await one.backend.store.create(COMING, "default")
        await one.mover.journal.save(other)
        for _ in range(2):
            with pytest.raises(Refusal) as refused:
                await arriving_at(one)
            assert refused.value.code is Code.IN_USE and "c1" in refused.value.text
        assert await ending.id_of(one.backend, COMING) == kept.mailbox_id


@pytest.mark.parametrize("server", [FROM_BACKUP, "be2.test"])
async def test_what_a_dead_backend_has_left_is_in_nobodys_way(tmp_path: Path, server: str) -> None:
    """Its source has died, and its mail comes from a backup: the first try takes the name."""
    async with backend_in(tmp_path) as one:
        await one.mover.stop()
        left = await one.backend.store.create(COMING, "default")
        await one.mover.journal.save(Move("c1", Side.IN, COMING, "be3.test", names=(COMING,)))
        await arriving_at(one, server)
        assert await ending.id_of(one.backend, COMING) not in (None, left.mailbox_id)


async def test_what_a_restore_has_brought_under_the_name_of_what_had_left_stays(
    tmp_path: Path,
) -> None:
    """It broke off; then somebody would make a mailbox of that name, which had moved away from here before."""
    async with backend_in(tmp_path) as one:
        await one.mover.stop()
        await one.backend.store.create(COMING, "default")
        left = Move("a1", Side.OUT, COMING, "be2.test", state=State.DONE, names=(COMING,))
        await one.mover.journal.save(left)
        await arriving_at(one, FROM_BACKUP)
        brought = await ending.id_of(one.backend, COMING)
        for mailbox_id in ("", "another"):
            await one.backend.announcer.make_room_for(COMING, mailbox_id)
        assert await ending.id_of(one.backend, COMING) == brought
