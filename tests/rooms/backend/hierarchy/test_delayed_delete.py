"""`[backend] delete = "delayed"`: what was deleted rests, is seen by administrators only, comes back, and expires."""

import asyncio
import time
from pathlib import Path

import pytest

from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, before_deletion, deleted_name, is_deleted
from murder.roles.backend.hierarchy.expiry import expire
from murder.roles.backend.imap.mailboxes.mailbox import remove
from murder.roles.backend.renames import mailboxes as renames
from tests.rooms.backend.server import Running, config_in, running_backend, spool_store

SUB = MailboxName(b"user.ana.sub")
DEEP = MailboxName(b"user.ana.sub.deep")


async def say(running: Running, user: str, *commands: bytes) -> bytes:
    """One connection; all that is answered to these commands."""
    reader, writer = await asyncio.open_connection(*running.address)
    writer.write(b"L LOGIN %s secret\r\n" % user.encode())
    for number, command in enumerate(commands):
        writer.write(b"A%d %s\r\n" % (number, command))
    writer.write(b"Z LOGOUT\r\n")
    said = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return said


def test_names_tell_what_was_deleted_and_when() -> None:
    for name in (b"user.ana", b"shared.x.y", b"example.org!user.bob.sub"):
        resting = deleted_name(MailboxName(name), 1_700_000_000)
        assert is_deleted(resting)
        assert before_deletion(resting) == (name, 1_700_000_000)
    assert before_deletion(MailboxName(b"DELETED.quarantine.6553F100.user.ana")) is None


async def test_deleted_mailboxes_rest_and_come_back_whole(tmp_path: Path) -> None:
    config = config_in(tmp_path, delete="delayed")
    async with running_backend(tmp_path, lambda: spool_store(tmp_path), config=config) as one:
        append = b"APPEND INBOX/sub (\\Flagged) {21+}\r\nSubject: kept\r\n\r\nx\r\n"
        said = await say(one, "ana", b"CREATE INBOX/sub", append, b"DELETE INBOX/sub")
        assert said.count(b"OK") >= 4, said
        assert b"sub" not in await say(one, "ana", b'LIST "" *')
        (resting,) = filter(is_deleted, (row.name for row in one.backend.mailboxes.list.walk()))
        name = one.backend.namespace.external(resting, "admin")
        assert name.startswith(b"DELETED/user/ana/sub/")
        said = await say(one, "admin", b"RENAME %s user/ana/sub" % name)
        assert b"A0 OK" in said, said
        said = await say(one, "ana", b"SELECT INBOX/sub", b"FETCH 1 (FLAGS BODY[])")
        assert b"Subject: kept" in said and b"\\Flagged" in said


async def test_one_name_may_be_deleted_twice_in_a_second(tmp_path: Path) -> None:
    config = config_in(tmp_path, delete="delayed")
    async with running_backend(tmp_path, config=config) as one:
        said = await say(one, "ana", *(b"CREATE INBOX/sub", b"DELETE INBOX/sub") * 3)
        assert all(b"A%d OK" % number in said for number in range(6)), said
        assert len([row for row in one.backend.mailboxes.list.walk() if is_deleted(row.name)]) == 3


async def test_another_of_that_name_may_be_deleted_meanwhile(tmp_path: Path) -> None:
    """In another session, in the same second: a client never hears that what it deletes is there already."""
    config = config_in(tmp_path, delete="delayed")
    async with running_backend(tmp_path, config=config) as one:
        backend, rivals = one.backend, [None]

        class Slow:
            async def below(self, name: bytes) -> list[MailboxEntry]:
                if rivals:
                    rivals.pop()
                    await remove(backend, SUB, None)
                    await backend.announcer.create(SUB, b"ana\tlrswipkxtea\t")
                return []

        await backend.announcer.create(SUB, b"ana\tlrswipkxtea\t")
        await remove(backend, SUB, Slow())
        assert backend.mailboxes.find(SUB) is None
        assert len([row for row in backend.mailboxes.list.walk() if is_deleted(row.name)]) == 2


