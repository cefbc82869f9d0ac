"""Logs that several masters share: one order, whoever is late is told so, and what was said to be durable is there."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from murder.api.contract.check import Broken, Check, expect, hold
from murder.api.list_log import BEGINNING, ListLog, Position, Record, Whole

Make = Callable[[], ListLog]

ROW: Final = b"\0\0\0\0\0\0\0\1\1\0\1x"


def record(after: Position, name: str, notes: dict[str, bytes] | None = None) -> Record:
    """One row more."""
    seq = after.seq + 1
    row = seq.to_bytes(8, "big") + ROW[8:]
    mark = (name.encode() + bytes(8))[:8]
    return Record(after, [(name.encode(), row)], Position(seq, mark), notes or {})


def epoch_of(log: ListLog) -> str:
    """Of a log that nobody has written to. Raises Broken where somebody has."""
    whole = log.since("", BEGINNING)
    if not isinstance(whole, Whole):
        raise Broken("a master without an epoch is to be told the whole list")
    expect(whole.position, BEGINNING, "the log is not empty: have it checked where it may write")
    hold(not any(whole.rows), "an empty log has rows")
    return whole.epoch


def records_of(log: ListLog, epoch: str, after: Position) -> Sequence[Record]:
    records = log.since(epoch, after)
    if isinstance(records, Whole):
        raise Broken("it has forgotten what it was just told")
    return list(records)


async def keeps_one_order(make: Make) -> None:
    """What is appended behind the last commit is the next one; what is not is refused and changes nothing."""
    log = make()

    def work() -> None:
        epoch = epoch_of(log)
        first = record(BEGINNING, "a")
        hold(log.append(epoch, first), "the first record is refused")
        hold(not log.append(epoch, record(BEGINNING, "b")), "two records behind the beginning")
        second = record(first.position, "c", {"epoch/x": b"7"})
        hold(log.append(epoch, second), "the second record is refused")
        expect(records_of(log, epoch, BEGINNING), [first, second], "all records")
        expect(records_of(log, epoch, first.position), [second], "those behind the first")
        hold(log.is_last(epoch, second.position), "the last position is not the last")
        hold(not log.is_last(epoch, first.position), "the first position is the last")
        log.close()

    await asyncio.to_thread(work)


async def takes_a_record_once(make: Make) -> None:
    """A record whose answer was lost may be given again: it is there once, and that is success."""
    log = make()

    def work() -> None:
        epoch = epoch_of(log)
        first = record(BEGINNING, "a")
        hold(log.append(epoch, first) and log.append(epoch, first), "the same record is refused")
        expect(len(records_of(log, epoch, BEGINNING)), 1, "records")
        log.close()

    await asyncio.to_thread(work)


async def tells_the_whole_list(make: Make) -> None:
    """A master of another history, or of none, is told all rows in order, the position, and the notes."""
    log = make()

    def work() -> None:
        epoch = epoch_of(log)
        at = BEGINNING
        for name in ("c", "a", "b"):
            written = record(at, name, {"n": name.encode()})
            hold(log.append(epoch, written), "a record is refused")
            at = written.position
        gone = Record(at, [(b"a", None)], Position(4, b"gonegone"))
        hold(log.append(epoch, gone), "a removal is refused")
        whole = log.since("", BEGINNING)
        if not isinstance(whole, Whole):
            raise Broken("a master without an epoch is to be told the whole list")
        rows = [key for page in whole.rows for key, _ in page]
        expect((rows, whole.position), ([b"b", b"c"], gone.position), "rows and position")
        expect((whole.notes, whole.epoch), ({"n": b"b"}, epoch), "notes and epoch")
        expect([row.position.seq for row in whole.records], [1, 2, 3, 4], "records")
        log.close()

    await asyncio.to_thread(work)


LIST_CHECKS: Final[tuple[Check, ...]] = (
    keeps_one_order,
    takes_a_record_once,
    tells_the_whole_list,
)
