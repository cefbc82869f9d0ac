"""IMAP up to the login, and the loop below it, over real sockets: what every role's clients see first."""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import pytest
from structlog.testing import capture_logs

from murder.api.auth import Identity
from murder.auth.gate import Gate
from murder.auth.penalty import Penalties
from murder.config import ClientConfig
from murder.errors import Misuse
from murder.model.name import Namespace
from murder.net.listener import Bounds
from murder.net.tls import client_context, server_context
from murder.pki.authority import init_authority, issue
from murder.serve.client import Running
from murder.serve.imap import (
    AUTHENTICATED,
    ImapDialogue,
    Row,
)
from murder.serve.imap_commands import LOGIN_ROWS
from murder.serve.service import ClientService
from murder.wire.imap.command import Command
from tests.kit.listening import listening
from tests.kit.waiting import pause_here, turns


class OnePassword:
    """An auth backend in which everybody's password is `secret`."""

    async def verify(self, user: str, password: bytes) -> Identity | None:
        return Identity(user) if password == b"secret" else None

    async def lookup(self, user: str) -> Identity | None:
        return Identity(user)


def run_noop(dialogue: ImapDialogue, command: Command) -> Running:
    dialogue.send_ok(command)
    return None


def run_whoami(dialogue: ImapDialogue, command: Command) -> Running:
    assert dialogue.login is not None
    dialogue.send_ok(command, f"{dialogue.login.user} {dialogue.login.is_admin}")
    return None


def run_slow(dialogue: ImapDialogue, command: Command) -> Running:
    async def wait() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        dialogue.send_ok(command, "slow")

    return wait()


def run_crash(dialogue: ImapDialogue, command: Command) -> Running:
    raise Misuse("the secret detail")


class Role(ImapDialogue):
    TABLE = MappingProxyType(
        dict(LOGIN_ROWS)
        | {
            b"NOOP": Row(AUTHENTICATED, run_noop),
            b"WHOAMI": Row(AUTHENTICATED, run_whoami),
            b"SLOW": Row(AUTHENTICATED, run_slow),
            b"CRASH": Row(AUTHENTICATED, run_crash),
        }
    )

    def capabilities(self) -> bytes:
        return b"IMAP4rev1 X-TEST"


