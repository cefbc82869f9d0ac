"""A multiplexor whose server is known: logins in few steps, and what comes of whatever does not pass."""

import asyncio
import json
import socket
import struct
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from murder.api.auth import Identity
from murder.api.referral import Conduct, ReferralQuestion
from murder.config.multiplexor import MultiplexorConfig
from murder.config.sections import AuthConfig
from murder.log import set_up
from murder.model.entry import EntryState, MailboxEntry
from murder.net.connection import Connection
from murder.roles.frontend.multiplexor.express import Express
from murder.roles.frontend.multiplexor.pipe import Pipe
from murder.roles.mupdate.database.change import PutEntry
from tests.kit.peer import Peer
from tests.kit.sections import server_section
from tests.kit.waiting import until_soon
from tests.rooms.frontend.server import RIGHTS, Parts, Running, Speak, named, running_frontend
from tests.rooms.frontend.test_calls import USER, Remembering

WORDS = b"CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN"
GREETING = b"* OK [" + WORDS + b"] ready\r\n"
IN = b"a OK [" + WORDS + b"] in\r\n"
GONE = b""
SILENT = b"..."


class Server:
    """Each connection in turn is answered by its script: a greeting, then what the login gets."""

    def __init__(self, *scripts: Sequence[bytes]) -> None:
        self.scripts = [(GREETING, b"i OK\r\n" + IN), *scripts]
        self.said: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting, answer = self.scripts.pop(0)
        self.said.append(b"")
        if greeting == SILENT:
            await reader.read()
        writer.write(greeting)
        if greeting == GONE:
            return
        while not self.said[-1].startswith(b"a AUTH"):
            self.said[-1] = await reader.readline()
            if not self.said[-1]:
                return
        writer.write(answer)
        while octets := await reader.read(1000):
            self.said[-1] += octets
            writer.write(b"x OK it has come\r\n")


def in_front_of(
    folder: Path, server: Speak, parts: Parts | None = None, **options: Any
) -> AbstractAsyncContextManager[Running]:
    """A multiplexor; the user is at this server."""
    return running_frontend(
        folder,
        {"be1.test": ("imap", server)},
        {USER: "be1.test"},
        auth=AuthConfig(),
        parts=parts or Remembering(),
        mode="multiplexor",
        **options,
    )


def sessions(running: Running) -> list[object]:
    assert running.role.frontend is not None
    return list(running.role.frontend.sessions)


def openings(running: Running) -> list[type]:
    return [type(getattr(one, "opening", None)) for one in sessions(running)]


async def entered(running: Running) -> tuple[Peer, bytes]:
    peer = await Peer.at("127.0.0.1", running.ports["imap"])
    await peer.line()
    peer.send(b"x LOGIN ana secret\r\n")
    return peer, await peer.line()


@pytest.mark.parametrize(
    ("scripts", "answer", "connections"),
    [
        ([(GREETING, b"i OK\r\n" + IN)], b"x OK [CAPABILITY", 2),
        ([(GREETING, b"* CAPABILITY X\r\ni OK\r\na OK in\r\n")], b"x OK in", 2),
        ([(GREETING, b"a NO [UNAVAILABLE] later\r\n")], b"x NO [UNAVAILABLE]", 2),
        ([(GREETING, b"i OK\r\na NO [AUTHORIZATIONFAILED] no\r\n")], b"x NO ", 2),
        ([(GONE, b"")], b"x NO [UNAVAILABLE]", 2),
        ([(SILENT, b"")], b"x NO [UNAVAILABLE]", 2),
        ([(GREETING, SILENT)], b"x NO [UNAVAILABLE]", 2),
        # the long way
        ([(b"* BYE not now\r\n", b"")] * 2, b"x NO [UNAVAILABLE]", 3),
        ([(b"* OK [" + WORDS + b" NEW] hm\r\n", IN)] * 2, b"x OK [CAPABILITY", 3),
        ([(GREETING, b"i BAD what\r\na OK\r\n"), (GREETING, IN)], b"x OK [CAPABILITY", 3),
        ([(GREETING, b"+ \r\n"), (GREETING, IN)], b"x OK [CAPABILITY", 3),
        ([(GREETING, b"x" * 5000), (GREETING, IN)], b"x OK [CAPABILITY", 3),
        ([(GREETING, IN.replace(b"ID", b"UNAUTHENTICATE"))] * 2, b"x OK [CAPABILITY", 4),
    ],
)
async def test_a_server_that_is_known(
    tmp_path: Path, scripts: list[tuple[bytes, bytes]], answer: bytes, connections: int
) -> None:
    server = Server(*scripts, (GREETING, IN))
    login_timeout_s = 1.0 if any(SILENT in script for script in scripts) else 20.0
    async with in_front_of(tmp_path, server, upstream_login_timeout_s=login_timeout_s) as running:
        first, said = await entered(running)
        assert said.startswith(b"x OK"), said
        peer, said = await entered(running)
        assert said.startswith(answer), said
        assert len(server.said) == connections
        assert running.role.frontend is not None
        counted = running.role.frontend.gate.connections.counter._of
        # they are still there, are counted nowhere, and may come again
        if said.startswith(b"x NO"):
            assert counted == {USER: 1}
            assert (await peer.ask(b"n NOOP"))[-1].startswith(b"n OK")
        await peer.close()
        await first.close()
        await until_soon(lambda: not counted)


