"""What scripts send: who gets it where a server takes it for some, what a death leaves, and where it stays else."""

import asyncio
import errno
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from murder.errors import Refusal
from murder.model.name import MailboxName
from murder.roles.backend.changes.events import MailQueued
from murder.roles.backend.records import deliveries
from murder.roles.backend.records.deliveries import FAILED, PENDING, SENT, Deliveries, Mail
from murder.roles.backend.records.taken import Taken
from murder.roles.backend.scripts import submission
from murder.roles.backend.scripts.carry_out import ON_TOP_OCTETS, below_trace
from murder.roles.backend.scripts.submission import MARK, Notes
from murder.roles.backend.scripts.worklist import Worklist
from tests.kit.steps import lines_run
from tests.kit.waiting import until_soon
from tests.rooms.backend.delivery.test_sieve_delivery import Lmtp, sending

THREE = b"""require "enotify";
notify :message "news" "mailto:one@x.example?cc=two@x.example,three@x.example";"""
ONE = b'redirect "else@example.org";'


def went(client: Lmtp, states: Sequence[int]) -> bool:
    """Whether it has come to these; else what waits is looked at now."""
    client.one.backend.events.publish(MailQueued())
    return client.states() == states


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
async def test_who_was_not_taken_is_tried_again_and_who_was_is_not(
    protocol: str, tmp_path: Path
) -> None:
    async with sending(tmp_path, THREE, protocol=protocol) as (client, sink):
        sink.at_rcpt[b"two@x.example"] = [b"450 full", b"451 still"]
        sink.at_rcpt[b"three@x.example"] = [b"550 nobody"]
        with capture_logs() as logged:
            await client.deliver("one")
            await until_soon(lambda: went(client, [SENT]), "all that can be is sent")
        assert [to for _, to, _ in sink.taken] == [[b"one@x.example"], [b"two@x.example"]]
    told = [(one["event"], one["to"]) for one in logged if one["event"].startswith("outgoing.")]
    assert told == [
        ("outgoing.sent", ["one@x.example"]),
        ("outgoing.failed", ["three@x.example"]),
        ("outgoing.deferred", ["two@x.example"]),
        ("outgoing.deferred", ["two@x.example"]),
        ("outgoing.sent", ["two@x.example"]),
    ]


async def test_what_was_taken_before_a_death_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(_: Deliveries, mail: Mail) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Deliveries, "sent", dies)
    async with sending(tmp_path, ONE, retry_s=3600) as (client, sink):
        await client.deliver("one")
        await until_soon(lambda: sink.taken, "the server takes it")
        folder = tmp_path / "backend/deliveries/taken"
        await until_soon(lambda: len(list(folder.iterdir())) == 1, "which is noted")
        assert client.states() == [PENDING]
    monkeypatch.undo()
    async with sending(tmp_path, ONE) as (client, sink):
        await until_soon(lambda: went(client, [SENT]), "it is known")
        await client.deliver("two")
        await until_soon(lambda: len(sink.taken) == 1, "others are sent")
        assert b"Subject: two" in sink.taken[0][2]
        await until_soon(lambda: not list(folder.iterdir()), "rows know of all")


async def test_what_was_taken_is_not_sent_again_where_that_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: Deliveries, mail: Mail) -> None:
        raise OSError("no room")

    monkeypatch.setattr(Deliveries, "sent", fails)
    async with sending(tmp_path, ONE) as (client, sink):
        await client.deliver("one")
        await until_soon(lambda: went(client, [SENT]), "it is known from what was noted")
        assert len(sink.taken) == 1


@pytest.mark.parametrize(("script", "tries"), [(ONE, 2), (THREE, 1)])
async def test_in_doubt_a_mail_goes_again_and_a_notification_does_not(
    script: bytes, tries: int, tmp_path: Path
) -> None:
    async with sending(tmp_path, script) as (client, sink):
        sink.hangs_up = 1  # it takes the message, and its answer is lost
        await client.deliver("one")
        await until_soon(lambda: went(client, [SENT if tries > 1 else FAILED]), "it is over")
        assert sink.tries == tries


