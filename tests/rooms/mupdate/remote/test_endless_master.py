"""A master that never ends its answers, tells too long rows, or far too much: who asks it says so, and holds little."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from murder.errors import UpstreamFailure, UpstreamKind
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.commits.waiting import MAX_COMMIT_COST, cost_of
from murder.roles.mupdate.database import difference as difference_module
from murder.roles.mupdate.database.change import Change, PutEntry, PutNote
from murder.roles.mupdate.database.difference import Difference
from murder.roles.mupdate.database.indexing import IndexLines
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.record import Block, pack_row
from murder.roles.mupdate.remote import client as client_module
from murder.roles.mupdate.remote import dump as dump_module
from murder.roles.mupdate.remote.client import MasterClient
from murder.roles.mupdate.remote.link import MAX_BEFORE_LOGIN, Link, Target, open_link
from murder.roles.mupdate.remote.parts import PIECE_COST, parts_of
from murder.roles.mupdate.remote.replica import Replica, Timing
from tests.kit.waiting import until_soon

QUOTED = b'%b MAILBOX "user.u%d" "be1!p" "a\tl\t"\r\n'
LITERAL = b'%b MAILBOX {9+}\r\nm%08d "be1!p" "a\tl\t"\r\n'


class EndlessMaster:
    """Answers these verbs with rows and no end."""

    def __init__(self, row: bytes, *verbs: bytes) -> None:
        self.row = row
        self.verbs = verbs
        self.told = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'* AUTH PLAIN\r\n* OK MUPDATE "endless" "other" "0" "(master)"\r\n')
        try:
            while line := await reader.readline():
                tag, verb, *_ = line.split()
                while verb in self.verbs:
                    writer.write(self.row % (tag, self.told))
                    self.told += 1
                    await writer.drain()
                writer.write(b"%b OK done\r\n" % tag)
        except ConnectionError:
            pass
        writer.close()


@asynccontextmanager
async def endless(row: bytes, *verbs: bytes) -> AsyncIterator[tuple[EndlessMaster, Target]]:
    master = EndlessMaster(row, *verbs)
    server = await asyncio.start_server(master.serve, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    try:
        yield master, Target("127.0.0.1", port, None, "murder", "secret", 5, 5)
    finally:
        server.close()


@pytest.mark.parametrize("line", [b"*\r\n", b'* XFOO "%s"\r\n' % (b"x" * 1000), b"* AUTH"])
async def test_an_endless_banner_ends(line: bytes) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while True:
                writer.write(line * 1000)
                await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    target = Target("127.0.0.1", port, None, "murder", "secret", 5, 5)
    with pytest.raises(
        UpstreamFailure, match=r"a (banner of more than|line may have) 65536 octets"
    ):
        await open_link(target)
    server.close()


@pytest.mark.parametrize("row", [QUOTED, LITERAL])
@pytest.mark.parametrize("bound", ["MAX_LIST_ROWS", "MAX_LIST_OCTETS"])
async def test_an_endless_list_ends(
    row: bytes, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, bound, 5000)
    async with endless(row, b"LIST") as (_, target):
        client = MasterClient(target)
        for asked in (client.list_all(), client.list_server("be1")):
            with pytest.raises(UpstreamFailure) as failed:
                await asked
            assert failed.value.kind is UpstreamKind.PROTOCOL and "more" in failed.value.text
        await client.ping()  # it is asked again, by a new connection
        await client.close()


@pytest.mark.parametrize("row", [QUOTED, LITERAL])
async def test_an_endless_answer_to_find_ends(row: bytes) -> None:
    async with endless(row, b"FIND") as (_, target):
        client = MasterClient(target)
        with pytest.raises(UpstreamFailure) as failed:
            await client.find(b"user.ana")
        assert "more rows" in failed.value.text
        await client.close()


async def test_a_number_of_thousands_of_digits_is_no_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'* AUTH PLAIN\r\n* OK MUPDATE "endless" "other" "0" "(master)"\r\n')
        while line := await reader.readline():
            tag, verb, *_ = line.split()
            writer.write(b'%b OK "%b"\r\n' % (tag, b"9" * (5000 if verb == b"EPOCH" else 1)))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    client = MasterClient(Target("127.0.0.1", port, None, "murder", "secret", 5, 5))
    with pytest.raises(UpstreamFailure, match="5000 digits") as failed:
        await client.epoch("be1", 1)
    assert failed.value.kind is UpstreamKind.PROTOCOL
    await client.close()
    server.close()


@pytest.mark.parametrize("row", [QUOTED, LITERAL])
async def test_a_replica_takes_no_list_without_end(row: bytes, tmp_path: Path) -> None:
    """Neither at first nor when it has one, which goes on serving."""
    mailboxes = MailboxList.open(tmp_path)
    async with endless(row, b"UPDATE") as (_, target):
        for known in (False, True):
            if known:
                mailboxes.commit([PutNote("synchronised", b"1")])
            ledger = Ledger(mailboxes)
            before = mailboxes.count()
            replica = Replica(target, ledger, Timing(5, 60, 60), 1 << 20)
            replica.start()
            await until_soon(lambda: "max_list_bytes" in replica.status().problem)  # noqa: B023
            assert mailboxes.count() == before if known else mailboxes.count() < 20_000
            await replica.stop()
            await ledger.close()
    mailboxes.close()


def entry(number: int, raw_acl: bytes) -> MailboxEntry:
    return MailboxEntry(MailboxName(b"m%06d" % number), EntryState.ACTIVE, b"be1!p", raw_acl)


def acl(identifiers: int) -> bytes:
    return b"".join(b"u%05d\tl\t" % number for number in range(identifiers))


def test_what_a_stream_brings_is_committed_in_parts_that_touch_so_many_pages() -> None:
    long = acl(MAX_COMMIT_COST // 2)
    changes: list[Change] = [PutEntry(entry(number, long)) for number in range(7)]
    changes += [PutEntry(entry(number, b"")) for number in range(10)] + [PutNote("at", b"1")]
    parts = parts_of(changes)
    pieces = [piece for part in parts for piece in part.pieces]
    assert [change for piece in pieces for change in piece] == changes
    assert len(parts) == 7
    assert all(part.cost <= MAX_COMMIT_COST or part.changes == 1 for part in parts)
    assert [part.changes for part in parts] == [sum(map(len, part.pieces)) for part in parts]
    assert all(
        len(piece) == 1
        or sum(cost_of(one.entry.raw_acl) for one in piece if isinstance(one, PutEntry))
        <= PIECE_COST
        for piece in pieces
    )
    assert [part.pieces for part in parts_of([])] == [[[]]]


def test_of_a_list_with_many_identifiers_few_lines_wait_for_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row has names of its own: what is collected of them is written before it fills the memory."""
    monkeypatch.setattr(difference_module, "MAX_UNINDEXED_OCTETS", 1 << 20)
    written: list[int] = []

    class Lines(IndexLines):
        def write(self, *arguments: object) -> None:
            written.append(self.octets)
            super().write(*arguments)  # type: ignore[arg-type]

    mailboxes = MailboxList.open(tmp_path)
    difference = Difference(Lines())
    blocks = []
    for number in range(40):
        raw_acl = b"".join(b"n%d_%d\tl\t" % (number, one) for one in range(1000))
        row = pack_row(b"m%06d" % number, EntryState.ACTIVE, b"be1!p", raw_acl)
        blocks.append(Block([b"m%06d" % number], [row]))
    for block in blocks:
        mailboxes.write(lambda transaction: difference.apply(transaction, block))  # noqa: B023
    mailboxes.write(difference.finish)
    assert len(written) >= 2 and max(written) < 2 << 20
    assert sum(1 for _ in mailboxes.visible(["n7_999"])) == 1
    mailboxes.close()