async def test_what_is_said_meanwhile_goes_to_the_server(tmp_path: Path) -> None:
    server = Server((GREETING, IN))
    async with in_front_of(tmp_path, server) as running:
        first, _ = await entered(running)
        peer, said = await entered(running)
        assert said.startswith(b"x OK")
        assert [type(one) for one in sessions(running)] == [Pipe, Pipe]
        peer.send(b"y NOOP\r\n")
        assert await peer.line() == b"x OK it has come"
        assert server.said[-1].endswith(b"y NOOP\r\n")
        await peer.close()
        await first.close()


class Receipts:
    """How often a kernel was told to acknowledge at once, and how often a server has waited for that."""

    told = 0
    awaited = 0


async def say(writer: asyncio.StreamWriter, octets: bytes) -> None:
    """And say nothing more until their receipt has come."""
    before = Receipts.told
    writer.write(octets)
    Receipts.awaited += 1
    await until_soon(lambda: Receipts.told > before)


async def talking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that says each line at once, and waits in the midst of what it has to say until it is told to go on."""
    writer.write(GREETING)
    while line := await reader.readline():
        tag, name = line.split()[:2]
        if name == b"ID":
            await say(writer, b"i OK\r\n")  # the answer to the login is held back by its kernel
        elif name == b"AUTHENTICATE":
            writer.write(IN)
        elif name == b"FETCH":
            await say(writer, b"* 1 FETCH (UID 1)\r\n")
            writer.write(b"* 2 FETCH (UID 2)\r\n" + tag + b" OK\r\n")
        elif name == b"CHECK":
            await say(writer, tag + b" OK\r\n")
        else:
            writer.write(tag + b" OK\r\n")


async def test_a_server_that_waits_for_a_receipt_gets_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with Nagle's algorithm, as a Cyrus, holds back a small piece until the one before it is acknowledged: 40 ms."""

    def note(connection: Connection) -> None:
        Receipts.told += 1

    monkeypatch.setattr(Connection, "acknowledge_now", note)
    Receipts.told = Receipts.awaited = 0
    async with in_front_of(tmp_path, talking) as running:
        for _ in range(2):  # the long way, the short one
            peer, said = await entered(running)
            assert said.startswith(b"x OK"), said
        assert Receipts.awaited == 2
        for _ in range(5):  # which is answered whole, and costs nothing more
            before = Receipts.told
            assert await peer.ask(b"n NOOP") == [b"n OK"]
            assert Receipts.told == before
        assert len(await peer.ask(b"f FETCH 1:2 (UID)")) == 3
        peer.send(b"c CHECK\r\nn NOOP\r\n")
        assert [await peer.line(), await peer.line()] == [b"c OK", b"n OK"]
        assert Receipts.awaited == 4
        await peer.close()


async def test_the_way_of_a_user_is_that_of_now(tmp_path: Path) -> None:
    """It is known again as long as the list, who they are, the table and the configuration are the same."""
    scripts = [(GREETING, b"i OK\r\n" + IN)] * 5
    servers = {name: Server(*scripts) for name in ("be1.test", "be2.test", "be3.test")}
    table = tmp_path / "table"
    table.write_text("")
    parts = Remembering()
    async with running_frontend(
        tmp_path,
        {name: ("imap", server) for name, server in servers.items()},
        {USER: "be1.test"},
        auth=AuthConfig(),
        parts=parts,
        mode="multiplexor",
        multiplexor=MultiplexorConfig(find=("host", "table", "list"), table=table),
    ) as running:
        reached = [0, 0, 0]

        async def gone_to() -> list[int]:
            peer, said = await entered(running)
            assert said.startswith(b"x OK"), said
            await peer.close()
            before = reached[:]
            reached[:] = [len(one.said) for one in servers.values()]
            return [now - then for now, then in zip(reached, before, strict=True)]

        frontend = running.role.frontend
        assert frontend is not None and frontend.multiplexor is not None
        finder = frontend.multiplexor.finder
        for _ in range(3):
            assert await gone_to() == [1, 0, 0]
        moved = MailboxEntry(named(USER), EntryState.ACTIVE, b"be2.test!default", RIGHTS)
        running.mailboxes.commit([PutEntry(moved)])
        for _ in range(3):
            assert await gone_to() == [0, 1, 0]
        table.write_text(f"{USER}: be3.test\n")
        await finder.read_table_again()
        for _ in range(3):
            assert await gone_to() == [0, 0, 1]
        parts.identity = Identity(USER, host="be1.test")
        for _ in range(2):
            assert await gone_to() == [1, 0, 0]
        assert finder.ways
        frontend.multiplexor.configure(running.config)
        assert not finder.ways