class Client:
    """Lines in and out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def line(self) -> bytes:
        return await asyncio.wait_for(self.reader.readline(), 10)

    async def ask(self, octets: bytes) -> bytes:
        self.send(octets)
        return await self.line()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ca")
    init_authority(folder)
    issue(folder, "be1.test", ["backend"])
    issue(folder, "fe1.test", ["frontend"])
    return folder


@asynccontextmanager
async def role(
    limits: ClientConfig,
    folder: Path | None = None,
    implicit: bool = False,
    bounds: Bounds | None = None,
) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    tls = None
    if folder is not None:
        tls = server_context(folder / "be1.test.pem", folder / "be1.test.key", folder / "ca.pem")
    gate = Gate(
        OnePassword(),
        admins=["admin"],
        proxies=["murder"],
        allow_plaintext=limits.allow_plaintext,
        penalties=Penalties(0, 0),
    )
    service = ClientService("backend", "be1.test", Namespace(), gate, limits, tls)
    async with listening(
        lambda connection: Role(connection, service), bounds, tls if implicit else None
    ) as place:

        async def connect() -> Client:
            return Client(*await asyncio.open_connection(*place.address))

        yield connect


PLAIN = ClientConfig(allow_plaintext=True)


async def test_login_and_pipelined_commands_are_answered_in_order() -> None:
    async with role(PLAIN) as connect:
        client = await connect()
        assert (await client.line()).startswith(b"* OK [CAPABILITY IMAP4rev1 LITERAL+")
        client.send(
            b"a LOGIN ana {6+}\r\nsecret\r\nb SLOW\r\nc NOOP\r\nd CAPABILITY\r\ne LOGOUT\r\n"
        )
        assert (await client.line()).startswith(b"a OK [CAPABILITY IMAP4rev1 X-TEST] Logged in")
        assert await client.line() == b"b OK slow\r\n"
        assert await client.line() == b"c OK Completed\r\n"
        assert await client.line() == b"* CAPABILITY IMAP4rev1 X-TEST\r\n"
        assert await client.line() == b"d OK Completed\r\n"
        assert (await client.line()).startswith(b"* BYE")
        assert (await client.line()).startswith(b"e OK")
        assert await client.line() == b""


async def test_what_is_not_allowed_gets_bad_and_the_session_lives_on() -> None:
    async with role(PLAIN) as connect:
        client = await connect()
        await client.line()
        assert (await client.ask(b"a NOOP\r\n")).startswith(
            b"a BAD [CLIENTBUG] NOOP is allowed only"
        )
        assert (await client.ask(b"b LOGIN ana wrong\r\n")).startswith(
            b"b NO [AUTHENTICATIONFAILED]"
        )
        assert (await client.ask(b"c XYZZY\r\n")).startswith(
            b"c BAD [CLIENTBUG] XYZZY is no command"
        )
        assert (await client.ask(b"\x00\xff\r\n")).startswith(b"* BAD")
        assert (await client.ask(b"d LOGIN ana secret\r\n")).startswith(b"d OK")
        answer = await client.ask(b"e CRASH\r\n")
        assert answer == b"e NO [SERVERBUG] Internal error; the log has it\r\n"
        assert (await client.ask(b"f LOGIN ana secret\r\n")).startswith(b"f BAD")
        assert (await client.ask(b"g NOOP\r\n")).startswith(b"g OK")


async def test_blanks_at_the_end_of_a_response_mean_nothing() -> None:
    async with role(PLAIN) as connect:
        client = await connect()
        await client.line()
        assert await client.ask(b"a AUTHENTICATE PLAIN \r\n") == b"+ \r\n"
        assert (await client.ask(b"* \r\n")).endswith(b"AUTHENTICATE was cancelled\r\n")
        assert await client.ask(b"b AUTHENTICATE PLAIN\r\n") == b"+ \r\n"
        secret = base64.b64encode(b"\0ana\0secret")
        assert (await client.ask(secret + b" \t\r\n")).startswith(b"b OK")


async def test_without_tls_no_password_is_taken(certificates: Path) -> None:
    async with role(ClientConfig(), certificates) as connect:
        client = await connect()
        greeting = await client.line()
        assert b" LOGINDISABLED" in greeting
        assert b" STARTTLS" in greeting
        assert b"AUTH=" not in greeting
        assert (await client.ask(b"a LOGIN ana secret\r\n")).startswith(b"a NO [PRIVACYREQUIRED]")
        ir = base64.b64encode(b"\0ana\0secret")
        answer = await client.ask(b"b AUTHENTICATE PLAIN " + ir + b"\r\n")
        assert answer.startswith(b"b NO [PRIVACYREQUIRED]")


async def test_starttls_forgets_what_was_injected_behind_it(certificates: Path) -> None:
    async with role(ClientConfig(), certificates) as connect:
        client = await connect()
        await client.line()
        client.send(b"a STARTTLS\r\nb LOGIN eve secret\r\n")
        assert (await client.line()).startswith(b"a OK")
        trust = client_context(certificates / "ca.pem", None, None)
        await client.writer.start_tls(trust, server_hostname="be1.test")
        assert b"AUTH=PLAIN" in await client.ask(b"c CAPABILITY\r\n")
        assert (await client.line()).startswith(b"c OK")
        client.send(b"d AUTHENTICATE PLAIN\r\n")
        assert await client.line() == b"+ \r\n"
        answer = await client.ask(base64.b64encode(b"\0ana\0secret") + b"\r\n")
        assert answer.startswith(b"d OK")


async def test_a_frontends_certificate_speaks_for_a_user_but_never_for_an_admin(
    certificates: Path,
) -> None:
    async with role(ClientConfig(), certificates) as connect:
        client = await connect()
        await client.line()
        assert (await client.ask(b"a STARTTLS\r\n")).startswith(b"a OK")
        node = client_context(
            certificates / "ca.pem",
            certificates / "fe1.test.pem",
            certificates / "fe1.test.key",
        )
        await client.writer.start_tls(node, server_hostname="be1.test")
        admin = base64.b64encode(b"admin")
        answer = await client.ask(b"b AUTHENTICATE EXTERNAL " + admin + b"\r\n")
        assert answer.startswith(b"b OK")
        assert await client.ask(b"c WHOAMI\r\n") == b"c OK admin False\r\n"


async def test_a_certificate_of_another_authority_is_no_login(
    certificates: Path, tmp_path: Path
) -> None:
    init_authority(tmp_path)
    issue(tmp_path, "fe1.test", ["frontend"])

    async with role(ClientConfig(), certificates) as connect:
        client = await connect()
        await client.line()
        await client.ask(b"a STARTTLS\r\n")
        stranger = client_context(
            certificates / "ca.pem",
            tmp_path / "fe1.test.pem",
            tmp_path / "fe1.test.key",
        )
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await client.writer.start_tls(stranger, server_hostname="be1.test")
            if await client.ask(b"b CAPABILITY\r\n") == b"":
                raise ConnectionResetError


async def test_a_proxy_user_speaks_for_others_with_plain() -> None:
    async with role(PLAIN) as connect:
        client = await connect()
        await client.line()
        ir = base64.b64encode(b"admin\0murder\0secret")
        assert (await client.ask(b"a AUTHENTICATE PLAIN " + ir + b"\r\n")).startswith(b"a OK")
        other = await connect()
        await other.line()
        ir = base64.b64encode(b"bob\0ana\0secret")
        answer = await other.ask(b"a AUTHENTICATE PLAIN " + ir + b"\r\n")
        assert answer.startswith(b"a NO [AUTHORIZATIONFAILED]")


@pytest.mark.parametrize(
    ("words", "user"), [(b"\0ghost\0wrong", "ghost"), (b"bob\0ana\0secret", "ana")]
)
async def test_who_is_refused_is_logged_by_the_name_that_was_given(words: bytes, user: str) -> None:
    with capture_logs() as logged:
        async with role(PLAIN) as connect:
            client = await connect()
            await client.line()
            ask = b"a AUTHENTICATE PLAIN " + base64.b64encode(words) + b"\r\n"
            assert b" NO [" in await client.ask(ask)
    assert [one["user"] for one in logged if one["event"] == "login.failed"] == [user]


async def test_who_never_logs_in_is_sent_away() -> None:
    async with role(ClientConfig(login_timeout_s=0.05)) as connect:
        client = await connect()
        await client.line()
        client.send(b"a CAPA")  # half a command is no sign of life
        assert (await client.line()).startswith(b"* BYE Autologout")
        assert await client.line() == b""


async def test_an_endless_line_ends_the_connection_with_words() -> None:
    async with role(PLAIN) as connect:
        client = await connect()
        await client.line()
        client.send(b"a LOGIN ")
        # not all at once: who sends that ahead of a turn of the loop is cut off without words
        for _ in range(1000):
            client.send(b"x" * 10_000)
            await turns()
        assert (await client.line()).startswith(b"a BAD [CLIENTBUG] a line may have")
        assert (await client.line()).startswith(b"* BYE This is no IMAP: no more than")


async def test_a_command_larger_than_what_is_held_for_a_busy_session_comes_through() -> None:
    async with role(PLAIN) as connect:
        client = await connect()
        await client.line()
        await client.ask(b"a LOGIN ana secret\r\n")
        client.send(b"b SLOW\r\nc NOOP {1000000+}\r\n" + b"x" * 1_000_000 + b"\r\nd NOOP\r\n")
        assert await client.line() == b"b OK slow\r\n"
        assert (await client.line()).startswith(b"c OK")
        assert (await client.line()).startswith(b"d OK")


async def test_beyond_the_limit_a_connection_is_refused_with_words() -> None:
    async with role(PLAIN, bounds=Bounds(1, refusal=b"* BYE Too many\r\n")) as connect:
        first = await connect()
        await first.line()
        second = await connect()
        assert await second.line() == b"* BYE Too many\r\n"
        assert await second.line() == b""
        assert (await first.ask(b"a LOGIN ana secret\r\n")).startswith(b"a OK")


async def test_commands_that_log_nobody_in_do_not_prolong_the_time_to_log_in() -> None:
    async with role(ClientConfig(login_timeout_s=0.3)) as connect:
        client = await connect()
        await client.line()
        answers = [b"* OK"]
        with contextlib.suppress(ConnectionError):
            while answers[-1] and not answers[-1].startswith(b"* BYE"):
                await pause_here(0.02, "a slow writer's pace")
                answers.append(await client.ask(b"a ID NIL\r\n"))
                assert len(answers) < 100
