"""Replicas: first synchronisation, the stream, resuming, other masters, replicas of replicas, the ping."""

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from murder.errors import UpstreamFailure
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.remote.client import MasterClient
from murder.roles.mupdate.remote.dump import FOLLOWED
from murder.roles.mupdate.remote.link import Target
from murder.roles.mupdate.remote.mark import seq_of
from murder.roles.mupdate.remote.ping import PingClient, PingServer
from murder.roles.mupdate.remote.replica import Phase
from tests.kit.engine import is_shared
from tests.kit.waiting import LIMIT_S, until_soon
from tests.rooms.mupdate.nodes import Follower, Raw, Server, follower, master

LONG_S = 1e9  # since a master took rows away: the test may be slow


def rows(mailboxes: MailboxList) -> list[tuple[bytes, bytes, bytes, bool]]:
    return [(e.name, e.raw_location, e.raw_acl, e.is_active) for e in mailboxes.walk()]


async def fill(server: Server, count: int, start: int = 0) -> None:
    raw = await Raw.connect(server.port)
    for i in range(start, start + count):
        raw.send(b't ACTIVATE "user.u%06d" "be%d.test!p" "u%d\tlrs\t"\r\n' % (i, i % 3, i))
    for _ in range(count):
        assert await raw.message() == b't OK "done"'
    await raw.close()


async def in_step(one: Follower, server: Server) -> None:
    await one.replica.until_synchronised(LIMIT_S)
    await one.replica.ping(LIMIT_S)
    assert rows(one.mailboxes) == rows(server.mailboxes)


@pytest.mark.limit_s(180)  # one commit after the other
async def test_first_synchronisation_stream_and_ping(tmp_path: Path) -> None:
    async with master(tmp_path / "m") as server:
        await fill(server, 5000)
        async with follower(tmp_path / "r", server.target) as one:
            assert one.mailboxes.synchronised_at is None
            await in_step(one, server)
            assert one.mailboxes.synchronised
            client = MasterClient(server.target)
            for i in range(50):
                await client.reserve(b"new%d" % i, b"be1!p")
                await client.activate(b"new%d" % i, b"be1!p", b"anyone\tlr\t")
                await one.replica.ping(LIMIT_S)
                found = one.mailboxes.find(b"new%d" % i)
                assert found is not None and found.is_active
                await client.delete(b"new%d" % i)
                await one.replica.ping(LIMIT_S)
                assert one.mailboxes.find(b"new%d" % i) is None
            assert one.replica.status().lag_s == 0
            await client.close()


async def test_after_an_outage_the_replica_resumes_and_serves_the_old_list_meanwhile(
    tmp_path: Path,
) -> None:
    server = Server(tmp_path / "m")
    await server.start()
    await fill(server, 3000)
    async with follower(tmp_path / "r", server.target) as one:
        await in_step(one, server)
        await server.stop()
        await until_soon(lambda: one.replica.phase is Phase.DISCONNECTED)
        assert one.mailboxes.find(b"user.u000001") is not None
        with pytest.raises(UpstreamFailure):
            await one.replica.ping(1)
        await server.start()
        await fill(server, 500, start=2800)
        client = MasterClient(server.target)
        await client.delete(b"user.u000001")
        await in_step(one, server)
        assert not one.mailboxes.lacks(LIMIT_S)  # it was deleted
        await client.close()
    # the replica itself was away
    await fill(server, 10, start=9000)
    async with follower(tmp_path / "r", server.target) as one:
        mark = one.mailboxes.note(FOLLOWED)
        assert mark and server.mailboxes.seq_of_mark(mark.decode()) is not None
        await in_step(one, server)
    await server.stop()


@pytest.mark.skipif(
    is_shared(), reason="a copy of the file of a master on etcd takes what etcd has"
)
async def test_a_master_restored_from_an_older_copy_is_noticed(tmp_path: Path) -> None:
    server = Server(tmp_path / "m")
    await server.start()
    await fill(server, 100)
    server.mailboxes.compact_to(tmp_path / "backup")
    await fill(server, 50, start=200)
    async with follower(tmp_path / "r", server.target) as one:
        await in_step(one, server)
        await server.stop()
        shutil.rmtree(tmp_path / "m")
        shutil.copytree(tmp_path / "backup", tmp_path / "m")
        await server.start()
        await fill(server, 70, start=400)  # beyond the replica's number, on another way
        await in_step(one, server)
        assert one.mailboxes.count() == 170
        assert one.mailboxes.lacks(LONG_S) == 50  # users since the copy, who may have mail
    await server.stop()


