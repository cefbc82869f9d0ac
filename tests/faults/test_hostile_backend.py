"""A backend that means ill, behind a frontend: it costs its own users their sessions, and nobody else anything."""

import asyncio
import resource
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, TypeAlias, cast

import pytest

from murder.model.name import MailboxName
from murder.model.protocol import protocol_named
from murder.net.connection import WRITE_HIGH_OCTETS
from murder.roles.mupdate.remote.client import MasterClient
from murder.roles.mupdate.remote.link import master_target
from tests.kit.listening import listening
from tests.kit.peer import Peer
from tests.kit.waiting import pause_here
from tests.rooms.frontend.cluster import Cluster, running_cluster

MIB = 1024 * 1024
WAIT_S = 1.0  # the frontend's, for an answer
MANY_WORDS = b" ".join(b"X%d" % number for number in range(300_000))
Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
Script = Callable[[Reader, Writer], Awaitable[None]]
CAPABILITIES = b"IMAP4rev1 LITERAL+ ACL UNSELECT IDLE"


@asynccontextmanager
async def hostile(folder: Path, script: Script) -> AsyncIterator[Cluster]:
    """ana's mailbox is at an honest backend, eve's at one that follows the script."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    limits: dict[str, Any] = {"upstream_timeout_s": WAIT_S, "upstream_login_timeout_s": 2 * WAIT_S}
    async with running_cluster(folder, {"be1.test": ("ana",)}, frontends=0, **limits) as cluster:
        address = server.sockets[0].getsockname()
        cluster.backends["bad.test"] = cast(Any, SimpleNamespace(address=address, sieve=address))
        frontend = await cluster.add_frontend(**limits)
        target = master_target(frontend.frontend.whole_config)
        assert target is not None
        master = MasterClient(target)
        await master.reserve(MailboxName(b"user.eve"), b"bad.test!default")
        await master.activate(
            MailboxName(b"user.eve"), b"bad.test!default", b"eve\tlrswipkxtecda\t"
        )
        await master.close()
        await frontend.frontend.locator.catch_up()
        try:
            yield cluster
        finally:
            for task in tasks:
                task.cancel()
            server.close()


async def logged_in(cluster: Cluster, user: str) -> Peer:
    client = await Peer.at(*cluster.address)
    await client.line()
    await client.ok(f"LOGIN {user} secret")
    return client


async def enter(reader: Reader, writer: Writer, capabilities: bytes = CAPABILITIES) -> None:
    """As a backend should, up to and with the login."""
    writer.write(b"* OK [CAPABILITY %s] hello\r\n" % capabilities)
    while line := await reader.readline():
        tag, verb = line.split()[:2]
        if verb == b"AUTHENTICATE":
            writer.write(tag + b" OK [CAPABILITY %s] in\r\n" % capabilities)
            return
        writer.write(tag + b" OK\r\n")


async def endless(writer: Writer, octets: bytes) -> None:
    while True:
        writer.write(octets)
        await writer.drain()


async def endless_greeting(_: Reader, writer: Writer) -> None:
    writer.write(b"* OK ")
    await endless(writer, b"x" * 65536)


async def greeting_in_a_literal(_: Reader, writer: Writer) -> None:
    writer.write(b"* OK {900000000}\r\n")
    await endless(writer, b"x" * 65536)


async def empty_lines_at_login(reader: Reader, writer: Writer) -> None:
    writer.write(b"* OK hello\r\n")
    await reader.readline()
    await endless(writer, b"* X\r\n" * 10000)


async def literals_at_login(reader: Reader, writer: Writer) -> None:
    writer.write(b"* OK hello\r\n")
    await reader.readline()
    await endless(writer, b"* X {65536}\r\n" + b"y" * 65536 + b"\r\n")


async def drops_at_login(_: Reader, writer: Writer) -> None:
    writer.write(b"* OK ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await pause_here(WAIT_S / 10, "a peer's slowness is what is tried")


async def huge_capabilities(reader: Reader, writer: Writer) -> None:
    await enter(reader, writer, b"IMAP4rev1 " + MANY_WORDS)
    await reader.read()


async def bye_at_once(_: Reader, writer: Writer) -> None:
    writer.write(b"* BYE go away\r\n")


async def another_tag_at_login(reader: Reader, writer: Writer) -> None:
    writer.write(b"* OK hello\r\nt OK [CAPABILITY IMAP4rev1] in\r\n")
    await reader.read()


BEFORE_LOGIN = [
    endless_greeting,
    greeting_in_a_literal,
    empty_lines_at_login,
    literals_at_login,
    drops_at_login,
    huge_capabilities,
    bye_at_once,
    another_tag_at_login,
]


@pytest.mark.parametrize("script", BEFORE_LOGIN, ids=lambda script: script.__name__)
async def test_a_backend_that_lets_nobody_in_is_refused_in_little_memory(
    tmp_path: Path, script: Script
) -> None:
    async with hostile(tmp_path, script) as cluster:
        ana, eve = await logged_in(cluster, "ana"), await logged_in(cluster, "eve")
        tracemalloc.start()
        try:
            asking = asyncio.ensure_future(eve.command("SELECT INBOX"))
            assert (await ana.command("SELECT INBOX"))[-1].startswith(b"t OK")
            said = await asking
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert said[-1].startswith(b"t NO [UNAVAILABLE]"), said
        assert len(said) == 1
        assert most < 32 * MIB
        assert (await eve.command("NOOP"))[-1].startswith(b"t OK")
        assert (await ana.command("FETCH 1:* FLAGS"))[-1].startswith(b"t ")


def selecting(then: Script) -> Script:
    """Lets a user in and select INBOX, then follows the script, behind the first further command."""

    async def script(reader: Reader, writer: Writer) -> None:
        await enter(reader, writer)
        while line := await reader.readline():
            tag, verb = line.split()[:2]
            if verb == b"SELECT":
                writer.write(
                    b"* 1 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n" + tag + b" OK [READ-WRITE] in\r\n"
                )
                break
            writer.write(tag + b" OK\r\n")
        await then(reader, writer)

    return script


async def smuggled_answer(reader: Reader, writer: Writer) -> None:
    await reader.readline()
    writer.write(
        b"* 2 EXISTS\r\n" * 100 + b"t2 OK done by somebody else\r\n" + b"* 3 EXISTS\r\n" * 100
    )
    await reader.read()


async def test_an_answer_to_what_nobody_asked_ends_the_connection_and_never_reaches_the_client(
    tmp_path: Path,
) -> None:
    async with hostile(tmp_path, selecting(smuggled_answer)) as cluster:
        eve = await logged_in(cluster, "eve")
        assert (await eve.command("SELECT INBOX"))[-1].startswith(b"t OK")
        said = await eve.command("FETCH 1 FLAGS")
        assert not any(line.startswith(b"t2 ") for line in said)
        assert said[-1].startswith(b"t NO [UNAVAILABLE]"), said
        assert (await eve.command("NOOP"))[-1].startswith(b"t OK")


async def begins_a_rename(reader: Reader, writer: Writer) -> None:
    """And says no more of it."""
    await enter(reader, writer)
    while line := await reader.readline():
        tag, verb = line.split()[:2]
        if verb == b"RENAME":
            writer.write(b'* OK [INPROGRESS ("%s" 1 2)] half of it\r\n' % tag)
        else:
            writer.write(tag + b" OK\r\n")


async def test_a_change_that_was_begun_is_not_said_to_have_failed(tmp_path: Path) -> None:
    async with hostile(tmp_path, begins_a_rename) as cluster:
        client = await logged_in(cluster, "eve")
        lasts, status = await client.command("RENAME INBOX INBOX/old")
        assert lasts == b"* OK [INPROGRESS (NIL 1 2)] half of it"
        assert status.startswith(b"t NO [UNAVAILABLE] bad.test has begun it, and may end it later")
        await client.close()


async def unasked_answer(reader: Reader, writer: Writer) -> None:
    writer.write(b"* 2 EXISTS\r\nt2 OK unasked\r\n")
    await reader.read()


async def test_unasked_a_backend_ends_no_command(tmp_path: Path) -> None:
    async with hostile(tmp_path, selecting(unasked_answer)) as cluster:
        eve = await logged_in(cluster, "eve")
        assert (await eve.command("SELECT INBOX"))[-1].startswith(b"t OK")
        said = b""
        while b"[CLOSED]" not in said:
            line = await eve.line()
            assert line.startswith(b"* "), line
            said += line
        assert (await eve.command("NOOP"))[-1].startswith(b"t OK")


async def flood(reader: Reader, writer: Writer) -> None:
    await reader.readline()
    await endless(writer, b"* 1 FETCH (FLAGS ())\r\n" * 3000)


async def endless_literal(reader: Reader, writer: Writer) -> None:
    await reader.readline()
    writer.write(b"* 1 FETCH (BODY[] {4000000000}\r\n")
    await endless(writer, b"x" * 65536)


async def endless_line(reader: Reader, writer: Writer) -> None:
    await reader.readline()
    writer.write(b"* SEARCH")
    await endless(writer, b" 1" * 32768)


@pytest.mark.parametrize("script", [flood, endless_literal, endless_line], ids=lambda s: s.__name__)
@pytest.mark.parametrize(
    "command",
    [
        "UID FETCH 1:* FLAGS",
        "STATUS INBOX (MESSAGES)",
        "GETQUOTAROOT INBOX",
        'LIST "" "*" RETURN (STATUS (MESSAGES))',
    ],
)
async def test_what_never_ends_is_read_no_faster_than_the_client_reads(
    tmp_path: Path, script: Script, command: str
) -> None:
    async with hostile(tmp_path, selecting(script)) as cluster:
        ana, eve = await logged_in(cluster, "ana"), await logged_in(cluster, "eve")
        assert (await eve.command("SELECT INBOX"))[-1].startswith(b"t OK")
        eve.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a TCP transport
        eve.writer.write(f"t {command}\r\n".encode())
        (own,) = (
            session
            for session in cluster.frontends[0].frontend.sessions
            if cast(Any, session).describe().user == "eve"
        )
        connection = cast(Any, own).connection
        most = 0
        for _ in range(300):
            assert (await ana.command("NOOP"))[-1].startswith(b"t OK")
            most = max(most, connection.pending())
        assert most < WRITE_HIGH_OCTETS + 2 * MIB
        eve.writer.close()


LONG: Final = 24 * MIB  # of an answer to a URL


async def long_answer_to_a_url(reader: Reader, writer: Writer) -> None:
    """And its end never."""
    await enter(reader, writer)
    while line := await reader.readline():
        tag, verb, *words = line.split()
        if verb == b"URLFETCH":
            writer.write(b"* URLFETCH %b {%d}\r\n" % (words[0], LONG))
            for _ in range(LONG // 65536 - 1):
                writer.write(b"x" * 65536)
                await writer.drain()
            await reader.read()
        writer.write(tag + b" OK\r\n")


@pytest.mark.parametrize(
    ("command", "is_told"),
    [
        ("URLFETCH {url} {nothing}", True),
        ("APPEND INBOX CATENATE (URL {url})", False),
    ],
)
async def test_what_a_url_names_is_not_collected(
    tmp_path: Path, command: str, is_told: bool
) -> None:
    async with hostile(tmp_path, long_answer_to_a_url) as cluster:
        ana = await logged_in(cluster, "ana")
        name = cluster.frontends[0].frontend.server_name
        token = ";UID=1;URLAUTH=anonymous:internal:" + "91" * 16
        urls = {"url": f"imap://eve@{name}/INBOX/{token}", "nothing": f"imap://x@{name}/y/{token}"}
        tracemalloc.start()
        try:
            ana.writer.write(f"t {command.format(**urls)}\r\n".encode())
            if is_told:  # octets; the connection ends in the middle of them
                octets = 0
                while piece := await ana.reader.read(65536):
                    octets += len(piece)
                assert octets > LONG - MIB
            else:
                assert (await ana.line()).startswith(b"t NO [BADURL ")
            assert tracemalloc.get_traced_memory()[1] < LONG / 2
        finally:
            tracemalloc.stop()


@contextmanager
def files_of_at_most(octets: int) -> Iterator[None]:
    """Of this process, as on a disk that is full then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_what_a_url_names_and_finds_no_room_costs_no_connection(tmp_path: Path) -> None:
    entered = 0

    async def answer(reader: Reader, writer: Writer) -> None:
        nonlocal entered
        await enter(reader, writer)
        entered += 1
        while line := await reader.readline():
            tag, verb, *words = line.split()
            if verb == b"URLFETCH":
                writer.write(b"* URLFETCH %b {%d}\r\n" % (words[0], 3 * MIB))
                writer.write(b"x" * 3 * MIB + b"\r\n")
            writer.write(tag + b" OK\r\n")

    async with hostile(tmp_path, answer) as cluster:
        ana = await logged_in(cluster, "ana")
        host = cluster.frontends[0].frontend.server_name
        url = f"imap://eve@{host}/INBOX/;UID=1;URLAUTH=anonymous:internal:" + "91" * 16
        for _ in range(2):
            with files_of_at_most(2 * MIB):
                said = await ana.command(f"APPEND INBOX CATENATE (URL {url})")
            assert said[-1].startswith(b"t NO [BADURL ") and b"disk" in said[-1]
        await ana.ok("NOOP")
        assert entered == 1


