"""Group commit: outcomes in order, each caller their own, everything durable first."""

import asyncio
import itertools
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

from murder.errors import Code, Refusal
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.commits.bounds import Bounds
from murder.roles.mupdate.commits.ledger import (
    INLINE_COST,
    INLINE_PROPOSALS,
    MANY_PROPOSALS,
    Ledger,
    carry_out,
)
from murder.roles.mupdate.commits.proposal import Activate, Peer
from murder.roles.mupdate.commits.waiting import MAX_COMMIT_COST
from murder.roles.mupdate.database.change import PutEntry, RemoveEntry
from murder.roles.mupdate.database.mboxlist import Committed, MailboxList
from murder.roles.mupdate.database.transaction import ListTransaction
from tests.kit.waiting import until_soon


def entry(name: str) -> MailboxEntry:
    return MailboxEntry(MailboxName(name.encode()), EntryState.ACTIVE, b"be1!p", b"")


async def test_changes_of_one_turn_share_a_commit_and_listeners_hear_first(tmp_path: Path) -> None:
    mailboxes = MailboxList.open(tmp_path)
    heard: list[Committed] = []
    ledger = Ledger(mailboxes, heard.append)
    seqs = await asyncio.gather(*(ledger.commit([PutEntry(entry(f"a{i}"))]) for i in range(9)))
    assert seqs == list(range(1, 10))
    assert len(heard) == 1 and [change.seq for change in heard[0].changes] == seqs
    assert heard[0].mark == mailboxes.mark()
    await ledger.commit([RemoveEntry(MailboxName(b"never"))])
    assert len(heard) == 1  # nothing changed, nothing to hear
    await ledger.close()
    mailboxes.close()


async def test_a_refused_or_failing_proposal_fails_alone(tmp_path: Path) -> None:
    mailboxes = MailboxList.open(tmp_path)
    ledger = Ledger(mailboxes)

    def take(transaction: ListTransaction) -> None:
        if transaction.find(b"x") is not None:
            raise Refusal(Code.ALREADY_EXISTS, "taken")
        transaction.put(entry("x"))

    def bug(transaction: ListTransaction) -> None:
        transaction.put(entry("never"))
        raise ZeroDivisionError

    found = await asyncio.gather(
        ledger.submit(take), ledger.submit(take), ledger.submit(bug), return_exceptions=True
    )
    assert [type(one) for one in found] == [type(None), Refusal, ZeroDivisionError]
    assert [one.name for one in mailboxes.walk()] == [b"x"]
    long = MailboxEntry(MailboxName(b"x" * 999), EntryState.ACTIVE, b"")
    with pytest.raises(Refusal):
        await ledger.commit([PutEntry(entry("y")), PutEntry(long)])
    assert mailboxes.find(b"y") is None
    await ledger.close()
    mailboxes.close()


async def test_callers_who_go_on_and_on_share_their_commits(tmp_path: Path) -> None:
    """One that comes first does not leave the others waiting for a commit of its own each time."""

    mailboxes = MailboxList.open(tmp_path)
    heard: list[Committed] = []
    ledger = Ledger(mailboxes, heard.append)

    async def call(name: str, first: asyncio.Event, then: asyncio.Event) -> None:
        await first.wait()
        for i in range(20):
            future = asyncio.ensure_future(ledger.commit([PutEntry(entry(f"{name}{i}"))]))
            await asyncio.sleep(0)
            then.set()
            await future

    first, second = asyncio.Event(), asyncio.Event()
    first.set()
    await asyncio.gather(call("a", first, second), call("b", second, second))
    assert mailboxes.count() == 40 and len(heard) < 32
    await ledger.close()
    mailboxes.close()


async def test_close_waits_for_what_was_proposed(tmp_path: Path) -> None:
    mailboxes = MailboxList.open(tmp_path)
    ledger = Ledger(mailboxes)
    tasks = [asyncio.ensure_future(ledger.commit([PutEntry(entry(f"a{i}"))])) for i in range(3)]
    await asyncio.sleep(0)
    await ledger.close()
    assert mailboxes.count() == 3 and all(task.done() for task in tasks)
    mailboxes.close()


async def test_a_commit_waits_a_turn_for_those_of_the_last_one(tmp_path: Path) -> None:
    """On a fast disk too: what they say next may just be coming in. Who is alone does not wait for anybody."""

    mailboxes = MailboxList.open(tmp_path)
    heard: list[Committed] = []
    ledger = Ledger(mailboxes, heard.append, inline=True)

    def change(name: str) -> asyncio.Task[int]:
        return asyncio.ensure_future(ledger.commit([PutEntry(entry(name))]))

    for i in range(60):  # until commits are known to be fast, if they are
        await asyncio.gather(change(f"a{i}"), change(f"b{i}"))
    assert len(heard) == 60
    first = change("c")
    await asyncio.sleep(0)
    assert ledger.waiting == 1
    await asyncio.gather(first, change("d"))
    assert len(heard) == 61
    await change("e")
    await change("f")
    assert len(heard) == 63
    await ledger.close()
    mailboxes.close()


