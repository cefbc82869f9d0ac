"""What another session has expunged can be read by those who have not been told, is bounded, and goes when all have been."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from murder.api import Mailbox, NewMessage
from murder.api.store import MailboxStore, TellsExpunged
from murder.kit.expunged import HELD_S
from murder.model.message import ModSeq, Uid
from murder.model.name import MailboxName
from murder.net.own_folder import make_own_folder
from murder.roles.backend.changes.presence import Presence
from plugins.store_maildir.store import MaildirStore
from plugins.store_maildir.store import Settings as MaildirSettings
from plugins.store_memory import MemoryStore
from plugins.store_spool.store import Settings, SpoolStore
from tests.kit.disks import fill, small_disk
from tests.kit.peer import Peer
from tests.kit.waiting import until_soon
from tests.rooms.backend.server import config_in, maildir_store, running_backend, spool_store

ANA = MailboxName(b"user.ana")
MAIL = b"Subject: x\r\n\r\n" + b"0123456789abcde\n" * 5000
MOST = ModSeq(2**63 - 1)


class Workers:
    """Those who read, as bits."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def holders(self, _: Mailbox) -> int:
        return self.bits


async def filled(store: MailboxStore, bits: int, count: int) -> tuple[Mailbox, list[Uid]]:
    """A started store's mailbox, with some messages."""
    assert isinstance(store, SpoolStore | MaildirStore)
    store.keep_for(Workers(bits))
    await store.create(ANA, "default")
    mailbox = await store.open(ANA, "ana")
    uids: list[Uid] = []
    for _ in range(count):
        incoming = store.incoming()
        await incoming.write(MAIL)
        uids += await mailbox.append([NewMessage(incoming)])
        await incoming.close()
    return mailbox, uids


def index_in(folder: Path) -> Path:
    """Ana's, of whatever store."""
    (file,) = [*folder.rglob("*ana/mail.db"), *folder.rglob("ana/murder-index.db")]
    return file


def kept_in(folder: Path) -> list[int]:
    """The UIDs in `gone`."""
    with closing(sqlite3.connect(index_in(folder))) as db:
        return [uid for (uid,) in db.execute("SELECT uid FROM gone ORDER BY uid")]


def files_in(folder: Path) -> list[Path]:
    """Of messages, wherever they are."""
    found = [
        *folder.rglob("files/*/*"),
        *(f for part in ("cur", "new", "tmp") for f in folder.rglob(f"{part}/*")),
    ]
    return [path for path in found if path.is_file()]


def made(kind: str, folder: Path, most: int = 10**9) -> SpoolStore | MaildirStore:
    if kind == "maildir":
        return MaildirStore(MaildirSettings(expunged_bytes=most), folder)
    return SpoolStore(Settings(inline_bytes=1000, expunged_bytes=most), folder)


async def kept(mailbox: Mailbox, uids: Sequence[Uid]) -> list[Uid]:
    assert isinstance(mailbox, TellsExpunged)
    return [message.uid for message in await mailbox.expunged(uids)]


@pytest.mark.parametrize("kind", ["spool", "maildir"])
async def test_it_goes_with_its_file_when_all_have_let_go(kind: str, tmp_path: Path) -> None:
    store = made(kind, tmp_path)
    await store.start()
    mailbox, uids = await filled(store, 3, 3)
    assert isinstance(mailbox, TellsExpunged)
    await mailbox.expunge(uids[:2])
    assert await kept(mailbox, uids) == uids[:2] and len(files_in(tmp_path)) == 3
    mailbox.let_go(MOST, 1)
    mailbox.let_go(MOST, 2)
    await until_soon(lambda: len(files_in(tmp_path)) == 1)
    assert kept_in(tmp_path) == [] and not await store.check(repair=False)
    mailbox.close()
    await store.stop()


@pytest.mark.parametrize("kind", ["spool", "maildir"])
async def test_it_is_bounded_in_octets(kind: str, tmp_path: Path) -> None:
    store = made(kind, tmp_path, len(MAIL) * 2 + 10)
    await store.start()
    mailbox, uids = await filled(store, 1, 5)
    await mailbox.expunge(uids[:3])
    await mailbox.expunge(uids[3:])
    assert await kept(mailbox, uids) == uids[:2] and len(files_in(tmp_path)) == 2
    mailbox.close()
    await store.stop()


@pytest.mark.parametrize("kind", ["spool", "maildir"])
async def test_it_outlives_a_worker_and_goes_by_time(kind: str, tmp_path: Path) -> None:
    first, other = made(kind, tmp_path), made(kind, tmp_path)
    await first.start()
    mailbox, uids = await filled(first, 2, 1)
    await other.start()
    theirs = await other.open(ANA, "ana")
    await mailbox.expunge(uids)
    mailbox.close()
    await first.stop()
    assert bytes(await theirs.octets(uids[0])) == MAIL
    assert not await other.check(repair=True) and kept_in(tmp_path) == uids
    with closing(sqlite3.connect(index_in(tmp_path))) as db:
        db.execute("UPDATE gone SET at=at-?", (HELD_S,))
        db.commit()
    theirs.close()
    await other.stop()
    third = made(kind, tmp_path)
    await third.start()
    await third.mailboxes()  # its successor looks at all of them
    await until_soon(lambda: files_in(tmp_path) == [])
    assert kept_in(tmp_path) == []
    await third.stop()


