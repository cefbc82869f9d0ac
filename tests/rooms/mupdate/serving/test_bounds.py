"""What one server's key may put into the master's list, and that long rows are told a few at a time."""

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from murder.config import MupdateConfig
from murder.errors import Code, Refusal
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName, collation_key
from murder.roles.mupdate.commits.bounds import bounds_of
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.commits.proposal import Peer
from murder.roles.mupdate.database.change import Change, PutEntry, RemoveEntry
from murder.roles.mupdate.database.holding import Holding, format_holdings, parse_holdings, weight
from murder.roles.mupdate.database.mboxlist import PAGE_OCTETS, MailboxList
from murder.roles.mupdate.database.record import lookers, may_look_up, pack_row, rights_of
from murder.roles.mupdate.remote.client import MasterClient
from murder.roles.mupdate.serving.pages import pages
from murder.roles.mupdate.serving.stream import Hub, Subscriber
from murder.roles.mupdate.serving.writes import Counters, Writes
from murder.wire.mupdate import Command, Verb
from tests.rooms.mupdate.nodes import Raw, master


def acl(identifiers: int, first: int = 0) -> bytes:
    return b"".join(b"u%05d\tl\t" % number for number in range(first, first + identifiers))


def row(name: str, raw_acl: bytes = b"", place: bytes = b"be1!p") -> MailboxEntry:
    return MailboxEntry(MailboxName(name.encode()), EntryState.ACTIVE, place, raw_acl)


BOUNDS = {
    "max_acl_bytes": 2000,
    "max_acl_identifiers": 100,
    "max_mailboxes_per_server": 3,
    "max_bytes_per_server": 1 << 20,
    "max_servers": 2,
}


async def test_what_is_too_much_is_refused_with_the_key_that_says_so(tmp_path: Path) -> None:
    async with master(tmp_path, **BOUNDS) as server:
        raw = await Raw.connect(server.port)

        async def activate(name: str, raw_acl: bytes = b"", place: bytes = b"be1!p") -> bytes:
            command = b'1 ACTIVATE "%b" "%b" {%d+}\r\n%b' % (
                name.encode(),
                place,
                len(raw_acl),
                raw_acl,
            )
            return (await raw.ask(command))[-1]

        assert (await activate("a", acl(100))) == b'1 OK "done"'
        assert b"[LIMIT]" in (said := await activate("b", acl(101)))
        assert b"max_acl_identifiers" in said
        assert b"max_acl_bytes" in await activate("b", b"x" * 2000 + b"\tl\t")
        for name in "bc":
            assert (await activate(name)) == b'1 OK "done"'
        assert b"max_mailboxes_per_server" in await activate("d")
        assert b"max_mailboxes_per_server" in (await raw.ask(b'1 RESERVE "d" "be1!p"'))[-1]
        assert (await activate("a", acl(50))) == b'1 OK "done"'  # what is there may change
        assert (await raw.ask(b'1 DELETE "c"'))[-1] == b'1 OK "done"'
        assert (await activate("d")) == b'1 OK "done"'
        assert (await Raw.connect(server.port)).banner
        other = await Raw.connect(server.port)
        for place, answer in ((b"be2", b'2 OK "done"'), (b"be3", b"max_servers")):
            said = (await other.ask(b'2 ACTIVATE "at.%b" "%b!p" ""' % (place, place)))[-1]
            assert answer in said
        admin = await Raw.connect(server.port, "admin")
        said = (await admin.ask(b'3 ACTIVATE "e" "be1!p" {%d+}\r\n%b' % (len(acl(200)), acl(200))))[
            -1
        ]
        assert said == b'3 OK "done"'


async def test_the_octets_of_a_server_are_bounded_and_given_back(tmp_path: Path) -> None:
    async with master(tmp_path, max_bytes_per_server=1 << 20) as server:
        raw = await Raw.connect(server.port)
        long = acl(2000)
        put = 0
        while True:
            said = await raw.ask(b'1 ACTIVATE "m%d" "be1!p" {%d+}\r\n%b' % (put, len(long), long))
            if b"OK" not in said[-1]:
                break
            put += 1
        assert b"max_bytes_per_server" in said[-1] and 5 < put < 30
        assert server.mailboxes.held_by_server()["be1"].octets <= 1 << 20
        for number in range(put):
            assert b" OK" in (await raw.ask(b'1 DELETE "m%d"' % number))[-1]
        assert not server.mailboxes.held_by_server()
        said = await raw.ask(b'1 ACTIVATE "m" "be1!p" {%d+}\r\n%b' % (len(long), long))
        assert b" OK" in said[-1]


