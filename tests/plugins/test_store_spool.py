"""The spool: what `store check` finds and `store repair` mends, formats, cancelled appends. The contract is elsewhere."""

import asyncio
import os
import random
import sqlite3
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.api import CanCheck, FlagChange, Mailbox, NewMessage
from murder.errors import Code, Refusal
from murder.kit import mailbox as spool
from murder.kit import pages as paging
from murder.kit.rows import MOST_KEYWORDS
from murder.kit.schema import FORMAT
from murder.kit.uids import pack, unpack
from murder.model.message import Changes, Message, Uid
from murder.model.name import MailboxName
from plugins.store_spool.store import Settings, SpoolStore
from tests.kit import scene

INBOX, SENT = MailboxName(b"user.ana"), MailboxName(b"user.ana.Sent")
SMALL, LARGE = 100, 5000


@asynccontextmanager
async def stored(folder: Path) -> AsyncIterator[SpoolStore]:
    store = SpoolStore(Settings(inline_bytes=1000), folder)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


def octets_of(number: int, size: int) -> bytes:
    return (f"Subject: {number}\r\n\r\n".encode() + b"x%d " % number * size)[:size]


async def append(store: SpoolStore, box: Mailbox, number: int, size: int) -> Uid:
    incoming = store.incoming()
    await incoming.write(octets_of(number, size))
    try:
        return (await box.append([NewMessage(incoming)]))[0]
    finally:
        await incoming.close()


async def fill(store: SpoolStore) -> None:
    """40 messages in INBOX, small and large by turns, and half of them copied."""
    for name in (INBOX, SENT):
        await store.create(name, "default")
    inbox, sent = await store.open(INBOX, "ana"), await store.open(SENT, "ana")
    uids = [await append(store, inbox, n, SMALL if n % 2 else LARGE) for n in range(40)]
    await inbox.copy(uids[::2], sent)
    await inbox.expunge(uids[5:7])


def database(folder: Path) -> Path:
    (found,) = (folder / "roots").rglob("mail.db")
    return found


def files(folder: Path) -> list[Path]:
    return list((folder / "roots").glob("*/*/files/*/*"))


async def inspect(folder: Path, repair: bool = False) -> list[str]:
    async with stored(folder) as store:
        assert isinstance(store, CanCheck)
        return list(await store.check(repair))


def inspect_elsewhere(folder: Path, repair: bool = False) -> list[str]:
    """For a thread: on a loop of its own."""
    return scene.run(inspect(folder, repair))


async def whole_mail(folder: Path) -> list[tuple[bytes, int]]:
    """Every message (mailbox, UID), read to its last octet, which must be as it was given."""
    found: list[tuple[bytes, int]] = []
    async with stored(folder) as store:
        for mailbox in await store.mailboxes():
            box = await store.open(mailbox.name, "ana")
            rows = await box.messages()
            status = await box.status()
            assert (status.messages, status.size) == (len(rows), sum(row.size for row in rows))
            for row in rows:
                octets = bytes(await box.octets(row.uid))
                assert len(octets) == row.size
                number = int(octets.split(b"\r\n")[0].split()[1])
                assert octets == octets_of(number, row.size)
                found.append((mailbox.name, int(row.uid)))
    return found


async def fill_new(folder: Path) -> None:
    async with stored(folder) as store:
        await fill(store)


Damage = Callable[[Path], None]


def lose_a_file(folder: Path) -> None:
    next(file for file in files(folder) if file.read_bytes() == octets_of(8, LARGE)).unlink()


def add_an_orphan(folder: Path) -> None:
    beside = sorted(files(folder))[0]
    (beside.parent / (beside.name[:2] + "f" * 30)).write_bytes(b"Subject: 7\r\n\r\nfound")


def execute(sql: str) -> Damage:
    def damage(folder: Path) -> None:
        with sqlite3.connect(database(folder)) as db:
            db.execute(sql)
        db.close()

    return damage


