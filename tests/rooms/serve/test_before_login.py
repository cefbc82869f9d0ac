"""What somebody gets who has not logged in: so much time in all, and so much memory."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from murder.auth.gate import Gate
from murder.auth.penalty import Penalties
from murder.config import ClientConfig
from murder.model.name import Namespace
from murder.net.connection import Connection
from murder.net.dialogue import OVERDUE_S, Dialogue
from murder.net.tls import client_context, server_context
from murder.serve.imap import ImapDialogue
from murder.serve.line import LineDialogue
from murder.serve.lmtp import LmtpDialogue
from murder.serve.pop3 import Pop3Dialogue
from murder.serve.service import ClientService
from tests.kit.listening import listening
from tests.rooms.serve.test_imap import Client, OnePassword, Role, certificates

__all__ = ["certificates"]  # a fixture

LIMITS = ClientConfig(allow_plaintext=True, lmtp_trusted=())
Make = Callable[[Connection, ClientService], Dialogue]


@asynccontextmanager
async def met(
    make: Make,
    *,
    tls: ssl.SSLContext | None = None,
    trust: Path | None = None,
    limits: ClientConfig = LIMITS,
) -> AsyncIterator[tuple[Client, Dialogue]]:
    """A client and the dialogue that it has come to; the greeting is read."""
    gate = Gate(OnePassword(), allow_plaintext=True, penalties=Penalties(0, 0))
    service = ClientService("backend", "be1.test", Namespace(), gate, limits, None)
    made: list[Dialogue] = []

    def serve(connection: Connection) -> Dialogue:
        made.append(make(connection, service))
        return made[0]

    async with listening(serve, tls=tls) as place:
        options: dict[str, Any] = {}
        if trust is not None:
            options = {"ssl": client_context(trust, None, None), "server_hostname": "be1.test"}
        client = Client(*await asyncio.open_connection(*place.address, **options))
        await client.line()
        yield client, made[0]


ASKED = [
    (Role, b"a AUTHENTICATE PLAIN\r\n", b"+ \r\n", b"*\r\n", b"a BAD", b"* BYE Autologout"),
    (Pop3Dialogue, b"AUTH PLAIN\r\n", b"+ \r\n", b"*\r\n", b"-ERR", b"-ERR [SYS/TEMP] Autologout"),
    (LmtpDialogue, b"AUTH PLAIN\r\n", b"334 \r\n", b"*\r\n", b"501", b"421"),
]


@pytest.mark.parametrize(("make", "begin", "asked", "cancel", "refused", "goodbye"), ASKED)
async def test_exchanges_that_are_begun_again_and_again_have_no_more_time(
    make: Make, begin: bytes, asked: bytes, cancel: bytes, refused: bytes, goodbye: bytes
) -> None:
    async with met(make) as (client, dialogue):
        assert await client.ask(begin) == asked
        assert (await client.ask(cancel)).startswith(refused)
        dialogue.active_at -= LIMITS.login_timeout_s  # as if so much time had passed
        assert await client.ask(begin) == asked
        assert (await client.line()).startswith(goodbye)
        assert await client.line() == b""


@pytest.mark.parametrize("make", [Role, Pop3Dialogue, LmtpDialogue])
async def test_while_a_handler_runs_the_time_to_log_in_is_looked_at(make: Make) -> None:
    async with met(make) as (client, dialogue):
        dialogue.active_at -= LIMITS.login_timeout_s
        dialogue._task = asyncio.create_task(asyncio.sleep(0))
        now = asyncio.get_running_loop().time()
        again = dialogue.look(now)
        assert again is not None
        assert again - now <= OVERDUE_S
        dialogue._task = None
        assert dialogue.look(now) is None
        while await client.line():
            pass


@pytest.mark.parametrize(
    ("make", "line"),
    [(Role, b"a LOGIN ana "), (Pop3Dialogue, b"USER "), (LmtpDialogue, b"LHLO ")],
)
async def test_a_line_before_the_login_is_short(make: Make, line: bytes) -> None:
    async with met(make) as (client, _):
        client.send(line + b"x" * 30_000)
        assert b"a line may have 20480 octets" in await client.line()


async def test_a_line_of_who_delivers_without_a_login_is_short_too_and_is_let_go_of() -> None:
    async with met(LmtpDialogue, limits=ClientConfig()) as (client, dialogue):
        client.send(b"RCPT TO:<" + b"x" * 200_000)
        assert b"a line may have 20480 octets" in await client.line()
        assert dialogue.session.held == 0


async def test_after_the_login_it_may_be_long() -> None:
    async with met(Role) as (client, dialogue):
        assert isinstance(dialogue, ImapDialogue)
        assert (await client.ask(b"a LOGIN ana secret\r\n")).startswith(b"a OK")
        assert (await client.ask(b"b XX " + b"x" * 60_000 + b"\r\n")).startswith(b"b BAD")
        dialogue.forget_login()
        client.send(b"c XX " + b"x" * 60_000 + b"\r\n")
        assert b"a line may have 20480 octets" in await client.line()


async def test_literals_of_one_command_are_bounded_together() -> None:
    async with met(Role) as (client, _):
        client.send(b"a LOGIN " + b"{4096+}\r\n" + (b"x" * 4096 + b" {4096+}\r\n") * 20)
        assert b"a command may have 32768 octets" in await client.line()


@pytest.mark.parametrize(
    ("make", "command", "goodbye"),
    [
        (Role, b"a LOGIN ana wrong\r\n", b"* BYE"),
        (Pop3Dialogue, b"USER ana\r\nPASS wrong\r\n", b"-ERR too much"),
    ],
)
async def test_who_sends_much_ahead_of_the_login_goes(
    make: Make, command: bytes, goodbye: bytes
) -> None:
    async with met(make) as (client, dialogue):
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def sleep(seconds: float) -> None:
            asked.set()
            await go_on.wait()

        assert isinstance(dialogue, ImapDialogue | LineDialogue)
        dialogue.service.gate.penalties = Penalties(sleep=sleep)
        client.send(command)
        await asked.wait()
        dialogue.received(b"x" * 100_000)  # as one read may bring
        while not (line := await client.line()).startswith(goodbye):
            assert line.startswith(b"+OK")
        assert dialogue.session.held == 0
        go_on.set()


async def waits_with_nothing_read(certificates: Path) -> None:
    tls = server_context(
        certificates / "be1.test.pem", certificates / "be1.test.key", certificates / "ca.pem"
    )
    async with met(Role, tls=tls, trust=certificates / "ca.pem") as (client, dialogue):
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def sleep(seconds: float) -> None:
            asked.set()
            await go_on.wait()

        assert isinstance(dialogue, ImapDialogue)
        dialogue.service.gate.penalties = Penalties(sleep=sleep)
        client.send(b"a LOGIN ana wrong\r\n")
        await asked.wait()
        client.send(b"b LOGIN ana secret\r\n")
        for _ in range(100):
            await asyncio.sleep(0)
        assert dialogue.session.held == 0
        transport = dialogue.connection.transport
        assert transport.get_read_buffer_size() == 0  # type: ignore[attr-defined] # of TLS
        go_on.set()
        assert (await client.line()).startswith(b"a NO")
        dialogue.service.gate.penalties = Penalties(0, 0)
        assert (await client.line()).startswith(b"b OK")
        assert (await client.ask(b"c NOOP\r\n")).startswith(b"c OK")


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_of_who_waits_for_the_answer_to_a_wrong_password_nothing_is_read(
    certificates: Path, loop_factory: object
) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type] # one of two
        runner.run(waits_with_nothing_read(certificates))


async def test_a_node_that_shows_only_its_certificate_has_all_the_time_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with met(LmtpDialogue) as (_, dialogue):
        assert isinstance(dialogue, LmtpDialogue)
        assert not dialogue.activity_counts

        async def switch_to_tls(agreed: bytes) -> None:
            monkeypatch.setattr(dialogue.service.gate, "is_proxy", lambda connection: True)

        monkeypatch.setattr(dialogue, "switch_to_tls", switch_to_tls)
        monkeypatch.setattr(LineDialogue, "may_start_tls", True)
        running = dialogue._starttls(b"")
        assert running is not None
        await running
        assert dialogue.activity_counts
        assert dialogue.idle_timeout_s == LIMITS.idle_timeout_s
