"""The journal of moves: what is written down is durable, in order, and never still on its way when somebody looks."""

import asyncio
import contextlib
from pathlib import Path

from murder.model.name import inbox_of
from murder.roles.backend.moves.journal import Journal, Move, Side, State
from tests.kit.waiting import pause_here

MOVE = Move("a1", Side.OUT, inbox_of("zoe"), "be2.test")


async def test_states_are_written_in_the_order_asked_for(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "moves")
    await asyncio.gather(*(journal.save(MOVE, messages=number) for number in range(50)))
    found = Journal(tmp_path / "moves").find(Side.OUT, "a1")
    assert found is not None and found.messages == 49


async def test_who_is_cancelled_while_it_writes_leaves_nothing_on_its_way(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "moves")
    await journal.save(MOVE)
    for turns in range(20):
        saving = asyncio.ensure_future(journal.save(MOVE, state=State.HANDING))
        for _ in range(turns % 4):
            await asyncio.sleep(0)
        saving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await saving
        found = journal.find(Side.OUT, "a1")
        await pause_here(0.01, "for a thread that should not be there to write it after all")
        assert journal.find(Side.OUT, "a1") == found, "it was written after all"
        await journal.save(MOVE)


async def test_people_work_on_while_the_disk_is_waited_for(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "moves")
    saving = asyncio.ensure_future(journal.save(MOVE))
    turns = 0
    while not saving.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 2, "the loop stood still"


async def test_moves_read_once_are_seen_again_when_they_change(tmp_path: Path) -> None:
    ours, theirs = Journal(tmp_path / "moves"), Journal(tmp_path / "moves")
    await ours.save(MOVE)
    assert [move.state for move in ours.moves()] == [State.COPYING]
    await theirs.save(MOVE, state=State.ABORTED, owes_abort=True)
    assert [(move.state, move.owes_abort) for move in ours.moves()] == [(State.ABORTED, True)]