async def test_a_full_disk_is_told_as_one_and_no_restart_is_needed(tmp_path: Path) -> None:
    mail = Mail(b"key", "ana", "", ("a@x.example",), b"Subject: x\r\n\r\n" + bytes(300_000))
    books = Deliveries(tmp_path)
    try:
        books._db.execute("PRAGMA max_page_count=1")  # no more than there are
        with pytest.raises(Refusal, match="disk of this server is full"):
            await books.end(b"begun", [mail])
        assert await books.due(9) == []
        books._db.execute("PRAGMA max_page_count=100000")
        assert await books.end(b"begun", [mail]) == {b"key"}
        assert [due.octets for due in await books.due(9)] == [mail.octets]
    finally:
        books.close()


async def test_a_death_before_the_answer_leaves_a_notification_unsent(tmp_path: Path) -> None:
    mail = Mail(b"key", "ana", "", ("a@x.example",), b"Subject: x\r\n\r\n")
    books = Deliveries(tmp_path)
    notes = Notes(books.taken, mail)
    redirected = Notes(books.taken, replace(mail, octets=MARK + b" ana\r\n" + mail.octets))
    try:
        redirected.before_the_end(mail.recipients)
        assert books.taken.left() == {}
        notes.before_the_end(mail.recipients)
        assert list(books.taken.left()) == [b"key"]
        notes.answered(mail.recipients, taken=False)
        assert books.taken.left() == {}
    finally:
        books.close()


OLDER = (
    "CREATE TABLE outgoing (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, state INTEGER NOT NULL, at REAL NOT NULL, "
    "next_at REAL NOT NULL, tries INTEGER NOT NULL, user TEXT NOT NULL, sender TEXT NOT NULL, recipients TEXT NOT NULL, "
    "octets BLOB NOT NULL, problem TEXT NOT NULL DEFAULT '') STRICT",
    "INSERT INTO outgoing (key,state,at,next_at,tries,user,sender,recipients,octets) "
    "VALUES (x'01', 0, 0, 0, 0, 'ana', '', '[\"a@x.example\"]', x'41')",
)


async def test_what_an_older_version_has_put_down_is_sent(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "deliveries.db") as database:
        for statement in OLDER:
            database.execute(statement)
    database.close()
    for _ in range(2):
        books = Deliveries(tmp_path)
        try:
            (mail,) = await books.due(9)
            assert (mail.key, mail.recipients, mail.keep) == (b"\x01", ("a@x.example",), b"")
        finally:
            books.close()


async def test_of_what_was_taken_for_some_before_a_death_the_rest_is_sent(tmp_path: Path) -> None:
    mail = Mail(b"key", "ana", "", ("a@x.example", "b@x.example"), b"Subject: x\r\n\r\n")
    books = Deliveries(tmp_path)
    try:
        await books.end(b"", [mail])
        books.taken.note(b"key", ["a@x.example"])
        books.taken.note(b"other", ["a@x.example"])  # its row has gone
        for _ in range(2):
            await books.recover()
            ((due,), noted) = await books.due(9), books.taken.left()
            assert (due.recipients, due.octets, noted) == (("b@x.example",), mail.octets, {})
        books.taken.note(b"key", ["b@x.example"])
        await books.recover()
        assert await books.due(9) == [] and books.taken.left() == {}
    finally:
        books.close()


@pytest.mark.parametrize("script", [ONE, b'require "copy"; redirect :copy "else@example.org";'])
async def test_what_nobody_takes_in_time_is_kept_once(script: bytes, tmp_path: Path) -> None:
    async with sending(tmp_path, script, *[b"451 later"] * 9, give_up_s=0.0) as (client, _):
        assert (await client.deliver("one"))[0].startswith(b"250")
        await until_soon(lambda: went(client, [FAILED]), "it is given up")
        assert await client.subjects() == [("one", [])]
        mailbox = await client.one.backend.store.open(MailboxName(b"user.ana"), "ana")
        try:
            octets = bytes(await mailbox.octets((await mailbox.uids())[0]))
        finally:
            mailbox.close()
        assert b"X-Sieve-Redirected-From" not in octets and b"Received: " in octets