@pytest.mark.skipif(is_shared(), reason="a master on etcd has its list there, not in its folder")
async def test_what_is_lost_again_is_noted_beside_what_is_not_back_yet(tmp_path: Path) -> None:
    """As where a backend is away, and the master's list is lost, or put back, twice."""
    server = Server(tmp_path / "m")
    await server.start()
    await fill(server, 100)
    async with follower(tmp_path / "r", server.target) as one:
        await in_step(one, server)
        for _ in range(2):
            await server.stop()
            shutil.rmtree(tmp_path / "m")
            await server.start()
            await until_soon(lambda: one.mailboxes.count() == 0)
            assert one.mailboxes.lacks(LONG_S) == 100
            await fill(server, 40)  # the other backend's 60 are still to come
            await in_step(one, server)
            assert [one.mailboxes.lacks(LONG_S) for _ in range(100)][-1] == 60
    await server.stop()


@pytest.mark.skipif(is_shared(), reason="a master on etcd has its list there, not in its folder")
async def test_what_a_master_that_begins_empty_does_not_have_is_noted_with_the_list_itself(
    tmp_path: Path,
) -> None:
    server = Server(tmp_path / "m")
    await server.start()
    await fill(server, 100)
    async with follower(tmp_path / "r", server.target) as one:
        await in_step(one, server)
        assert not one.mailboxes.lacks(LIMIT_S)
        await server.stop()
        shutil.rmtree(tmp_path / "m")
        await server.start()
        reader = MailboxList.open(tmp_path / "r")  # a worker's
        await until_soon(lambda: reader.find(b"user.u000001") is None)
        assert reader.lacks(LONG_S) == 100
        assert not reader.lacks(0)
        reader.close()
        await in_step(one, server)
        await fill(server, 40)  # a backend announces its own
        await in_step(one, server)
        assert one.mailboxes.lacks(LONG_S) == 60
    async with follower(tmp_path / "r", server.target) as one:  # started again meanwhile
        assert one.mailboxes.lacks(LONG_S) == 60
        await in_step(one, server)
        await fill(server, 59, start=40)
        await in_step(one, server)
        assert [one.mailboxes.lacks(LONG_S) for _ in range(100)][-1] == 1  # each looks for some
        await fill(server, 1, start=99)
        await in_step(one, server)
        assert one.mailboxes.lacks(LONG_S) == 0  # all are back
    await server.stop()


@pytest.mark.skipif(is_shared(), reason="a master on etcd keeps as many as etcd's log has")
async def test_who_was_away_for_more_changes_than_a_master_remembers_takes_removals_for_removals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("murder.roles.mupdate.database.transaction.KEEP_CHANGES", 20)
    monkeypatch.setattr("murder.roles.mupdate.database.transaction.PRUNE_EVERY", 2)
    async with master(tmp_path / "m") as server:
        await fill(server, 50)
        async with follower(tmp_path / "r", server.target) as one:
            await in_step(one, server)
            mark = (one.mailboxes.note(FOLLOWED) or b"").decode()
        client = MasterClient(server.target)
        await client.delete(b"user.u000001")
        await fill(server, 70, start=100)
        assert server.mailboxes.has_forgotten(mark)
        assert server.mailboxes.seq_of_mark(mark) is None
        async with follower(tmp_path / "r", server.target) as one:
            await in_step(one, server)
            assert one.mailboxes.find(b"user.u000001") is None
            assert not one.mailboxes.lacks(LONG_S)
        await client.close()


