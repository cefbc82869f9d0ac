"""A Cyrus backend sends a user by XFER, as one was seen to do; here its part is played, and broken off where that hurts."""

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from murder.errors import Code, Refusal
from murder.model.message import Uid
from murder.model.name import MailboxName
from murder.net.turns import Turn
from murder.roles.backend.moves import from_cyrus, loose, mover
from murder.roles.backend.moves.batches import BATCH_MESSAGES
from murder.roles.backend.moves.journal import Move, Side, State
from tests.kit.waiting import turns, until_soon
from tests.rooms.backend.server import Running, config_in, running_backend, spool_store

ROOT = MailboxName(b"user.zoe")
ONE, TWO = b"Subject: one\r\n\r\nOne\r\n", b"Subject: two\r\n\r\nTwo\r\n"


def guid(message: bytes) -> str:
    return hashlib.sha1(message, usedforsecurity=False).hexdigest()


class Source:
    """A Cyrus backend, as far as the target sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._count = 0

    async def ask(self, command: bytes) -> list[bytes]:
        """All lines of the answer; the last is the tagged one, without its tag."""
        self._count += 1
        tag = b"S%d" % self._count
        self._writer.write(tag + b" " + command + b"\r\n")
        lines: list[bytes] = []
        while True:
            line = (await asyncio.wait_for(self._reader.readline(), 20)).rstrip(b"\r\n")
            assert line, command
            if line.startswith(tag + b" "):
                return [*lines, line.removeprefix(tag + b" ")]
            lines.append(line)

    async def done(self, command: bytes) -> list[bytes]:
        answer = await self.ask(command)
        assert answer[-1].startswith(b"OK"), (command, answer)
        return answer[:-1]

    async def send_messages(self, *messages: bytes) -> None:
        files = b" ".join(
            b"%%{default %s %d}\r\n%s" % (guid(one).encode(), len(one), one) for one in messages
        )
        await self.done(b"SYNCAPPLY MESSAGE (" + files + b")")

    async def send_mailbox(self, name: bytes, records: Sequence[bytes], modseq: int = 9) -> None:
        await self.done(
            b"SYNCAPPLY LOCAL_MAILBOX %%(UNIQUEID id%s MBOXNAME %s SYNC_CRC 1 SYNC_CRC_ANNOT 2 LAST_UID 7 "
            b"HIGHESTMODSEQ %d RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 POP3_SHOW_AFTER 0 "
            b'UIDVALIDITY 77 PARTITION default ACL "zoe\tlrswipkxtecda\tana\tlr\t" OPTIONS P QUOTAROOT %s '
            b"RECORD (%s))"
            % (name.replace(b".", b""), name, modseq, bytes(ROOT), b" ".join(records))
        )

    async def push(self, *names: bytes) -> None:
        for name in names:
            await self.done(b"MUPDATEPUSH {%d+}\r\n%s" % (len(name), name))

    def close(self) -> None:
        self._writer.close()


def record(uid: int, message: bytes, flags: bytes = b"", modseq: int = 5) -> bytes:
    return (
        b"%%(UID %d MODSEQ %d LAST_UPDATED 1700000000 FLAGS (%s) INTERNALDATE 1700000000 SIZE %d GUID %s "
        b"ANNOTATIONS (%%(ENTRY /vendor/cmu/cyrus-imapd/savedate USERID NIL VALUE 1700000005)))"
        % (uid, modseq, flags, len(message), guid(message).encode())
    )


@asynccontextmanager
async def source_at(one: Running, user: str = "cyrus1") -> AsyncIterator[Source]:
    reader, writer = await asyncio.open_connection(*one.address)
    source = Source(reader, writer)
    await reader.readline()
    await source.done(f"LOGIN {user} secret".encode())
    try:
        yield source
    finally:
        source.close()


@asynccontextmanager
async def backend_in(folder: Path) -> AsyncIterator[Running]:
    config = config_in(folder, takes_xfer_from=("cyrus1",))
    async with running_backend(folder, lambda: spool_store(folder), config=config) as one:
        yield one


def arriving(one: Running) -> list[Move]:
    return [move for move in one.mover.journal.moves() if move.side is Side.IN]


async def until(one: Running, state: State, *, has_gone: bool = True) -> Move:
    """The last move once it is so, and its source's connection is known to be over."""

    def there() -> Move | None:
        move = arriving(one)[-1]
        return move if move.state is state and (not has_gone or not move.process) else None

    move = await until_soon(there, f"the move is {state}", every_s=0.02)
    assert move is not None
    return move


