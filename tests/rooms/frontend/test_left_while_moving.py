"""A client leaves its mailbox in the moment in which that moves: it is in the one it has asked for, and in no other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from murder.errors import UpstreamFailure, UpstreamKind
from murder.model.entry import EntryState, MailboxEntry
from murder.roles.mupdate.database.change import PutEntry
from tests.kit.peer import Peer
from tests.rooms.frontend.server import RIGHTS, Running, Speak, named, running_frontend

WORDS = b"IMAP4rev1 SASL-IR AUTH=PLAIN UNSELECT"
BYE = b"* BYE [X-MOVED 1700000001 90 41 57 1] The selected mailbox has moved\r\n"
CHANGED = [
    b"* OK [CLOSED] The previous mailbox is closed",
    b"* 3 EXISTS",
    b"t OK [READ-WRITE] Completed",
]


class Backend:
    """A scripted one; what it has been asked for. `before`: what is waited for before it greets."""

    leaves_at = b""  # and does not answer, nor what comes behind
    knows_views = True
    bye = BYE

    def __init__(self, before: asyncio.Event | None = None) -> None:
        self.heard: list[bytes] = []
        self.before = before
        self.moves: Callable[[], object] = lambda: None
        # meanwhile another leaves, at this command
        self.waits_at, self.other = b"", self
        self.asked, self.left, self.gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.set()
        if self.before is not None:
            await self.before.wait()
        writer.write(b"* OK [CAPABILITY " + WORDS + b"] here\r\n")
        leaving = asyncio.create_task(self._leave(writer))
        while line := await reader.readline():
            tag, _, command = line.rstrip().partition(b" ")
            self.heard.append(command)
            if command == self.waits_at:
                self.other.left.set()
                await self.other.gone.wait()
            if command == self.leaves_at or self.left.is_set():
                self.left.set()
            elif b"X-VIEW" in command and not self.knows_views:
                writer.write(tag + b" NO [CANNOT] Not known here\r\n")
            elif command.startswith(b"SELECT"):
                writer.write(b"* 3 EXISTS\r\n" + tag + b" OK [READ-WRITE] Completed\r\n")
            else:
                writer.write(tag + b" OK Completed\r\n")
        self.gone.set()
        leaving.cancel()

    async def _leave(self, writer: asyncio.StreamWriter) -> None:
        await self.left.wait()
        self.left.clear()
        self.leaves_at = b""
        self.moves()
        writer.write(self.bye)
        writer.write_eof()


@asynccontextmanager
async def ana(
    folder: Path, users: dict[str, str], *backends: Speak
) -> AsyncIterator[tuple[Running, Peer]]:
    """She is logged in at a frontend of these backends: be1, be2 and so on."""
    scripts: dict[str, tuple[str, Speak]] = {
        f"be{number}": ("imap", speak) for number, speak in enumerate(backends, 1)
    }
    async with running_frontend(folder, scripts, users) as running:
        client = await Peer.at(running.ports["imap"])
        await client.line()
        await client.ok("LOGIN ana secret")
        yield running, client
        await client.close()


def move(running: Running, server: str, *mailboxes: str) -> None:
    """In the list that the frontend has."""
    place = f"{server}!default".encode()
    running.mailboxes.commit(
        [PutEntry(MailboxEntry(named(one), EntryState.ACTIVE, place, RIGHTS)) for one in mailboxes]
    )


async def test_who_selects_another_is_not_taken_back_to_what_has_moved(tmp_path: Path) -> None:
    """Else a STORE and EXPUNGE that were meant for this one would have been carried out in that one."""
    old = Backend()
    new = Backend(before=old.gone)
    users = {"ana": "be1", "ana/Other": "be2"}
    async with ana(tmp_path, users, old.speak, new.speak) as (running, client):
        assert b"* 3 EXISTS" in await client.ok("SELECT INBOX")
        client.send(b"t SELECT INBOX/Other\r\n")
        await new.asked.wait()  # the frontend is on its way there
        move(running, "be2", "ana")
        old.left.set()
        assert await client.until(b"t ") == CHANGED
        await client.ok("STORE 1 +FLAGS (\\Deleted)")
        await client.ok("EXPUNGE")
        at = new.heard.index(b"SELECT INBOX/Other")
        assert new.heard[at:] == [
            b"SELECT INBOX/Other",
            b"STORE 1 +FLAGS (\\Deleted)",
            b"EXPUNGE",
        ]


async def away(_: float) -> None:
    raise UpstreamFailure(UpstreamKind.LOST, "the master", "it is away")


@pytest.mark.parametrize("has_master", [True, False])
@pytest.mark.parametrize("first", ["NOOP", "ENABLE QRESYNC"])  # the ways of a SELECT here
async def test_what_is_selected_in_place_of_what_has_moved_is_looked_for_again(
    first: str, has_master: bool, tmp_path: Path
) -> None:
    """The backend has begun nothing: it has said that the mailbox before has left, and with it, here, all of this user's.
    What the list knows is enough where its master is away."""
    old, new = Backend(), Backend()
    old.leaves_at = b"SELECT INBOX/Other"
    users = dict.fromkeys(("ana", "ana/Other"), "be1")
    async with ana(tmp_path, users, old.speak, new.speak) as (running, client):
        await client.ok(first)
        await client.ok("SELECT INBOX")
        if not has_master:
            assert running.role.frontend is not None
            running.role.frontend.locator._ping = away
        old.moves = lambda: move(running, "be2", "ana", "ana/Other")
        assert await client.command("SELECT INBOX/Other") == CHANGED
        await client.ok("EXPUNGE")
        assert new.heard[-2:] == [b"SELECT INBOX/Other", b"EXPUNGE"]


@pytest.mark.parametrize("leaves_at", [b"UNSELECT", b"ENABLE CONDSTORE"])
async def test_a_backend_that_is_left_and_goes_first_is_not_waited_for(
    leaves_at: bytes, tmp_path: Path
) -> None:
    old, new = Backend(), Backend()
    old.leaves_at = leaves_at
    users = {"ana": "be1", "ana/Other": "be2"}
    async with ana(tmp_path, users, old.speak, new.speak) as (_, client):
        await client.ok("SELECT INBOX")
        assert await client.command("SELECT INBOX/Other (CONDSTORE)") == CHANGED
        assert old.gone.is_set()
        await client.ok("EXPUNGE")
        assert new.heard[-2:] == [b"SELECT INBOX/Other (CONDSTORE)", b"EXPUNGE"]


@pytest.mark.parametrize("home", ["be1", "be2"])
async def test_what_moves_while_others_are_told_of_the_next_is_closed(
    home: str, tmp_path: Path
) -> None:
    """CLOSED was for its backend to say, with the SELECT that it has not begun."""
    old, new, third = Backend(), Backend(), Backend()
    third.waits_at, third.other = b"ENABLE CONDSTORE", old
    users = {"ana": "be1", "ana/Other": "be1", "ana/Third": "be3"}
    async with ana(tmp_path, users, old.speak, new.speak, third.speak) as (running, client):
        await client.ok("STATUS INBOX/Third (MESSAGES)")
        await client.ok("SELECT INBOX")
        old.moves = lambda: move(running, home, "ana/Other")
        assert await client.command("SELECT INBOX/Other (CONDSTORE)") == CHANGED
        await client.ok("EXPUNGE")
        heard = (old if home == "be1" else new).heard
        assert heard[-2:] == [b"SELECT INBOX/Other (CONDSTORE)", b"EXPUNGE"]


async def test_the_next_backend_may_be_lost_while_the_one_before_is_left(tmp_path: Path) -> None:
    """What is selected is where its SELECT was carried out."""
    old, new = Backend(), Backend()
    old.waits_at, old.other, new.bye = b"UNSELECT", new, b""
    users = {"ana": "be1", "ana/Other": "be2"}
    async with ana(tmp_path, users, old.speak, new.speak) as (_, client):
        await client.ok("SELECT INBOX")
        assert await client.command("SELECT INBOX/Other") == CHANGED
        await client.ok("EXPUNGE")
        assert new.heard[-2:] == [b"SELECT INBOX/Other", b"EXPUNGE"]


async def test_who_watches_and_selects_another_goes_on_watching(tmp_path: Path) -> None:
    """The backend has gone with what it was to tell of the mailboxes that have stayed there."""
    old, new = Backend(), Backend()
    old.leaves_at = b"SELECT INBOX/Other"
    users = dict.fromkeys(("ana", "ana/Other", "ana/Third"), "be1")
    async with ana(tmp_path, users, old.speak, new.speak) as (running, client):
        await client.ok("NOTIFY SET (personal (MessageNew MessageExpunge))")
        await client.ok("SELECT INBOX")
        asked = list(old.heard)
        old.moves = lambda: move(running, "be2", "ana", "ana/Other")
        assert await client.command("SELECT INBOX/Other") == CHANGED
        await client.ok("NOOP")
        again = old.heard[len(asked) + 1 :]
        assert [command for command in again if command.startswith(b"NOTIFY SET STATUS ")]


@pytest.mark.parametrize("first", ["NOOP", "ENABLE QRESYNC"])
async def test_a_backend_that_says_each_time_that_it_has_moved_is_not_asked_for_ever(
    first: str, tmp_path: Path
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK [CAPABILITY " + WORDS + b"] here\r\n")
        while line := await reader.readline():
            tag, _, command = line.rstrip().partition(b" ")
            if command == b"SELECT INBOX/Other":
                writer.write(BYE)
                writer.write_eof()
            else:
                writer.write(tag + b" OK [READ-WRITE] Completed\r\n")

    users = dict.fromkeys(("ana", "ana/Other"), "be1")
    async with ana(tmp_path, users, speak) as (_, client):
        await client.ok(first)
        await client.ok("SELECT INBOX")
        answer = await client.command("SELECT INBOX/Other")
        assert answer[-1].startswith(b"t NO [UNAVAILABLE] ")
        assert b"* OK [CLOSED] The previous mailbox is closed" in answer
        await client.ok("SELECT INBOX")


@pytest.mark.parametrize("is_begun", [False, True])
async def test_an_idle_that_is_not_followed_is_over_only_where_it_was_begun(
    is_begun: bool, tmp_path: Path
) -> None:
    """A client that has had no continuation waits for that, or for NO (RFC 2177)."""
    old, new = Backend(), Backend()
    old.leaves_at = b"IDLE"
    if is_begun:
        old.bye = b"+ idling\r\n" + BYE.replace(b"X-MOVED", b"X-MOVED IDLING")
    new.knows_views = False
    async with ana(tmp_path, {"ana": "be1"}, old.speak, new.speak) as (running, client):
        await client.ok("SELECT INBOX")
        old.moves = lambda: move(running, "be2", "ana")
        client.send(b"i IDLE\r\n")
        said = await client.until(b"i ")
        closed = b"* OK [CLOSED] The mailbox has moved: select it again"
        if is_begun:
            assert said == [b"+ idling", closed, b"i OK The mailbox has moved"]
            client.send(b"DONE\r\n")
        else:
            text = b"The mailbox has moved, and this was not done: select it again"
            assert said == [closed, b"i NO [UNAVAILABLE] " + text]
        await client.ok("NOOP")


@pytest.mark.parametrize("bye", [BYE, b""], ids=["it is not followed", "its backend has gone"])
async def test_who_works_on_in_what_was_closed_unasked_has_made_no_mistake(
    bye: bytes, tmp_path: Path
) -> None:
    """A command may be on its way before CLOSED is read: NO, as for those that were, and not BAD."""
    old, new = Backend(), Backend()
    old.leaves_at, old.bye, new.knows_views = b"NOOP", bye, False
    refused = (
        b"t NO [UNAVAILABLE] The mailbox has been closed, and this was not done: select it again"
    )
    async with ana(tmp_path, {"ana": "be1"}, old.speak, new.speak) as (running, client):
        await client.ok("SELECT INBOX")
        old.moves = lambda: move(running, "be2", "ana")
        said = await client.command("NOOP")
        assert said[0].startswith(b"* OK [CLOSED]") and said[-1].startswith(b"t NO [UNAVAILABLE]")
        for command in ("UID COPY 1 Archive", "UID FETCH 1 FLAGS", "CLOSE"):
            assert await client.command(command) == [refused]
        await client.ok("SELECT INBOX")
        await client.ok("CLOSE")
        assert (await client.command("UID COPY 1 Archive"))[-1].startswith(b"t BAD [CLIENTBUG]")
