"""What a peer may cost: compression and its bombs, endless input, subscribers that do not read, idle ones."""

import asyncio
import contextlib
import socket
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from murder.model.protocol import MUPDATE
from murder.net.connection import Receiver
from murder.roles.mupdate.serving import writes
from murder.roles.mupdate.serving.untaken import COUNTED_AGAIN_S, PATIENCE_S, Untaken
from tests.kit.peer import Deflate
from tests.kit.waiting import pause_here, until_soon
from tests.kit.wires import segment_octets
from tests.rooms.mupdate.nodes import Raw, Server, master


def memory_of(server: Server) -> int:
    """Octets that the server holds for its peers."""
    return sum(
        dialogue.session.held + dialogue.connection.held_back_octets + dialogue.connection.pending()
        for dialogue in server.service.dialogues
    )


async def test_compress_both_ways_with_pipelined_commands(tmp_path: Path) -> None:
    async with master(tmp_path) as server:
        peer = await Raw.connect(server.port)
        assert (await peer.ask(b'C COMPRESS "DEFLATE"')) == [b'C OK "DEFLATE active"']
        peer.deflate = Deflate()
        peer.send(b"".join(b't ACTIVATE "a%d" "be1!" ""\r\n' % i for i in range(3000)))
        for _ in range(3000):
            assert await peer.message() == b't OK "done"'
        peer.send(b'D COMPRESS "DEFLATE"\r\nL LIST\r\n')
        assert (await peer.message()).startswith(b"D NO")
        listed = [await peer.message() for _ in range(3001)]
        assert listed[-1].startswith(b"L OK") and len(set(listed)) == 3001
        await peer.close()


async def test_a_deflate_bomb_meets_the_limits_of_the_session(tmp_path: Path) -> None:
    async with master(tmp_path) as server:
        peer = await Raw.connect(server.port)
        await peer.ask(b'C COMPRESS "DEFLATE"')
        peer.deflate = Deflate()
        peer.send(b"x" * 200_000_000)
        with contextlib.suppress(ConnectionResetError):  # what it had not read when it closed
            assert (await peer.message()).startswith(b"* BYE")
        assert memory_of(server) < 1 << 20
        assert (await (await Raw.connect(server.port)).ask(b"N NOOP"))[0] == b'N OK "Noop done"'


async def test_endless_input_is_ended(tmp_path: Path) -> None:
    async with master(tmp_path) as server:
        for user in (None, "murder"):
            for flood in (b"x" * 100_000, b"a FIND {99999999999+}\r\n", b"\r\n" * 5000):
                raw = await Raw.connect(server.port, user)
                raw.send(flood)
                try:
                    said = await raw.reader.read()
                    assert b"* BYE" in said
                except ConnectionResetError:
                    pass  # what it had not read when it closed: TCP says so, louder than BYE
        raw = await Raw.connect(server.port, None)  # a large literal is skipped, not kept
        raw.send(b"a FIND {3000000+}\r\n" + b"x" * 3_000_000 + b"\r\nb LOGOUT\r\n")
        assert (await raw.message()).startswith(b"a BAD")
        assert (await raw.message()).startswith(b"b BYE")