async def send_all(source: Source) -> None:
    assert await source.done(b"SYNCAPPLY CAPABILITIES (SIEVE-MAILBOX)") == [
        b"* ENABLED (SIEVE-MAILBOX)"
    ]
    assert await source.done(b"SYNCGET USER zoe") == []
    await source.send_messages(ONE, TWO)
    kept = [
        record(1, ONE, rb"\Deleted \Expunged", 8),
        record(3, ONE, rb"\Seen $Work"),
        record(7, TWO, b"", 9),
    ]
    await source.send_mailbox(b"user.zoe", kept)
    await source.send_mailbox(b"user.zoe.sub", [record(2, TWO, rb"\Flagged")])
    await source.send_mailbox(b"DELETED.user.zoe.old.6B0441B6", [])
    await source.done(b"SYNCAPPLY QUOTA %(ROOT user.zoe LIMIT 1000 STORAGE 1000 MODSEQ 16)")
    await source.done(b"SYNCAPPLY SUB %(USERID zoe MBOXNAME user.zoe.sub)")
    await source.done(
        b"SYNCAPPLY SIEVE %(USERID zoe FILENAME my.script LAST_UPDATE 1 CONTENT {5+}\r\nkeep;)"
    )
    await source.done(b"SYNCAPPLY ACTIVATE_SIEVE %(USERID zoe FILENAME my.bc)")


async def shown(one: Running, name: bytes) -> list[tuple[int, list[str], int, bytes]]:
    mailbox = await one.backend.store.open(MailboxName(name), "zoe")
    rows = [
        (int(row.uid), sorted(row.flags), int(row.modseq), bytes(await mailbox.octets(row.uid)))
        for row in await mailbox.messages()
    ]
    mailbox.close()
    return rows


async def test_a_user_arrives_as_they_were(tmp_path: Path) -> None:
    async with backend_in(tmp_path) as one, source_at(one) as source:
        assert b"X-REPLICATION" in (await source.done(b"CAPABILITY"))[0].split()
        await send_all(source)
        # the second round: what has changed, and what is asked for before
        told = b" ".join(await source.done(b"SYNCGET USER zoe"))
        for fact in (
            b"HIGHESTMODSEQ 9",
            b"MBOXNAME user.zoe.sub",
            b"LSUB (user.zoe.sub)",
            b"SYNC_CRC 1",
        ):
            assert fact in told  # fmt: skip
        known = guid(ONE).encode()
        assert await source.done(b"SYNCAPPLY RESERVE %%(GUID (%s abcd))" % known) == [
            b"* MISSING (abcd)"
        ]
        rows = [record(3, ONE, b"", 10), record(7, TWO, rb"\Expunged", 11)]
        await source.send_mailbox(b"user.zoe", rows, 11)
        assert await source.done(b"SYNCGET ANNOTATION user.zoe") == []
        await source.done(
            b'SYNCAPPLY ANNOTATION %(MBOXNAME user.zoe ENTRY /comment USERID "" VALUE "all")'
        )
        list_ = one.backend.mailboxes.list
        assert list_.find(ROOT) is None  # until it is pushed
        await source.push(b"DELETED/user/zoe/old/6B0441B6", b"user/zoe/sub", b"user/zoe")
        assert await source.done(b"SYNCRESTART") == []
        assert [row.name for row in (*list_.below(ROOT), list_.find(ROOT)) if row] == [
            b"user.zoe.#sieve",  # of the scripts that came as files
            b"user.zoe.sub",
            ROOT,
        ]
        assert list_.find(MailboxName(b"DELETED.user.zoe.old.6B0441B6")) is not None
        assert await shown(one, b"user.zoe") == [(3, [], 10, ONE)]
        assert await shown(one, b"user.zoe.sub") == [(2, ["\\Flagged"], 5, TWO)]
        mailbox = await one.backend.store.open(ROOT, "zoe")
        status = await mailbox.status()
        assert (status.uid_next, status.uid_validity, status.highest_modseq) == (8, 77, 11)
        (row,) = await mailbox.messages([Uid(3)])
        assert row.email_id == "M" + guid(ONE)[:24]
        assert row.save_date is not None and row.save_date.timestamp() == 1700000005
        changes = await mailbox.changes(row.modseq)
        assert list(changes.vanished) == [7]
        mailbox.close()
        assert one.backend.quotas.limits_of(ROOT)
        assert await one.backend.store.subscriptions("zoe") == {b"user.zoe.sub"}
        assert one.backend.annotations.of(ROOT, "")["/shared/comment"] == b"all"  # type: ignore[arg-type] # SHARED
        assert await one.backend.scripts.active("zoe") == ("my", b"keep;")
        assert not (tmp_path / "backend/sieve/zoe").exists()
        assert (await until(one, State.DONE, has_gone=False)).messages == 3
        await source.done(b"NOOP")  # IMAP goes on behind SYNCRESTART