@pytest.mark.parametrize("parts", [2, 4])
async def test_a_commit_touches_so_many_pages(tmp_path: Path, parts: int) -> None:
    mailboxes = MailboxList.open(tmp_path)
    heard: list[Committed] = []
    ledger = Ledger(mailboxes, heard.append)
    loop = asyncio.get_running_loop()
    done = [loop.create_future() for _ in range(8 * parts)]
    for number, future in enumerate(done):
        ledger.propose(
            [lambda transaction, number=number: transaction.put(entry(f"a{number}"))],  # type: ignore[misc]
            future.set_result,
            MAX_COMMIT_COST // 8,
        )
    await asyncio.gather(*done)
    assert [len(one.changes) for one in heard] == [8] * parts
    await ledger.close()
    mailboxes.close()


@pytest.mark.parametrize("cost", [INLINE_COST, INLINE_COST + 1])
async def test_long_access_lists_are_not_committed_in_the_event_loop(
    tmp_path: Path, cost: int
) -> None:
    mailboxes = MailboxList.open(tmp_path)
    ledger = Ledger(mailboxes, inline=True)
    ledger._commit_s = 0.0
    threads: list[object] = []
    done = asyncio.get_running_loop().create_future()
    ledger.propose([lambda _: threads.append(threading.current_thread())], done.set_result, cost)
    await done
    in_loop = cost <= INLINE_COST
    assert (threads == [threading.main_thread()]) is in_loop
    await ledger.close()
    mailboxes.close()


def long_list(whose: int, identifiers: int = 1000) -> bytes:
    return b"".join(b"u%d_%d\tl\t" % (whose, number) for number in range(identifiers))


def row(number: int, raw_acl: bytes) -> MailboxEntry:
    return MailboxEntry(
        MailboxName(b"user.ana.%04d" % number), EntryState.ACTIVE, b"be1!p", raw_acl
    )


async def commits_of(tmp_path: Path, *steps: list[PutEntry | RemoveEntry]) -> list[list[int]]:
    """How many rows each commit had, by step."""
    mailboxes = MailboxList.open(tmp_path)
    rows: list[int] = []
    ledger = Ledger(mailboxes, lambda committed: rows.append(len(committed.changes)))
    found = []
    for step in steps:
        rows.clear()
        await asyncio.gather(*(ledger.commit([change]) for change in step))
        found.append(list(rows))
    await ledger.close()
    mailboxes.close()
    return found


@pytest.mark.parametrize("is_same", [True, False])
async def test_a_hierarchy_with_one_long_list_takes_few_commits_and_with_many_lists_few_pages_each(
    tmp_path: Path, is_same: bool
) -> None:
    """Lines of the index for neighbours with the same access list are on the same pages."""
    put = [PutEntry(row(number, long_list(0 if is_same else number))) for number in range(20)]
    removed = [RemoveEntry(one.entry.name) for one in put]
    few = [20] if is_same else [5] * 4
    assert await commits_of(tmp_path, put, removed) == [few, few]  # type: ignore[arg-type]


async def test_what_a_short_list_is_put_over_counts(tmp_path: Path) -> None:
    """An ACTIVATE of a few octets may take a thousand lines out of the index."""
    put = [PutEntry(row(number, long_list(number))) for number in range(10)]
    short = [PutEntry(row(number, b"bea\tl\t")) for number in range(10)]
    found = await commits_of(tmp_path, put, short, short[:1])  # type: ignore[arg-type]
    assert found == [[5, 5], [5, 5], []]


async def test_what_a_commit_does_not_hold_keeps_its_order_and_lets_others_go_first(
    tmp_path: Path,
) -> None:
    mailboxes = MailboxList.open(tmp_path)
    ledger = Ledger(mailboxes)
    told: list[tuple[str, int]] = []
    done = [asyncio.get_running_loop().create_future() for _ in range(3)]

    def works(names: range, acl: bool) -> list[Callable[[ListTransaction], object]]:
        def work(number: int) -> Callable[[ListTransaction], object]:
            entry = row(number, long_list(number) if acl else b"")

            def put(transaction: ListTransaction) -> int:
                transaction.put(entry)
                return transaction.seq

            return put

        return [work(number) for number in names]

    def heard(who: str, at: int) -> Callable[[Sequence[object]], None]:
        def answer(outcomes: Sequence[object]) -> None:
            told.append((who, len(outcomes)))
            seqs.setdefault(who, []).extend(outcomes)
            done[at].set_result(None)

        return answer

    seqs: dict[str, list[object]] = {}
    ledger.propose(works(range(12), True), heard("large", 0), 12_000, "be1", "a")
    ledger.propose(works(range(12, 13), False), heard("behind", 1), 4, "be1", "a")
    ledger.propose(works(range(20, 21), False), heard("other", 2), 4, "be2", "b")
    await asyncio.gather(*done)
    assert told == [("other", 1), ("large", 12), ("behind", 1)]
    assert seqs["large"] == sorted(seqs["large"])  # type: ignore[type-var]
    assert seqs["behind"] == [14] and ledger.waiting == 0
    await ledger.close()
    mailboxes.close()