class Measured:
    """A receiver that notes how much comes at a time."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.most = 0

    def begin(self) -> None:
        self.receiver.begin()

    def received(self, data: bytes) -> None:
        self.most = max(self.most, len(data))
        self.receiver.received(data)

    def writable(self) -> None:
        self.receiver.writable()

    def lost(self, error: Exception | None) -> None:
        self.receiver.lost(error)


async def test_little_is_read_at_a_time_whatever_a_node_sends_ahead(tmp_path: Path) -> None:
    async with master(tmp_path) as server:
        raw = await Raw.connect(server.port)
        (dialogue,) = server.service.dialogues
        measured = dialogue.connection.receiver = Measured(dialogue)
        acl = b"a\tlrs\t" * 2000
        for i in range(100):
            raw.send(b'a%d ACTIVATE "u.m%d" "be!p" {%d+}\r\n%b\r\n' % (i, i, len(acl), acl))
        await raw.until(b"a99 ")
        assert 0 < measured.most <= 4 * MUPDATE.receive_octets
        await raw.close()


async def test_no_segment_is_larger_than_what_the_master_has_room_for(tmp_path: Path) -> None:
    """One that is would wait for a timer, and so would each access list of 100 kB."""
    async with master(tmp_path) as server:
        raw = await Raw.connect(server.port)
        acl = b"".join(b"u%015d\tlrs\t" % number for number in range(5000))
        raw.send(b'a ACTIVATE "u.m" "be!p" {%d+}\r\n%b\r\n' % (len(acl), acl))
        assert await raw.message() == b'a OK "done"'
        (dialogue,) = server.service.dialogues
        sock = dialogue.connection.transport.get_extra_info("socket")
        room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert room == 2 * MUPDATE.receive_octets  # Linux takes twice what is said
        assert 0 < segment_octets(raw.transport.get_extra_info("socket")) <= room // 2
        await raw.close()


async def test_a_subscriber_that_does_not_read_is_dropped_and_the_others_never_notice(
    tmp_path: Path,
) -> None:
    async with master(tmp_path, max_stream_backlog_bytes=256 * 1024) as server:
        stuck, good, writer = [await Raw.connect(server.port) for _ in range(3)]
        for peer in (stuck, good):
            assert (await peer.ask(b"U UPDATE"))[-1].startswith(b"U OK")
        stuck.transport.pause_reading()
        acl = b"a" * 10_000
        most = 0
        for i in range(1500):
            answer = await writer.ask(b't ACTIVATE "m%d" "be1!" {%d+}\r\n%b' % (i, len(acl), acl))
            assert answer == [b't OK "done"']
            assert (await good.message()).startswith(b"U MAILBOX")
            most = max(most, memory_of(server))
            if len(server.hub.subscribers) == 1:
                break
        assert len(server.hub.subscribers) == 1
        assert most < 2 << 20
        assert (await good.ask(b"N NOOP")) == [b'N OK "Noop done"']


async def test_a_subscriber_that_pauses_catches_up_with_every_row_as_it_is(tmp_path: Path) -> None:
    async with master(tmp_path) as server:
        slow, writer = [await Raw.connect(server.port) for _ in range(2)]
        await slow.ask(b"U UPDATE")
        slow.transport.pause_reading()
        acl = b"a" * 10_000
        for i in range(1200):
            name = b"m%d" % (i % 400)
            line = b't ACTIVATE "%b" "be1!" {%d+}\r\n%d%b' % (name, len(acl) + 4, 1000 + i, acl)
            await writer.ask(line)
        await writer.ask(b't DELETE "m7"')
        slow.transport.resume_reading()
        rows: dict[bytes, bytes] = {}
        for line in (await slow.ask(b"N NOOP"))[:-1]:
            words = line.split(b" ", 2)
            name = line.split(b"\r\n")[1].split(b" ")[0] if words[2].startswith(b"{") else b""
            if words[1] == b"DELETE":
                rows.pop(name, None)
            else:
                rows[name] = line.split(b"\r\n")[-1][:4]
        wanted = {b"m%d" % i: b"%d" % (1800 + i) for i in range(400) if i != 7}
        assert rows == wanted


async def test_who_does_not_log_in_is_cut_off(tmp_path: Path) -> None:
    async with master(tmp_path, login_timeout_s=0.5) as server:
        raw = await Raw.connect(server.port, None)
        assert (await raw.message()).startswith(b"* BYE")
        raw = await Raw.connect(server.port)
        await pause_here(0.7, "longer than the login timeout, which is over for it")
        assert (await raw.ask(b"N NOOP")) == [b'N OK "Noop done"']


async def test_nobody_is_idle_too_long_before_a_quarter_of_an_hour(tmp_path: Path) -> None:
    """RFC 3656 §2; 0 is for ever."""

    for configured, least, most in ((0.1, 900, 900), (3600.0, 3600, 3600), (0.0, 10**8, 10**9)):
        async with master(tmp_path / str(configured), idle_timeout_s=configured) as server:
            raw = await Raw.connect(server.port)
            (dialogue,) = server.service.dialogues
            assert least <= dialogue.idle_timeout_s <= most
            await raw.close()


def long_list(identifiers: int = 500) -> bytes:
    return b"".join(b"u%040d\tl\t" % number for number in range(identifiers))


def activating(name: bytes, acl: bytes) -> bytes:
    return b't ACTIVATE "%b" "be1!" {%d+}\r\n%b\r\n' % (name, len(acl), acl)


async def test_long_access_lists_that_come_together_share_commits(tmp_path: Path) -> None:
    """Each alone would write as many pages of the index as all of them together."""
    acl = long_list()
    async with master(tmp_path) as server:
        ledger, counters = server.ledger, server.service.counters
        assert ledger is not None
        commits: list[int] = []
        ledger.on_commit = lambda committed: commits.append(len(committed.changes))
        peer = await Raw.connect(server.port)
        disk = threading.Event()
        held = asyncio.create_task(ledger.between_commits(disk.wait))
        await until_soon(lambda: ledger._held)
        peer.send(b"".join(activating(b"a%d" % number, acl) for number in range(60)))
        await until_soon(lambda: counters.octets_waiting >= writes.MOST_OCTETS)
        disk.set()
        for _ in range(60):
            assert await peer.message() == b't OK "done"'
        await held
        assert sum(commits) == 60 and max(commits) >= 0.9 * writes.MOST_OCTETS // len(acl)
        await until_soon(lambda: counters.octets_waiting == 0)
        await peer.close()


async def test_where_others_have_much_waiting_one_has_a_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What all connections together have on its way to the disk is bounded."""
    acl = long_list()
    monkeypatch.setattr(writes, "MOST_OCTETS_OF_ALL", 4 * len(acl))
    async with master(tmp_path) as server:
        ledger, counters = server.ledger, server.service.counters
        assert ledger is not None
        peers = [await Raw.connect(server.port) for _ in range(12)]
        disk = threading.Event()
        held = asyncio.create_task(ledger.between_commits(disk.wait))
        await until_soon(lambda: ledger._held)
        for at, peer in enumerate(peers):
            peer.send(b"".join(activating(b"a%d.%d" % (at, i), acl) for i in range(5)))
        dialogues = [one for one in server.service.dialogues if one.peer]
        await until_soon(lambda: all(one._writes.is_full for one in dialogues))
        assert len(dialogues) == 12
        # and one more of each
        assert 4 * len(acl) <= counters.octets_waiting <= (4 + 12) * len(acl)
        disk.set()
        for peer in peers:
            for _ in range(5):
                assert await peer.message() == b't OK "done"'
            await peer.close()
        await held