async def test_what_is_broken_off_is_kept_until_somebody_knows(tmp_path: Path) -> None:
    """The source removes what it has sent before it says so: without a word of the master nothing goes here."""

    async with backend_in(tmp_path) as one:
        async with source_at(one) as source:
            await send_all(source)
        move = await until(one, State.COPYING)
        await one.mover._look_at(move, [])
        assert arriving(one)[-1].state is State.COPYING
        async with source_at(one, "admin") as operator:
            await operator.done(b"XFERS RESUME " + move.id.encode())
        assert len(await shown(one, b"user.zoe")) == 2
        assert one.backend.mailboxes.find(ROOT) is not None


async def test_a_new_try_begins_anew(tmp_path: Path) -> None:
    async with backend_in(tmp_path) as one:
        async with source_at(one) as source:
            await send_all(source)
            await source.done(b"SYNCRESTART")  # it has given up
            await send_all(source)
            await source.push(b"user/zoe")
        states = [move.state for move in arriving(one)]
        assert states == [State.ABORTED, State.DONE]
        assert [row[0] for row in await shown(one, b"user.zoe")] == [3, 7]


async def test_the_push_may_come_over_another_connection(tmp_path: Path) -> None:
    async with backend_in(tmp_path) as one:
        async with source_at(one) as source:
            await send_all(source)
        await until(one, State.COPYING)
        async with source_at(one) as source:
            await source.push(b"user/zoe/sub", b"user/zoe")
        assert len(await shown(one, b"user.zoe")) == 2


async def test_what_was_pushed_and_could_not_be_shown_is_shown_though_its_source_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for the next MUPDATEPUSH, or for the next start."""
    monkeypatch.setattr(mover, "LOOK_EVERY_S", 0.02)
    async with backend_in(tmp_path) as one, source_at(one) as source:
        await send_all(source)
        announcer = cast(Any, one.backend.announcer)
        commit, refused = announcer.commit, list[bool]()

        async def refuse_once(changes: Sequence[object]) -> None:
            if not refused:
                refused.append(True)
                raise Refusal(Code.UNAVAILABLE, "The mailbox list cannot be written")
            await commit(changes)

        announcer.commit = refuse_once
        await source.push(b"user/zoe")
        assert refused
        await until(one, State.DONE, has_gone=False)
        assert len(await shown(one, b"user.zoe")) == 2

        async def script() -> bool:
            return await one.backend.scripts.active("zoe") == ("my", b"keep;")

        async with asyncio.timeout(20):
            while not await script():
                await turns(5)
        await source.push(b"user/zoe/sub")  # it knows of no end
        assert (await source.ask(b"SYNCAPPLY SOMETHING %()"))[-1].startswith(b"NO")
        assert arriving(one)[-1].state is State.DONE


async def test_nor_does_it_wait_where_that_could_not_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk nothing can: not even that this process, which lives on, has left it."""
    monkeypatch.setattr(mover, "LOOK_EVERY_S", 0.02)
    async with backend_in(tmp_path) as one, source_at(one) as source:
        await send_all(source)
        journal, is_full = cast(Any, one.mover.journal), True
        write = journal._write

        async def refuse(path: Path, octets: bytes, *more: Any) -> None:
            if is_full and b'"prepared"' not in octets:
                raise OSError(28, "No space left on device")
            await write(path, octets, *more)

        journal._write = refuse
        await source.push(b"user/zoe")
        assert arriving(one)[-1].state is State.PREPARED
        is_full = False
        await until(one, State.DONE, has_gone=False)
        assert len(await shown(one, b"user.zoe")) == 2
        intents = one.backend.mailboxes.list.intents  # its scripts are taken in behind that
        await until_soon(lambda: not intents(), "nothing is under way", every_s=0.02)