@pytest.mark.parametrize("kind", ["spool", "maildir"])
async def test_it_goes_with_its_mailbox(kind: str, tmp_path: Path) -> None:
    store = made(kind, tmp_path)
    await store.start()
    mailbox, uids = await filled(store, 1, 2)
    await mailbox.expunge(uids)
    await store.rename(ANA, MailboxName(b"user.bob"))
    await store.delete(MailboxName(b"user.bob"))
    await until_soon(lambda: files_in(tmp_path) == [])
    assert not await store.check(repair=False)
    mailbox.close()
    await store.stop()


async def test_other_software_does_not_see_it_in_a_maildir(tmp_path: Path) -> None:
    store = made("maildir", tmp_path)
    await store.start()
    mailbox, uids = await filled(store, 1, 2)
    await mailbox.expunge(uids[:1])
    assert sorted(path.parent.name for path in files_in(tmp_path)) == ["new", "tmp"]
    assert list(await mailbox.uids()) == uids[1:]
    (folder,) = {path.parent for path in tmp_path.rglob("new/*")}
    (folder / "1.from.elsewhere").write_bytes(b"Subject: y\n\n")  # and what it puts there is seen
    assert isinstance(mailbox, TellsExpunged)
    mailbox.let_go(MOST, 1)
    await until_soon(lambda: kept_in(tmp_path) == [])
    assert len(await mailbox.uids()) == 2
    mailbox.close()
    await store.stop()


@contextmanager
def presences(folder: Path) -> Iterator[list[Presence]]:
    found = [Presence(folder, worker, 2) for worker in range(2)]
    for one in found:
        one.start()
    yield found
    for one in found:
        one.stop()


def test_workers_know_what_is_selected_in_others(tmp_path: Path) -> None:
    with presences(tmp_path) as (first, second):
        first.enter("a")
        first.enter("a")
        assert (second.elsewhere("a"), first.elsewhere("a"), second.elsewhere("b")) == (1, 0, 0)
        first.leave("a")
        assert second.elsewhere("a") == 1
        first.leave("a")
        assert second.elsewhere("a") == 0
        first.enter("a")
        successor = Presence(tmp_path, 0, 2)
        successor.start()
        assert second.elsewhere("a") == 0
        successor.stop()


STARTED = """
from pathlib import Path
from murder.net.own_folder import make_own_folder
from murder.roles.backend.changes.presence import Presence
Presence(Path("bus"), 0, 2).start()
"""


def test_a_worker_that_finds_its_disk_full_says_so(tmp_path: Path) -> None:
    """A hole in a file that is written to by its map ends the process, and nobody hears why."""
    with small_disk(tmp_path / "disk", "200k") as disk:
        make_own_folder(disk / "bus")
        fill(disk)
        python = [sys.executable, "-c", STARTED]
        done = subprocess.run(
            python, cwd=disk, env={"PYTHONPATH": os.getcwd()}, capture_output=True, check=False
        )
    assert done.returncode == 1 and b"No space left on device" in done.stderr


async def entered(address: tuple[str, int], count: int) -> list[Peer]:
    """Sessions that are logged in."""
    peers = [await Peer.at(*address) for _ in range(count)]
    for peer in peers:
        await peer.line()
        await peer.ok("LOGIN ana secret")
    return peers


class Bare(MemoryStore):
    """A store that keeps nothing."""

    keep_for = None  # type: ignore[assignment]
    retain = None  # type: ignore[assignment]


async def test_a_store_may_leave_it_out(tmp_path: Path) -> None:
    async with running_backend(tmp_path, Bare) as running:
        first, second = await entered(running.address, 2)
        for _ in range(2):
            await first.ok("APPEND INBOX (\\Deleted) {4+}\r\nmail")
        await first.ok("SELECT INBOX")
        await second.ok("SELECT INBOX")
        await first.ok("UID EXPUNGE 1")
        assert (await second.command("FETCH 1 (FLAGS)"))[0].startswith(b"t NO [EXPUNGEISSUED]")
        for command, told in (
            ("FETCH 1:2 (UID)", b"* 2 FETCH (UID 2)"),
            ("SEARCH ALL", b"* SEARCH 2"),
            ("SORT (SUBJECT) UTF-8 ALL", b"* SORT 2"),
        ):
            answer = await second.command(command)
            assert answer[0] == told and answer[1].startswith(b"t OK [EXPUNGEISSUED]")
        assert await second.ok("NOOP") == [b"* 1 EXPUNGE"]
        await first.close()
        await second.close()


@pytest.mark.parametrize("make_store", [spool_store, maildir_store])
async def test_it_goes_when_the_last_session_was_told(
    make_store: Callable[[Path], MailboxStore], tmp_path: Path
) -> None:
    config = config_in(tmp_path, expunged_keep_s=0.0)
    async with running_backend(tmp_path, lambda: make_store(tmp_path), config=config) as running:
        first, second, third = peers = await entered(running.address, 3)
        for peer in peers:
            await peer.ok("APPEND INBOX (\\Deleted) {4+}\r\nmail")
        for peer in peers:
            await peer.ok("SELECT INBOX")
        await first.ok("UID EXPUNGE 2")
        await second.ok("NOOP")
        assert kept_in(tmp_path) == [2]
        assert (await third.ok("FETCH 2 (BODY[])"))[0].startswith(b"* 2 FETCH")
        await third.ok("NOOP")
        await until_soon(lambda: kept_in(tmp_path) == [])
        await first.ok("UID EXPUNGE 3")
        assert kept_in(tmp_path) == [3]
        await second.ok("UNSELECT")
        await third.close()
        await until_soon(lambda: kept_in(tmp_path) == [])
        assert len(await first.ok("APPEND INBOX (\\Deleted) {4+}\r\nmail")) == 2
        await first.ok("EXPUNGE")
        assert kept_in(tmp_path) == []  # nobody else reads
        await first.close()
        await second.close()