async def test_a_backend_hears_that_it_is_a_limit(tmp_path: Path) -> None:
    async with master(tmp_path, **BOUNDS) as server:
        client = MasterClient(server.target)
        for number in range(3):
            await client.reserve(b"m%d" % number, b"be1!p")
        with pytest.raises(Refusal) as refused:
            await client.reserve(b"m4", b"be1!p")
        assert refused.value.code is Code.LIMIT and refused.value.text.startswith("be1 has 3")
        with pytest.raises(Refusal) as refused:
            await client.activate(b"m1", b"be1!p", acl(101))
        assert refused.value.code is Code.LIMIT
        await client.close()


def test_holdings_are_what_the_rows_weigh(tmp_path: Path) -> None:
    mailboxes = MailboxList.open(tmp_path)
    steps: list[list[Change]] = [
        [PutEntry(row("user.ana", b"ana\tlrs\t")), PutEntry(row("b", place=b"be2!p"))],
        [PutEntry(row("user.ana", acl(30))), PutEntry(row("b", b"x\tl\t"))],
        [RemoveEntry(MailboxName(b"user.ana")), PutEntry(row("c", place=b"be2!q"))],
        [RemoveEntry(MailboxName(b"b"))],
    ]
    for step in steps:
        mailboxes.commit(step)
        expected: dict[str, Holding] = {}
        rows, _ = mailboxes.rows()
        for key, stored in rows:
            server = mailboxes.find(key.replace(b"\x1f", b".")).server  # type: ignore[union-attr]
            expected[server] = expected.get(server, Holding()).plus(1, weight(key, stored))
        assert mailboxes.held_by_server() == expected
    mailboxes.close()


def test_holdings_are_read_from_lists_that_counted_mailboxes_only() -> None:
    old = (7).to_bytes(8, "big") + b"\x00\x03be1"
    assert parse_holdings(b"mark" + old, 4) == {b"be1": Holding(7, 0)}
    held = {b"be1": Holding(7, 1 << 35), b"be2": Holding(1, -5), b"gone": Holding(0, 9)}
    assert parse_holdings(format_holdings(held), 0) == {
        b"be1": Holding(7, 1 << 35),
        b"be2": Holding(1, 0),
    }


@pytest.fixture
def long_rows(tmp_path: Path) -> MailboxList:
    mailboxes = MailboxList.open(tmp_path)
    mailboxes.commit([PutEntry(row(f"m{number:02}", acl(4000))) for number in range(30)])
    return mailboxes


MOST = PAGE_OCTETS + 33_000  # the last one may be beyond it


def test_long_rows_come_a_few_at_a_time(long_rows: MailboxList) -> None:
    """A LIST or a stream of a thousand access lists of 128 KiB is never whole in memory."""
    ways: tuple[Callable[[bytes], tuple[Sequence[tuple[bytes, bytes]], bytes | None]], ...] = (
        lambda last: long_rows.rows(last),
        lambda last: long_rows.rows(last, b"m"),
        lambda last: long_rows.rows_at_server(b"be1", last),
    )
    for page_of in ways:
        names: list[bytes] = []
        last: bytes | None = b""
        while last is not None:
            rows, last = page_of(last)
            assert sum(len(one) for _, one in rows) <= MOST
            names += [key for key, _ in rows]
        assert names == [b"m%02d" % number for number in range(30)]
    seq, changed = 0, 0
    while True:
        following = long_rows.follow(seq)
        assert sum(len(one or b"") for _, _, one in following.changes) <= MOST
        changed, seq = changed + len(following.changes), following.seq
        if following.mark is not None:
            break
    assert changed == 30
    assert sum(1 for _ in long_rows.changes_after(0)) == 30
    assert [one.name for one in long_rows.visible(["u00001"])] == names
    assert [one.name for one in long_rows.walk(after=b"m27")] == [b"m28", b"m29"]


async def test_a_subscriber_is_written_a_few_long_rows_at_a_time(long_rows: MailboxList) -> None:
    written: list[int] = []

    class Outlet:
        is_full = False

        def send(self, data: bytes) -> None:
            written.append(len(data))

        async def send_all(self, data: bytes) -> None:
            self.send(data)
            await self.flush()

        async def flush(self) -> None: ...

        def cut(self, reason: str) -> None:
            raise AssertionError(reason)

    for seq in (None, 0):
        subscriber = Subscriber(Hub(long_rows, 1 << 26), Outlet(), b"U", positions=True)
        await subscriber.run(seq, b"U OK\r\n")
    assert max(written) <= MOST and sum(written) > 60 * 32_000