async def test_what_broke_off_on_a_full_disk_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That this process, which lives on, has left it is said then; before that nobody would look after it."""
    monkeypatch.setattr(mover, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(loose, "LEAVE_EVERY_S", 0.02)
    async with backend_in(tmp_path) as one:
        journal, refusals = cast(Any, one.mover.journal), []
        write = journal._write

        async def refuse(*words: object) -> None:
            refusals.append(words)
            raise OSError(28, "No space left on device")

        async with source_at(one) as source:
            await send_all(source)
            journal._write = refuse
        await until_soon(lambda: len(refusals) > 2, "it is tried again", every_s=0.02)
        assert arriving(one)[-1].process
        journal._write = write
        await until(one, State.COPYING)


async def test_a_push_that_the_disk_does_not_take_is_refused(tmp_path: Path) -> None:
    async with backend_in(tmp_path) as one, source_at(one) as source:
        await send_all(source)
        journal = cast(Any, one.mover.journal)
        write = journal._write

        async def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        journal._write = refuse
        assert (await source.ask(b"MUPDATEPUSH {8+}\r\nuser/zoe"))[-1].startswith(b"NO")
        journal._write = write
        await source.push(b"user/zoe")
        await until(one, State.DONE, has_gone=False)


async def test_what_is_wrong_is_refused(tmp_path: Path) -> None:
    async with backend_in(tmp_path) as one, source_at(one) as source:
        for wrong, why in (
            (b"SYNCGET USER ana", b"is here already"),
            (b"SYNCAPPLY UNMAILBOX user.ana", b"Nothing was begun"),
            (b"MUPDATEPUSH user/zoe", b"was not received"),
        ):
            answer = await source.ask(wrong)
            assert answer[-1].startswith(b"NO") and why in answer[-1], answer
        await source.done(b"SYNCGET USER zoe")
        for wrong, why in (
            (b"SYNCAPPLY UNMAILBOX user.ana", b"is no part of"),
            (b"SYNCAPPLY SUB %(USERID ana MBOXNAME user.ana)", b"is not who moves"),
            (b"SYNCAPPLY SOMETHING %()", b"is not understood"),
            (b"SYNCAPPLY QUOTA ()", b"keys with values"),
            (b"SYNCAPPLY MESSAGE (%{default abcd 3}\r\nabc)", b"do not match"),
            (b"SYNCGET MAILBOXES ()", b"no mailbox is named"),
            (b'SYNCAPPLY SUB %(USERID zoe MBOXNAME "user..x")', b"none of them is empty"),
            (b"SYNCAPPLY EXPUNGE %(MBOXNAME user.zoe UID (x))", b"OK"),
            (
                b"SYNCAPPLY LOCAL_MAILBOX %(MBOXNAME user.zoe UNIQUEID a UIDVALIDITY x)",
                b"not a number",
            ),
            (
                b'SYNCAPPLY LOCAL_MAILBOX %(MBOXNAME user.zoe UNIQUEID "a)b" UIDVALIDITY 1)',
                b"id",
            ),
            (
                b"SYNCAPPLY SIEVE %(USERID zoe FILENAME " + b"x" * 300 + b" CONTENT a)",
                b"too long",
            ),
            (b"SYNCAPPLY SUB " + b"(" * 50 + b")" * 50, b"nested"),
        ):
            answer = await source.ask(wrong)
            assert answer[-1][:2] in (b"NO", b"BA", why[:2]) and why in answer[-1], answer
    for user in ("ana", "admin"):
        async with backend_in(tmp_path) as one, source_at(one, user) as source:
            assert b"X-REPLICATION" not in (await source.done(b"CAPABILITY"))[0].split()
            for command in (b"SYNCGET USER zoe", b"SYNCRESTART", b"MUPDATEPUSH user/zoe"):
                assert (await source.ask(command))[-1].startswith(b"NO [NOPERM]")


async def test_what_is_written_down_can_be_read(tmp_path: Path) -> None:
    async with backend_in(tmp_path) as one:
        async with source_at(one) as source:
            await send_all(source)
        move = await until(one, State.COPYING)
        words = json.loads(one.mover.journal.prepared_path(move).read_bytes())
        assert [name for name, _ in words["rows"]] == [
            "DELETED.user.zoe.old.6B0441B6",
            "user.zoe",
            "user.zoe.sub",
        ]
        assert words["subscriptions"] == ["user.zoe.sub"]


async def test_what_comes_leaves_others_their_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message that is read and written is one step, and each step here is a whole turn."""
    rests = 0

    class Hurried(Turn):
        is_over = property(lambda self: True)  # of all messages

        async def rest(self) -> None:
            nonlocal rests
            rests += 1
            await super().rest()

    messages = [b"Subject: %d\r\n\r\nText\r\n" % number for number in range(1, 41)]
    async with backend_in(tmp_path) as one, source_at(one) as source:
        await source.done(b"SYNCGET USER zoe")
        await source.send_messages(*messages)
        monkeypatch.setattr(from_cyrus, "Turn", Hurried)
        records = [record(uid, message) for uid, message in enumerate(messages, 1)]
        await source.send_mailbox(ROOT, records)
    assert rests >= len(messages)