async def endless_reply(_: Reader, writer: Writer) -> None:
    await endless(writer, b"x" * 65536)


async def reply_without_end(_: Reader, writer: Writer) -> None:
    writer.write(b"220 hello\r\n")
    await endless(writer, b"250-WORD\r\n" * 100)


async def pop_capabilities(reader: Reader, writer: Writer) -> None:
    writer.write(b"+OK hello\r\n")
    await reader.readline()
    writer.write(b"+OK\r\n")
    await endless(writer, b"X" * 1000 + b"\r\n")


@pytest.mark.parametrize(
    ("protocol", "script"),
    [
        ("lmtp", endless_reply),
        ("lmtp", reply_without_end),
        ("lmtp", bye_at_once),
        ("pop3", endless_reply),
        ("pop3", pop_capabilities),
        ("pop3", reply_without_end),
    ],
)
async def test_a_backends_pop3_and_lmtp_cost_its_own_users_only(
    tmp_path: Path, protocol: str, script: Script
) -> None:
    async with hostile(tmp_path, script) as cluster:
        front = cluster.frontends[0]
        config = front.frontend.whole_config
        port = cast(Any, cluster.backends["bad.test"]).address[1]
        ports: dict[str, Any] = {"pop3": port, "lmtp": port}
        bad = replace(config.servers["bad.test"], **ports)
        config = replace(config, servers={**config.servers, "bad.test": bad})
        front.frontend.upstreams.configure(config)
        async with listening(front.role.services()[protocol_named(protocol)]) as place:
            ana = await logged_in(cluster, "ana")
            tracemalloc.start()
            try:
                client = await Peer.at(*place.address)
                await client.line()
                said = await asyncio.wait_for(LINES[protocol](client), 30)
                _, most = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert said.startswith((b"451 ", b"-ERR [SYS/TEMP]")), said
            assert most < 16 * MIB
            assert (await ana.command("SELECT INBOX"))[-1].startswith(b"t OK")


async def deliver_to_eve(client: Peer) -> bytes:
    client.send(b"LHLO me\r\n")
    await client.reply()
    client.send(b"MAIL FROM:<>\r\n")
    assert (await client.line()).startswith(b"250")
    client.send(b"RCPT TO:<eve>\r\n")
    return await client.line()


async def pop_as_eve(client: Peer) -> bytes:
    client.send(b"USER eve\r\n")
    assert (await client.line()).startswith(b"+OK")
    client.send(b"PASS secret\r\n")
    return await client.line()


LINES: dict[str, Callable[[Peer], Awaitable[bytes]]] = {
    "lmtp": deliver_to_eve,
    "pop3": pop_as_eve,
}