async def test_what_was_for_a_folder_that_has_gone_is_kept_in_the_inbox(tmp_path: Path) -> None:
    async with sending(tmp_path, ONE, b"554 no") as (client, _):
        octets = MARK + b" ana\r\nSubject: one\r\n\r\n"
        mail = Mail(b"key", "ana", "", ("x@y.example",), octets, keep=b"user.ana.gone")
        await client.one.backend.deliveries.end(b"", [mail])
        client.one.backend.events.publish(MailQueued())
        await until_soon(client.states, "it is there")
        await until_soon(lambda: client.states() != [PENDING], "it is given up, or sent")
        assert client.states() == [FAILED]
        assert await client.subjects() == [("one", [])]


async def test_what_can_be_kept_nowhere_waits(tmp_path: Path) -> None:
    async with sending(tmp_path, ONE, b"554 no", b"554 no") as (client, sink):
        await client.one.backend.deliveries.end(
            b"", [Mail(b"key", "gone", "", ("x@y.example",), b"S: x\r\n\r\n", keep=b"user.gone")]
        )
        client.one.backend.events.publish(MailQueued())
        await until_soon(lambda: went(client, [SENT]), "the server takes it in the end")
        assert sink.tries == 3


async def test_what_can_be_kept_nowhere_is_a_file_in_the_end(tmp_path: Path) -> None:
    """Its user has gone: it was accepted, so it is not lost."""
    octets = MARK + b" gone\r\nSubject: one\r\n\r\n"
    async with sending(tmp_path, ONE, *[b"554 no"] * 9, give_up_s=86_400.0) as (client, _):
        mail = Mail(b"key", "gone", "a@b.org", ("x@y.example",), octets, keep=b"user.gone")
        await client.one.backend.deliveries.end(b"", [mail])
        folder = tmp_path / "backend/deliveries"
        with sqlite3.connect(folder / "deliveries.db") as database:  # two days ago
            database.execute("UPDATE outgoing SET at=at-2*86400-1")
        database.close()
        client.one.backend.events.publish(MailQueued())
        await until_soon(lambda: went(client, [FAILED]), "it is given up")
        (file,) = (folder / "undelivered").iterdir()
        assert (file.read_bytes(), file.stat().st_mode & 0o777) == (octets, 0o600)


async def test_where_no_file_can_be_made_it_waits_and_its_row_says_why(tmp_path: Path) -> None:
    async with sending(tmp_path, ONE, *[b"554 no"] * 9, give_up_s=86_400.0) as (client, _):
        folder = tmp_path / "backend/deliveries"
        (folder / "undelivered").write_bytes(b"")
        mail = Mail(b"key", "gone", "", ("x@y.example",), b"S: x\r\n\r\n", keep=b"user.gone")
        await client.one.backend.deliveries.end(b"", [mail])
        with sqlite3.connect(folder / "deliveries.db") as database:  # two days ago
            database.execute("UPDATE outgoing SET at=at-2*86400-1")
        client.one.backend.events.publish(MailQueued())
        tried = "SELECT state, problem FROM outgoing WHERE tries>0"
        await until_soon(lambda: database.execute(tried).fetchone(), "it is tried")
        state, problem = database.execute(tried).fetchone()
        database.close()
        assert state == PENDING and "nor as a file" in problem and "undelivered" in problem


async def test_what_was_taken_is_not_sent_again_where_no_file_can_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Taken, key: bytes, recipients: Iterable[str]) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(Taken, "note", fails)
    async with sending(tmp_path, ONE) as (client, sink):
        await client.deliver("one")
        await until_soon(lambda: went(client, [SENT]), "its row knows")
        assert sink.tries == 1


