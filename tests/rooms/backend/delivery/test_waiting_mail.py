"""What scripts send waits until a mail server takes it: no more than there is room for, each counted in whose name it waits,
and how much that costs.
"""

import sqlite3
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from murder.config.sieve import SieveConfig
from murder.model.annotation import SHARED_SCRIPT
from murder.model.name import MailboxName
from murder.roles.backend.records import deliveries, remembered
from murder.roles.backend.records.annotations import SHARED
from murder.roles.backend.records.deliveries import (
    COUNTED,
    PENDING,
    SENT,
    Deliveries,
    Mail,
    Room,
)
from murder.roles.backend.records.remembered import Entry
from murder.roles.backend.records.tallies import entries_of
from murder.roles.backend.scripts.rejecting import IN_ASCII
from tests.kit.waiting import until_soon
from tests.rooms.backend.delivery.test_sieve_delivery import Lmtp, sending
from tests.rooms.backend.delivery.test_submission import OLDER, went

COPY = b'require "copy"; redirect :copy "else@example.org";'
AWAY = b'require "vacation"; vacation :addresses "sender" "I am away";'
REJECT = 'require "reject"; reject "größer als nötig";'.encode()
LATER = [b"451 later"] * 99
LONG = 1_000_000


def full(logged: list[MutableMapping[str, Any]]) -> list[object]:
    """To whom it was, and the key of the bound."""
    return [(*one["to"], one["limit"]) for one in logged if one["event"] == "outgoing.full"]


async def test_what_is_to_be_redirected_is_refused_for_now_where_too_much_waits(
    tmp_path: Path,
) -> None:
    bound = sending(tmp_path, COPY, *LATER[:2], max_waiting_per_user=2, retry_s=3600.0)
    async with bound as (client, sink):
        for subject in ("one", "two"):
            assert (await client.deliver(subject))[0].startswith(b"250")
        await until_soon(lambda: sink.tries == 2, "they are tried")
        with capture_logs() as logged:
            (answer,) = await client.deliver("three")
        assert answer.startswith(b"451 ") and b"waits to be sent" in answer
        assert full(logged) == [("else@example.org", "max_waiting_per_user")]
        assert len(await client.subjects()) == 2  # no copy either: it comes again
        (again,) = await client.deliver("two")  # has been put down, and needs no room
        assert again.startswith(b"250")
        await client.one.backend.scripts.put("bob", "main", COPY)
        await client.one.backend.scripts.activate("bob", "main")
        assert (await client.deliver("three", "bob"))[0].startswith(b"250")  # it is not his
        all_at_once(tmp_path)
        await until_soon(lambda: went(client, [SENT] * 3), "what waits is sent")
        assert (await client.deliver("three"))[0].startswith(b"250")
        await until_soon(lambda: went(client, [SENT] * 4), "and this")


def all_at_once(folder: Path) -> None:
    """What waits is due now."""
    with sqlite3.connect(folder / "backend/deliveries/deliveries.db") as database:
        database.execute("UPDATE outgoing SET next_at=0")
    database.close()


async def test_all_of_a_backend_have_so_much_room_together(tmp_path: Path) -> None:
    async with sending(tmp_path, COPY, *LATER, max_waiting=1, retry_s=3600.0) as (client, _):
        assert (await client.deliver("one"))[0].startswith(b"250")
        await client.one.backend.scripts.put("bob", "main", COPY)
        await client.one.backend.scripts.activate("bob", "main")
        assert (await client.deliver("two", "bob"))[0].startswith(b"451 ")


async def test_a_reply_that_finds_no_room_is_left_out_and_is_not_noted(tmp_path: Path) -> None:
    to_ana = b"To: ana\r\nSubject: %b\r\nMessage-ID: <%b@x.example>\r\n\r\nx\r\n"
    script = AWAY.replace(b'"sender"', b'"ana@example.org"')
    message = to_ana.replace(b"To: ana", b"To: ana@example.org")
    async with sending(tmp_path, script, max_waiting_bytes=1, retry_s=3600.0) as (client, sink):
        deliveries = client.one.backend.deliveries
        waiting = Mail(b"else", "bob", "", ("x@y.example",), b"S: x\r\n\r\n")
        sink.at_rcpt[b"x@y.example"] = LATER
        await deliveries.end(b"", [waiting])
        with capture_logs() as logged:
            assert (await client.deliver("a", message=message % (b"a", b"a")))[0][:3] == b"250"
        assert full(logged) == [("sender@example.org", "max_waiting_bytes")]
        assert len(await client.subjects()) == 1 and client.states() == [PENDING]
        deliveries.room = Room()
        await client.deliver("b", message=message % (b"b", b"b"))
        await until_soon(lambda: went(client, [PENDING, SENT]), "the next one is answered")


