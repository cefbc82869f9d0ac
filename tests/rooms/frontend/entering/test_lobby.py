"""The lobby does what the dialogue does, in fewer steps: the same octets and the same log by both; and what becomes of a
SELECT that was sent behind a login which the backend refuses, leaves unanswered, or breaks off."""

import asyncio
import re
import struct
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from murder.api.auth import AuthBackend, Identity
from murder.config.sections import AuthConfig
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.lobby import Lobby
from tests.kit.peer import Peer
from tests.kit.waiting import turns, until_soon
from tests.rooms.frontend.server import Parts, Running, running_frontend

PATHS: Final = ("at once", "by the dialogue")
WORDS: Final = b"CAPABILITY IMAP4rev1 SASL-IR UNAUTHENTICATE UNSELECT X-XFER"
PLAIN: Final = b64encode(b"\0ana\0secret")


class Remembering(Parts):
    """Knows a right password at once."""

    def recall(self, user: str, password: bytes) -> Identity | None:
        return Identity(user) if password == b"secret" else None

    def auth_backends(self) -> Sequence[tuple[str, AuthBackend]]:
        return [("one", self)]


@dataclass
class Backend:
    """Says OK, or what a test has told it. `heard`: the commands of all connections, without tags."""

    heard: list[bytes] = field(default_factory=list)
    connections: int = 0
    refuses: int = 0  # so many logins
    ends: int = 0  # so many connections, at the login
    is_silent: bool = False  # at logins
    words: bytes = WORDS
    loses_pipelined: bool = False  # what stands behind an AUTHENTICATE, as Cyrus does
    selects: bytes = b"OK [READ-WRITE] done"
    ends_at_id: int = 0  # so many connections
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)  # before SELECT is answered
    _greeted: int = 0

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        is_in = False
        writer.write(b"* OK [" + self.words + b"] ready\r\n")
        while line := await reader.readline():
            tag, _, command = line.rstrip().partition(b" ")
            name = command.split(b" ")[0].upper()
            self.heard.append(command)
            answer = b"OK done"
            if name == b"AUTHENTICATE":
                if self.ends:
                    self.ends -= 1
                    return
                if self.is_silent:
                    continue
                is_in = not self.refuses
                self.refuses -= not is_in
                answer = b"OK [" + self.words + b"] in" if is_in else b"NO not you"
                if self.loses_pipelined:
                    reader._buffer.clear()  # type: ignore[attr-defined]  # what has come with it
            elif name == b"UNAUTHENTICATE":
                is_in = False
            elif name == b"ID" and self.ends_at_id:
                self.ends_at_id -= 1
                return
            elif name in (b"SELECT", b"EXAMINE"):
                await self.goes_on.wait()
                answer = self.selects if is_in else b"BAD log in first"
                if is_in and answer.startswith(b"OK"):
                    writer.write(b"* FLAGS ()\r\n* 1 EXISTS\r\n")
            writer.write(tag + b" " + answer + b"\r\n")


@dataclass
class Scene:
    running: Running
    backend: Backend

    async def peer(self) -> Peer:
        peer = await Peer.at(self.running.ports["imap"])
        await peer.until(b"* OK")
        return peer

    async def inside(self, user: str = "ana") -> Peer:
        peer = await self.peer()
        await peer.ok(f"LOGIN {user} secret")
        return peer

    @property
    def kept(self) -> int:
        """Connections that wait for their next user."""
        assert self.running.role.frontend is not None
        return len(self.running.role.frontend.pool)

    async def session(self, user: str, *commands: str) -> None:
        """One that opens the INBOX, from its beginning to its end."""
        peer = await self.inside(user)
        for command in ("SELECT INBOX", *commands):
            await peer.ok(command)
        assert (await peer.command("LOGOUT"))[0].startswith(b"* BYE")
        await peer.close()

    async def warm(self) -> None:
        """One connection waits, and nobody else is there."""
        await self.session("ana")
        await until_soon(lambda: self.kept == 1)
        self.backend.heard.clear()