async def test_rows_are_kept_once_while_a_peer_does_not_read(long_rows: MailboxList) -> None:
    """As the octets that wait for it, and not as what they were made of: there may be hundreds of such peers."""
    held: list[int] = []

    class Outlet:
        is_full = False

        def send(self, data: bytes) -> None:
            pass

        async def send_all(self, data: bytes) -> None:
            self.send(data)
            await self.flush()

        async def flush(self) -> None:
            held.append(tracemalloc.get_traced_memory()[0])

        def cut(self, reason: str) -> None:
            raise AssertionError(reason)

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        subscriber = Subscriber(Hub(long_rows, 1 << 26), Outlet(), b"U", positions=True)
        await subscriber.run(None, b"U OK\r\n")
        subscriber_held = max(held) - before
        listed: list[int] = []
        for rows in pages(long_rows, Command(b"L", Verb.LIST, ())):
            assert rows
            del rows
            listed.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    # the lines of a page, of which the peer has taken some; and not its rows beside them
    assert len(held) > 3 and subscriber_held < MOST + 32_000, subscriber_held
    assert len(listed) > 3 and max(listed) < 32_000, listed


@pytest.mark.parametrize(
    "known", [{b"u"}, {b"a", b"g"}, {b"x", b"anyone"}, {b"own"}, {b"l"}, {b"u", b"l", b"-u"}]
)
def test_whom_a_long_access_list_lets_look_is_found_without_reading_it_all(
    known: set[bytes],
) -> None:
    """As the whole of it says: names that are others' rights or parts of others, twice, negative, without rights."""
    filler = b"".join(b"filler%03d\tlrs\t" % number for number in range(100))
    for text in (
        b"u\tl", b"u\tl\t", b"xu\tl\t", b"u\tr\tu\tlr\t", b"u\tlr\tu\tr\t", b"a\tu\tl\tr\t",
        b"u\tl\t-u\tl\t", b"-u\tl\t", b"u", b"a\tl\tu", b"l\tu\tl\tu\tl\tu\tl\tu\tl\tu\tl\tu\t",
        b"g\tlr\t-a\tl\t", b"anyone\tl\t-x\tr\t", b"\tl\t", b"u\t\t",
    ):  # fmt: skip
        for raw_acl in (text, filler + text, text.rstrip(b"\t") + b"\t" + filler, text * 40):
            for name in (b"shared.box", b"user.own.box"):
                key = collation_key(name)
                stored = bytes(8) + pack_row(name, EntryState.ACTIVE, b"be1!p", raw_acl)
                found = lookers(key, stored)
                denied = any(b"-" + one in found for one in known)
                owns = name.startswith(b"user.own") and b"own" in known
                wanted = not known.isdisjoint(found) and (owns or not denied)
                assert may_look_up(key, stored, frozenset(known)) is wanted, (raw_acl[-60:], name)


def test_rights_in_a_list_of_traps_are_looked_for_a_few_times_only() -> None:
    """Each `u` here is somebody's rights: it is read once then, not searched again and again."""
    trap = b"a\tu\t" * 30_000

    class Counting(bytes):
        searches = 0

        def rfind(self, *arguments: Any) -> int:
            Counting.searches += 1
            return bytes.rfind(self, *arguments)

    assert rights_of(Counting(trap), b"u") == b"" and Counting.searches <= 4
    assert rights_of(trap, b"a") == b"u"


async def test_removing_a_long_row_costs_as_much_as_putting_it(long_rows: MailboxList) -> None:
    """Fifty of them at once held the loop of a master for half a second, as if they were fifty short ones."""
    costs: list[int] = []

    class Noting(Ledger):
        def propose(self, proposals: Any, done: Any, cost: int = 0, *more: Any) -> None:
            costs.append(cost)

    ledger = Noting(long_rows)
    identifiers = (long_rows.row(b"m01") or b"").count(b"\t") // 2
    peer, bounds = Peer("admin", is_admin=True), bounds_of(MupdateConfig())
    for verb, args in ((Verb.DELETE, ()), (Verb.DEACTIVATE, (b"be1!p",))):
        writes = Writes(cast(Any, SimpleNamespace(peer=peer)), ledger, bounds, Counters())
        for number in range(3):
            writes.add(Command(b"D", verb, (b"m%02d" % number, *args)), peer)
        writes.submit()
    assert identifiers > 100 and all(cost >= 3 * identifiers for cost in costs) and len(costs) == 2
    await ledger.close()
