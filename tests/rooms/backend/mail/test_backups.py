"""A mailbox of each store in a backup and back: read while it changes, put into an empty backend; who may send what."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from murder.admin.operate.backup.kept import Point, read_mailbox, read_page, read_unit
from murder.admin.operate.backup.put import Coming, Putting, Tree
from murder.admin.operate.backup.take import Taking
from murder.admin.operate.backup.vault import Vault, open_vault
from murder.admin.operate.reach import Reach
from murder.api.store import FlagChange, Mailbox, MailboxStore, NewMessage
from murder.errors import UpstreamFailure, UpstreamKind
from murder.model.carried import digest_line
from murder.model.entry import EntryState, MailboxEntry
from murder.model.message import ModSeq, Uid
from murder.model.name import MailboxName, display
from murder.net.frames import FrameChannel
from murder.roles.backend.backups import Reading
from murder.roles.backend.moves.arriving import Arriving
from murder.roles.backend.moves.journal import FROM_BACKUP
from murder.roles.mupdate.database.change import PutNote
from murder.wire.nodes.carry import OCTETS, Frame, FrameCutter, format_words
from tests.rooms.backend.server import (
    Running,
    maildir_store,
    memory_store,
    running_backend,
    spool_store,
)

INBOX = MailboxName(b"user.ana")
Make = Callable[[Path], MailboxStore]
STORES: list[Make] = [lambda _: memory_store(), spool_store, maildir_store]
each_store = pytest.mark.parametrize("make", STORES, ids=["memory", "spool", "maildir"])


class End:
    """One end of a pipe of frames. `heard` is called with the words of each frame before they are taken."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        self.other: End = self
        self.heard: Callable[[dict[str, Any]], Awaitable[None]] | None = None

    async def receive(self) -> Frame:
        frame = await self._frames.get()
        if frame is None:
            raise UpstreamFailure(UpstreamKind.LOST, "the other end", "it has gone")
        if self.heard is not None and frame.kind != OCTETS:
            await self.heard(frame.words())
        return frame

    async def send(self, words: dict[str, Any]) -> None:
        cutter = FrameCutter(of_answers=True)
        cutter.feed(format_words(words))
        frame = cutter.next()
        assert frame is not None
        self.other._frames.put_nowait(frame)

    async def send_octets(self, octets: bytes | memoryview) -> None:
        for start in range(0, len(octets), 100_000):
            self.other._frames.put_nowait(Frame(OCTETS, bytes(octets[start : start + 100_000])))

    def close(self) -> None:
        self.other._frames.put_nowait(None)


class Operator:
    """What a Reach is to a backup, of one backend."""

    def __init__(self, one: Running) -> None:
        self._one = one
        self._serving: list[asyncio.Task[None]] = []
        self.heard: Callable[[dict[str, Any]], Awaitable[None]] | None = None

    def shown(self, name: MailboxName) -> str:
        return display(name)

    async def rows(self) -> list[MailboxEntry]:
        return [
            row._replace(raw_location=b"be1!default")
            for row in self._one.backend.mailboxes.list.walk()
        ]

    async def frames(self, server: str, command: bytes) -> End:
        del server
        ours, theirs = End(), End()
        ours.other, theirs.other, theirs.heard = theirs, ours, self.heard
        channel = cast(FrameChannel, theirs)
        backend, journal = self._one.backend, self._one.mover.journal
        served = (
            Reading(backend, channel).serve()
            if command == b"XBACKUP"
            else Arriving(backend, journal, channel, FROM_BACKUP).serve()
        )
        self._serving.append(asyncio.create_task(served))
        return ours

    async def close(self) -> None:
        await asyncio.gather(*self._serving, return_exceptions=True)


@asynccontextmanager
async def operating(one: Running) -> AsyncIterator[tuple[Operator, Reach]]:
    operator = Operator(one)
    yield operator, cast(Reach, operator)
    async with asyncio.timeout(10):
        await operator.close()


