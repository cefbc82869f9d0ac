"""What was expunged is kept for its time and comes back as new messages; XUNEXPUNGE of an operator."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from poplib import POP3

import pytest

from murder.api import (
    CarriedRetained,
    CarriesMailboxes,
    CarriesRetained,
    Mailbox,
    NewMessage,
    Retention,
    TellsRetained,
)
from murder.api.store import MailboxStore
from murder.model.carried import CarriedIdentity, Portrait
from murder.model.message import MAX_UID, Message, ModSeq, Uid, UidValidity
from murder.model.name import MailboxName
from murder.model.protocol import protocol_named
from murder.roles.backend.hierarchy.expiry import purge
from plugins.store_maildir.store import MaildirStore
from plugins.store_maildir.store import Settings as MaildirSettings
from plugins.store_spool.store import Settings, SpoolStore
from tests.kit.listening import listening
from tests.kit.peer import Peer
from tests.rooms.backend.server import (
    config_in,
    maildir_store,
    memory_store,
    running_backend,
    spool_store,
)

ANA, GUEST = MailboxName(b"user.ana"), MailboxName(b"user.guest")
DAY_S = 86_400.0
MAIL = b"From: Bert <bert@example.org>\r\nSubject: =?utf-8?q?gr=C3=BCn?=\r\n\r\nhello\r\n"
STORES = [memory_store, spool_store, maildir_store]
MakeStore = Callable[..., MailboxStore]


def maker(make: MakeStore, folder: Path) -> Callable[[], MailboxStore]:
    return make if make is memory_store else lambda: make(folder)


async def logged_in(address: tuple[str, int], user: str) -> Peer:
    peer = await Peer.at(*address)
    await peer.line()
    await peer.ok(f"LOGIN {user} secret")
    return peer


@pytest.mark.parametrize("make", STORES)
async def test_an_operator_sees_what_is_kept_and_brings_it_back(
    make: MakeStore, tmp_path: Path
) -> None:
    async with running_backend(tmp_path, maker(make, tmp_path)) as running:
        ana = await logged_in(running.address, "ana")
        admin = await logged_in(running.address, "admin")
        date = '"29-Feb-2024 23:59:58 -0530"'
        for flags in ("\\Flagged work", "\\Seen", ""):
            size = f"{{{len(MAIL)}+}}\r\n{MAIL.decode()}"
            await ana.ok(f"APPEND INBOX ({flags}) {date} {size}")
        await ana.ok("SELECT INBOX")
        await ana.ok("STORE 1:2 +FLAGS (\\Deleted)")
        await ana.ok("EXPUNGE")
        listed = await admin.ok("XUNEXPUNGE user/ana LIST 0 1:*")
        assert [line.split(b" ", 4)[2] for line in listed] == [b"1", b"2"]
        assert listed[0].endswith(b' "bert@example.org"') and "grün".encode() in b"".join(listed)
        assert await admin.ok("XUNEXPUNGE user/ana LIST 0 2") == listed[1:]
        answer = await admin.command("XUNEXPUNGE user/ana RESTORE 3600 1")
        assert b"[COPYUID " in answer[-1] and answer[-1].split()[4:6] == [b"1", b"4]"]
        told = await ana.ok("NOOP")
        assert b"* 2 EXISTS" in told
        (fetched,) = await ana.ok("UID FETCH 4 (FLAGS INTERNALDATE)")
        assert b"\\Flagged" in fetched and b"work" in fetched and b"\\Deleted" not in fetched
        assert date.encode() in fetched
        assert (await ana.ok("UID FETCH 4 (RFC822.SIZE)"))[0].endswith(b"SIZE %d)" % len(MAIL))
        answer = await admin.command("XUNEXPUNGE user/ana RESTORE 0 1:*")
        assert answer[-1].split()[4:6] == [b"2", b"5]"]
        assert await admin.command("XUNEXPUNGE user/ana RESTORE 0 1:*") == [b"t OK Completed"]
        await ana.close()
        await admin.close()


async def test_what_is_kept_is_not_for_users_and_in_no_count(tmp_path: Path) -> None:
    async with running_backend(tmp_path, maker(spool_store, tmp_path)) as running:
        ana = await logged_in(running.address, "ana")
        await ana.ok(f"APPEND INBOX (\\Deleted) {{{len(MAIL)}+}}\r\n{MAIL.decode()}")
        await ana.ok("SELECT INBOX")
        await ana.ok("EXPUNGE")
        assert (await ana.command("XUNEXPUNGE INBOX LIST 0 1:*"))[-1].startswith(b"t NO [NOPERM]")
        assert await ana.ok("STATUS INBOX (MESSAGES SIZE)") == [
            b"* STATUS INBOX (MESSAGES 0 SIZE 0)"
        ]
        assert await ana.ok("UID FETCH 1 (BODY[])") == []
        assert await ana.ok("UID SEARCH ALL") == [b"* SEARCH"]
        for wrong in ("LIST 0", "BRING 0 1", "LIST x 1", "LIST 0 $", "LIST 0 1 2"):
            answer = await ana.command(f"XUNEXPUNGE INBOX {wrong}")
            assert answer[-1].startswith(b"t BAD"), wrong
        await ana.close()


async def test_what_is_over_goes_and_nothing_is_kept_where_the_key_says_so(tmp_path: Path) -> None:
    config = config_in(tmp_path, expunged_keep_s=DAY_S)
    async with running_backend(tmp_path, maker(spool_store, tmp_path), config=config) as running:
        ana = await logged_in(running.address, "ana")
        admin = await logged_in(running.address, "admin")
        for _ in range(2):
            await ana.ok(f"APPEND INBOX (\\Deleted) {{{len(MAIL)}+}}\r\n{MAIL.decode()}")
        await ana.ok("SELECT INBOX")
        await ana.ok("UID EXPUNGE 1")
        assert await purge(running.backend) == 0
        running.role.reload(config_in(tmp_path, expunged_keep_s=0.0))
        await ana.ok("EXPUNGE")
        assert await purge(running.backend) == 1
        assert await admin.ok("XUNEXPUNGE user/ana LIST 0 1:*") == []
        await ana.close()
        await admin.close()


# --- stores


@pytest.mark.parametrize("make", STORES)
async def test_what_is_kept_comes_with_a_mailbox_that_moves(
    make: MakeStore, tmp_path: Path
) -> None:
    async with running_backend(tmp_path, maker(make, tmp_path)) as running:
        store = running.backend.store
        assert isinstance(store, CarriesRetained) and isinstance(store, CarriesMailboxes)
        await store.hold(GUEST, "default", CarriedIdentity("box1", UidValidity(7)))
        at = datetime.now(UTC).replace(microsecond=0)

        async def come(after: int, up_to: int, *uids: int, known: Sequence[int] = ()) -> None:
            arriving = []
            for uid in sorted((*uids, *known)):
                incoming = None if uid in known else store.incoming()
                text = MAIL.replace(b"hello", b"%d" % uid * (1 if uid % 2 else 200_000))
                if incoming is not None:
                    await incoming.write(text)
                flags = frozenset({"\\Deleted", "\\Flagged", "work"})
                row = Message(Uid(uid), flags, at, len(text), ModSeq(uid), at, f"e{uid}")
                arriving.append(CarriedRetained(row, at, incoming))
            await store.receive_retained(GUEST, Uid(after), Uid(up_to), arriving)
            for one in arriving:
                if one.incoming is not None:
                    await one.incoming.close()

        mailbox = await store.open(GUEST, "guest")
        assert isinstance(mailbox, TellsRetained)

        async def kept() -> list[int]:
            return [one.message.uid for one in await mailbox.retained(Uid(0), 100)]

        await come(0, 4, 1, 2, 4)
        await come(4, 9, 7, 8)
        assert await kept() == [1, 2, 4, 7, 8]
        await come(0, 4, 4, known=[2])  # 1 has come back meanwhile; 4 is sent once more
        await come(7, MAX_UID)  # 8 as well
        assert await kept() == [2, 4, 7]
        assert {one.at for one in await mailbox.retained(Uid(0), 100)} == {at}
        assert (await mailbox.status()).messages == 0
        assert bytes(await mailbox.octets(Uid(2))).count(b"2") == 200_000
        await store.complete(
            GUEST,
            Portrait(
                CarriedIdentity("box1", UidValidity(7)), Uid(10), ModSeq(20), [(ModSeq(20), Uid(4))]
            ),
        )
        assert await mailbox.restore([Uid(2), Uid(7)]) == {2: 10, 7: 11}
        (two, seven) = await mailbox.messages()
        assert two.flags == seven.flags == {"\\Flagged", "work"} and two.email_id == "e2"
        assert bytes(await mailbox.octets(Uid(11))) == MAIL.replace(b"hello", b"7")
        assert await kept() == [4]
        mailbox.close()


def made(kind: str, folder: Path) -> SpoolStore | MaildirStore:
    if kind == "maildir":
        return MaildirStore(MaildirSettings(), folder)
    return SpoolStore(Settings(inline_bytes=1000), folder)


async def filled(store: SpoolStore | MaildirStore, count: int, octets: bytes) -> list[Uid]:
    if ANA not in {one.name for one in await store.mailboxes()}:
        await store.create(ANA, "default")
    mailbox = await store.open(ANA, "ana")
    uids: list[Uid] = []
    for _ in range(count):
        incoming = store.incoming()
        await incoming.write(octets)
        uids += await mailbox.append([NewMessage(incoming)])
        await incoming.close()
    mailbox.close()
    return uids


async def kept(mailbox: Mailbox) -> list[Uid]:
    assert isinstance(mailbox, TellsRetained)
    return [one.message.uid for one in await mailbox.retained(Uid(0), 1000)]


def database(folder: Path) -> Path:
    (file,) = [*folder.rglob("*ana/mail.db"), *folder.rglob("ana/murder-index.db")]
    return file


def files(folder: Path) -> list[Path]:
    parts = ("files/*", "cur", "new", "tmp", "murder-expunged")
    return [path for part in parts for path in folder.rglob(f"{part}/*") if path.is_file()]


LARGE = MAIL + b"0123456789abcde\n" * 500


@pytest.mark.parametrize("kind", ["spool", "maildir"])
async def test_it_outlives_restarts_and_renames_to_another_user(kind: str, tmp_path: Path) -> None:
    first = made(kind, tmp_path)
    first.retain(Retention(DAY_S))
    await first.start()
    uids = await filled(first, 3, LARGE)
    mailbox = await first.open(ANA, "ana")
    await mailbox.expunge(uids[:2])
    mailbox.close()
    await first.stop()

    careless = made(kind, tmp_path)  # nobody says how long
    await careless.start()
    assert await careless.purge() == 0
    assert not await careless.check(repair=True)
    bob = MailboxName(b"user.bob")
    await careless.rename(ANA, bob)
    await careless.stop()

    last = made(kind, tmp_path)
    last.retain(Retention(DAY_S))
    await last.start()
    again = await last.open(bob, "bob")
    assert await kept(again) == uids[:2] and len(files(tmp_path)) == 3
    assert isinstance(again, TellsRetained)
    back = await again.restore(uids)
    assert back == {uids[0]: 4, uids[1]: 5}
    assert bytes(await again.octets(Uid(4))) == LARGE
    assert not await last.check(repair=False) and len(files(tmp_path)) == 3
    again.close()
    await last.delete(bob)
    assert files(tmp_path) == []
    await last.stop()


@pytest.mark.parametrize("kind", ["spool", "maildir"])
async def test_it_is_bounded_and_the_oldest_goes_first(kind: str, tmp_path: Path) -> None:
    store = made(kind, tmp_path)
    store.retain(Retention(DAY_S, most_messages=3, most_octets=10 * len(LARGE)))
    await store.start()
    uids = await filled(store, 8, LARGE)
    mailbox = await store.open(ANA, "ana")
    await mailbox.expunge(uids[4:6])
    with closing(sqlite3.connect(database(tmp_path))) as db:
        db.execute("UPDATE gone SET at=at-10")
        db.commit()
    await mailbox.expunge(uids[:2])
    assert await kept(mailbox) == [*uids[:2], uids[5]]
    store.retain(Retention(DAY_S, most_octets=len(LARGE)))
    await mailbox.expunge(uids[2:4])
    assert await kept(mailbox) == [uids[3]]  # of what goes at once, the newest
    assert list(await mailbox.uids()) == uids[6:] and len(files(tmp_path)) == 3
    with closing(sqlite3.connect(database(tmp_path))) as db:
        totals = db.execute(
            "SELECT (SELECT value FROM meta WHERE key='kept_messages'), "
            "(SELECT value FROM meta WHERE key='kept_octets')"
        ).fetchone()
        assert totals == (1, len(LARGE))
    mailbox.close()
    await store.stop()


@pytest.mark.parametrize("kind", ["spool", "maildir"])
async def test_it_goes_by_time_in_a_store_that_nobody_opens(kind: str, tmp_path: Path) -> None:
    store = made(kind, tmp_path)
    store.retain(Retention(DAY_S))
    await store.start()
    uids = await filled(store, 600, b"x\r\n\r\n" * 300)
    mailbox = await store.open(ANA, "ana")
    await mailbox.expunge(uids)
    mailbox.close()
    with closing(sqlite3.connect(database(tmp_path))) as db:
        db.execute("UPDATE gone SET at=at-? WHERE uid>1", (DAY_S,))
        db.commit()
    assert await store.purge() == 599
    mailbox = await store.open(ANA, "ana")
    assert await kept(mailbox) == uids[:1] and len(files(tmp_path)) == 1
    assert not await store.check(repair=False)
    mailbox.close()
    await store.stop()


async def test_other_software_sees_no_message_in_a_maildir(tmp_path: Path) -> None:
    store = made("maildir", tmp_path)
    store.retain(Retention(DAY_S))
    await store.start()
    uids = await filled(store, 2, LARGE)
    mailbox = await store.open(ANA, "ana")
    await mailbox.expunge(uids[:1])
    assert sorted(path.parent.name for path in files(tmp_path)) == ["murder-expunged", "new"]
    (listed,) = tmp_path.rglob("dovecot-uidlist")
    assert isinstance(mailbox, TellsRetained)
    old = {line.split()[-1] for line in listed.read_text().splitlines()[1:]}
    await mailbox.restore(uids)
    (new,) = {path.name for path in files(tmp_path) if f":{path.name}" not in old} & {
        path.name for path in files(tmp_path) if path.parent.name == "new"
    }
    assert new  # under a name that has no UID yet
    assert list(await mailbox.uids()) == [2, 3]
    mailbox.close()
    await store.stop()


# --- POP3


@pytest.mark.parametrize("keep_s", [0.0, DAY_S])
async def test_a_maildrop_reads_on_what_another_session_has_expunged(
    keep_s: float, tmp_path: Path
) -> None:
    config = config_in(tmp_path, expunged_keep_s=keep_s)
    async with (
        running_backend(tmp_path, maker(spool_store, tmp_path), config=config) as running,
        listening(running.role.services()[protocol_named("pop3")]) as place,
    ):
        ana = await logged_in(running.address, "ana")
        await ana.ok(f"APPEND INBOX (\\Deleted) {{{len(MAIL)}+}}\r\n{MAIL.decode()}")

        def opened() -> POP3:
            client = POP3(*place.address, timeout=60)
            client.user("ana")
            client.pass_("secret")
            return client

        pop = await asyncio.to_thread(opened)
        await ana.ok("SELECT INBOX")
        await ana.ok("EXPUNGE")
        _, lines, _ = await asyncio.to_thread(pop.retr, 1)
        assert lines[-1] == b"hello"
        await asyncio.to_thread(pop.quit)
        again = await asyncio.to_thread(opened)
        assert (await asyncio.to_thread(again.stat))[0] == 0
        await asyncio.to_thread(again.quit)
        await ana.close()