async def test_long_rows_of_a_dump_wait_in_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    class Link:
        is_lost = False

        def pause(self) -> None: ...
        def resume(self) -> None: ...

    mailboxes = MailboxList.open(tmp_path)
    dump = dump_module.Dump(mailboxes, Link(), lambda error: None, 1 << 40)  # type: ignore[arg-type]
    queue = dump._queue

    class Recording:
        def put(self, block: Block) -> None:
            batches.append(len(block.rows))

        def qsize(self) -> int:
            return 0

    monkeypatch.setattr(dump, "_queue", Recording())
    raw_acl = acl(10_000)
    for number in range(12):
        row = pack_row(b"m%06d" % number, EntryState.ACTIVE, b"be1!p", raw_acl)
        dump.add(Block([b"m%06d" % number], [row]))
    assert batches == [3, 3, 3, 3]
    monkeypatch.undo()
    assert dump._queue is queue
    await dump.cancel()
    mailboxes.close()


async def test_what_a_master_said_before_it_went_is_taken_in_turns() -> None:
    """All of it counts, and is heard before its end is; nobody waits for it meanwhile."""
    told: list[object] = []
    link = Link(Target("h", 1))
    link.session.authenticated()
    link.take_over(told.append, lambda failure: told.append(failure))
    link.received(b'X1 OK "done"\r\n' * 30_000)
    link.lost(None)
    assert 0 < len(told) < 30_000
    await until_soon(lambda: link.is_lost, "its end")
    assert len(told) == 30_001
    assert isinstance(told[-1], UpstreamFailure) and told[-1].kind is UpstreamKind.LOST