async def append(one: Running, mailbox: Mailbox, octets: bytes, *flags: str) -> None:
    incoming = one.backend.store.incoming()
    await incoming.write(octets)
    await mailbox.append([NewMessage(incoming, frozenset(flags))])
    await incoming.close()


async def fill(one: Running) -> None:
    mailbox = await one.backend.store.open(INBOX, "ana")
    for number in range(300):  # two pages
        await append(one, mailbox, b"Subject: %d\r\n\r\nx\r\n" % number, "\\Seen", "$Word")
    await append(one, mailbox, b"Subject: large\r\n\r\n" + b"y" * 300_000 + b"\r\n")
    await mailbox.expunge([Uid(2), Uid(17)])
    mailbox.close()
    bob = await one.backend.store.open(INBOX, "bob")
    await bob.change_flags([Uid(3)], FlagChange.ADD, frozenset({"\\Seen"}))
    bob.close()
    await one.backend.announcer.commit(
        [PutNote("a/user.ana", b'{"": {"/shared/comment": "kept"}}')]
    )


async def lines(one: Running) -> list[bytes]:
    mailbox = await one.backend.store.open(INBOX, "ana")
    found = [digest_line(message) for message in await mailbox.messages()]
    mailbox.close()
    return found


def kept_lines(vault: Vault, point: Point) -> list[bytes]:
    (entry,) = [one for one in read_unit(vault, point.units[INBOX]).mailboxes if one.name == INBOX]
    rows = [read_page(vault, page.digest) for page in read_mailbox(vault, entry.digest).pages]
    return [digest_line(row[uid].message) for row in rows for uid in sorted(row)]


async def take(reach: Reach, vault: Vault) -> Point:
    with vault.locked():
        return await Taking(reach, vault, "all", lambda row: row.name == INBOX).run()


@each_store
async def test_a_mailbox_comes_back_as_it_was_under_a_new_identity(
    make: Make, tmp_path: Path
) -> None:
    vault = open_vault(tmp_path / "vault", make=True)

    async with running_backend(tmp_path / "a", lambda: make(tmp_path / "a")) as one:
        await fill(one)
        async with operating(one) as (_, reach):
            point = await take(reach, vault)
        before = await lines(one)
        assert kept_lines(vault, point) == before
        (old,) = [found for found in await one.backend.store.mailboxes() if found.name == INBOX]
    async with running_backend(tmp_path / "b", lambda: make(tmp_path / "b")) as one:
        await one.backend.announcer.delete([INBOX])
        unit = read_unit(vault, point.units[INBOX])
        tree = Tree(INBOX, "be1", "", [Coming(INBOX, b"ana\tlrswipkxtecda\t", unit.mailboxes[0])])
        async with operating(one) as (_, reach):
            await Putting(reach, vault, point.name).tree(tree)
        assert await lines(one) == before
        (new,) = [found for found in await one.backend.store.mailboxes() if found.name == INBOX]
        assert new.uid_validity > old.uid_validity
        assert new.mailbox_id != old.mailbox_id
        bob = await one.backend.store.open(INBOX, "bob")
        seen = [row.uid for row in await bob.messages() if "\\Seen" in row.flags]
        assert seen == [3]
        bob.close()
        assert one.backend.mailboxes.list.note("a/user.ana") == b'{"": {"/shared/comment": "kept"}}'
        assert not list((vault.folder / "restores").glob("*.json"))


