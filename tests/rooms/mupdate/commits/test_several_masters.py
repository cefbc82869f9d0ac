"""Masters that share a log: one history, nobody's acknowledged change is lost, and no name is at two places."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from murder.errors import UpstreamFailure
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.commits.engine import Ordered
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.transaction import ListTransaction
from murder.roles.mupdate.remote.client import MasterClient
from murder.roles.mupdate.remote.link import greets, open_link
from plugins.list_etcd.settings import Settings
from tests.kit.ports import free_port
from tests.kit.programs.etcd import Cluster, cluster
from tests.rooms.mupdate.nodes import Follower, Raw, Server
from tests.rooms.mupdate.several import MemoryLog, Sharing


def row(server: str, name: MailboxName = MailboxName(b"user.x")) -> MailboxEntry:  # noqa: B008 - a value
    return MailboxEntry(name, EntryState.ACTIVE, server.encode() + b"!p")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("etcd"), 1) as found:
        yield found


@pytest.fixture(params=["memory", "etcd"])
def log(request: pytest.FixtureRequest) -> MemoryLog | Settings:
    """What masters of this test share."""
    if request.param == "memory":
        return MemoryLog()
    endpoints = request.getfixturevalue("etcd").endpoints
    return Settings(endpoints, prefix=f"/{request.node.name}/", timeout_s=10)


async def three(folder: Path, log: MemoryLog | Settings) -> list[Sharing]:
    masters = [Sharing(folder / f"m{i}", log) for i in range(3)]
    for master in masters:
        await master.start()
    return masters


async def test_what_one_master_acknowledged_another_knows_after_noop(
    tmp_path: Path, log: MemoryLog | Settings
) -> None:
    masters = await three(tmp_path, log)
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


async def test_a_replica_goes_on_at_another_master_without_the_whole_list(
    tmp_path: Path, log: MemoryLog | Settings
) -> None:
    masters = await three(tmp_path, log)
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


async def test_the_number_of_a_store_is_known_to_all_masters(
    tmp_path: Path, log: MemoryLog | Settings
) -> None:
    """EPOCH changes no row, and has its place in the history all the same."""
    masters = await three(tmp_path, log)
    peers = [await Raw.connect(master.port) for master in masters]
    assert await peers[0].ask(b'a EPOCH "be1" "7"') == [b'a OK "7"']
    assert await peers[1].ask(b'b EPOCH "be1" "5"') == [b'b OK "7"']
    assert await peers[2].ask(b'c ACTIVATE "user.x" "be1!p" ""') == [b'c OK "done"']
    for peer in peers:
        await peer.ask(b"n NOOP")
    assert len({master.mailboxes.mark() for master in masters}) == 1
    for master in masters:
        await master.stop()


async def test_subscribers_are_cut_off_where_the_log_was_put_back(tmp_path: Path) -> None:
    """Their marks are of a history that is no more; what the master had is kept."""
    log = MemoryLog()
    masters = await three(tmp_path, log)
    peers = [await Raw.connect(master.port) for master in masters]
    for i in range(3):
        await peers[0].ask(b'a ACTIVATE "user.a%d" "be1!p" ""' % i)
    await peers[1].ask(b"n NOOP")
    follower = await Raw.connect(masters[1].port)
    await follower.ask(b"u UPDATE")
    old = masters[1].mailboxes.mark()
    del log.records[1:]
    await peers[1].ask(b"n NOOP")
    while await follower.message():
        pass  # up to the end of the connection
    assert masters[1].mailboxes.find(b"user.a0") and not masters[1].mailboxes.find(b"user.a2")
    assert masters[1].mailboxes.seq_of_mark(old) is None
    aside = MailboxList.open(tmp_path / f"m1.{old.replace(':', '-')}", read_only=True)
    assert aside.count() == 3
    aside.close()
    assert (await peers[0].ask(b'b ACTIVATE "user.b" "be1!p" ""'))[-1] == b'b OK "done"'
    await peers[1].ask(b"n NOOP")
    assert masters[0].mailboxes.mark() == masters[1].mailboxes.mark()
    for master in masters:
        await master.stop()


async def test_who_comes_late_takes_the_whole_list(tmp_path: Path) -> None:
    """The log has forgotten where they were; what it still has of commits they have, too."""
    log = MemoryLog()
    masters = await three(tmp_path, log)
    peer = await Raw.connect(masters[0].port)
    for i in range(9):
        await peer.ask(b'a ACTIVATE "user.a%d" "be1!p" "ana\tl\t"' % i)
    marks = [record.position for record in log.records]
    await peer.ask(b'd DELETE "user.a1"')
    log.forgotten = 6
    late = Sharing(tmp_path / "late", log)
    await late.start()
    for master in (masters[0], late):
        assert [one.name for one in master.mailboxes.walk()] == [
            b"user.a%d" % i for i in range(9) if i != 1
        ]
        assert [one.name for one in master.mailboxes.visible(["ana"])] != []
    assert late.mailboxes.count_by_server() == masters[0].mailboxes.count_by_server()
    assert late.mailboxes.mark() == masters[0].mailboxes.mark()
    known = [
        late.mailboxes.seq_of_mark(f"{log.epoch}:{seq}:{mark.hex()}") is not None
        for seq, mark in marks
    ]
    assert known == [False] * 5 + [True] * 4
    assert [key for _, key, row in late.mailboxes.rows_changed_after(9) if row is None] != []
    for master in [*masters, late]:
        await master.stop()


async def test_a_master_that_never_had_the_list_tells_nothing_of_it(tmp_path: Path) -> None:
    """Who compares with an empty list deletes their mailboxes."""
    where = Settings((f"http://127.0.0.1:{free_port()}",), timeout_s=0.5)
    master = Sharing(tmp_path, where)
    await Server.start(master)
    with pytest.raises((UpstreamFailure, OSError)):
        await open_link(master.target)
    assert not await greets(master.target, 20)  # who has other masters asks those
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
    assert (client.target.name, client.at) == (targets[0].name, targets[2].name)
    await client.close()
    await masters[2].stop()