async def test_what_was_deleted_expires_and_nothing_else_does(tmp_path: Path) -> None:
    config = config_in(tmp_path, delete="delayed", deleted_keep_s=3600.0)
    async with running_backend(tmp_path, config=config) as one:
        backend = one.backend
        for name in (SUB, DEEP):
            await backend.announcer.create(name, b"ana\tlrswipkxtea\t")
        for name in (DEEP, SUB):
            await remove(backend, name, None)
        assert await expire(backend, time.time()) == 0
        assert await expire(backend, time.time() + 4000) == 2
        left = [entry.name for entry in backend.mailboxes.list.walk()]
        assert left == [b"user.ana", b"user.bob"]
        stored = sorted(box.name for box in await backend.store.mailboxes())
        assert stored == left


AT_A_NAME = (
    *(b"SELECT %s", b"EXAMINE %s", b"STATUS %s (MESSAGES)", b"GETACL %s", b"MYRIGHTS %s"),
    *(b"LISTRIGHTS %s bob", b"SETACL %s bob lr", b"DELETEACL %s bob", b"GETQUOTAROOT %s"),
    *(b"GETQUOTA %s", b"GETMETADATA %s /shared/comment", b'SETMETADATA %s (/shared/comment "x")'),
    *(b"DELETE %s", b"RENAME %s INBOX/back", b"RENAME %s/x INBOX/back", b"CREATE %s/x"),
    *(b"RENAME INBOX/other %s/x", b"COPY 1 %s", b"MOVE 1 %s", b"RESETKEY %s", b'LIST "" %s'),
    *(b'LIST "" %s/*', b'LIST (SUBSCRIBED) "" %s RETURN (STATUS (MESSAGES))'),
    b"APPEND %s {3+}\r\nabc",
    b"NOTIFY SET STATUS (MAILBOXES %s (MessageNew MessageExpunge))",
    b'GENURLAUTH "imap://ana@be1.test/%s;UID=1;URLAUTH=anonymous" INTERNAL',
    b'APPEND INBOX CATENATE (URL "/%s/;UID=1")',
)


async def test_what_rests_is_an_administrators_only(tmp_path: Path) -> None:
    """To its former owner, and to who had rights in it, it is as if it were not there."""

    config = config_in(tmp_path, delete="delayed")
    async with running_backend(tmp_path, lambda: spool_store(tmp_path), config=config) as one:
        append = b"APPEND INBOX/sub {3+}\r\nabc"
        made = (b"CREATE INBOX/sub", append, b"SETACL INBOX/sub bob lrswipkxtea")
        await say(one, "ana", *made, b"CREATE INBOX/other", b"DELETE INBOX/sub")
        (resting,) = filter(is_deleted, (row.name for row in one.backend.mailboxes.list.walk()))
        assert not one.backend.mailboxes.may_post(resting, "bob")
        there = one.backend.namespace.external(resting, "ana")
        away = there[:-1] + (b"0" if there[-1:] != b"0" else b"1")
        for user in ("ana", "bob"):
            for command in AT_A_NAME:
                told = []
                for name in (there, away):
                    said = await say(one, user, b"SELECT INBOX/other", command % name)
                    answer = said.partition(b"A1 ")[2].replace(name, b"NAME")
                    answer = answer.replace(name.rpartition(b"/")[2], b"TIME")
                    told.append(answer)
                assert told[0] == told[1], (user, command)
        said = await say(one, "admin", b"GETACL " + there, b"RENAME %s user/ana/sub" % there)
        assert b"A0 OK" in said and b"A1 OK" in said, said


async def test_a_large_hierarchy_is_renamed_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renames, "MOST_MOVES", 2)
    async with running_backend(tmp_path) as one:
        created = [b"CREATE INBOX/sub", *(b"CREATE INBOX/sub/%d" % at for at in range(5))]
        said = await say(one, "ana", *created, b"SETACL INBOX/sub/3 bob lr")
        before = one.backend.mailboxes.list.last_seq()
        rows: list[int] = []
        one.backend.announcer._ledger.on_commit = lambda committed: rows.append(
            len(committed.changes)
        )
        said = await say(one, "ana", b"RENAME INBOX/sub INBOX/new", b"GETACL INBOX/new/3")
        assert b"A0 OK" in said and b'"bob" "lr"' in said.replace(b"bob lr", b'"bob" "lr"'), said
        assert one.backend.mailboxes.list.last_seq() == before + 3 * 6
        assert max(rows[1:]) <= 2 * 2, rows  # behind the new names: two that go and two that come