@pytest.mark.parametrize(
    "before", [b"", b'* AUTH PLAIN\r\n* OK MUPDATE "m" "other" "0" "(master)"\r\n']
)
async def test_a_master_that_says_much_before_it_lets_in_is_left(before: bytes) -> None:
    """Whatever that is: challenges, or answers to nothing."""
    said = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal said
        writer.write(before)
        with suppress(ConnectionError):
            while not writer.transport.is_closing():
                writer.write(b"Q OK\r\n" * 1000 if said % 2 else b"eA==\r\n" * 1000)
                said += 1
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = int(server.sockets[0].getsockname()[1])
        with pytest.raises(UpstreamFailure) as caught:
            await open_link(Target("127.0.0.1", port, user="ana", password="x"))
    assert caught.value.kind is UpstreamKind.PROTOCOL
    assert MAX_BEFORE_LOGIN < 1000


class OlderAfterwards:
    """A master that knows all words, and is gone at the first; behind it an older one, which knows none of them."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self._is_first = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_first, self._is_first = self._is_first, False
        words = b"* BELOW\r\n* HEADS\r\n* GRANTED\r\n* FORCE\r\n" if is_first else b""
        writer.write(b"* AUTH PLAIN\r\n" + words + b'* OK MUPDATE "m" "other" "0" "(master)"\r\n')
        with suppress(ConnectionError):
            while line := await reader.readline():
                tag, verb, *_ = line.split()
                if verb != b"AUTHENTICATE" and is_first:
                    break
                self.said.append(verb)
                writer.write(b"%b OK done\r\n" % tag)
        writer.close()


@pytest.mark.parametrize("asks", ["below", "heads", "granted", "force"])
async def test_an_older_master_is_not_asked_what_only_the_one_before_it_knew(asks: str) -> None:
    """The command was lost with the newer one, and sent once more: to a master that calls it bad."""
    master = OlderAfterwards()
    server = await asyncio.start_server(master.serve, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    client = MasterClient(Target("127.0.0.1", port, None, "murder", "secret", 5, 5))
    args: dict[str, tuple[object, ...]] = {
        "heads": (b"", 1),
        "force": (b"user.ana", b"be1!p", b""),
    }
    assert await getattr(client, asks)(*args.get(asks, (b"user.ana",))) is None
    verbs = [verb for verb in master.said if verb != b"AUTHENTICATE"]
    assert verbs == ([b"ACTIVATE"] if asks == "force" else [])
    await client.close()
    server.close()