async def test_a_mail_on_its_way_is_not_sent_twice_where_another_fails() -> None:
    begun: list[int] = []
    failures: list[Exception] = []
    go_on = asyncio.Event()

    async def due(_: int) -> Sequence[int]:
        return () if go_on.is_set() else (1, 2)

    async def send(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise OSError("no room")
        await go_on.wait()

    rows = Worklist(due, send, failures.append)
    rows.start()
    rows.wake()
    await until_soon(lambda: begun == [1, 2], "both are begun")
    for _ in range(20):
        rows.wake()
        await asyncio.sleep(0)
    assert begun == [1, 2] and failures == []
    go_on.set()
    await until_soon(lambda: len(failures) == 1, "the failure is told")
    await rows.stop()


async def test_what_a_full_disk_does_not_keep_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(submission, "find_kept", full)
    async with sending(tmp_path, ONE, b"554 no", retry_s=3600) as (client, sink):
        with capture_logs() as logged:
            await client.deliver("one")
            await until_soon(
                lambda: [e for e in logged if e["event"] == "outgoing.deferred"], "it waits"
            )
            await until_soon(lambda: went(client, [PENDING]), "its row stays")
            assert await client.one.backend.deliveries.due(9) == []
        assert sink.tries == 1


async def test_what_is_kept_is_kept_once_where_its_row_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: Deliveries, mail: Mail, problem: str) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Deliveries, "failed", fails)
    async with sending(tmp_path, ONE, *[b"554 no"] * 9) as (client, sink):
        await client.deliver("one")
        await until_soon(lambda: went(client, [SENT]), "it is known from what was noted")
        assert await client.subjects() == [("one", [])] and sink.tries == 1


async def test_a_large_mail_is_put_down_and_read_as_it_is_and_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "LARGE_OCTETS", 1000)
    monkeypatch.setattr(deliveries, "DUE_OCTETS", 6000)
    pieces = (b"Subject: x\r\n", memoryview(b"\r\n" + b"y" * 4000), b"", b"end\r\n")
    books = Deliveries(tmp_path)
    try:
        mails = [
            Mail(b"%d" % number, "ana", "", ("a@x.example",), b"", pieces=pieces)
            for number in range(3)
        ]
        small = Mail(b"s", "ana", "", ("a@x.example",), b"Subject: s\r\n\r\n")
        await books.end(b"", [small, *mails])
        told = await books.due(4)
        assert [mail.key for mail in told] == [b"s", b"0"]
        assert [mail.octets for mail in told] == [small.octets, b"".join(pieces)]
        for mail in told:
            await books.sent(mail)
        assert [mail.key for mail in await books.due(4)] == [b"1"]
    finally:
        books.close()


def test_what_deliveries_have_put_on_top_is_taken_off_at_once() -> None:
    top = b"Return-Path: <a@b.c>\r\nDelivered-To: d@e.f\r\n"
    rest = b"Received: x\r\nDelivered-To: y\r\n\r\nbody\r\n"
    assert bytes(below_trace(top + rest)) == rest
    assert bytes(below_trace(rest)) == rest
    assert bytes(below_trace(b"Delivered-To: no end")) == b"Delivered-To: no end"
    many = b"Delivered-To: d@e.f\r\n" * 100_000
    assert lines_run(below_trace, many) < 20
    left = len(below_trace(many + rest))  # a sender's own, but for some of them
    assert len(many) - ON_TOP_OCTETS < left < len(many)


async def test_a_redirected_mail_of_many_pieces_has_its_dots(tmp_path: Path) -> None:
    async with sending(tmp_path, ONE) as (client, sink):
        lines = b"".join(b"." * (number % 70 + 2) + b"\r\n" for number in range(6000))
        assert len(lines) > 3 * submission.PIECE_OCTETS
        await client.deliver("one", message=b"Subject: one\r\n\r\n" + lines)
        await until_soon(lambda: sink.taken, "the server takes it")
        assert sink.taken[0][2].endswith(b"Subject: one\r\n\r\n" + lines)