# What waits for all peers together

ACL = b"".join(b"u%040d\tl\t" % number for number in range(2000))
MOST = 1 << 20


class Waiting:
    def __init__(self) -> None:
        self.octets = 0
        self.cut_for = ""

    def untaken_octets(self) -> int:
        return self.octets

    def cut(self, reason: str) -> None:
        self.cut_for = reason
        self.octets = 0


def test_who_has_taken_nothing_for_longest_is_cut_off_and_only_for_the_others_sake() -> None:
    now = 0.0
    untaken = Untaken(100, lambda: now)
    first, second, third = Waiting(), Waiting(), Waiting()
    with capture_logs() as log:
        for peer in (first, second, third):
            peer.octets = 60
            untaken.note(peer)
        assert untaken.is_spent and not log[1:] and log[0]["event"] == "subscribers.slow"
        now = PATIENCE_S
        first.octets = 50  # it reads, slowly
        third.octets = 120
        untaken.note(third)
        assert (first.cut_for, third.cut_for) == ("", "") and second.cut_for
        assert untaken.total == 170
        first.octets = third.octets = 0
        now += COUNTED_AGAIN_S
        for peer in (first, third):
            untaken.note(peer)
        assert untaken.total == 0 and not untaken.is_spent and len(log) == 1
        third.octets = 101
        untaken.note(third)  # another time
    assert len(log) == 2
    untaken.forget(third)
    untaken.forget(third)
    assert untaken.total == 0