async def test_a_host_that_is_none_is_told_also_where_the_password_is_known(tmp_path: Path) -> None:
    """The client's session had ended without a word: nobody took what was raised in the loop's own turn."""
    server, parts = Server(), Remembering()
    parts.identity = Identity(USER, host="no host")
    found_by = MultiplexorConfig(find=("host", "list"))
    async with in_front_of(tmp_path, server, parts, multiplexor=found_by) as running:
        for _ in range(2):
            peer, said = await entered(running)
            assert said.startswith(b"x NO [UNAVAILABLE]"), said
            peer.send(b"y NOOP\r\n")
            assert (await peer.line()).startswith(b"y OK")
            await peer.close()
        assert not server.said


async def test_who_goes_meanwhile_leaves_nothing_behind(tmp_path: Path) -> None:
    server = Server((SILENT, b""))
    async with in_front_of(tmp_path, server) as running:
        first, _ = await entered(running)
        peer = await Peer.at("127.0.0.1", running.ports["imap"])
        await peer.line()
        peer.send(b"x LOGIN ana secret\r\n")
        await until_soon(lambda: Express in openings(running))
        sock = peer.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.writer.transport.abort()
        await until_soon(lambda: len(sessions(running)) == 1)
        assert running.role.frontend is not None
        assert running.role.frontend.gate.connections.counter._of == {USER: 1}
        await first.close()


class Referring(Remembering):
    """Sends who logs in to their server."""

    def refers_logins(self) -> bool:
        return True

    def refers_unable(self) -> bool:
        return True

    def relay_or_refer(self, question: ReferralQuestion) -> Conduct:
        is_login = question.command in ("LOGIN", "AUTHENTICATE")
        return Conduct.REFER if is_login else Conduct.RELAY


async def test_the_policy_is_asked_before_a_pipe_is_made(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up("info", "json")
    server = Server()
    async with in_front_of(tmp_path, server, Referring()) as running:
        peer, said = await entered(running)
        assert said.startswith(b"x NO [REFERRAL imap://ana;AUTH=*@127.0.0.1:"), said
        await peer.close()
        peer = await Peer.at("127.0.0.1", running.ports["sieve"])
        await peer.until(b"OK")
        peer.send(b'AUTHENTICATE "PLAIN" "AGFuYQBzZWNyZXQ="\r\n')
        assert (await peer.line()).startswith(b'NO (REFERRAL "sieve://127.0.0.1")')
        await peer.close()
        assert not server.said
        assert counted_as_failed(running) == {("imap", "LOGIN"): 1, ("sieve", "PLAIN"): 1}
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    failed = [
        (line["protocol"], line["mechanism"], line["user"], line["problem"])
        for line in lines
        if line["event"] == "login.failed"
    ]
    ways = [("imap", "LOGIN"), ("sieve", "PLAIN")]
    assert failed == [(*way, "ana", "REFERRAL") for way in ways]


def counted_as_failed(running: Running) -> dict[tuple[str, str], int]:
    """Logins, by protocol and mechanism."""
    times = running.role.figures.times["logins"]
    return {
        (protocol, way): sum(took.classes)
        for (protocol, way, outcome), took in times.items()
        if outcome == "failed"
    }


@pytest.mark.parametrize(
    ("address", "port", "url"),
    [("", 4190, "be1.test"), ("mail.test", 2000, "mail.test:2000"), ("::1", 2000, "[::1]:2000")],
)
async def test_a_referral_says_where_a_server_has_its_scripts(
    address: str, port: int, url: str, tmp_path: Path
) -> None:
    """RFC 5804 §3: as IMAP's does, with the port where it is another than everybody's."""
    sections = {"be1.test": server_section(address=address, sieve=port)}
    async with in_front_of(tmp_path, Server(), Referring(), sections=sections) as running:
        peer = await Peer.at("127.0.0.1", running.ports["sieve"])
        await peer.until(b"OK")
        peer.send(b'AUTHENTICATE "PLAIN" "AGFuYQBzZWNyZXQ="\r\n')
        assert (await peer.line()).startswith(b'NO (REFERRAL "sieve://%b")' % url.encode())
        await peer.close()


class Homeless(Remembering):
    """Knows somebody who has no mailbox."""

    def recall(self, user: str, password: bytes) -> Identity | None:
        return Identity(user) if user == "ben" else None


async def test_who_is_right_and_nowhere_is_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up("info", "json")
    async with in_front_of(tmp_path, Server(), Homeless()) as running:
        peer = await Peer.at("127.0.0.1", running.ports["pop3"])
        await peer.line()
        peer.send(b"USER ben\r\nPASS secret\r\n")
        assert (await peer.line()).startswith(b"+OK")
        assert await peer.line() == b"-ERR [SYS/PERM] You have no mailbox here"
        await peer.close()
        assert counted_as_failed(running) == {("pop3", "USER"): 1}
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    failed = [
        (line["mechanism"], line["user"], line["problem"])
        for line in lines
        if line["event"] == "login.failed"
    ]
    assert failed == [("USER", "ben", "NONEXISTENT")]