@each_store
async def test_what_changes_while_it_is_read_is_in_it_as_of_one_moment(
    make: Make, tmp_path: Path
) -> None:
    vault = open_vault(tmp_path / "vault", make=True)

    async with running_backend(tmp_path / "a", lambda: make(tmp_path / "a")) as one:
        await fill(one)
        async with operating(one) as (operator, reach):
            await take(reach, vault)
            left = [1, 2, 3]

            async def change(words: dict[str, Any]) -> None:
                """Before pages and octets are told: messages go, come, and have other flags."""
                if words["do"] not in ("page", "fetch") or not left:
                    return
                number = left.pop()
                mailbox = await one.backend.store.open(INBOX, "ana")
                await append(one, mailbox, b"Subject: later %d\r\n\r\nx\r\n" % number)
                await mailbox.expunge([Uid(20 + number), max(await mailbox.uids())])
                await append(one, mailbox, b"Subject: last %d\r\n\r\nx\r\n" % number)
                await mailbox.change_flags(
                    [Uid(30 + number)], FlagChange.REPLACE, frozenset({"\\Flagged"})
                )
                mailbox.close()

            operator.heard = change
            mailbox = await one.backend.store.open(INBOX, "ana")
            await append(one, mailbox, b"Subject: new\r\n\r\nx\r\n")
            mailbox.close()
            point = await take(reach, vault)
        assert not left
        assert not point.missing
        assert kept_lines(vault, point) == await lines(one)


class Master:
    """Says that user.zoe is at be2."""

    async def find(self, name: bytes) -> MailboxEntry | None:
        if name != b"user.zoe":
            return None
        return MailboxEntry(MailboxName(name), EntryState.ACTIVE, b"be2!default")


async def test_what_is_elsewhere_or_here_does_not_come_back(tmp_path: Path) -> None:
    async with running_backend(tmp_path, memory_store) as one, operating(one) as (_, reach):
        one.backend.master = cast(Any, Master())
        end = await reach.frames("be1", b"XTAKE")
        said = []
        for root in ("user.zoe", "user.ana", "user.new"):
            await end.send({"do": "begin", "id": "a1", "root": root, "partition": ""})
            said.append((await end.receive()).words().get("code", "ok"))
        end.close()
        assert said == ["ALREADYEXISTS", "ALREADYEXISTS", "ok"]


async def test_only_what_the_list_shows_is_read(tmp_path: Path) -> None:
    """What has left for another server, or arrives, is not this server's to give."""

    async with running_backend(tmp_path, memory_store) as one, operating(one) as (_, reach):
        await one.backend.store.create(MailboxName(b"user.left"), "default")
        end = await reach.frames("be1", b"XBACKUP")
        said = []
        for words in (
            {"do": "look", "since": 0},
            {"do": "page", "since": 0, "after": 0},
            {"do": "count"},
            {"do": "fetch", "uids": [1]},
        ):
            await end.send({"name": "user.left", **words})
            said.append((await end.receive()).words()["code"])
        await end.send({"do": "count", "name": "user.ana"})
        assert (await end.receive()).words() == {"messages": 0, "modseq": ModSeq(1)}
        end.close()
        assert said == ["NONEXISTENT"] * 4


async def test_a_message_that_cannot_be_read_is_told_and_asked_for_again(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "vault", make=True)

    async def taken(reach: Reach) -> tuple[Point, dict[str, str]]:
        with vault.locked():
            taking = Taking(reach, vault, "all", lambda row: row.name == INBOX)
            return await taking.run(), taking.taken.unreadable

    folder = tmp_path / "a"
    async with running_backend(folder, lambda: spool_store(folder)) as one:
        mailbox = await one.backend.store.open(INBOX, "ana")
        for number in range(3):
            await append(one, mailbox, b"Subject: %d\r\n\r\n" % number + b"y" * 300_000)
        mailbox.close()
        (body, *_) = [
            path
            for path in folder.rglob("*")
            if path.is_file()
            and path.stat().st_size > 290_000
            and path.suffix not in (".db", ".db-wal")
        ]
        body.rename(tmp_path / "away")
        async with operating(one) as (_, reach):
            for _ in range(2):  # it is not forgotten, though nothing has changed
                point, unreadable = await taken(reach)
                assert len(unreadable) == 1 and "user.ana, UID" in next(iter(unreadable))
                assert len(kept_lines(vault, point)) == 3
            (tmp_path / "away").rename(body)
            point, unreadable = await taken(reach)
        assert unreadable == {}
        (entry,) = read_unit(vault, point.units[INBOX]).mailboxes
        (page,) = read_mailbox(vault, entry.digest).pages
        assert all(vault.has(row.digest) for row in read_page(vault, page.digest).values())
