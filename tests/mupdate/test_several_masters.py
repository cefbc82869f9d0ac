"""Masters that share a log: one history, nobody's acknowledged change is lost, and no name is at two places."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from murder.errors import UpstreamFailure
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.mupdate.client import MasterClient
from murder.mupdate.engine import Ordered
from murder.mupdate.mboxlist import MailboxList
from murder.mupdate.transaction import ListTransaction
from tests.mupdate.nodes import Follower, Raw
from tests.mupdate.several import MemoryLog, Sharing


def row(server: str, name: MailboxName = MailboxName(b"user.x")) -> MailboxEntry:  # noqa: B008 - a value
    return MailboxEntry(name, EntryState.ACTIVE, server.encode() + b"!p")


async def three(folder: Path, log: MemoryLog) -> list[Sharing]:
    masters = [Sharing(folder / f"m{i}", log) for i in range(3)]
    for master in masters:
        await master.start()
    return masters


async def test_what_one_master_acknowledged_another_knows_after_noop(tmp_path: Path) -> None:
    masters = await three(tmp_path, MemoryLog())
    peers = [await Raw.connect(master.port) for master in masters]
    assert await peers[0].ask(b'a ACTIVATE "user.x" "be1!p" ""') == [b'a OK "done"']
    assert (await peers[1].ask(b'b FIND "user.x"'))[0].startswith(b'b MAILBOX "user.x"')
    assert (await peers[2].ask(b'c RESERVE "user.x" "be2!p"'))[-1].startswith(b"c NO")
    for peer in peers:
        await peer.ask(b"n NOOP")
    assert len({master.mailboxes.mark() for master in masters}) == 1
    for master in masters:
        await master.stop()


@pytest.mark.parametrize("lose", [0, 30])
async def test_rivals_at_three_masters_are_put_in_one_order(tmp_path: Path, lose: int) -> None:
    """Also where answers of the log are lost: whoever was told OK has it, and a NO was not done, or may be."""

    log = MemoryLog(lose=lose, seed=7)
    masters = await three(tmp_path, log)
    told: dict[bytes, list[bytes]] = {}

    async def claim(number: int) -> None:
        peer = await Raw.connect(masters[number].port)
        for i in range(40):
            name = b"user.n%d" % i
            answer = (await peer.ask(b't ACTIVATE "%b" "be%d!p" ""' % (name, number)))[-1]
            if answer.startswith(b"t OK"):
                told.setdefault(name, []).append(b"be%d!p" % number)
        await peer.close()

    await asyncio.gather(*(claim(number) for number in range(3)))
    for master in masters:
        assert master.ledger is not None
        await master.ledger.catch_up()
    assert len({master.mailboxes.mark() for master in masters}) == 1
    assert all(len(holders) == 1 for holders in told.values())
    for name, (holder,) in told.items():
        for master in masters:
            found = master.mailboxes.find(name)
            assert found is not None and found.raw_location == holder
    assert log.lost or not lose
    for master in masters:
        await master.stop()


async def test_a_replica_goes_on_at_another_master_without_the_whole_list(tmp_path: Path) -> None:
    masters = await three(tmp_path, MemoryLog())
    peer = await Raw.connect(masters[0].port)
    for i in range(50):
        await peer.ask(b't ACTIVATE "user.a%d" "be1!p" ""' % i)
    one = Follower(tmp_path / "r", masters[0].target)
    await one.follow()
    await one.replica.until_synchronised(10)
    mark = one.mailboxes.mark()
    await one.unfollow()
    other = await Raw.connect(masters[1].port)
    await other.ask(b't ACTIVATE "user.b" "be1!p" ""')
    again = Follower(tmp_path / "r", masters[2].target)
    await again.follow()
    await again.replica.until_synchronised(10)
    await again.replica.ping(10)
    assert again.mailboxes.find(b"user.b") is not None
    assert again.mailboxes.epoch == mark.partition(":")[0]
    await again.unfollow()
    for master in masters:
        await master.stop()


def test_who_is_overtaken_decides_again(tmp_path: Path) -> None:
    log = MemoryLog()
    lists = [MailboxList.open(tmp_path / name) for name in ("a", "b")]
    first, second = (Ordered(one, log) for one in lists)
    seen: list[bool] = []

    def take(transaction: ListTransaction) -> str:
        taken = transaction.find(b"user.x") is not None
        seen.append(taken)
        if not taken and len(seen) == 1:  # the other is faster, just now
            second.write(lambda other: other.put(row("be2")))
        if taken:
            return "NO"
        transaction.put(row("be1"))
        return "OK"

    outcome, commits = first.write(take)
    assert (outcome, seen, log.refused) == ("NO", [False, True], 1)
    assert commits[-1].mark == lists[1].mark() == lists[0].mark()
    for one in lists:
        one.close()


@pytest.mark.parametrize("lose", [10, 90])
def test_an_answer_that_is_lost_is_looked_for(tmp_path: Path, lose: int) -> None:
    """What the log has taken counts as done, though it did not say so; what it has not taken is an error."""
    log = MemoryLog(lose=lose, seed=3)
    one = MailboxList.open(tmp_path)
    engine = Ordered(one, log)
    done = 0
    for number in range(60):
        name = MailboxName(b"user.n%d" % number)
        try:
            engine.write(lambda transaction, name=name: transaction.put(row("be1", name)))  # type: ignore[misc]
        except UpstreamFailure:
            continue
        done += 1
        assert one.find(name) is not None
    assert log.lost and len(log.records) == done == one.count()
    one.close()


async def test_where_one_master_does_not_answer_the_next_one_is_asked(tmp_path: Path) -> None:
    masters = await three(tmp_path, MemoryLog())
    targets = [master.target for master in masters]
    target = replace(targets[0], others=tuple((one.host, one.port) for one in targets[1:]))
    client = MasterClient(target)
    await client.activate(b"user.a", b"be1!p", b"")
    await masters[0].stop()
    await masters[1].stop()
    await client.activate(b"user.b", b"be1!p", b"")
    assert masters[2].mailboxes.find(b"user.a") and masters[2].mailboxes.find(b"user.b")
    await client.close()
    await masters[2].stop()