async def test_few_changes_go_ahead_of_lmdb_and_many_into_it_at_once(tmp_path: Path) -> None:
    """Many are written once: a second time costs more than the journal's one flush in place of two saves."""
    mailboxes = MailboxList.open(tmp_path, journal_bytes=1 << 20)
    settling = mailboxes._environment._settling
    ledger = Ledger(mailboxes)
    loop = asyncio.get_running_loop()

    async def put(first: int, number: int) -> None:
        done = loop.create_future()
        works = [
            lambda transaction, at=at: transaction.put(entry(f"a{at}"))
            for at in range(first, first + number)
        ]
        ledger.propose(works, done.set_result)
        await done

    with settling._settling:  # what is ahead stays there meanwhile
        await put(0, MANY_PROPOSALS)
        assert sum(layer.keys for layer in settling.layers) >= 2 * MANY_PROPOSALS
    await put(MANY_PROPOSALS, MANY_PROPOSALS + 1)
    assert not settling.layers
    assert mailboxes.count() == 2 * MANY_PROPOSALS + 1
    await ledger.close()
    mailboxes.close()


async def test_what_comes_in_turn_after_turn_is_one_commit(tmp_path: Path) -> None:
    """A long announcement comes as so many octets in each turn of the loop as the kernel keeps."""
    mailboxes = MailboxList.open(tmp_path)
    heard: list[Committed] = []
    ledger = Ledger(mailboxes, heard.append, inline=True)
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def come(part: int, parts: int, size: int) -> None:
        works = [
            lambda transaction, at=at: transaction.put(entry(f"a{at}"))
            for at in range(part * size, (part + 1) * size)
        ]
        last = part + 1 == parts
        ledger.propose(works, done.set_result if last else lambda _: None)
        if not last:  # behind what this turn does, as what the next poll brings
            loop.call_soon(come, part + 1, parts, size)

    come(0, 5, 100)
    await done
    assert [len(committed.changes) for committed in heard] == [500]
    heard.clear()
    done = loop.create_future()
    come(0, 3, 2000)  # who has so much waits for nobody
    await done
    assert len(heard) > 1 and len(heard[0].changes) <= 2000
    await ledger.close()
    mailboxes.close()


async def test_what_drips_in_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Where each turn of the loop takes long, and brings a little: who is waiting waits for few of them."""
    mailboxes = MailboxList.open(tmp_path)
    heard: list[Committed] = []
    ledger = Ledger(mailboxes, heard.append, inline=True)
    loop = asyncio.get_running_loop()
    numbers = itertools.count()
    turns = 0

    def come(count: int) -> None:
        nonlocal turns
        turns += 1
        names = [entry(f"a{next(numbers)}") for _ in range(count)]
        works = [partial(ListTransaction.put, entry=name) for name in names]
        ledger.propose(works, lambda _: None)
        if not ledger._committing and turns < 2000:
            loop.call_soon(come, 1)

    come(INLINE_PROPOSALS + 1)
    await until_soon(lambda: bool(heard))
    assert turns <= 20
    await ledger.close()
    mailboxes.close()


@pytest.mark.parametrize(("owner_each", "most"), [(10, 16), (1, 25)])
def test_a_new_row_takes_few_calls_and_fewer_behind_one_of_the_same_owner(
    tmp_path: Path, owner_each: int, most: float
) -> None:
    """Calls in Python, of an ACTIVATE in a commit of many."""
    bounds = Bounds(10_000, 1000, 100_000, 1 << 40, 10)
    proposals = []
    for at in range(500):
        owner, server = f"u{at // owner_each}", "be1"
        name = MailboxName(f"user.{owner}.box{at:03}".encode())
        acl = f"{owner}\tlrswipkxtecda\t".encode()
        wanted = MailboxEntry(name, EntryState.ACTIVE, b"be1!default", acl)
        proposals.append(partial(carry_out, Activate(Peer("be1"), wanted, server), bounds))
    mailboxes = MailboxList.open(tmp_path)
    calls = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    def work(transaction: ListTransaction) -> list[object]:
        sys.setprofile(count)
        try:
            return [proposal(transaction) for proposal in proposals]
        finally:
            sys.setprofile(None)

    outcomes, _ = mailboxes.write(work)
    assert outcomes == ["done"] * 500 and mailboxes.count() == 500
    assert len(list(mailboxes.at_server("be1"))) == len(list(mailboxes.walk())) == 500
    assert [one.name for one in mailboxes.visible(["u3"])] == [
        MailboxName(f"user.u3.box{at:03}".encode()) for at in range(3 * owner_each, 4 * owner_each)
    ]
    assert calls <= most * 500, calls / 500
    mailboxes.close()