@asynccontextmanager
async def scene(
    folder: Path, auth: AuthConfig | None = None, **section: Any
) -> AsyncIterator[Scene]:
    backend = Backend()
    backend.goes_on.set()
    async with running_frontend(
        folder,
        {"be1.test": ("imap", backend.speak)},
        {"ana": "be1.test", "bob": "be1.test"},
        parts=Remembering(),
        auth=auth or AuthConfig(failure_delay_s=0.001, max_failure_delay_s=0.001),
        **section,
    ) as running:
        yield Scene(running, backend)


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both paths."""
    if request.param == "by the dialogue":
        monkeypatch.setattr(Lobby, "received", FrontendImap.received)
    return str(request.param)


# turns of the loop: all have taken their part; what comes later is read all the same
ANSWERED: Final = 100
LIMIT_S: Final = 60.0
# What a client writes, each piece when the one before has been answered as far as it will be
SPELLINGS: Final[Sequence[tuple[bytes, ...]]] = (
    (b"a LOGIN ana secret\r\n", b"b SELECT INBOX\r\n", b"c NOOP\r\n", b"d LOGOUT\r\n"),
    (b'a login "ana" "secret"\r\n', b'b examine "inbox"\r\n', b"d logout\r\n"),
    (b"a LOGIN ana secret\n", b"b SELECT INBOX\n", b"d LOGOUT\n"),
    (b"a LOGIN ana secret\r\nb SELECT INBOX\r\nc NOOP\r\nd LOGOUT\r\n",),
    (b"a LOGIN {3+}\r\nana {6+}\r\nsecret\r\n", b"b SELECT {5+}\r\nINBOX\r\n", b"d LOGOUT\r\n"),
    (b"a LOGIN ana wrong\r\n", b"a LOGIN ana secret\r\n", b"d LOGOUT\r\n"),
    (
        b'a LOGIN ana "sec\\ret"\r\n',
        b"a LOGIN  ana secret\r\n",
        b"a LOGIN ana\r\n",
        b"d LOGOUT\r\n",
    ),
    (b'a LOGIN "" secret\r\n', b'a LOGIN ana ""\r\n', b"d LOGOUT\r\n"),
    (b"a LOGIN ana+work secret\r\n", b"d LOGOUT\r\n"),
    (b"a LOGIN an\xc3\xa4 secret\r\n", b'a LOGIN "an\xc3\xa4" secret\r\n', b"d LOGOUT\r\n"),
    (b"a AUTHENTICATE PLAIN " + PLAIN + b"\r\n", b"b SELECT INBOX\r\n", b"d LOGOUT\r\n"),
    (b"a AUTHENTICATE PLAIN\r\n", PLAIN + b"\r\n", b"d LOGOUT\r\n"),
    (
        b"a AUTHENTICATE PLAIN " + PLAIN + b"=\r\n",
        b"a authenticate plain ====\r\n",
        b"d LOGOUT\r\n",
    ),
    (b"a AUTHENTICATE PLAIN " + b64encode(b"bob\0ana\0secret") + b"\r\n", b"d LOGOUT\r\n"),
    (b"a AUTHENTICATE PLAIN " + b64encode(b"ana\0secret") + b"\r\n", b"d LOGOUT\r\n"),
    (b"a LOGIN ana secret\r\n", b"b LOGIN ana secret\r\n", b"c SELECT none\r\n", b"d LOGOUT\r\n"),
    (
        b"a LOGIN ana secret\r\n",
        b'b SELECT ""\r\n',
        b"c FETCH 1 UID\r\n",
        b"c NOOP\r\n",
        b"d LOGOUT\r\n",
    ),
    (
        b"a LOGIN ana secret\r\n",
        b"b SELECT INBOX\r\n",
        b"c SELECT none\r\n",
        b"c CHECK\r\n",
        b"d LOGOUT\r\n",
    ),
    (
        b"a LOGIN ana secret\r\n",
        b"b SELECT INBOX\r\n",
        b"c SELECT INBOX\r\n",
        b"c CHECK\r\n",
        b"d LOGOUT\r\n",
    ),
    (b"a LOGIN ana secret\r\n", b"b SELECT INBOX (CONDSTORE)\r\n", b"d LOGOUT\r\n"),
    (b"a SELECT INBOX\r\n", b"LOGIN ana secret\r\n", b"\r\n", b"a LOGOUT now\r\n", b"d LOGOUT\r\n"),
    (
        b'a ID ("name" "x")\r\n',
        b"a CAPABILITY\r\n",
        b"a LOGIN ana secret\r\n",
        b"b CAPABILITY\r\n",
        b"d LOGOUT\r\n",
    ),
    (
        b"a LOGIN ana secret\r\n",
        b"b UNAUTHENTICATE\r\n",
        b"c LOGIN ana secret\r\n",
        b"d LOGOUT\r\n",
    ),
    (b"a LOGIN ana sec", b"ret\r\nb SELECT IN", b"BOX\r\n", b"d LOGOUT\r\n"),
)


async def told(folder: Path, pieces: Sequence[bytes]) -> tuple[bytes, list[dict[str, object]]]:
    """All that a frontend says, and what it logs of logins, without what differs each time."""
    async with scene(folder) as here:
        await here.warm()
        with capture_logs() as logged:
            peer = await here.peer()
            for piece in pieces:
                peer.send(piece)
                await turns(ANSWERED)
            async with asyncio.timeout(LIMIT_S):
                said = await peer.reader.read()  # each ends with LOGOUT
            await peer.close()
        lines = [{**line, "cid": ""} for line in logged if str(line["event"]).startswith("login.")]
        return re.sub(rb"M[0-9a-f]{8}-\d+", b"M", said), [dict(line) for line in lines]


@pytest.mark.parametrize("number", range(len(SPELLINGS)))
async def test_both_paths_say_and_log_the_same(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_lobby = await told(tmp_path / "lobby", SPELLINGS[number])
    monkeypatch.setattr(Lobby, "received", FrontendImap.received)
    by_dialogue = await told(tmp_path / "dialogue", SPELLINGS[number])
    assert by_lobby == by_dialogue
    assert b"d OK" in by_lobby[0] or b"BYE" in by_lobby[0]


async def test_the_commonest_session_needs_no_task(tmp_path: Path) -> None:
    """Else the other tests here would prove little."""
    async with scene(tmp_path) as here:
        await here.warm()
        peer = await here.inside()
        here.backend.goes_on.clear()
        peer.send(b"s SELECT INBOX\r\n")
        await until_soon(lambda: b"SELECT INBOX" in here.backend.heard)
        assert here.running.role.frontend is not None
        (session,) = here.running.role.frontend.sessions
        assert isinstance(session, Lobby)
        assert session.opening is not None and not session.is_busy
        assert not session.is_quiet(), "it must not be drained now"
        assert [one.split(b" ")[0] for one in here.backend.heard] == [
            b"ID",
            b"AUTHENTICATE",
            b"SELECT",
        ]
        here.backend.goes_on.set()
        assert (await peer.until(b"s "))[-1] == b"s OK [READ-WRITE] done"
        assert here.backend.connections == 1


async def test_a_select_behind_a_refused_login_is_not_answered_by_it(
    path: str, tmp_path: Path
) -> None:
    async with scene(tmp_path) as here:
        await here.warm()
        here.backend.refuses = 1
        peer = await here.inside()
        said = await peer.command("SELECT INBOX")
        if path == "at once":  # by another connection
            assert said[-1] == b"t OK [READ-WRITE] done"
            assert here.backend.connections == 2
            assert await peer.ok("CHECK") == []
        else:
            assert said[-1].startswith(b"t NO [UNAVAILABLE]")
        assert b"BAD" not in b"".join(said)


async def test_where_the_backend_lets_nobody_in_the_client_hears_of_it_once(
    path: str, tmp_path: Path
) -> None:
    async with scene(tmp_path) as here:
        await here.warm()
        here.backend.refuses = 100
        peer = await here.inside()
        (said,) = await peer.command("SELECT INBOX")
        assert said.startswith(b"t NO [UNAVAILABLE] Not available now: be1.test")
        (said,) = await peer.command("CHECK")
        assert said.startswith(b"t BAD"), "nothing is selected"
        assert await peer.ok("NOOP") == []


async def test_a_connection_that_ends_at_the_login_is_replaced(path: str, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.warm()
        here.backend.ends = 1
        peer = await here.inside()
        assert (await peer.command("SELECT INBOX"))[-1] == b"t OK [READ-WRITE] done"
        assert here.backend.connections == 2


async def test_a_backend_that_does_not_answer_the_login_is_waited_for_as_configured(
    path: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, upstream_login_timeout_s=1.0) as here:
        await here.warm()
        here.backend.is_silent = True
        peer = await here.inside()
        (said,) = await peer.command("SELECT INBOX")
        assert said.startswith(b"t NO [UNAVAILABLE]") and b"timeout" in said
        assert here.kept == 0
        assert await peer.ok("NOOP") == []


async def test_a_mailbox_that_the_backend_does_not_open_is_not_selected(
    path: str, tmp_path: Path
) -> None:
    async with scene(tmp_path) as here:
        await here.warm()
        here.backend.selects = b"NO [SERVERBUG] broken"
        peer = await here.inside()
        assert await peer.command("SELECT INBOX") == [b"t NO [SERVERBUG] broken"]
        (said,) = await peer.command("CHECK")
        assert said.startswith(b"t BAD")
        here.backend.selects = b"OK [READ-ONLY] done"
        assert (await peer.command("EXAMINE INBOX"))[-1] == b"t OK [READ-ONLY] done"
        assert await peer.ok("CHECK") == []


async def test_a_backend_that_loses_what_stands_behind_a_login_is_asked_one_by_one(
    path: str, tmp_path: Path
) -> None:
    """A real Cyrus 3.6 does, and keeps connections of its administrators for the next user."""
    async with scene(tmp_path) as one:
        one.backend.words = WORDS.replace(b" X-XFER", b"")
        one.backend.loses_pipelined = True
        await one.warm()
        peer = await one.inside()
        assert b"* 1 EXISTS" in await peer.ok("SELECT INBOX")
        await peer.close()
        assert one.backend.connections == 1  # the one that was kept


async def test_what_comes_while_a_mailbox_opens_waits_for_it(path: str, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.warm()
        peer = await here.inside()
        here.backend.goes_on.clear()
        peer.send(b"s SELECT INBOX\r\n")
        await until_soon(lambda: b"SELECT INBOX" in here.backend.heard)
        peer.send(b"c CHECK\r\nn NOOP\r\n")
        peer.send(b"d LOGOUT\r\n")
        await turns(10)
        assert here.backend.heard[-1] == b"SELECT INBOX"
        here.backend.goes_on.set()
        said = await peer.until(b"d ")
        assert [line for line in said if not line.startswith(b"* ")] == [
            *(b"s OK [READ-WRITE] done", b"c OK done", b"n OK done", b"d OK Completed")
        ]


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_client_that_leaves_while_a_mailbox_opens_leaves_nothing_behind(
    how: str, path: str, tmp_path: Path
) -> None:
    async with scene(tmp_path) as here:
        await here.warm()
        peer = await here.inside()
        here.backend.goes_on.clear()
        peer.send(b"s SELECT INBOX\r\n")
        await until_soon(lambda: b"SELECT INBOX" in here.backend.heard)
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            peer.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
        peer.transport.abort()
        frontend = here.running.role.frontend
        assert frontend is not None
        if how == "reset" and path == "at once":
            await until_soon(lambda: not frontend.sessions)
            assert here.kept == 0
        here.backend.goes_on.set()
        await until_soon(lambda: not frontend.sessions)
        assert await (await here.inside()).ok("NOOP") == []


async def test_wrong_passwords_count_and_hold_up_as_before(path: str, tmp_path: Path) -> None:
    auth = AuthConfig(failure_delay_s=0.3, max_failure_delay_s=0.3)
    async with scene(tmp_path, auth) as here:
        frontend = here.running.role.frontend
        assert frontend is not None
        penalties = frontend.gate.penalties
        peer, loop = await here.peer(), asyncio.get_running_loop()
        began = loop.time()
        peer.send(b"a LOGIN ana wrong\r\n")
        await until_soon(lambda: penalties.failures("127.0.0.1", "ana") == 1)
        other = await here.inside()  # who comes meanwhile with the right one is not told at once
        assert loop.time() - began > 0.29
        assert penalties.failures("127.0.0.1", "ana") == 0
        await other.close()


async def test_connections_of_a_user_are_counted_and_limited(path: str, tmp_path: Path) -> None:
    async with scene(tmp_path, max_connections_per_user=1) as here:
        first, second = await here.inside(), await here.peer()
        said = await second.command("LOGIN ana secret")
        assert said[-1].startswith(b"t NO [LIMIT]")
        await second.until(b"* BYE")
        await second.close()
        assert await first.ok("NOOP") == []
        assert (await first.command("LOGOUT"))[0].startswith(b"* BYE")
        await first.close()
        frontend = here.running.role.frontend
        assert frontend is not None
        await until_soon(lambda: not frontend.sessions)
        await here.inside()


@asynccontextmanager
async def unforgetting(folder: Path, **section: Any) -> AsyncIterator[Scene]:
    """In front of a backend without UNAUTHENTICATE, as Cyrus is for users."""
    async with scene(folder, **section) as here:
        here.backend.words = b"CAPABILITY IMAP4rev1 SASL-IR UNSELECT"
        here.backend.loses_pipelined = True
        await here.warm()
        yield here


async def test_a_backend_that_cannot_forget_a_user_has_them_again_on_the_same_connection(
    tmp_path: Path,
) -> None:
    async with unforgetting(tmp_path) as here:
        for _ in range(2):
            await here.session("ana", "FETCH 1 FLAGS")
            await until_soon(lambda: here.kept == 1)
            told = [command for command in here.backend.heard if not command.startswith(b"ID (")]
            assert told == [b"SELECT INBOX", b"FETCH 1 FLAGS", b"UNSELECT"]
            assert len(here.backend.heard) == 4
            assert b'"x-session-id"' in here.backend.heard[0]
            here.backend.heard.clear()
        assert here.backend.connections == 1


async def test_a_user_is_not_let_in_for_ever_by_one_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with unforgetting(tmp_path) as here:
        monkeypatch.setattr("murder.net.outgoing.pool.SAME_USER_S", 0.0)
        await here.session("ana")
        await until_soon(lambda: here.backend.heard[-1] == b"LOGOUT")
        assert not here.kept


async def test_nobody_else_gets_a_connection_that_waits_for_its_user(tmp_path: Path) -> None:
    async with unforgetting(tmp_path) as here:
        await here.session("bob")
        await until_soon(lambda: here.kept == 2)
        assert here.backend.connections == 2
        login = b64encode(b"bob\0murder\0secret")
        assert b"AUTHENTICATE PLAIN " + login in here.backend.heard


async def test_of_those_that_wait_for_their_users_the_oldest_makes_room(tmp_path: Path) -> None:
    async with unforgetting(tmp_path, max_upstreams_idle=1) as here:
        await here.session("bob")
        await until_soon(lambda: b"LOGOUT" in here.backend.heard)
        assert here.kept == 1
        await here.session("bob")
        assert here.backend.connections == 2


@pytest.mark.parametrize(
    "command",
    [
        "FETCH 1 (FLAGS MODSEQ)",
        "UID STORE 1 (unchangedsince 7) +FLAGS (x)",
        "SELECT INBOX (CONDSTORE)",
        "ENABLE QRESYNC",
        "STORE 1 +FLAGS (" + "x" * 5000 + ")",
    ],
)
async def test_what_outlasts_a_mailbox_ends_the_connection_with_its_user(
    command: str, tmp_path: Path
) -> None:
    async with unforgetting(tmp_path) as here:
        here.backend.words += b" CONDSTORE QRESYNC ENABLE"
        await here.session("bob", command)
        await until_soon(lambda: here.backend.heard[-1] == b"LOGOUT")
        assert here.kept == 1, "bob's is kept"


async def test_a_kept_connection_that_has_ended_is_replaced(tmp_path: Path) -> None:
    async with unforgetting(tmp_path) as here:
        here.backend.ends_at_id = 1
        await here.session("ana")
        assert here.backend.connections == 2