@pytest.mark.skipif(is_shared(), reason="a master on etcd has its list there, not in its folder")
async def test_what_a_master_may_have_lost_is_told_to_who_follows_its_replicas(
    tmp_path: Path,
) -> None:
    server = Server(tmp_path / "m")
    await server.start()
    await fill(server, 100)
    async with follower(tmp_path / "r1", server.target) as first:
        await first.start(replica_of=first.replica)
        async with follower(tmp_path / "r4", first.target) as away:
            await in_step(first, server)
            await in_step(away, server)
        async with follower(tmp_path / "r2", first.target) as second:
            await second.start(replica_of=second.replica)
            async with follower(tmp_path / "r3", second.target) as third:
                for one in (second, third):
                    await in_step(one, server)
                    assert not one.mailboxes.lacks(LONG_S)
                await server.stop()
                shutil.rmtree(tmp_path / "m")
                await server.start()
                for one in (second, third):
                    reader = MailboxList.open(one.folder)  # a worker's
                    await until_soon(lambda reader=reader: reader.find(b"user.u000001") is None)  # type: ignore[misc] # its default
                    assert reader.lacks(LONG_S) == 100
                    assert not reader.lacks(0)
                    reader.close()
                await fill(server, 40)
                for one in (first, second, third):
                    await in_step(one, server)
            second.listener.stop_accepting()
            second.listener.abort()
            await until_soon(lambda: not second.service.dialogues)
        for name in ("r4", "new"):  # was away, and is new
            async with follower(tmp_path / name, first.target) as one:
                await in_step(one, server)
                assert one.mailboxes.lacks(LONG_S) == 100
        first.listener.stop_accepting()
        first.listener.abort()
        await until_soon(lambda: not first.service.dialogues)
    await server.stop()


async def test_replicas_follow_replicas_and_say_where_the_master_is(tmp_path: Path) -> None:
    async with (
        master(tmp_path / "m") as server,
        follower(tmp_path / "r1", server.target) as first,
    ):
        await fill(server, 2000)
        await first.start(replica_of=first.replica)
        async with follower(tmp_path / "r2", first.target) as second:
            await in_step(first, server)
            await in_step(second, server)
            raw = await Raw.connect(first.port)
            assert raw.banner[-1].endswith(b'"mupdate://master.test/"')
            refused = await raw.ask(b'A ACTIVATE "a" "be1!p" ""')
            assert refused == [b'A BAD "read-only session"']
            await fill(server, 10, start=5000)
            await first.replica.ping(LIMIT_S)
            await in_step(second, server)
        first.listener.stop_accepting()
        first.listener.abort()
        await until_soon(lambda: not first.service.dialogues)


class OldMaster:
    """A master that knows RFC 3656 and no more, and lists in the order it is given, as literals."""

    def __init__(self) -> None:
        self.rows: list[tuple[bytes, bytes, bytes]] = []
        self.server: asyncio.Server
        self.streams: list[asyncio.StreamWriter] = []

    async def start(self) -> int:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* AUTH PLAIN X-OLD\r\n* X-UNKNOWN {3+}\r\nabc\r\n")
        writer.write(b'* OK MUPDATE "old" "other" "0" "(master)"\r\n')
        while line := await reader.readline():
            while line.endswith(b"}\r\n"):
                line += await reader.readline()
            tag, verb, *_ = line.split()
            if verb == b"UPDATE":
                for name, location, acl in self.rows:
                    if not acl:
                        writer.write(
                            b"%b RESERVE {%d+}\r\n%b {%d}\r\n%b\r\n"
                            % (tag, len(name), name, len(location), location)
                        )
                    else:
                        writer.write(
                            b'* mailbox "%b" {%d+}\r\n%b "%b"\r\n'
                            % (name, len(location), location, acl)
                        )
                self.streams.append(writer)
            writer.write(b"%b OK done\r\n" % tag)
        writer.close()