FAULTS: dict[str, tuple[Damage, str, int]] = {
    "missing file": (lose_a_file, "has lost its file; it has been expunged", -2),
    "orphan file": (add_an_orphan, "is in no mailbox; kept as", 0),
    "wrong quota": (execute("UPDATE mailbox SET octets=octets+1"), "octets", 0),
    "wrong counts": (execute("UPDATE mailbox SET messages=3, unseen=9, deleted=1"), "unseen 9", 0),
    "UIDNEXT behind": (execute("UPDATE mailbox SET uid_next=2"), "UIDNEXT 2, should be", 0),
    "MODSEQ behind": (execute("UPDATE mailbox SET highest_modseq=1"), "HIGHESTMODSEQ 1", 0),
    "body row gone": (
        execute("DELETE FROM body WHERE file IS NULL AND id=(SELECT min(id)+1 FROM body)"),
        "has no octets in the database",
        -1,
    ),
    "message rows gone": (
        execute("DELETE FROM message WHERE uid IN (2, 3)"),
        "is in no mailbox; kept as",
        -4,
    ),
    "mailbox row gone": (
        execute("DELETE FROM mailbox WHERE id=2"),
        "they are in user.ana.Recovered-2 now",
        0,
    ),
    "shared copies miscounted": (
        execute("UPDATE body SET copies=7"),
        "bodies count their messages wrong",
        0,
    ),
    "stray rows": (execute("INSERT INTO seen VALUES (99, 'ana', 1)"), "belong to no mailbox", 0),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_found_mended_and_then_gone(fault: str, tmp_path: Path) -> None:
    damage, told, lost = FAULTS[fault]
    await fill_new(tmp_path)
    assert await inspect(tmp_path) == []
    before = len(await whole_mail(tmp_path))
    damage(tmp_path)
    found = await inspect(tmp_path)
    assert found
    assert await inspect(tmp_path) == found, "a check changes nothing"
    mended = await inspect(tmp_path, repair=True)
    assert any(told in sentence for sentence in mended), mended
    assert len(mended) >= len(found)
    assert await inspect(tmp_path) == []
    assert len(await whole_mail(tmp_path)) == before + lost


async def test_octets_that_no_mailbox_has_are_kept(tmp_path: Path) -> None:
    await fill_new(tmp_path)
    execute("DELETE FROM message")(tmp_path)
    await inspect(tmp_path, repair=True)
    kept = {path.read_bytes() for path in (tmp_path / "lost").rglob("*.eml")}
    assert kept == {octets_of(n, SMALL if n % 2 else LARGE) for n in range(40) if n != 5}
    assert await inspect(tmp_path) == []


PAGE = 4096


@pytest.mark.parametrize("attempt", range(12))
async def test_a_damaged_page_costs_what_was_on_it_and_nothing_else(
    tmp_path: Path, attempt: int
) -> None:
    await fill_new(tmp_path)
    file = database(tmp_path)
    pages = file.stat().st_size // PAGE
    octets = bytearray(file.read_bytes())
    page = attempt * pages // 12
    octets[page * PAGE : (page + 1) * PAGE] = random.Random(attempt).randbytes(PAGE)
    file.write_bytes(octets)
    assert await inspect(tmp_path)
    mended = await inspect(tmp_path, repair=True)
    assert any("is kept as" in sentence for sentence in mended), mended
    assert list(file.parent.glob("mail.db.damaged-*"))
    assert await inspect(tmp_path) == []
    await whole_mail(tmp_path)
    large = {octets_of(n, LARGE) for n in range(0, 40, 2)}
    there = {path.read_bytes() for path in [*files(tmp_path), *(tmp_path / "lost").rglob("*.eml")]}
    assert large <= there


async def test_a_damaged_database_stops_its_own_user_only(tmp_path: Path) -> None:
    other = MailboxName(b"user.bob")

    async with stored(tmp_path) as store:
        await fill(store)
        await store.create(other, "default")
    for file in (tmp_path / "roots").rglob("mail.db"):
        if file.parent.name == "user.ana":
            file.write_bytes(os.urandom(file.stat().st_size))

    async with stored(tmp_path) as store:
        assert [one.name for one in await store.mailboxes()] == [other]
        with pytest.raises(Refusal, match="damaged"):
            await store.open(INBOX, "ana")
        await append(store, await store.open(other, "bob"), 1, SMALL)


async def test_a_page_damaged_under_way_is_a_refusal(tmp_path: Path) -> None:
    async with stored(tmp_path) as store:
        await fill(store)
        inbox = await store.open(INBOX, "ana")
        for root in store._open.values():
            root._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            root.reader.execute("PRAGMA shrink_memory")
        file = database(tmp_path)
        with file.open("r+b") as opened:
            opened.seek(PAGE)
            opened.write(b"\xff" * (file.stat().st_size - PAGE))
        with pytest.raises(Refusal) as refused:
            await inbox.messages()
        assert refused.value.code is Code.UNAVAILABLE


async def test_a_repair_of_pages_waits_until_the_node_is_stopped(tmp_path: Path) -> None:
    async with stored(tmp_path) as store:
        await fill(store)
    database(tmp_path).write_bytes(os.urandom(9 * PAGE))

    async with stored(tmp_path):
        with pytest.raises(Refusal, match="stop the node"):
            await asyncio.to_thread(inspect_elsewhere, tmp_path, True)


async def test_a_check_beside_work_finds_nothing(tmp_path: Path) -> None:
    """Deliveries, expunges and moves go on: what is under way is no fault."""

    async with stored(tmp_path) as store:
        await fill(store)
        inbox, sent = await store.open(INBOX, "ana"), await store.open(SENT, "ana")
        done = asyncio.Event()

        async def check() -> list[str]:
            found = [*await asyncio.to_thread(inspect_elsewhere, tmp_path)]
            found += await asyncio.to_thread(inspect_elsewhere, tmp_path)
            done.set()
            return found

        async def work() -> None:
            number = 0
            while not done.is_set():
                number += 1
                uid = await append(store, inbox, number, LARGE if number % 2 else SMALL)
                await inbox.copy([uid], sent)
                if number % 3:
                    await inbox.expunge([uid])

        found, _ = await asyncio.gather(check(), work())
        assert found == []


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_an_append_whose_client_has_gone_is_whole_or_absent(
    tmp_path: Path, size: int
) -> None:
    """The task is cancelled and the octets are let go while the writer has them."""

    async with stored(tmp_path) as store:
        await store.create(INBOX, "default")
        inbox = await store.open(INBOX, "ana")
        for number in range(30):
            incoming = store.incoming()
            await incoming.write(octets_of(number, size))
            task = asyncio.create_task(inbox.append([NewMessage(incoming)]))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            task.cancel()
            await incoming.close()
            await asyncio.wait([task])
        await append(store, inbox, 30, size)
        for row in await inbox.messages():
            assert len(await inbox.octets(row.uid)) == row.size == size
    assert await inspect(tmp_path) == []
    await whole_mail(tmp_path)


async def test_expunged_octets_are_used_again_and_given_back(tmp_path: Path) -> None:
    async def fill_up(store: SpoolStore) -> None:
        store._settings = Settings()  # all of it in the database
        if not await store.mailboxes():
            await store.create(INBOX, "default")
        inbox = await store.open(INBOX, "ana")
        incoming = store.incoming()
        await incoming.write(b"Subject: 1\r\n\r\n" + b"x" * 20_000)
        await inbox.append([NewMessage(incoming)] * 200)
        await incoming.close()
        await inbox.expunge(await inbox.uids())

    async with stored(tmp_path) as store:
        await fill_up(store)
    once = database(tmp_path).stat().st_size
    assert once > 3_000_000
    async with stored(tmp_path) as store:
        await fill_up(store)
    assert database(tmp_path).stat().st_size < once * 1.2
    assert await inspect(tmp_path, repair=True) == []
    assert database(tmp_path).stat().st_size < 300_000
    assert await inspect(tmp_path) == []


async def test_uids_of_a_large_mailbox_are_those_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept in memory and brought up to date, whatever another process does."""
    monkeypatch.setattr("murder.kit.mailbox.MANY", 3)
    choose = random.Random(1)

    async with stored(tmp_path) as store:
        await fill(store)
        other = SpoolStore(Settings(inline_bytes=1000), tmp_path)
        await other.start()
        here, there = await store.open(INBOX, "ana"), await other.open(INBOX, "ana")
        for number in range(60):
            box, keeper = choose.choice(((here, store), (there, other)))
            uids = list(await box.uids())
            assert uids == [row.uid for row in await box.messages()]
            if choose.random() < 0.5 or len(uids) < 4:
                await append(keeper, box, number, SMALL)
            else:
                await box.expunge(choose.sample(uids, choose.randint(1, 3)))
        await other.stop()


async def test_uids_of_a_large_mailbox_outlast_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that starts takes up what another has written down, if it is still true; and else what is on the disk."""
    monkeypatch.setattr("murder.kit.mailbox.MANY", 3)
    monkeypatch.setattr("murder.kit.uids.STALE", 4)
    choose = random.Random(2)

    async def look(store: SpoolStore) -> None:
        inbox = await store.open(INBOX, "ana")
        uids = list(await inbox.uids())
        assert uids == [row.uid for row in await inbox.messages()]
        for number in range(choose.randint(0, 4)):
            await append(store, inbox, number, SMALL)
        if choose.random() < 0.7:
            await inbox.expunge(choose.sample(uids, choose.randint(1, 5)))
        inbox.close()

    await fill_new(tmp_path)
    remembered = []
    for number in range(40):
        async with stored(tmp_path) as store:
            await look(store)
        db = sqlite3.connect(database(tmp_path))
        remembered.append(db.execute("SELECT uids FROM known_uids").fetchone()[0])
        if number % 5 == 0:  # a damaged one, or one of other messages, costs time only
            damaged = (b"R damaged", b"", pack(array("I", [1, 2, 70, 80])))[number // 5 % 3]
            db.execute("UPDATE known_uids SET uids=?, modseq=?", (damaged, choose.choice((1, 99))))
            db.commit()
        if number % 7 == 0:  # removals that are remembered no longer
            db.execute("DELETE FROM expunged")
            db.commit()
        db.close()
    assert 3 < len(set(remembered)) < 39

    async with stored(tmp_path) as store:
        await store.delete(INBOX)
    db = sqlite3.connect(database(tmp_path))
    assert db.execute("SELECT count(*) FROM known_uids").fetchone() == (0,)
    db.close()


@given(st.sets(st.integers(1, 2**32 - 1) | st.integers(1, 60), max_size=80))
def test_uids_are_written_down_and_read(uids: set[int]) -> None:
    assert list(unpack(pack(array("I", sorted(uids))))) == sorted(uids)


FORMAT_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE mailbox (
    id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, mailbox_id TEXT NOT NULL UNIQUE,
    uid_validity INTEGER NOT NULL, uid_next INTEGER NOT NULL DEFAULT 1,
    highest_modseq INTEGER NOT NULL DEFAULT 1, recent_from INTEGER NOT NULL DEFAULT 1,
    messages INTEGER NOT NULL DEFAULT 0, unseen INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0, octets INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE message (
    mailbox INTEGER NOT NULL, uid INTEGER NOT NULL, flags INTEGER NOT NULL, keywords TEXT NOT NULL,
    internal_date INTEGER NOT NULL, zone INTEGER NOT NULL, save_date INTEGER NOT NULL,
    size INTEGER NOT NULL, modseq INTEGER NOT NULL, email_id TEXT NOT NULL, body INTEGER NOT NULL,
    PRIMARY KEY (mailbox, uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_modseq ON message (mailbox, modseq);
CREATE TABLE body (
    id INTEGER PRIMARY KEY, copies INTEGER NOT NULL, file TEXT, octets BLOB, summary BLOB
) STRICT;
CREATE TABLE expunged (
    mailbox INTEGER NOT NULL, modseq INTEGER NOT NULL, uid INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq, uid)
) STRICT, WITHOUT ROWID;
CREATE TABLE seen (
    mailbox INTEGER NOT NULL, reader TEXT NOT NULL, uid INTEGER NOT NULL,
    PRIMARY KEY (mailbox, reader, uid)
) STRICT, WITHOUT ROWID;
CREATE TABLE keyword (
    mailbox INTEGER NOT NULL, folded TEXT NOT NULL, spelled TEXT NOT NULL,
    PRIMARY KEY (mailbox, folded)
) STRICT, WITHOUT ROWID;
CREATE TABLE subscription (name BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE garbage (file TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE intent (id TEXT PRIMARY KEY, what TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('uid_validity', 77);
INSERT INTO mailbox VALUES (1, CAST('user.ana' AS BLOB), 'id1', 77, 6, 9, 6, 1, 0, 0, 20);
INSERT INTO message VALUES (1, 5, 5, 'word', 1600000000, 60, 1600000000, 20, 9, 'e1', 1);
INSERT INTO keyword VALUES (1, 'word', 'word');
INSERT INTO body VALUES (1, 1, NULL, CAST('Subject: 1 it works.' AS BLOB), NULL);
PRAGMA user_version=1;
"""


async def test_an_older_file_is_migrated(tmp_path: Path) -> None:
    async with stored(tmp_path) as store:
        await store.create(INBOX, "default")
    file = database(tmp_path)
    for beside in file.parent.glob("mail.db*"):
        beside.unlink()
    db = sqlite3.connect(file)
    db.executescript(FORMAT_1)
    db.close()

    async with stored(tmp_path) as store:
        inbox = await store.open(INBOX, "ana")
        (row,) = await inbox.messages()
        assert (row.uid, row.flags, row.size) == (
            Uid(5),
            frozenset({"\\Seen", "\\Flagged", "word"}),
            20,
        )
        assert bytes(await inbox.octets(Uid(5))) == b"Subject: 1 it works."
        assert await append(store, inbox, 2, LARGE) == 6
    assert await inspect(tmp_path) == []
    db = sqlite3.connect(file)
    assert db.execute("PRAGMA user_version").fetchone() == (FORMAT,)
    assert db.execute("SELECT 1 FROM sqlite_schema WHERE name='body_file'").fetchone()
    db.close()


async def test_a_mailbox_has_a_bounded_number_of_keywords(tmp_path: Path) -> None:
    """Those that no message has any more make room; a new one too many is refused, and nothing has changed."""

    async with stored(tmp_path) as store:
        await store.create(INBOX, "default")
        mailbox = await store.open(INBOX, "ana")
        each = 100  # keywords of one message, which has a bound of its own
        uids = [await append(store, mailbox, 1, SMALL) for _ in range(MOST_KEYWORDS // each)]
        for at, uid in enumerate(uids):
            words = frozenset(f"k{at * each + number}" for number in range(each))
            await mailbox.change_flags([uid], FlagChange.REPLACE, words)
        first = frozenset(f"k{number}" for number in range(each))
        with pytest.raises(Refusal, match="1000 keywords"):
            await mailbox.change_flags(uids[:1], FlagChange.ADD, frozenset({"another"}))
        assert (await mailbox.messages(uids[:1]))[0].flags == first
        await mailbox.change_flags(uids[:1], FlagChange.REMOVE, frozenset({"k7", "unknown"}))
        await mailbox.change_flags(uids[:1], FlagChange.ADD, frozenset({"another"}))
        found = await mailbox.keywords()
        assert len(found) == MOST_KEYWORDS and "another" in found and "k7" not in found


async def test_what_another_worker_adds_between_two_reads_is_in_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`STATUS (MESSAGES 1 RECENT 4)` was seen, and UNSEEN would have been less than nothing."""
    news = MailboxName(b"news")
    async with stored(tmp_path) as store:
        await store.create(news, "default")
        box = await store.open(news, "bert")
        await append(store, box, 1, SMALL)
        before = await box.status()
        with monkeypatch.context() as patch:
            numbers = spool.read_numbers(box.root, box.box_id)  # type: ignore[attr-defined]
            patch.setattr(spool, "read_numbers", lambda *_: numbers)
            more = [await append(store, box, number, SMALL) for number in (2, 3, 4)]
            await box.change_flags(more, FlagChange.ADD, frozenset({"\\Seen"}))
            assert await box.status() == before
        assert (before.messages, before.unseen, before.recent) == (1, 1, 1)
        after = await box.status()
        assert (after.messages, after.unseen, after.recent) == (4, 1, 4)
        box.close()


async def changed_in(box: Mailbox, changes: Changes) -> Sequence[Message]:
    return changes.changed or await box.messages(changes.many)


async def _count_turns(turns: list[int]) -> None:
    while True:
        turns.append(1)
        await asyncio.sleep(0)


@pytest.mark.parametrize("count", [12, 24])
async def test_many_changes_are_read_a_page_at_a_time_with_turns_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(paging, "PAGE", 4)
    monkeypatch.setattr(paging, "UIDS_PAGE", 4)

    async with stored(tmp_path) as store:
        await store.create(INBOX, "default")
        box = await store.open(INBOX, "ana")
        start = (await box.status()).highest_modseq
        for number in range(count):
            await append(store, box, number, SMALL)
        await box.expunge([Uid(uid) for uid in range(1, count, 2)])
        turns: list[int] = []
        counting = asyncio.create_task(_count_turns(turns))
        found = await box.changes(start)
        counting.cancel()
        told = [message.uid for message in await changed_in(box, found)]
        assert told == list(range(2, count + 1, 2))
        assert list(found.vanished) == list(range(1, count, 2))
        assert len(turns) >= count // 4 - 1  # more, where a thread takes long


async def test_what_changes_while_pages_are_turned_is_neither_lost_nor_told_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE", 4)
    monkeypatch.setattr(paging, "UIDS_PAGE", 4)

    async with stored(tmp_path) as store:
        await store.create(INBOX, "default")
        box = await store.open(INBOX, "ana")
        start = (await box.status()).highest_modseq
        for number in range(20):
            await append(store, box, number, SMALL)
        assert isinstance(box, spool.RowMailbox)
        pages = paging.pages
        turned: list[object] = []

        async def with_others(*asked: Any) -> AsyncIterator[list[tuple[Any, ...]]]:
            async for page in pages(*asked):
                yield page
                if not turned:
                    turned.append(page)
                    flagged = frozenset({"\\Flagged"})
                    await box.change_flags([Uid(1), Uid(20)], FlagChange.ADD, flagged)
                    await box.expunge([Uid(2), Uid(19)])
                    await append(store, box, 21, SMALL)

        monkeypatch.setattr(paging, "pages", with_others)
        first = await box.changes(start)
        rest = await box.changes(first.highest_modseq)
        assert turned and first.many
        told = [message.uid for message in await changed_in(box, first)]
        assert told == sorted(set(told))
        assert {*told, *(message.uid for message in await changed_in(box, rest))} - set(
            rest.vanished
        ) == {*(Uid(uid) for uid in range(1, 22))} - {2, 19}
        # so that who takes new UIDs in ascending order misses none
        assert set(range(1, max(told))) - set(told) <= {*first.vanished, *rest.vanished}