def test_what_has_been_taken_meanwhile_does_not_count() -> None:
    now = 0.0
    untaken = Untaken(100, lambda: now)
    peers = [Waiting() for _ in range(10)]
    for peer in peers:
        peer.octets = 30
        now += COUNTED_AGAIN_S / 2
        untaken.note(peer)
        peer.octets = 0
    assert untaken.total <= 60 and not any(peer.cut_for for peer in peers)


async def peers_that_ask(server: Server, what: bytes, count: int) -> list[Raw]:
    writer = await Raw.connect(server.port)
    for number in range(40):
        words = b'"user.u%d" "be1!p" {%d+}\r\n%b' % (number, len(ACL), ACL)
        assert await writer.ask(b"a ACTIVATE " + words) == [b'a OK "done"']
    await writer.close()
    await until_soon(lambda: not server.service.dialogues)
    peers = [await Raw.connect(server.port) for _ in range(count)]
    for dialogue in server.service.dialogues:  # else the kernel takes all of it
        sock = dialogue.connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    for peer in peers:
        sock = peer.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
        peer.transport.pause_reading()
        peer.send(what)
    return peers


def waits(server: Server) -> int:
    return sum(dialogue.untaken_octets() for dialogue in server.service.dialogues)


FINDS = b"".join(b'f FIND "user.u%d"\r\n' % number for number in range(40))


@pytest.mark.parametrize("what", [b"U UPDATE\r\n", b"U FOLLOW\r\n", b"U LIST\r\n", FINDS])
async def test_what_waits_for_all_together_is_bounded_and_who_reads_gets_all(
    tmp_path: Path, what: bytes
) -> None:
    async with master(tmp_path, max_streams_bytes=MOST) as server:
        peers = await peers_that_ask(server, what, 16)
        dialogues = list(server.service.dialogues)
        await until_soon(lambda: all(one.connection.writing_paused for one in dialogues))
        page = 2 * len(ACL)  # as much as is sent at a time
        assert 0 < waits(server) <= MOST + len(peers) * page
        assert all(one.untaken_octets() <= page + (32 << 10) for one in dialogues)
        for peer in (peers[3], peers[11]):
            peer.transport.resume_reading()
            rows = 0
            while rows < 40:
                rows += (await peer.message()).count(b"user.u")
        for peer in peers:
            await peer.close()


async def test_rows_of_a_large_commit_are_read_for_each_peer_as_it_takes_them(
    tmp_path: Path,
) -> None:
    """All that follow the list would else have all of it in memory at once."""
    async with master(tmp_path, max_streams_bytes=MOST) as server:
        following = await peers_that_ask(server, b"U FOLLOW\r\n", 6)
        for peer in following:
            peer.transport.resume_reading()
            await peer.until(b"U OK")
            peer.transport.pause_reading()
        writer = await Raw.connect(server.port)
        lines = [b'"user.v%d" "be1!p" {%d+}\r\n%b\r\n' % (one, len(ACL), ACL) for one in range(20)]
        writer.send(b"".join(b"a ACTIVATE " + line for line in lines))
        most = 0
        for _ in lines:
            assert await writer.message() == b'a OK "done"'
            most = max(most, waits(server))
        assert most <= MOST + 6 * 3 * len(ACL)
        for peer in following:
            peer.transport.resume_reading()
            rows = 0
            while rows < len(lines):
                rows += (await peer.message()).count(b"user.v")
            await peer.close()
        await writer.close()