@pytest.mark.parametrize("order", ["cyrus", "reverse", "plain"])
async def test_a_master_without_our_extension_is_followed_in_whatever_order(
    tmp_path: Path, order: str
) -> None:
    old = OldMaster()
    names = [b"user.foo", b"user.foo.bar", b"user.foo-bar"]
    names += [b"user.n%04d" % i for i in range(2500)]
    old.rows = [(name, b"be1!p", b"a\tl\t") for name in names] + [(b"user.o", b"be1!", b"")]
    if order == "reverse":
        old.rows.reverse()
    elif order == "plain":
        old.rows.sort()
    target = Target("127.0.0.1", await old.start(), None, "murder", "secret", 2, 2)
    async with follower(tmp_path, target) as one:
        await one.replica.until_synchronised(LIMIT_S)
        assert sorted(rows(one.mailboxes)) == sorted((*r, r[2] != b"") for r in old.rows)
        old.streams[0].write(b'U1 DELETE "user.foo"\r\nU1 MAILBOX "x" "be2!p" "z"\r\n')
        await one.replica.ping(LIMIT_S)
        assert one.mailboxes.find(b"user.foo") is None
        assert one.mailboxes.find(b"x") is not None
        # it comes back with another list: the difference is applied, the old one serves till then
        old.rows = [r for r in old.rows if r[0] != b"user.n0007"] + [(b"zz", b"be1!p", b"q")]
        before = one.mailboxes.last_seq()
        old.streams[0].close()
        await until_soon(lambda: one.replica.phase is not Phase.STREAMING)
        await one.replica.until_synchronised(LIMIT_S)
        assert sorted(rows(one.mailboxes)) == sorted((*r, r[2] != b"") for r in old.rows)
        if order == "cyrus":
            assert one.mailboxes.last_seq() - before == 4  # user.foo, x, n0007, zz
        assert not one.mailboxes.lacks(LIMIT_S)  # such a master's deletions look like that
        # and with none: it has lost its list
        before, old.rows = len(old.rows), []
        old.streams[1].close()
        await until_soon(lambda: one.replica.phase is not Phase.STREAMING)
        await one.replica.until_synchronised(LIMIT_S)
        assert one.mailboxes.lacks(LONG_S) == before
    old.server.close()


async def test_the_ping_reaches_the_masters_present_from_another_process(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / "replica.sock"
    async with (
        master(tmp_path / "m") as server,
        follower(tmp_path / "r", server.target) as one,
    ):
        ping = PingClient(deep)
        with pytest.raises(UpstreamFailure):
            await ping.ping(1)
        door = PingServer(one.replica, deep, 5)
        await door.start()
        await one.replica.until_synchronised(LIMIT_S)
        reader = MailboxList.open(tmp_path / "r", read_only=True)
        client = MasterClient(server.target)
        for i in range(20):
            await client.activate(b"a%d" % i, b"be1!", b"")
            await asyncio.gather(*(ping.ping(5) for _ in range(20)))
            assert reader.find(b"a%d" % i) is not None
        status = one.replica.status()
        assert (status.phase, status.synchronised, status.lag_s) == (Phase.STREAMING, True, 0)
        reader.close()
        ping.close()
        await door.stop()
        await client.close()


async def test_a_change_is_in_the_replica_within_milliseconds_unasked(tmp_path: Path) -> None:
    async with (
        master(tmp_path / "m") as server,
        follower(tmp_path / "r", server.target) as one,
    ):
        await one.replica.until_synchronised(LIMIT_S)
        client = MasterClient(server.target)
        took = []
        for i in range(30):
            await client.activate(b"a%d" % i, b"be1!", b"")
            began = time.perf_counter()
            await until_soon(lambda: one.mailboxes.find(b"a%d" % i) is not None)  # noqa: B023
            took.append(time.perf_counter() - began)
        assert sorted(took)[15] < 0.1
        await client.close()


async def test_a_master_that_means_ill_costs_its_own_rows_only(tmp_path: Path) -> None:
    """Names and places that no list can hold, marks that are none: passed over, the rest is kept."""
    long = b"x" * 70_000
    odd = [
        (b"", b"be1!p", b"a\tl\t"),
        (b"user." + b"n" * 600, b"be1!p", b""),
        (b"user.place", long, b"a\tl\t"),
        (b"user.place", long, b""),
    ]
    good = [(b"user.foo", b"be1!p", b"a\tl\t"), (b"user.here", b"localhost!p", b"a\tl\t")]

    old = OldMaster()
    old.rows = [*odd, *good]
    target = Target("127.0.0.1", await old.start(), None, "murder", "secret", 2, 2)
    async with follower(tmp_path, target) as one:
        await one.replica.until_synchronised(LIMIT_S)
        assert sorted(rows(one.mailboxes)) == sorted((*row, True) for row in good)
        before = len(old.streams)
        for name in (b'""', b"{600+}\r\n" + b"n" * 600, b'"user.foo"'):
            old.streams[0].write(b"U1 DELETE " + name + b"\r\n")
        await one.replica.ping(LIMIT_S)
        assert one.mailboxes.find(b"user.foo") is None and len(old.streams) == before
    old.server.close()


def test_a_number_that_is_none_is_nought() -> None:
    assert [seq_of(mark) for mark in ("e:7:c", "e:" + "9" * 5000 + ":c", "e:x:c", "7")] == [
        7,
        0,
        0,
        0,
    ]