async def test_only_what_would_be_put_down_wants_room(tmp_path: Path) -> None:
    """A redirect that waits already is not refused for the sake of a reply; a reply within its period is none."""
    to_ana = b"To: ana@example.org\r\nSubject: %b\r\nMessage-ID: <%b@x.example>\r\n\r\nx\r\n"
    answers = AWAY.replace(b'"sender"', b'"ana@example.org"').partition(b";")
    both = b'require ["copy", "vacation"];' + COPY.partition(b";")[2] + answers[2]
    async with sending(tmp_path, COPY, *LATER, retry_s=3600.0) as (client, _):
        backend = client.one.backend

        async def comes(subject: bytes) -> bytes:
            message = to_ana % (subject, subject)
            return (await client.deliver("x", message=message))[0][:3]

        assert await comes(b"a") == b"250"
        await backend.scripts.put("ana", "main", both)
        await backend.scripts.activate("ana", "main")
        backend.deliveries.room = Room(mails=1)
        with capture_logs() as logged:
            assert await comes(b"a") == b"250"  # its sender has not heard that it was taken
        assert full(logged) == [("sender@example.org", "max_waiting")]
        assert client.states() == [PENDING]
        backend.deliveries.room = Room(mails=3)
        assert await comes(b"b") == b"250" and client.states() == [PENDING] * 3
        backend.deliveries.room = Room(mails=4)
        assert await comes(b"c") == b"250" and client.states() == [PENDING] * 4
        assert await comes(b"d") == b"451" and client.states() == [PENDING] * 4


async def test_who_rejects_and_finds_no_room_refuses_in_other_words(tmp_path: Path) -> None:
    async with sending(tmp_path, REJECT, *LATER, max_waiting=1, retry_s=3600.0) as (client, _):
        assert (await client.deliver("one"))[0].startswith(b"250")
        (answer,) = await client.deliver("two")
        assert answer == f"550 5.7.1 {IN_ASCII}\r\n".encode()


@pytest.mark.parametrize(
    ("room", "bound"),
    [
        (Room(), ""),
        (Room(mails=3), ""),
        (Room(mails=2), "max_waiting"),
        (Room(octets=30), ""),
        (Room(octets=29), "max_waiting_bytes"),
        (Room(mails_of_user=2), ""),
        (Room(mails_of_user=1), "max_waiting_per_user"),
        (Room(octets_of_user=20), ""),
        (Room(octets_of_user=19), "max_waiting_bytes_per_user"),
    ],
)
async def test_mails_and_octets_are_counted(room: Room, bound: str, tmp_path: Path) -> None:
    books = Deliveries(tmp_path)
    try:
        for user in ("ana", "bob"):
            mail = Mail(user.encode(), user, "", ("x@y.example",), b"x" * 10)
            books.room = Room(1, 1, 1, 1)
            # with nothing there it fits
            assert user == "bob" or not (await books.without_room([mail]))[1]
            await books.end(b"", [mail])
        books.room = room
        more = Mail(b"more", "ana", "", ("x@y.example",), b"", pieces=(b"x" * 4, b"x" * 6))
        keys = {b"more"} if bound else frozenset()
        assert await books.without_room([more]) == (keys, bound)
    finally:
        books.close()


