"""The contract that every mailbox store fulfils, ours and others'; and what only a store on disk can be asked."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from murder.api import (
    FindsByFlag,
    FlagChange,
    Mailbox,
    MailboxStore,
    NewMessage,
    StepsModSeq,
    TellsAtOnce,
    TellsFlags,
    TellsSummaries,
)
from murder.errors import Code, Refusal
from murder.kit.schema import FORMAT
from murder.model.message import ModSeq, Uid
from murder.model.name import MailboxName
from plugins.store_maildir.store import MaildirStore
from plugins.store_maildir.store import Settings as MaildirSettings
from plugins.store_memory import MemoryStore
from plugins.store_spool.store import Settings, SpoolStore

INBOX = MailboxName(b"user.ana")
SUB = MailboxName(b"user.ana.sub")
OTHER = MailboxName(b"user.bob")
SHARED = MailboxName(b"shared.x")


def make(kind: str, folder: Path) -> MailboxStore:
    if kind == "maildir":
        return MaildirStore(MaildirSettings(), folder)
    return MemoryStore() if kind == "memory" else SpoolStore(Settings(inline_bytes=1000), folder)


Fresh = Callable[[], AbstractAsyncContextManager[MailboxStore]]


@pytest.fixture(params=["memory", "spool", "maildir"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Fresh:
    """A fresh store of each kind with some mailboxes."""

    @asynccontextmanager
    async def started() -> AsyncIterator[MailboxStore]:
        store = make(request.param, tmp_path)
        await store.start()
        try:
            for name in (INBOX, SUB, OTHER, SHARED):
                await store.create(name, "default")
            yield store
        finally:
            await store.stop()

    return started


@asynccontextmanager
async def opened(
    store: MailboxStore, name: MailboxName, reader: str = "ana"
) -> AsyncIterator[Mailbox]:
    mailbox = await store.open(name, reader)
    try:
        yield mailbox
    finally:
        mailbox.close()


def octets_of(number: int, size: int = 100) -> bytes:
    head = f"Subject: message {number}\r\n\r\n".encode()
    return head + b"x" * (size - len(head))


async def add(
    store: MailboxStore,
    mailbox: Mailbox,
    *numbers: int,
    flags: frozenset[str] = frozenset(),
    size: int = 100,
) -> list[Uid]:
    incoming = []
    for number in numbers:
        one = store.incoming()
        await one.write(octets_of(number, size))
        incoming.append(one)
    try:
        return list(await mailbox.append([NewMessage(one, flags) for one in incoming]))
    finally:
        for one in incoming:
            await one.close()


async def test_messages_come_back_as_they_were_given(fresh: Fresh) -> None:
    async with fresh() as store:
        date = datetime(2020, 5, 17, 10, 0, tzinfo=timezone(timedelta(hours=2)))
        for size in (100, 5000, 300_000):
            async with opened(store, INBOX) as inbox:
                one = store.incoming()
                for start in range(0, size, 999):
                    await one.write(octets_of(1, size)[start : start + 999])
                assert one.size == size
                assert bytes(one.octets()) == octets_of(1, size)
                flags = frozenset({"\\Flagged", "$Forwarded"})
                (uid,) = await inbox.append([NewMessage(one, flags, date)])
                await one.close()
                (row,) = await inbox.messages([uid])
                assert (row.flags, row.size) == (flags, size)
                assert row.internal_date == date
                assert row.internal_date.utcoffset() == timedelta(hours=2)
                assert row.save_date is not None and datetime.now(UTC) - row.save_date < timedelta(
                    minutes=1
                )
                assert bytes(await inbox.octets(uid)) == octets_of(1, size)


async def test_uids_and_modseqs_only_grow_and_status_counts(fresh: Fresh) -> None:
    async with fresh() as store:
        async with opened(store, INBOX) as inbox:
            before = await inbox.status()
            uids = await add(store, inbox, 1, 2, 3)
            assert uids == sorted(uids)
            await inbox.change_flags(uids[:2], FlagChange.ADD, frozenset({"\\Seen", "\\Deleted"}))
            after = await inbox.status()
            assert (after.messages, after.unseen, after.deleted, after.size) == (3, 1, 2, 300)
            assert after.recent == 3
            assert after.highest_modseq > before.highest_modseq
            assert after.uid_next > uids[-1]
            assert list(await inbox.expunge([*uids[:1], Uid(999)])) == uids[:1]
            last = await inbox.status()
            assert (last.messages, last.unseen, last.deleted, last.size) == (2, 1, 1, 200)
            assert last.uid_next == after.uid_next
            assert list(await inbox.uids()) == uids[1:]
            with pytest.raises(Refusal) as caught:
                await inbox.octets(uids[0])
            assert caught.value.code is Code.EXPUNGE_ISSUED


async def test_changes_tell_what_is_new_and_what_has_gone(fresh: Fresh) -> None:
    async with fresh() as store:
        async with opened(store, INBOX) as inbox:
            uids = await add(store, inbox, 1, 2, 3, 4)
            since = (await inbox.status()).highest_modseq
            assert (await inbox.changes(since)).changed == ()
            await inbox.change_flags(uids[1:2], FlagChange.ADD, frozenset({"\\Seen"}))
            await inbox.expunge(uids[2:3])
            await add(store, inbox, 5)
            told = await inbox.changes(since)
            assert [row.uid for row in told.changed] == [uids[1], Uid(uids[3] + 1)]
            assert list(told.vanished) == uids[2:3]
            assert told.highest_modseq == (await inbox.status()).highest_modseq


async def test_flags_change_as_asked_and_only_when_they_change(fresh: Fresh) -> None:
    async with fresh() as store:
        async with opened(store, INBOX) as inbox:
            (uid,) = await add(store, inbox, 1, flags=frozenset({"\\Seen", "Work"}))
            before = (await inbox.messages([uid]))[0].modseq
            same = await inbox.change_flags([uid], FlagChange.ADD, frozenset({"\\Seen"}))
            assert same.messages[0].modseq == before
            steps = [
                (FlagChange.ADD, {"\\Flagged", "work"}, {"\\Seen", "\\Flagged", "Work"}),
                (FlagChange.REMOVE, {"\\Seen", "WORK"}, {"\\Flagged"}),
                (FlagChange.REPLACE, {"\\Draft", "a", "b"}, {"\\Draft", "a", "b"}),
                (FlagChange.REPLACE, set(), set()),
            ]
            for change, flags, expected in steps:
                stored = await inbox.change_flags([uid], change, frozenset(flags))
                assert stored.messages[0].flags == expected
            late = await inbox.change_flags(
                [uid], FlagChange.ADD, frozenset({"\\Seen"}), unchanged_since=before
            )
            assert (list(late.messages), list(late.modified)) == ([], [uid])


async def test_a_change_elsewhere_counts_and_changes_no_message(fresh: Fresh) -> None:
    async with fresh() as store, opened(store, INBOX) as inbox:
        if not isinstance(inbox, StepsModSeq):
            return
        await add(store, inbox, 1)
        before = (await inbox.status()).highest_modseq
        await inbox.step_modseq()
        assert (await inbox.status()).highest_modseq > before
        changes = await inbox.changes(before)
        assert (list(changes.changed), list(changes.vanished)) == ([], [])


async def test_a_change_tells_what_it_did_and_not_what_came_after(fresh: Fresh) -> None:
    async with fresh() as store:
        async with opened(store, INBOX) as inbox, opened(store, INBOX) as again:
            (uid,) = await add(store, inbox, 1)
            words = [f"word{number}" for number in range(20)]
            stored = await asyncio.gather(
                *(
                    box.change_flags([uid], FlagChange.ADD, frozenset({word}))
                    for box, word in zip([inbox, again] * 10, words, strict=True)
                )
            )
            told = sorted((one.messages[0] for one in stored), key=lambda one: one.modseq)
            assert [len(message.flags) for message in told] == list(range(1, 21))


async def test_each_reader_has_their_own_seen_in_a_mailbox_of_another(
    fresh: Fresh,
) -> None:
    async with fresh() as store:
        async with opened(store, SHARED, "ana") as anas, opened(store, SHARED, "bob") as bobs:
            (uid,) = await add(store, anas, 1)
            seen = frozenset({"\\Seen", "\\Flagged"})
            await anas.change_flags([uid], FlagChange.ADD, seen)
            assert (await anas.messages([uid]))[0].flags == seen
            assert (await bobs.messages([uid]))[0].flags == {"\\Flagged"}
            assert ((await anas.status()).unseen, (await bobs.status()).unseen) == (0, 1)
            await anas.change_flags([uid], FlagChange.REMOVE, frozenset({"\\Seen"}))
            assert (await anas.status()).unseen == 1


@pytest.mark.parametrize("target", [SUB, OTHER, SHARED])
@pytest.mark.parametrize("size", [100, 5000])
async def test_copy_and_move_keep_all_but_the_uid(
    fresh: Fresh, target: MailboxName, size: int
) -> None:
    async with fresh() as store:
        async with opened(store, INBOX) as source, opened(store, target) as goal:
            flags = frozenset({"\\Answered", "Kept"})
            uids = await add(store, source, 1, 2, 3, flags=flags, size=size)
            copied = await source.copy([*uids[:2], Uid(77)], goal)
            assert list(copied) == uids[:2]
            moved = await source.move(uids[1:], goal)
            assert list(moved) == uids[1:]
            assert list(await source.uids()) == uids[:1]
            rows = await goal.messages()
            assert [row.flags for row in rows] == [flags] * 4
            for number, uid in zip((1, 2, 2, 3), [*copied.values(), *moved.values()], strict=True):
                assert bytes(await goal.octets(uid)) == octets_of(number, size)
            await source.expunge(uids)
            assert bytes(await goal.octets(copied[uids[0]])) == octets_of(1, size)


async def test_mailboxes_are_made_renamed_and_deleted_twice_without_harm(
    fresh: Fresh,
) -> None:
    async with fresh() as store:
        with pytest.raises(Refusal):
            await store.create(INBOX, "default")
        async with opened(store, SUB) as sub:
            uids = await add(store, sub, 1, size=5000)
            validity = (await sub.status()).uid_validity
        for new in (MailboxName(b"user.ana.two"), MailboxName(b"user.bob.three")):
            await store.rename(SUB, new)
            await store.rename(SUB, new)
            async with opened(store, new) as there:
                assert list(await there.uids()) == uids
                assert (await there.status()).uid_validity == validity
                assert bytes(await there.octets(uids[0])) == octets_of(1, 5000)
            await store.rename(new, SUB)
        assert {one.name for one in await store.mailboxes()} == {INBOX, SUB, OTHER, SHARED}
        await store.delete(SUB)
        await store.delete(SUB)
        with pytest.raises(Refusal):
            await store.open(SUB, "ana")
        made = await store.create(SUB, "default")
        assert made.uid_validity > validity
        with pytest.raises(Refusal):
            await store.rename(SUB, INBOX)


async def test_recent_is_for_one_session_only(fresh: Fresh) -> None:
    async with fresh() as store:
        async with opened(store, INBOX) as inbox:
            uids = await add(store, inbox, 1, 2)
            assert set(await inbox.claim_recent()) == set(uids)
            assert set(await inbox.claim_recent()) == set()
            assert (await inbox.status()).recent == 0


async def test_subscriptions_stay_whether_or_not_the_mailbox_does(fresh: Fresh) -> None:
    async with fresh() as store:
        for name in (SUB, MailboxName(b"no.such")):
            await store.subscribe("ana", name, True)
        await store.subscribe("ana", SUB, False)
        assert set(await store.subscriptions("ana")) == {b"no.such"}
        assert set(await store.subscriptions("nobody")) == set()


async def test_many_appends_at_once_are_all_there_in_order(fresh: Fresh) -> None:
    async with fresh() as store:
        async with opened(store, INBOX) as inbox:
            given = await asyncio.gather(*(add(store, inbox, n, n + 1000) for n in range(100)))
            uids = list(await inbox.uids())
            assert sorted(uid for pair in given for uid in pair) == uids
            assert all(pair[1] == pair[0] + 1 for pair in given)


async def test_many_messages_are_told_as_each_is(fresh: Fresh) -> None:
    """The powers TellsFlags and TellsSummaries, where a store has them."""

    async with fresh() as store:
        for name, reader in ((INBOX, "ana"), (SHARED, "ana")):
            async with opened(store, name, reader) as mailbox:
                uids = await add(store, mailbox, *range(8))
                await mailbox.change_flags(uids[1:3], FlagChange.ADD, frozenset({"\\Seen", "$Odd"}))
                await mailbox.keep_summary(uids[4], b"kept")
                await mailbox.expunge(uids[5:6])
                several: tuple[Sequence[Uid], ...] = (
                    [],
                    uids,
                    uids[2:4],
                    [uids[1], uids[7], uids[3]],
                    [*uids, Uid(99)],
                )
                for some in several:
                    told = await mailbox.messages(some)
                    if isinstance(mailbox, TellsFlags):
                        flagged = await mailbox.flagged(some)
                        assert list(flagged) == [(m.uid, m.flags, m.modseq) for m in told]
                    if isinstance(mailbox, TellsSummaries):
                        kept = {m.uid: await mailbox.summary(m.uid) for m in told}
                        known = {uid: octets for uid, octets in kept.items() if octets is not None}
                        assert dict(await mailbox.summaries(some)) == known
        async with opened(store, SHARED, "bob") as mailbox:
            if isinstance(mailbox, TellsFlags):
                flagged = await mailbox.flagged(await mailbox.uids())
                assert not any("\\Seen" in one.flags for one in flagged)


async def test_numbers_stay_while_nothing_changes(fresh: Fresh) -> None:
    """The power TellsAtOnce, where a store has it."""
    async with fresh() as store:
        async with opened(store, SHARED, "ana") as mailbox, opened(store, SHARED, "bob") as bobs:
            if not isinstance(mailbox, TellsAtOnce):
                return
            assert isinstance(bobs, TellsAtOnce)
            known = [(mailbox.numbers(), bobs.numbers())]

            async def changed() -> None:
                """Something has, and it is told; then nothing does, and both are told the same."""
                # a store beside other software takes a look in the ordinary way
                await mailbox.status()
                await bobs.status()
                mine, others = mailbox.numbers(), bobs.numbers()
                assert mine is not None and others is not None
                assert mine != known[-1][0] and others != known[-1][1]
                assert (mailbox.numbers(), bobs.numbers()) == (mine, others)
                status = await mailbox.status()
                counts = (status.uid_validity, status.uid_next, status.highest_modseq)
                assert (*mine[:3], mine[4], *mine[6:]) == (
                    *(*counts, status.messages),
                    *(status.deleted, status.size),
                )
                known.append((mine, others))

            uids = await add(store, mailbox, *range(4))
            await changed()
            for flags in ({"\\Flagged"}, {"\\Seen"}, {"$Odd"}):
                await mailbox.change_flags(uids[:1], FlagChange.ADD, frozenset(flags))
                await changed()
            await bobs.change_flags(uids[:1], FlagChange.ADD, frozenset({"\\Seen"}))
            await changed()
            await mailbox.claim_recent()
            await changed()
            await mailbox.expunge(uids[:1])
            await changed()
            await mailbox.messages()
            await mailbox.uids()
            assert (mailbox.numbers(), bobs.numbers()) == known[-1]
        assert mailbox.numbers() == known[-1][0], "it is closed, and tells still"
        await store.rename(SHARED, MailboxName(b"shared.y"))
        assert mailbox.numbers() is None, "by this name there is none any more"
        async with opened(store, MailboxName(b"shared.y")) as renamed:
            assert isinstance(renamed, TellsAtOnce) and renamed.numbers() == known[-1][0]
            await store.delete(MailboxName(b"shared.y"))
            assert renamed.numbers() is None
        await store.create(SHARED, "default")
        assert mailbox.numbers() is None, "the mailbox of this name is another one"


async def test_messages_are_found_by_a_flag(fresh: Fresh) -> None:
    async with fresh() as store:
        for name, reader in ((INBOX, "ana"), (SHARED, "ana")):
            async with opened(store, name, reader) as mailbox:
                assert isinstance(mailbox, FindsByFlag)
                uids = await add(store, mailbox, *range(5))
                await mailbox.change_flags(uids[1:3], FlagChange.ADD, frozenset({"\\Seen"}))
                await mailbox.change_flags(uids[:1], FlagChange.ADD, frozenset({"\\Deleted"}))
                assert list(await mailbox.find_by_flag("\\Seen")) == uids[1:3]
                assert list(await mailbox.find_by_flag("\\Deleted")) == uids[:1]
                unseen = await mailbox.find_by_flag("\\Seen", present=False, most=2)
                assert list(unseen) == [uids[0], uids[3]]
        async with opened(store, SHARED, "bob") as mailbox:
            assert isinstance(mailbox, FindsByFlag)
            assert not await mailbox.find_by_flag("\\Seen")


async def test_uids_are_all_there_whatever_the_gaps(fresh: Fresh) -> None:
    async with fresh() as store:
        async with opened(store, INBOX) as mailbox:
            uids = await add(store, mailbox, *range(1500))
            assert list(await mailbox.uids()) == uids
            for doomed in ([uids[700]], uids[:3], uids[1490:], uids[100:1200:7]):
                await mailbox.expunge(doomed)
                uids = [uid for uid in uids if uid not in set(doomed)]
                assert list(await mailbox.uids()) == uids
            await mailbox.expunge(uids)
            assert not list(await mailbox.uids())


async def test_listeners_are_told(fresh: Fresh) -> None:
    async with fresh() as store:
        told: list[str] = []

        class Ear:
            def mailbox_changed(self, mailbox_id: str) -> None:
                told.append(mailbox_id)

        store.watch(Ear())
        async with opened(store, INBOX) as inbox:
            await add(store, inbox, 1)
            assert told == [inbox.mailbox_id]


# --- only on disk


@asynccontextmanager
async def on_disk(folder: Path) -> AsyncIterator[SpoolStore]:
    store = SpoolStore(Settings(inline_bytes=1000), folder)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def test_everything_is_there_after_a_restart_and_nothing_is_left_over(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as store:
        await store.create(INBOX, "default")
        await store.create(OTHER, "default")
        async with opened(store, INBOX) as inbox, opened(store, OTHER) as other:
            uids = await add(store, inbox, 1, 2, 3, size=5000)
            await inbox.copy(uids, other)
            await inbox.expunge(uids[:2])
            await inbox.keep_summary(uids[2], b"kept")
    async with on_disk(tmp_path) as store:
        async with opened(store, INBOX) as inbox, opened(store, OTHER) as other:
            (uid,) = await inbox.uids()
            assert bytes(await inbox.octets(uid)) == octets_of(3, 5000)
            for number, copy in enumerate(await other.uids(), 1):
                assert bytes(await other.octets(copy)) == octets_of(number, 5000)
    files = [path for path in (tmp_path / "roots").rglob("*") if path.parent.parent.name == "files"]
    assert len(files) == 4
    assert len({path.stat().st_ino for path in files}) == 3
    assert list((tmp_path / "incoming").iterdir()) == []
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "roots").rglob("*.db"))


async def test_a_newer_format_is_refused_with_a_sentence(tmp_path: Path) -> None:
    import sqlite3

    async with on_disk(tmp_path) as store:
        await store.create(INBOX, "default")
    (file,) = (tmp_path / "roots").rglob("mail.db")
    with sqlite3.connect(file) as db:
        db.execute(f"PRAGMA user_version={FORMAT + 1}")

    async with on_disk(tmp_path) as store:
        with pytest.raises(Refusal, match="has format"):
            await store.open(INBOX, "ana")


CHILD = """
    import asyncio, sys
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from tests.contract.test_store import *

    async def work() -> None:
        store = SpoolStore(Settings(inline_bytes=1000), Path({folder!r}))
        await store.start()
        for name in (INBOX, OTHER):
            try:
                await store.create(name, "default")
            except Refusal:
                pass
        inbox, other = await store.open(INBOX, "ana"), await store.open(OTHER, "bob")

        async def appends(box, label, size):
            number = 0
            while True:
                number += 1
                (uid,) = await add(store, box, number, size=size)
                print(label, uid, number, size, flush=True)

        async def moves():
            while True:
                await asyncio.sleep(0)
                moved = await inbox.move([uid for uid in await inbox.uids() if uid % 3 == 0], other)
                for uid in moved.values():
                    print("moved", uid, flush=True)

        await asyncio.gather(
            appends(inbox, "inbox", 200), appends(inbox, "inbox", 5000), appends(other, "other", 5000), moves()
        )

    asyncio.run(work())
