"""`[backend] delete = "delayed"`: what was deleted rests, is seen by administrators only, comes back, and expires."""

import asyncio
import time
from pathlib import Path

from murder.backend.expiry import expire
from murder.backend.imap.mailbox import remove
from murder.model.name import MailboxName, before_deletion, deleted_name, is_deleted
from tests.backend.server import Running, config_in, running_backend, spool_store

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


def test_deleted_mailboxes_rest_and_come_back_whole(tmp_path: Path) -> None:
    async def scene() -> None:
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

    asyncio.run(scene())


def test_what_was_deleted_expires_and_nothing_else_does(tmp_path: Path) -> None:
    async def scene() -> None:
        config = config_in(tmp_path, delete="delayed", deleted_keep_s=3600.0)
        async with running_backend(tmp_path, config=config) as one:
            backend = one.backend
            for name in (SUB, DEEP):
                await backend.announcer.create(name, b"ana\tlrswipkxtea\t")
            await remove(backend, [DEEP, SUB])
            assert await expire(backend, time.time()) == 0
            assert await expire(backend, time.time() + 4000) == 2
            left = [entry.name for entry in backend.mailboxes.list.walk()]
            assert left == [b"user.ana", b"user.bob"]
            stored = sorted(box.name for box in await backend.store.mailboxes())
            assert stored == left

    asyncio.run(scene())
