"""What is put into a mailbox that is on its way to another backend waits, and goes there; so do DELETE and RENAME of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from murder.errors import UpstreamFailure, UpstreamKind
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName, no_such_mailbox
from murder.roles.backend.moves.outgoing import freeze
from murder.roles.frontend.imap.patience import Patience
from murder.roles.mupdate.database.change import PutEntry, RemoveEntry
from murder.roles.mupdate.remote.client import MasterClient
from tests.rooms.frontend.cluster import Cluster, running_cluster
from tests.rooms.frontend.names.test_list import Peer, logged_in

BOX = MailboxName(b"shared.box")
NEW_HOME = b"be2.test!default"


class Move:
    """shared/box, from be1.test to be2.test, stage by stage."""

    def __init__(self, cluster: Cluster) -> None:
        self.old = cluster.backends["be1.test"].backend
        self.new = cluster.backends["be2.test"].backend
        self.master = MasterClient(cluster.master.target)
        row = self.old.mailboxes.find(BOX)
        assert row is not None
        self._raw_acl = row.raw_acl
        self._raw_location = row.raw_location
        self.refused = asyncio.Event()  # somebody has met the stop
        self.locator = cluster.frontends[0].frontend.locator

    async def stop(self) -> None:
        await freeze(self.old, [BOX], True)
        is_frozen = self.old.store.is_frozen  # type: ignore[attr-defined] # of a store that carries

        async def look(name: MailboxName) -> bool:
            self.refused.set()
            return bool(await is_frozen(name))

        self.old.store.is_frozen = look  # type: ignore[attr-defined]

    async def hand_over(self) -> None:
        await self.master.deactivate(BOX, self._raw_location)

    async def leave(self) -> None:
        await self.old.announcer.commit([RemoveEntry(BOX)])
        row = MailboxEntry(BOX, EntryState.ACTIVE, NEW_HOME, self._raw_acl)
        self.old.mailboxes.has_left = lambda name: name == BOX
        self.old.mailboxes._row_of_left = lambda _: row

    async def arrive(self) -> None:
        await self.new.store.create(BOX, "default", "box2")
        row = MailboxEntry(BOX, EntryState.ACTIVE, NEW_HOME, self._raw_acl)
        await self.new.announcer.commit([PutEntry(row)])
        await self.master.activate(BOX, NEW_HOME, self._raw_acl)


@asynccontextmanager
async def moving(folder: Path) -> AsyncIterator[tuple[Move, Peer]]:
    """And a client at the frontend, with a message of its own selected."""
    async with running_cluster(folder) as cluster, asyncio.timeout(30):
        peer = await logged_in(cluster.address, "ana")
        admin = await logged_in(cluster.address, "admin")
        await admin.ok("CREATE shared be1.test!default")
        await admin.ok("CREATE shared/box")
        await admin.ok("SETACL shared/box ana lrswipkxtea")
        await peer.ok("APPEND INBOX {12+}\r\nSubject: x\r\n\r\n")
        await peer.ok("SELECT INBOX")
        move = Move(cluster)
        yield move, peer
        await move.master.close()


COMMANDS = {
    "APPEND": ("APPEND shared/box {12+}\r\nSubject: y\r\n\r\n", b"[APPENDUID "),
    "COPY": ("COPY 1 shared/box", b"[COPYUID "),
    "MOVE": ("MOVE 1 shared/box", b"[COPYUID "),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
async def test_it_goes_to_the_new_home(tmp_path: Path, command: tuple[str, bytes]) -> None:
    async with moving(tmp_path) as (move, peer):
        await move.stop()
        asked = asyncio.create_task(peer.ask(command[0]))
        await move.refused.wait()  # by the old backend, whose list has it still
        await move.hand_over()
        await move.leave()
        await move.arrive()
        said = await asked
        assert command[1] in said and said.splitlines()[-1].startswith(b"t OK"), said
        assert b"(MESSAGES 1)" in await peer.ask("STATUS shared/box (MESSAGES)")
        there = await move.new.store.open(BOX, "ana")
        assert (await there.status()).messages == 1
        there.close()


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
async def test_it_is_done_where_the_move_is_given_up(
    tmp_path: Path, command: tuple[str, bytes]
) -> None:
    async with moving(tmp_path) as (move, peer):
        await move.stop()
        asked = asyncio.create_task(peer.ask(command[0]))
        await move.refused.wait()
        await freeze(move.old, [BOX], False)
        said = await asked
        assert command[1] in said and said.splitlines()[-1].startswith(b"t OK"), said
        assert b"(MESSAGES 1)" in await peer.ask("STATUS shared/box (MESSAGES)")


def let_all_come_too_late(move: Move) -> asyncio.Event:
    """Changes of names and rights wait for the move, which ends; it is said when one has."""
    left = asyncio.Event()

    async def comes_too_late(*_: object, **__: object) -> None:
        await move.hand_over()
        await move.leave()
        left.set()
        raise no_such_mailbox(BOX)

    for act in ("delete", "rename", "set_acl"):
        setattr(move.old.announcer, act, comes_too_late)
    return left


@pytest.mark.parametrize(
    ("command", "is_at"), [("DELETE shared/box", b""), ("RENAME shared/box INBOX/new", b"new")]
)
async def test_a_name_is_changed_where_it_has_gone_meanwhile(
    tmp_path: Path, command: str, is_at: bytes
) -> None:
    async with moving(tmp_path) as (move, peer):
        left = let_all_come_too_late(move)
        asked = asyncio.create_task(peer.ask(command))
        await left.wait()
        await move.arrive()
        said = await asked
        assert said.splitlines()[-1].startswith(b"t OK"), said
        names = await peer.ask('LIST "" (shared/* INBOX/*)')
        assert names.count(b"* LIST") == bool(is_at) and is_at in names, names


async def test_rights_are_changed_where_it_has_gone_meanwhile(tmp_path: Path) -> None:
    async with moving(tmp_path) as (move, peer):
        left = let_all_come_too_late(move)
        asked = asyncio.create_task(peer.ask("SETACL shared/box bob lr"))
        await left.wait()
        await move.arrive()
        assert (await asked).splitlines()[-1].startswith(b"t OK")
        row = move.new.mailboxes.find(BOX)
        assert row is not None and b"bob\tlr" in row.raw_acl


async def test_the_list_is_looked_at_as_it_is_when_the_last_pause_has_taken_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with moving(tmp_path) as (move, peer):
        left, is_asked = let_all_come_too_late(move), asyncio.Event()
        known, ping, before = move.locator.known, move.locator._ping, move.locator.known(BOX)

        async def ask(timeout_s: float) -> None:
            if left.is_set() and not is_asked.is_set():
                await move.arrive()
                await ping(timeout_s)
                is_asked.set()
            await ping(timeout_s)

        def known_late(name: MailboxName) -> MailboxEntry | None:
            return before if name == BOX and not is_asked.is_set() else known(name)

        monkeypatch.setattr(move.locator, "_ping", ask)
        monkeypatch.setattr(move.locator, "known", known_late)
        monkeypatch.setattr(Patience, "left_s", 0.0)
        said = await peer.ask("SETACL shared/box bob lr")
        assert said.splitlines()[-1].startswith(b"t OK"), said


@pytest.mark.parametrize(
    "command", ["DELETE shared/box", "RENAME shared/box INBOX/new", "SETACL shared/box bob lr"]
)
async def test_what_takes_longer_to_move_than_one_waits_is_not_said_to_be_nowhere(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client drops what it has of a mailbox that does not exist."""
    async with moving(tmp_path) as (move, peer):
        let_all_come_too_late(move)

        async def has_none_left(_: Patience) -> bool:
            return False

        monkeypatch.setattr(Patience, "pause", has_none_left)
        said = (await peer.ask(command)).splitlines()[-1]
        assert said.startswith(b"t NO [UNAVAILABLE] "), said


async def test_a_master_that_says_nothing_is_not_waited_for_longer_than_the_command_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend had waited for it already, and refused for that; then the frontend waited as long once more."""
    async with moving(tmp_path) as (move, peer):

        async def say_nothing(_: float) -> None:
            await asyncio.Event().wait()

        async def refuse(*_: object, **__: object) -> None:
            raise UpstreamFailure(UpstreamKind.TIMEOUT, "master.test", "no answer in 30 s")

        monkeypatch.setattr(Patience.__init__, "__defaults__", (0.1,))
        monkeypatch.setattr(move.old.announcer, "set_acl", refuse)
        monkeypatch.setattr(move.locator, "_ping", say_nothing)
        async with asyncio.timeout(20):
            said = (await peer.ask("SETACL shared/box bob lr")).splitlines()[-1]
        assert said.startswith(b"t NO [UNAVAILABLE] "), said