"""


@pytest.mark.parametrize("attempt", range(4))
async def test_kill_9_loses_and_doubles_nothing(tmp_path: Path, attempt: int) -> None:
    root = str(Path(__file__).parent.parent.parent)
    code = textwrap.dedent(CHILD).format(root=root, folder=str(tmp_path))
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert child.stdout is not None
    lines = []
    goal = random.Random(attempt).randrange(50, 300)
    for line in child.stdout:
        lines.append(line.split())
        if len(lines) >= goal:
            child.send_signal(signal.SIGKILL)
            break
    lines += [line.split() for line in child.stdout.read().splitlines(True) if line.endswith("\n")]
    child.wait()
    appended = [
        (int(uid), int(n), int(size))
        for label, uid, n, size in (x for x in lines if x[0] == "inbox")
    ]

    async def check(store: MailboxStore) -> None:
        async with opened(store, INBOX) as inbox, opened(store, OTHER, "bob") as other:
            here, there = await inbox.messages(), await other.messages()
            ids = [row.email_id for row in [*here, *there]]
            assert len(ids) == len(set(ids)), "a message is there twice"
            bodies: dict[bytes, int] = {}
            for box, rows in ((inbox, here), (other, there)):
                for row in rows:
                    octets = bytes(await box.octets(row.uid))
                    assert len(octets) == row.size
                    bodies[octets] = bodies.get(octets, 0) + 1
            for _, number, size in appended:
                assert octets_of(number, size) in bodies, "an acknowledged message is lost"
            for row in here:
                match = [x for x in appended if x[0] == row.uid]
                if match:
                    assert bytes(await inbox.octets(row.uid)) == octets_of(match[0][1], match[0][2])
            since = await inbox.changes(ModSeq(0))
            assert len(since.changed) == len(here)

    for _ in range(2):
        async with on_disk(tmp_path) as store:
            await check(store)
    assert list((tmp_path / "incoming").iterdir()) == []
