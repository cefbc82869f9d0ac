"""Whether mail can be kept now, as a store says it before anybody has tried: its folder away, full, read-only."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from murder.api import ChecksPlace, MailboxStore, TellsRoom
from murder.errors import Code, Refusal
from murder.model.name import MailboxName
from plugins.store_maildir import store as maildir
from plugins.store_spool import store as spool
from tests.kit import disks

INBOX = MailboxName(b"user.ana")
MadeIn = Callable[[Path, Path], MailboxStore]


def _spool(disk: Path, _data: Path) -> MailboxStore:
    return spool.SpoolStore(spool.Settings(), disk / "mail")


def _maildir(disk: Path, data: Path) -> MailboxStore:
    """Its indexes stay where they are."""
    settings = maildir.Settings(users=f"{disk}/mail/%u", shared=f"{disk}/shared/%n")
    return maildir.MaildirStore(settings, data)


STORES = pytest.mark.parametrize("make", [_spool, _maildir])


def said(store: MailboxStore) -> str:
    """What it says of its place; empty where all is well."""
    assert isinstance(store, ChecksPlace)
    try:
        store.check_place()
    except Refusal as refusal:
        return refusal.text
    return ""


def files_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


async def begun(make: MadeIn, disk: Path, data: Path) -> MailboxStore:
    """With a mailbox."""
    store = make(disk, data)
    await store.start()
    await store.create(INBOX, "default")
    return store


@STORES
async def test_mail_that_is_away_is_told_and_that_it_is_back(make: MadeIn, tmp_path: Path) -> None:
    disk, data = tmp_path / "disk", tmp_path / "data"
    disk.mkdir()
    store = await begun(make, disk, data)
    before = files_in(tmp_path)
    assert said(store) == ""
    assert files_in(tmp_path) == before
    (disk / "mail").rename(disk / "away")
    assert said(store) == f"{disk}/mail: No such file or directory; mail cannot be kept there"
    (disk / "away").rename(disk / "mail")
    assert said(store) == ""
    await store.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk", "900k") as disk:
        yield disk


@STORES
async def test_the_room_of_a_disk_of_its_own_is_told(
    make: MadeIn, tmp_path: Path, small_disk: Path
) -> None:
    store = await begun(make, small_disk, tmp_path / "data")
    assert isinstance(store, TellsRoom)
    before = store.room()
    assert before.size == 900 << 10 and 0 < before.free < before.size
    (small_disk / "filler").write_bytes(bytes(100 << 10))
    assert store.room().free == before.free - (100 << 10)
    await store.stop()


@STORES
async def test_a_disk_that_is_full_or_read_only_is_told(
    make: MadeIn, tmp_path: Path, small_disk: Path
) -> None:
    store = await begun(make, small_disk, tmp_path / "data")
    filler = disks.fill(small_disk)
    full = said(store)
    filler.unlink()
    assert said(store) == ""
    # files are open: over it
    subprocess.run(["mount", "--bind", small_disk, small_disk], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", small_disk], check=True)
    is_read_only = said(store)
    subprocess.run(["umount", small_disk], check=True)
    assert said(store) == ""
    where = f"{small_disk}/mail"
    assert full == f"{where}: No space left on device; mail cannot be kept there"
    assert is_read_only == f"{where}: Read-only file system; mail cannot be kept there"
    await store.stop()


async def test_a_spool_that_cannot_be_looked_into_is_away(tmp_path: Path) -> None:
    """As one on a server of files that does not answer: neither without mailboxes, nor a bug of ours."""
    disk, own = tmp_path / "disk", os.geteuid()
    disk.mkdir()
    store = await begun(_spool, disk, tmp_path / "data")
    disk.chmod(0)
    if own == 0:
        os.seteuid(65534)  # root may look into everything
    try:
        with pytest.raises(Refusal) as refused:
            await store.open(MailboxName(b"user.ana.Sent"), "ana")
        with pytest.raises(Refusal) as no_list:
            await store.mailboxes()
    finally:
        os.seteuid(own)
        disk.chmod(0o700)
        await store.stop()
    assert refused.value.code is no_list.value.code is Code.UNAVAILABLE
