"""The backend role beside a real master: the master away and back, a changed name, INBOX at first login, draining."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from murder.api.store import MailboxStore
from murder.config import Config
from murder.errors import Refusal
from murder.model.identity import Identity, Login
from murder.model.name import MailboxName
from murder.roles.backend.role import BackendRole
from tests.kit.peer import Peer
from tests.kit.waiting import until_soon
from tests.rooms.backend.server import (
    OnePassword,
    Parts,
    config_in,
    maildir_store,
    memory_store,
    running_backend,
    spool_store,
)
from tests.rooms.mupdate.nodes import Server


async def logged_in(address: tuple[str, int], user: str = "ana") -> Peer:
    client = await Peer.at(*address)
    await client.line()
    assert (await client.tagged(b"l LOGIN %s secret\r\n" % user.encode())).startswith(b"l OK")
    return client


class Users(OnePassword):
    """The murder's account, for the master's gate too."""


async def started_master(folder: Path) -> Server:
    master = Server(folder / "master", users=("be1",))
    master.auth = Users()  # type: ignore[assignment] # everybody's password is `secret`
    await master.start()
    return master


def with_master(folder: Path, master: Server, **backend: Any) -> Config:
    return config_in(folder / "be1", master=f"127.0.0.1:{master.port}", **backend)


async def test_without_the_master_reading_goes_on_and_changes_wait(tmp_path: Path) -> None:
    master = await started_master(tmp_path)
    config = with_master(tmp_path, master)
    async with running_backend(tmp_path, memory_store, config=config) as running:
        client = await logged_in(running.address)
        assert (await client.tagged(b"a CREATE INBOX/a\r\n")).startswith(b"a OK")
        await master.stop()
        assert (await client.tagged(b"b CREATE INBOX/b\r\n")).startswith(b"b NO [UNAVAILABLE]")
        assert (await client.tagged(b"c DELETE INBOX/a\r\n")).startswith(b"c NO [UNAVAILABLE]")
        refused = await client.tagged(b"d SETACL INBOX/a bob lr\r\n")
        assert refused.startswith(b"d NO [UNAVAILABLE]")
        assert (await client.tagged(b"e RENAME INBOX/a INBOX/c\r\n")).startswith(b"e NO")
        assert (await client.tagged(b"f SELECT INBOX/a\r\n")).startswith(b"f OK")
        assert (await client.tagged(b"g APPEND INBOX/a {3+}\r\none\r\n")).startswith(b"g OK")
        assert (await client.tagged(b"h FETCH 1 FLAGS\r\n")).startswith(b"h OK")
        await master.start()
        assert (await client.tagged(b"i CREATE INBOX/b\r\n")).startswith(b"i OK")
        rows = {entry.name for entry in master.mailboxes.walk() if entry.is_active}
        assert rows == {b"user.ana", b"user.bob", b"user.ana.a", b"user.ana.b"}
        client.writer.close()
    await master.stop()


async def test_a_lost_row_comes_back_after_a_reconnect(tmp_path: Path) -> None:
    master = await started_master(tmp_path)
    config = with_master(tmp_path, master)
    async with running_backend(tmp_path, memory_store, config=config):
        await master.stop()
        master.folder = tmp_path / "another-master"  # it has lost everything
        await master.start()
        await until_soon(lambda: master.mailboxes.count() >= 2, every_s=0.02)
        assert master.mailboxes.find(b"user.ana") is not None
    await master.stop()


async def test_a_changed_server_name_stops_the_start(tmp_path: Path) -> None:
    async with running_backend(tmp_path):
        pass
    config = config_in(tmp_path)
    renamed = replace(config, node=replace(config.node, name="other.test"))
    with pytest.raises(Refusal, match=r"belong to the server 'be1\.test'"):
        await BackendRole(renamed, Parts(memory_store), 0).start()


@pytest.mark.parametrize("wanted", [True, False])
async def test_an_inbox_is_made_at_the_first_login_where_that_is_configured(
    wanted: bool, tmp_path: Path
) -> None:
    config = config_in(tmp_path, create_inbox=wanted)
    async with running_backend(tmp_path, users=(), config=config) as running:
        client = await logged_in(running.address, "zoe")
        answer = await client.tagged(b"a SELECT INBOX\r\n")
        assert answer.startswith(b"a OK" if wanted else b"a NO [NONEXISTENT]")
        client.writer.close()


async def test_a_node_and_a_proxy_get_no_inbox_of_their_own(tmp_path: Path) -> None:
    config = config_in(tmp_path, create_inbox=True, proxies=("zoe",))
    async with running_backend(tmp_path, users=(), config=config) as running:
        client = await logged_in(running.address, "zoe")
        node = Login("be2.test", Identity("be2.test"), proxy="be2.test")
        ana = Login("ana", Identity("ana"), proxy="be2.test")
        for login in (node, ana):
            await running.backend.ensure_inbox(login)
        names = [entry.name for entry in running.backend.mailboxes.list.walk()]
        assert names == [b"user.ana"]
        client.writer.close()


async def test_what_list_and_store_disagree_on_is_mended_and_loses_nothing(tmp_path: Path) -> None:
    store = memory_store()

    def same_store() -> MailboxStore:
        return store

    async with running_backend(tmp_path, same_store):
        pass
    await store.create(MailboxName(b"user.found"), "default")
    await store.delete(MailboxName(b"user.bob"))
    async with running_backend(tmp_path, same_store) as running:
        names = [entry.name for entry in running.backend.mailboxes.list.walk()]
        assert names == [b"user.ana", b"user.bob", b"user.found"]
        assert {mailbox.name for mailbox in await store.mailboxes()} == set(names)


STORES: dict[str, tuple[Callable[[Path], MailboxStore], str]] = {
    "spool": (spool_store, "spool"),
    "maildir": (maildir_store, "maildir/maildir"),
}


@pytest.mark.parametrize("leaves", ["nothing", "a mount point", "a new file system"])
@pytest.mark.parametrize("kind", STORES)
async def test_a_store_that_is_away_stops_the_start(kind: str, leaves: str, tmp_path: Path) -> None:
    """As where its file system is not mounted: each mailbox would be there, empty, and mail would come into it that nobody
    sees once the file system is back."""
    make, place = STORES[kind]
    master = await started_master(tmp_path)
    config = with_master(tmp_path, master)
    folder = tmp_path / "be1"
    async with running_backend(folder, lambda: make(folder), config=config) as running:
        await running.backend.announcer.create(MailboxName(b"shared.x"), b"anyone\tlr")
    rows = [(entry.name, entry.raw_location, entry.raw_acl) for entry in master.mailboxes.walk()]
    mail, away = folder / place, tmp_path / "away"
    mail.rename(away)
    if leaves != "nothing":
        mail.mkdir()
    if leaves == "a new file system":
        (mail / "lost+found").mkdir()
    before = sorted(folder.rglob("*"))
    for _ in range(2):  # nothing was begun by which it would be let in later
        with pytest.raises(Refusal) as told:
            await BackendRole(config, Parts(lambda: make(folder)), 0).start()
        assert str(mail) in str(told.value) and "mount its file system there" in str(told.value)
    assert sorted(folder.rglob("*")) == before
    known = [(entry.name, entry.raw_location, entry.raw_acl) for entry in master.mailboxes.walk()]
    assert known == rows
    if mail.is_dir():
        mail.rename(tmp_path / "mount point")
    away.rename(mail)
    async with running_backend(folder, lambda: make(folder), config=config) as running:
        (await running.backend.store.open(MailboxName(b"user.ana"), "ana")).close()
    await master.stop()


@pytest.mark.parametrize("kind", STORES)
async def test_what_was_deleted_or_is_on_its_way_stops_no_start(kind: str, tmp_path: Path) -> None:
    """What a user has deleted rests with their other mail; of the last shared mailbox a crash has left the row."""
    make, _ = STORES[kind]
    deleted, shared = MailboxName(b"DELETED.user.ana.x.6B0D7FC7"), MailboxName(b"shared")

    def killed(step: str) -> None:
        if step == "removed":
            raise KeyboardInterrupt

    async with running_backend(tmp_path, lambda: make(tmp_path)) as running:
        announcer = running.backend.announcer
        await announcer.create(deleted, b"")
    async with running_backend(tmp_path, lambda: make(tmp_path)) as running:
        announcer = running.backend.announcer
        await announcer.create(shared, b"anyone\tlr")
        announcer.step = killed
        with pytest.raises(KeyboardInterrupt):
            await announcer.delete([shared])
    async with running_backend(tmp_path, lambda: make(tmp_path)) as running:
        assert running.backend.mailboxes.find(deleted) is not None


async def test_a_store_that_is_lost_with_its_list_is_begun_anew(tmp_path: Path) -> None:
    """What the refusal says to do: then the master's rows stay, for a restore."""
    master = await started_master(tmp_path)
    config = with_master(tmp_path, master)
    folder = tmp_path / "be1"
    async with running_backend(folder, lambda: spool_store(folder), config=config):
        pass
    (folder / "spool").rename(tmp_path / "lost")
    (folder / "backend" / "mailboxes").rename(tmp_path / "lost list")
    async with running_backend(folder, lambda: spool_store(folder), (), config=config) as running:
        client = await logged_in(running.address)
        refused = await client.tagged(b"a SELECT INBOX\r\n")
        assert refused.startswith(b"a NO [UNAVAILABLE]"), refused
        client.writer.close()
    assert {entry.name for entry in master.mailboxes.walk()} == {b"user.ana", b"user.bob"}
    await master.stop()


async def test_a_stop_tells_idle_clients_and_waits_for_nobody(tmp_path: Path) -> None:
    async with running_backend(tmp_path) as running:
        client = await logged_in(running.address)
        idle = await logged_in(running.address)
        await idle.tagged(b"a SELECT INBOX\r\n")
        idle.writer.write(b"b IDLE\r\n")
        assert await idle.line() == b"+ idling"
    assert (await client.line()).startswith(b"* BYE [UNAVAILABLE]")
    assert (await idle.line()).startswith(b"* BYE [UNAVAILABLE]")
    assert await idle.line() == b""
