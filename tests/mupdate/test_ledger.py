"""Group commit: outcomes in order, each caller their own, everything durable first."""

import asyncio
import threading
from pathlib import Path

import pytest

from murder.errors import Code, Refusal
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.commits.ledger import INLINE_COST, Ledger
from murder.roles.mupdate.commits.waiting import MAX_COMMIT_COST
from murder.roles.mupdate.database.change import PutEntry, RemoveEntry
from murder.roles.mupdate.database.mboxlist import Committed, MailboxList
from murder.roles.mupdate.database.transaction import ListTransaction


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
