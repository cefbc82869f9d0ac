"""APPEND of what is streamed: large literals taken, refused before and in the middle, the stream always behind them."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from murder.api.store import MailboxStore, NewMessage
from murder.model.message import Uid
from plugins.store_memory import MemoryMailbox
from tests.kit.peer import Peer
from tests.rooms.backend.server import (
    config_in,
    maildir_store,
    memory_store,
    running_backend,
    spool_store,
)

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 20_000 + b"\r\n"


@asynccontextmanager
async def logged_in(folder: Path, store: str = "memory", **backend: Any) -> AsyncIterator[Peer]:
    """A client of ana's, which goes on working to the end."""
    make = memory_store if store == "memory" else lambda: spool_store(folder)
    config = config_in(folder, **backend)
    async with running_backend(folder, make, config=config) as running:
        client = await Peer.at(*running.address)
        await client.line()
        assert (await client.tagged(b"l LOGIN ana secret\r\n")).startswith(b"l OK")
        yield client
        assert await client.tagged(b"z NOOP\r\n") == b"z OK Completed"


@pytest.mark.parametrize("store", ["memory", "spool"])
async def test_a_large_message_comes_back_octet_for_octet(store: str, tmp_path: Path) -> None:
    async with logged_in(tmp_path, store) as client:
        client.send(b"a APPEND INBOX (\\Seen) {%d}\r\n" % len(LARGE))
        assert (await client.line()).startswith(b"+ ")
        client.send(LARGE + b"\r\n")
        assert (await client.line()).startswith(b"a OK [APPENDUID")
        assert (await client.tagged(b"b SELECT INBOX\r\n")).startswith(b"b OK")
        client.send(b"c FETCH 1 BODY.PEEK[]\r\n")
        assert await client.line() == b"* 1 FETCH (BODY[] {%d}" % len(LARGE)
        assert await client.octets(len(LARGE)) == LARGE
        assert await client.line() == b")"
        assert (await client.line()).startswith(b"c OK")


async def test_a_refused_large_message_is_passed_over(tmp_path: Path) -> None:
    async with logged_in(tmp_path) as client:
        size = len(LARGE)
        synchronising = await client.tagged(b"a APPEND INBOX/none {%d}\r\n" % size)
        assert synchronising.startswith(b"a NO [TRYCREATE]")
        sent_anyway = await client.tagged(b"b APPEND INBOX/none {%d+}\r\n%s\r\n" % (size, LARGE))
        assert sent_anyway.startswith(b"b NO [TRYCREATE]")
        malformed = await client.tagged(b"c APPEND INBOX (\\What) {%d+}\r\n%s\r\n" % (size, LARGE))
        assert malformed.startswith(b"c BAD")
        behind = await client.tagged(b"d APPEND INBOX {%d+}\r\n%s oops\r\n" % (size, LARGE))
        assert behind.startswith(b"d BAD")
        second = b"e APPEND INBOX {%d+}\r\n%s (\\What) {%d+}\r\n%s\r\n" % (size, LARGE, size, LARGE)
        assert (await client.tagged(second)).startswith(b"e BAD")
        too_early = await client.tagged(b"f SELECT INBOX\r\n")
        assert too_early.startswith(b"f OK")
        assert await client.tagged(b"g FETCH 1 UID\r\n") == (
            b"g BAD [CLIENTBUG] there is no message 1: the mailbox has 0"
        )


async def test_a_message_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    async with logged_in(tmp_path, max_message_bytes=100_000) as client:
        size = len(LARGE)
        assert (await client.tagged(b"a APPEND INBOX {%d}\r\n" % size)).startswith(b"a NO [TOOBIG]")
        sent = await client.tagged(b"b APPEND INBOX {%d+}\r\n%s\r\n" % (size, LARGE))
        assert sent.startswith(b"b NO [TOOBIG]")


async def test_a_message_beyond_the_quota_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with logged_in(tmp_path) as client:
        admin = await Peer.at(*client.writer.get_extra_info("peername")[:2])
        await admin.line()
        await admin.tagged(b"a LOGIN admin secret\r\n")
        assert (await admin.tagged(b"b SETQUOTA user/ana (STORAGE 100)\r\n")).startswith(b"b OK")
        refused = await client.tagged(b"a APPEND INBOX {%d}\r\n" % len(LARGE))
        assert refused.startswith(b"a NO [OVERQUOTA]")
        admin.writer.close()


async def test_several_messages_of_one_append_large_and_small(tmp_path: Path) -> None:
    async with logged_in(tmp_path) as client:
        size = len(LARGE)
        octets = b"a APPEND INBOX {%d+}\r\n%s {3+}\r\none (\\Seen) {%d+}\r\n%s {3+}\r\ntwo\r\n"
        answer = await client.tagged(octets % (size, LARGE, size, LARGE))
        assert answer.startswith(b"a OK [APPENDUID") and answer.endswith(b" 1:4] Completed")


async def test_a_message_that_another_session_takes_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new message goes again: whoever took the old one (a REPLACE or MOVE of theirs) has put it elsewhere."""
    append = MemoryMailbox.append

    async def append_late(mailbox: MemoryMailbox, messages: Sequence[NewMessage]) -> Sequence[Uid]:
        uids = await append(mailbox, messages)
        if uids == [Uid(2)]:
            await mailbox.expunge([Uid(1)])
        return uids

    monkeypatch.setattr(MemoryMailbox, "append", append_late)
    async with logged_in(tmp_path) as client:
        await client.ok("APPEND INBOX {14+}\r\nSubject: 0\r\n\r\n")
        await client.ok("SELECT INBOX")
        answer = await client.command("REPLACE 1 INBOX {14+}\r\nSubject: 1\r\n\r\n")
        assert answer[-1].startswith(b"t NO [NONEXISTENT] Another session")
        counts = await client.ok("STATUS INBOX (MESSAGES)")
        assert b"* STATUS INBOX (MESSAGES 0)" in counts


@pytest.mark.parametrize("make", [spool_store, maildir_store])
async def test_a_replace_is_one_change(
    make: Callable[[Path], MailboxStore], tmp_path: Path
) -> None:
    """Where the old message cannot go, the new one has not come: as after a crash between the two."""
    async with running_backend(tmp_path, lambda: make(tmp_path)) as running:
        client = await Peer.at(*running.address)
        await client.until(b"* OK")
        await client.ok("LOGIN ana secret")
        await client.ok("APPEND INBOX {14+}\r\nSubject: 0\r\n\r\n")
        await client.ok("SELECT INBOX")
        for file in tmp_path.rglob("*.db"):
            with contextlib.closing(sqlite3.connect(file)) as rows:
                if rows.execute("SELECT 1 FROM sqlite_master WHERE name='message'").fetchone():
                    rows.execute(
                        "CREATE TRIGGER stays BEFORE DELETE ON message "
                        "BEGIN SELECT RAISE(ABORT, 'it stays'); END"
                    )
        answer = await client.command("REPLACE 1 INBOX {14+}\r\nSubject: 1\r\n\r\n")
        assert answer[-1].startswith(b"t NO")
        assert await client.ok("STATUS INBOX (MESSAGES UIDNEXT)") == [
            b"* STATUS INBOX (MESSAGES 1 UIDNEXT 2)"
        ]
        await client.close()