async def test_what_was_put_down_by_an_older_version_counts_until_it_is_done(
    tmp_path: Path,
) -> None:
    with sqlite3.connect(tmp_path / "deliveries.db") as database:
        for statement in OLDER:
            database.execute(statement)
    database.close()
    for _ in range(2):
        Deliveries(tmp_path).close()
    books = Deliveries(tmp_path)
    try:
        db = books._db
        assert entries_of(db, "outgoing") == entries_of(db, "outgoing", "ana") == (1, 1)
        db.execute(OLDER[1].replace("x'01'", "x'02'"))  # an older one beside it
        assert entries_of(db, "outgoing") == entries_of(db, "outgoing", "ana") == (2, 2)
        for mail in await books.due(9):
            await books.later(mail, -1.0, "busy", mail.recipients)
        assert entries_of(db, "outgoing")[0] == 2
        first, second = await books.due(9)
        await books.sent(first)
        await books.failed(second, "no")
        assert entries_of(db, "outgoing") == entries_of(db, "outgoing", "ana") == (0, 0)
    finally:
        books.close()


async def test_mail_that_waits_is_not_written_anew_by_a_newer_version(tmp_path: Path) -> None:
    """It may be gigabytes, and all of the node's workers wait for the one that begins first."""
    with sqlite3.connect(tmp_path / "deliveries.db") as database:
        database.execute(OLDER[0])
        for number in range(100):
            database.execute(OLDER[1].replace("x'01'", f"x'{number:04x}'"))
    database.close()
    books = Deliveries(tmp_path)
    try:
        assert entries_of(books._db, "outgoing", "ana")[0] == 100
        assert books._db.total_changes < 10
    finally:
        books.close()


def test_neither_is_it_read(tmp_path: Path) -> None:
    Deliveries(tmp_path).close()
    with sqlite3.connect(tmp_path / "deliveries.db") as database:
        for number in range(9):
            of = f"zeroblob({LONG + number})"
            database.execute(OLDER[1].replace("x'01'", f"x'{number:04x}'").replace("x'41'", of))
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONG // 2)
        with pytest.raises(sqlite3.DataError, match="too big"):
            database.execute("SELECT octets FROM outgoing").fetchall()
        for made in COUNTED[0].statements():
            if made.startswith("INSERT"):
                database.execute("DELETE FROM tallies")
                database.execute(made)
                ((entries, octets),) = database.execute("SELECT entries, octets FROM tallies")
                assert (entries, octets) == (9, 9 * LONG + 36)
    database.close()


