"""A power cut: a disk that drops, tears and reorders what was not fsynced has all that master and replica acknowledged.

Each copy of the disk is opened and compared: what a peer was answered is there, what it was not is there in order or not
at all, indexes and log are whole, and the list can be written and followed on.
"""

import asyncio
import itertools
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.database.change import PutEntry
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.transfer import check
from murder.roles.mupdate.remote.dump import FOLLOWED
from tests.kit.powercut import MISSING, Disk, Story
from tests.kit.waiting import EVERY_S, until_soon
from tests.rooms.mupdate.alone import Alone
from tests.rooms.mupdate.nodes import Raw, Server, follower

CUTS = int(os.environ.get("POWER_CUTS", "120"))
FOLLOWED_ON = 12  # copies of a replica that go on following
PEERS = 4
BURSTS = 25
METAS_OCTETS = 2 * 4096  # of LMDB: they have the number of its last commit
SEED = 20  # what is chosen is the same each time; when the master commits is not

pytestmark = pytest.mark.limit_s(300)  # a process that is traced is slow to begin on a busy machine

Step = tuple[str, int | None]
"""A name and the number in its ACL, None where it was deleted."""


async def nothing() -> None:
    pass


def settling(file: Path, every: int) -> Callable[[], Awaitable[None]]:
    """What waits behind a change, each so many times, until something has come from the journal into LMDB: else all might
    be over before anything has."""
    times = itertools.count(1)

    def commits() -> bytes:
        with file.open("rb") as octets:
            return octets.read(METAS_OCTETS)

    seen = commits()

    async def wait() -> None:
        nonlocal seen
        if next(times) % every == 0:
            await until_soon(lambda: commits() != seen, "it settles", every_s=EVERY_S)
            seen = commits()

    return wait