class Record(dict[str, Any]):
    """What is told of a message, and in which threads such were let go of."""

    freed_in: ClassVar[set[int]] = set()

    def __del__(self) -> None:
        self.freed_in.add(threading.get_ident())


class Guids(list[Any]):
    """Digests that are asked for, and in which threads they were gone through."""

    gone_through_in: ClassVar[set[int]] = set()

    def __iter__(self) -> Iterator[Any]:
        self.gone_through_in.add(threading.get_ident())
        return super().__iter__()


async def test_of_many_messages_others_do_not_wait(tmp_path: Path) -> None:
    """A batch of 4 MB had 13,000 small ones, which held the loop for 12 ms where it had been stored; to let go of what was
    told of 20,000 took 15, to say which of 8,000 are lacking 7."""

    def record_of(uid: int) -> Record:
        guid_ = guid(ONE if uid < 1000 else TWO).encode()
        return Record(
            UID=b"%d" % uid,
            MODSEQ=b"5",
            FLAGS=[] if uid < 1000 else [b"\\Expunged"],
            INTERNALDATE=b"1700000000",
            SIZE=b"%d" % len(ONE),
            GUID=guid_,
        )

    async with backend_in(tmp_path) as one:
        came: list[int] = []
        receive = one.backend.store.receive  # type: ignore[attr-defined] # of a store that carries

        async def noted(name: MailboxName, messages: Sequence[Any]) -> None:
            came.append(len(messages))
            await receive(name, messages)

        one.backend.store.receive = noted  # type: ignore[attr-defined]

        async def leave(_: Move) -> None:
            raise AssertionError

        here = from_cyrus.FromCyrus(
            one.backend, one.mover.journal, "cyrus1", "", lambda _: None, leave
        )
        await here.get("USER", b"zoe")
        lacking = await here.apply("RESERVE", {"GUID": Guids([guid(ONE).encode()])})
        assert lacking == [b"* MISSING (%s)" % guid(ONE).encode()]
        cast(Any, here.staged).read = lambda _: ONE
        fields: dict[str, Any] = {
            "MBOXNAME": bytes(ROOT),
            "UNIQUEID": b"id",
            "UIDVALIDITY": b"77",
            "LAST_UID": b"20000",
            "HIGHESTMODSEQ": b"9",
            "ACL": b"zoe\tlrs\t",
            "RECORD": [record_of(uid) for uid in range(1, 12_000)],
        }
        await here.apply("LOCAL_MAILBOX", fields)
    assert came == [BATCH_MESSAGES] * 3 + [999 - 3 * BATCH_MESSAGES]
    here_ = threading.get_ident()
    assert Guids.gone_through_in and here_ not in Guids.gone_through_in
    assert Record.freed_in and here_ not in Record.freed_in