def steps_of(database: sqlite3.Connection, work: Callable[[], object]) -> int:
    """Of SQLite's machine, in hundreds."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    database.set_progress_handler(count, 100)
    work()
    database.set_progress_handler(None, 0)
    return steps


def waiting(user: str, number: int) -> Mail:
    return Mail(f"{user} {number}".encode(), user, "", ("x@y.example",), b"S: x\r\n\r\n")


async def test_each_user_has_a_turn_however_much_another_has_waiting(tmp_path: Path) -> None:
    books = Deliveries(tmp_path)
    try:
        many = [waiting("ana", number) for number in range(20)]
        await books.end(b"", many)
        assert [mail.key for mail in await books.due(3)] == [mail.key for mail in many[:3]]
        for user in ("", "bob", "cleo", "dora"):  # who come later; "" are shared mailboxes
            await books.end(b"", [waiting(user, 0), waiting(user, 1)])
        rounds = [await books.due(3) for _ in range(2)]
        assert {mail.user for turn in rounds for mail in turn} == {"", "ana", "bob", "cleo", "dora"}
        for mail in {mail.id: mail for turn in rounds for mail in turn}.values():
            await books.sent(mail)
        order = []
        while turn := await books.due(3):
            for mail in turn:
                await books.sent(mail)
                order.append(mail.user)
        assert set(order[:6]) == {"", "ana", "bob", "cleo", "dora"}
        assert order.count("ana") == 19 and len(order) == 23
    finally:
        books.close()


async def test_who_finds_no_place_beside_large_mail_has_the_next_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "DUE_OCTETS", 10)  # each is alone
    books = Deliveries(tmp_path)
    try:
        await books.end(b"", [waiting("ana", number) for number in range(9)])
        for user in ("bob", "cleo"):
            await books.end(b"", [waiting(user, 0), waiting(user, 1)])
        order = []
        for _ in range(13):
            (mail,) = await books.due(4)
            await books.sent(mail)
            order.append(mail.user)
        assert order == ["ana", "bob", "cleo"] * 2 + ["ana"] * 7
    finally:
        books.close()


async def test_a_user_whose_mail_is_not_due_has_no_turn(tmp_path: Path) -> None:
    books = Deliveries(tmp_path)
    try:
        await books.end(b"", [waiting("ana", number) for number in range(9)])
        await books.end(b"", [waiting("bob", 0)])
        (later,) = [mail for mail in await books.due(10) if mail.user == "bob"]
        await books.later(later, 3600.0, "busy", later.recipients)
        for _ in range(4):
            assert [mail.user for mail in await books.due(4)] == ["ana"] * 4
    finally:
        books.close()


@pytest.mark.parametrize("users", [1, 200])
async def test_a_look_at_what_is_due_costs_the_same_whatever_waits(
    users: int, tmp_path: Path
) -> None:
    books = Deliveries(tmp_path)

    async def cost(mails: int) -> int:
        await books.end(b"", [waiting(f"u{n % users}", n) for n in range(mails)])
        return steps_of(books._db, lambda: books._rounds.next(books._db, PENDING, 4e9, 4))

    try:
        few = await cost(250)
        assert await cost(4000) <= few + 5
    finally:
        books.close()


async def test_a_full_book_costs_as_much_as_an_empty_one(tmp_path: Path) -> None:
    books = Deliveries(tmp_path)
    try:
        entries = [Entry(b"%d" % n, 1e6, "seen ana") for n in range(remembered.MAX_ENTRIES)]
        await books.end(b"", (), entries)
        full_now, few = (Entry(b"new", 1e6, f"seen {user}") for user in ("ana", "bob"))
        at_full = steps_of(books._db, lambda: remembered.see(books._db, full_now, 4e9))
        at_few = steps_of(books._db, lambda: remembered.see(books._db, few, 4e9))
        assert at_full <= at_few + 5, (at_full, at_few)
        assert entries_of(books._db, "books", "seen ana")[0] == remembered.MAX_ENTRIES
    finally:
        books.close()


async def test_shared_mailboxes_remember_and_send_each_for_itself(tmp_path: Path) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    script = 'require "duplicate"; if duplicate { discard; stop; } redirect "else@example.org";'
    (folder / "on.sieve").write_text(script)
    sections = {"sieve": SieveConfig(folder=folder)}
    async with sending(tmp_path, b"", sections=sections) as (client, sink):
        backend = client.one.backend
        for name in (MailboxName(b"one"), MailboxName(b"two")):
            await backend.announcer.create(name, b"anyone\tlrsp\t")
            await backend.annotations.change(name, {SHARED: {SHARED_SCRIPT: b"on"}})
        for _ in range(2):
            for answer in await client.deliver("news", "+one", "+two"):
                assert answer.startswith(b"250")
        await until_soon(lambda: went(client, [SENT] * 2), "each sends it on, once")
        marks = sorted(octets.partition(b"\r\n")[0] for _, _, octets in sink.taken)
        assert [mark.rpartition(b" ")[2] for mark in marks] == [b"+one", b"+two"]
        sink.at_rcpt[b"x@y.example"] = LATER
        backend.deliveries.room = Room(mails=1)
        await backend.deliveries.end(b"", [Mail(b"k", "bob", "", ("x@y.example",), b"S: x\r\n")])
        with capture_logs() as logged:
            assert (await client.deliver("more", "+two"))[0].startswith(b"451 ")
        assert [one["user"] for one in logged if one["event"] == "outgoing.full"] == ["+two"]


async def test_an_address_that_is_not_ascii_is_reported_as_such(tmp_path: Path) -> None:
    """RFC 6533: a report in ASCII has it encoded, and no field has it as an address."""

    async def rejected(client: Lmtp, recipient: str) -> None:
        (answer,) = await client.deliver("one", recipient)
        assert answer.startswith(b"250 ")

    async with sending(tmp_path, REJECT) as (client, sink):
        await rejected(client, "ana+grün\\")
        await until_soon(lambda: sink.taken, "it is sent")
        ((_, _, octets),) = sink.taken
    head = octets.partition(b"\r\n\r\n")[0]
    assert b"\r\nFinal-Recipient: utf-8; ana\\x{2B}gr\\x{FC}n\\x{5C}\r\n" in octets
    assert head.isascii() and b"\r\nFrom: =?utf-8?" in head and b"?= :;\r\n" in head