class Talker:
    """A peer that changes names of its own, in bursts, and waits for the answers of each burst."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.steps: list[Step] = []
        self.address = ""

    async def talk(
        self, port: int, bursts: int, between: Callable[[], Awaitable[None]] = nothing
    ) -> None:
        """`between` is waited for behind each burst that has changed something."""
        raw = await Raw.connect(port)
        host, own = raw.writer.get_extra_info("sockname")[:2]
        self.address = f"{host}:{own}"
        choose = random.Random(SEED + self.number)
        for _ in range(bursts):
            lines = []
            for _ in range(choose.randint(1, 12)):
                count = len(self.steps) + 1
                name = f"p{self.number}.n{choose.randint(0, 30)}"
                if choose.random() < 0.3:
                    self.steps.append((name, None))
                    lines.append(f't DELETE "{name}"\r\n')
                else:
                    self.steps.append((name, count))
                    long = "x" * choose.choice((1, 1, 1, 3000))
                    acl = f"acl{count}\tlr{long}\t"
                    lines.append(f't ACTIVATE "{name}" "be1!p" {{{len(acl)}+}}\r\n{acl}\r\n')
            raw.send("".join(lines).encode())
            answers = [(await raw.message())[:4] for _ in lines]
            assert set(answers) <= {b"t OK", b"t NO"}
            if b"t OK" in answers:
                await between()
        await raw.close()

    def answered(self, disk: Disk) -> int:
        """Of how many steps the answer was sent; the first line after the banner is that of the login."""
        said = disk.sent.get(self.address, b"")
        return said.count(b"\r\nt OK") + said.count(b"\r\nt NO")

    def states(self, first: int) -> list[dict[str, int]]:
        """What may be there when so many steps were answered: any more of them, in order."""
        rows: dict[str, int] = {}
        found = []
        for count, (name, value) in enumerate([("", None), *self.steps]):
            if value is None:
                rows.pop(name, None)
            else:
                rows[name] = value
            if count >= first:
                found.append(dict(rows))
        return found


def recorded(folder: Path) -> Story:
    if MISSING and os.environ.get("CI") != "true":
        pytest.skip(MISSING)
    folder.mkdir()
    return Story(folder)


def numbers(mailboxes: MailboxList, peer: int) -> dict[str, int]:
    rows = mailboxes.walk(f"p{peer}.".encode())
    return {one.name.decode(): int(one.raw_acl[3:].partition(b"\t")[0]) for one in rows}


def still_works(mailboxes: MailboxList) -> None:
    """It takes another change, and is whole before and after."""
    assert list(check(mailboxes)) == []
    entry = MailboxEntry(MailboxName(b"after"), EntryState.ACTIVE, b"be1!p", b"anyone\tl\t")
    mailboxes.commit([PutEntry(entry)])
    assert mailboxes.find(b"after") is not None and list(check(mailboxes)) == []


async def test_a_master_has_all_it_acknowledged(tmp_path: Path) -> None:
    story = recorded(tmp_path / "disk")
    master = Alone(tmp_path / "disk" / "data" / "list", wrap=story.traced)
    talkers = [Talker(number) for number in range(PEERS)]

    await asyncio.gather(*(one.talk(master.port, BURSTS) for one in talkers))
    master.end()
    choose = random.Random(SEED)
    moments = set()
    for disk in story.cuts(choose, CUTS):
        answered = [one.answered(disk) for one in talkers]
        moments.add(tuple(answered))
        disk.write_to(tmp_path / "copy", choose)
        mailboxes = MailboxList.open(tmp_path / "copy" / "data" / "list")
        for talker, first in zip(talkers, answered, strict=True):
            assert numbers(mailboxes, talker.number) in talker.states(first)
        still_works(mailboxes)
        mailboxes.close()
    assert len(moments) > 10
    assert answered == [len(one.steps) for one in talkers], story.unclear


async def test_a_master_of_several_has_what_it_did_up_to_some_commit(tmp_path: Path) -> None:
    """The log has the rest. Nothing is missing in between: it could not tell."""
    story = recorded(tmp_path / "disk")
    master = Alone(tmp_path / "disk" / "data" / "list", "shared", wrap=story.traced)
    file = tmp_path / "disk" / "data" / "list" / "data.mdb"
    talkers = [Talker(number) for number in range(PEERS)]
    waits = [settling(file, one.number + 1) for one in talkers]
    await asyncio.gather(
        *(one.talk(master.port, BURSTS, wait) for one, wait in zip(talkers, waits, strict=True))
    )
    master.end()
    choose = random.Random(SEED)
    found = set()
    for disk in story.cuts(choose, CUTS):
        disk.write_to(tmp_path / "copy", choose)
        mailboxes = MailboxList.open(tmp_path / "copy" / "data" / "list")
        for talker in talkers:
            assert numbers(mailboxes, talker.number) in talker.states(0)
        found.add(mailboxes.last_seq())
        still_works(mailboxes)
        mailboxes.close()
    assert len(found) > 10


async def test_a_replica_follows_on_from_what_its_disk_kept(tmp_path: Path) -> None:
    story = recorded(tmp_path / "disk")

    server = Server(tmp_path / "master")
    await server.start()
    talkers = [Talker(number) for number in range(PEERS)]
    await talkers[0].talk(server.port, BURSTS)  # the whole list, then the stream
    loop = asyncio.get_running_loop()
    replica = await loop.run_in_executor(
        None, lambda: Alone(tmp_path / "disk" / "list", server.port, story.traced)
    )
    for talker in talkers[1:]:
        await talker.talk(server.port, BURSTS)
    await loop.run_in_executor(None, replica.end)
    choose = random.Random(SEED)
    followed = 0
    for at, disk in enumerate(story.cuts(choose, CUTS)):
        copy = tmp_path / "copy" / "list"
        disk.write_to(copy.parent, choose)
        mailboxes = MailboxList.open(copy)
        assert list(check(mailboxes)) == []
        mark = mailboxes.note(FOLLOWED)
        if mailboxes.synchronised:  # then it serves: what it has is what the master had
            assert mark and server.mailboxes.seq_of_mark(mark.decode()) is not None
            for talker in talkers:
                assert numbers(mailboxes, talker.number) in talker.states(0)
            assert numbers(mailboxes, 0) == talkers[0].states(0)[-1]
        mailboxes.close()
        if at % (CUTS // FOLLOWED_ON) == 0:
            followed += 1
            async with follower(copy, server.target) as one:
                await one.replica.until_synchronised(60)
                await one.replica.ping(60)
                assert list(one.mailboxes.walk()) and [
                    (row.name, row.raw_location, row.raw_acl) for row in one.mailboxes.walk()
                ] == [(row.name, row.raw_location, row.raw_acl) for row in server.mailboxes.walk()]
    assert followed >= FOLLOWED_ON
    await server.stop()
