"""What is the same for every client, whatever it speaks: who failed is in the log, who has gone is not counted, who sends
nothing but nonsense goes, and nothing of that is left behind a login that is given back."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from murder.auth.gate import Gate
from murder.auth.limit import ConnectionLimit
from murder.auth.penalty import Penalties
from murder.config import ClientConfig, MupdateConfig
from murder.errors import Code, Refusal
from murder.log import set_up
from murder.model.address import MAX_HOPS
from murder.model.identity import Identity, Login
from murder.model.name import Namespace
from murder.net.connection import Connection
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.serving.master import MupdateDialogue, MupdateService
from murder.roles.mupdate.serving.stream import Hub
from murder.serve.client import MAX_BAD_COMMANDS, ClientDialogue
from murder.serve.lmtp import LmtpDialogue
from murder.serve.managesieve import COMMON, Capability, SieveDialogue
from murder.serve.pop3 import Pop3Dialogue
from murder.serve.service import ClientService
from murder.wire.pop3 import ok
from tests.kit.listening import listening
from tests.kit.peer import Peer
from tests.rooms.serve.test_imap import OnePassword, Role

LIMITS = ClientConfig(allow_plaintext=True, lmtp_trusted=())
KINDS: dict[str, type[ClientDialogue]] = {
    "imap": Role,
    "pop3": Pop3Dialogue,
    "lmtp": LmtpDialogue,
    "sieve": SieveDialogue,
    "mupdate": MupdateDialogue,
}
BEGIN = {
    "imap": b"a AUTHENTICATE PLAIN\r\n",
    "pop3": b"AUTH PLAIN\r\n",
    "lmtp": b"AUTH PLAIN\r\n",
    "sieve": b'AUTHENTICATE "PLAIN"\r\n',
    "mupdate": b'a AUTHENTICATE "PLAIN"\r\n',
}
GOOD = {
    "imap": b"a CAPABILITY",
    "pop3": b"CAPA",
    "lmtp": b"NOOP",
    "sieve": b"NOOP",
    "mupdate": b'a STARTTLS "x"',
}
RESPONSE = base64.b64encode(b"\0anna\0wrong") + b"\r\n"


class Filters(SieveDialogue):
    """Scripts that nobody keeps."""

    TABLE = COMMON

    def __init__(self, connection: Connection, service: ClientService) -> None:
        super().__init__(connection, service, 1024)

    def language(self) -> Sequence[Capability]:
        return [(b"SIEVE", b"")]


class Maildrop(Pop3Dialogue):
    """One that opens, or not."""

    async def open_maildrop(self, login: Login) -> bytes:
        if login.user == "full":
            raise Refusal(Code.UNAVAILABLE, "Not now")
        return ok("here you are")


MADE: dict[str, type[ClientDialogue]] = {"pop3": Maildrop, "sieve": Filters}


def dialogue_of(kind: str, connection: Connection, gate: Gate, folder: Path) -> ClientDialogue:
    if kind == "mupdate":
        mailboxes = MailboxList.open(folder / "list")
        hub = Hub(mailboxes, 2**20)
        config = MupdateConfig(allow_plaintext=True, users=("anna",))
        ledger = Ledger(mailboxes, hub.committed, inline=True)
        return MupdateDialogue(
            connection, MupdateService("mupdate.test", config, gate, mailboxes, hub, ledger)
        )
    service = ClientService("backend", "be1.test", Namespace(), gate, LIMITS, None)
    make: Callable[..., ClientDialogue] = MADE.get(kind, KINDS[kind])
    return make(connection, service)


@asynccontextmanager
async def met(
    kind: str, folder: Path, most: int = 2, believed: Sequence[str] = ()
) -> AsyncIterator[tuple[Peer, ClientDialogue]]:
    """A client and the dialogue it has come to, behind its greeting. `believed`: whose word on a client's address."""
    gate = Gate(
        OnePassword(),
        allow_plaintext=True,
        penalties=Penalties(0, 0),
        connections=ConnectionLimit(most),
        client_address_from=tuple(map(ip_network, believed)),
    )
    made: list[ClientDialogue] = []

    def serve(connection: Connection) -> ClientDialogue:
        made.append(dialogue_of(kind, connection, gate, folder))
        return made[0]

    async with listening(serve) as place:
        peer = await Peer.at(place.port)
        try:
            if kind in ("mupdate", "sieve"):
                await peer.until(b"* OK" if kind == "mupdate" else b"OK")
            else:
                await peer.line()
            yield peer, made[0]
        finally:
            await peer.close()


def logged(capfd: pytest.CaptureFixture[str], event: str) -> dict[str, Any]:
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (found,) = [line for line in lines if line["event"] == event]
    return dict(found)


@pytest.mark.parametrize("kind", KINDS)
async def test_who_failed_to_log_in_by_sasl_is_in_the_log(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up("info", "json")
    async with met(kind, tmp_path) as (peer, _):
        peer.send(BEGIN[kind])
        assert (await peer.line())[:4] in (b"+ ", b"334 ", b"", b'""')
        peer.send(b'"%b"\r\n' % RESPONSE.strip() if kind == "sieve" else RESPONSE)
        await peer.line()
    line = logged(capfd, "login.failed")
    assert (line["user"], line["protocol"]) == ("anna", kind)


@pytest.mark.parametrize("kind", KINDS)
async def test_who_sends_nothing_but_nonsense_goes(kind: str, tmp_path: Path) -> None:
    async with met(kind, tmp_path) as (peer, dialogue):
        for number in range(MAX_BAD_COMMANDS):
            assert dialogue.bad_commands == number
            assert not dialogue.is_closing
            peer.send(b"a XYZZY\r\n")
            await peer.line()
        assert dialogue.is_closing


@pytest.mark.parametrize("kind", ["imap", "pop3", "lmtp", "sieve"])
async def test_a_command_that_is_one_ends_the_row(kind: str, tmp_path: Path) -> None:
    async with met(kind, tmp_path) as (peer, dialogue):
        peer.send(b"a XYZZY\r\na XYZZY\r\n" + GOOD[kind] + b"\r\n")
        await peer.line()
        await peer.line()
        await peer.line()
        assert dialogue.bad_commands == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_login_that_is_given_back_leaves_nothing(kind: str, tmp_path: Path) -> None:
    async with met(kind, tmp_path, most=1) as (_, dialogue):
        login = Login("anna", Identity("anna"))
        dialogue.count_in(login)
        dialogue.count_in(login)  # again: it is one connection
        dialogue.entered_as(login, 1800.0)
        assert dialogue.log_facts()["user"] == "anna"
        if kind != "imap":  # whose session is to have been logged in
            dialogue.forget_login()
            assert "user" not in dialogue.log_facts()
            assert not dialogue.activity_counts
            # the sum of both may be rounded up
            assert dialogue.time_left_s <= dialogue.service.login_timeout_s + 1e-6
            dialogue.service.gate.connections.enter("anna")  # there is room
            dialogue.service.gate.connections.leave("anna")


@pytest.mark.parametrize("user", ["full", "anna"])
async def test_a_maildrop_that_does_not_open_is_not_counted(user: str, tmp_path: Path) -> None:
    async with met("pop3", tmp_path, most=1) as (peer, dialogue):
        peer.send(b"USER %b\r\nPASS secret\r\n" % user.encode())
        await peer.line()
        answer = await peer.line()
        connections = dialogue.service.gate.connections
        if user == "full":
            assert answer.startswith(b"-ERR")
            connections.enter(user)
            connections.leave(user)
        else:
            assert answer.startswith(b"+OK")
            with pytest.raises(Refusal):
                connections.enter(user)


TOLD = {
    "imap": b'i ID ("x-originating-ip" "192.0.2.7" "x-session-id" "s")\r\n',
    "sieve": b"XCLIENT ADDR=192.0.2.7 SESSION=s\r\n",
}
LOGIN = {
    "imap": b"a LOGIN anna secret\r\n",
    "sieve": b'AUTHENTICATE "PLAIN" "AGFubmEAc2VjcmV0"\r\n',
}


@pytest.mark.parametrize("kind", TOLD)
async def test_who_was_in_through_a_proxy_is_not_believed_as_the_proxy(
    kind: str, tmp_path: Path
) -> None:
    end = {"imap": b"i ", "sieve": b""}[kind]
    async with met(kind, tmp_path, believed=["127.0.0.0/8"]) as (peer, dialogue):
        peer.send(TOLD[kind])
        await peer.until(end)
        assert dialogue.connection.peer == "192.0.2.7"
        peer.send(LOGIN[kind])
        await peer.until({"imap": b"a OK", "sieve": b"OK"}[kind])
        dialogue.forget_login()  # UNAUTHENTICATE, which the proxy passes on as all else
        if isinstance(dialogue, SieveDialogue):
            dialogue.session.logged_out()
        peer.send(TOLD[kind].replace(b"192.0.2.7", b"192.0.2.99"))
        await peer.until(end)
        assert dialogue.connection.peer == "192.0.2.7"


async def test_whose_connection_a_proxys_own_was_says_nothing_of_the_next_user(
    tmp_path: Path,
) -> None:
    async with met("imap", tmp_path, believed=["127.0.0.0/8"]) as (peer, dialogue):
        peer.send(TOLD["imap"])
        await peer.until(b"i ")
        peer.send(LOGIN["imap"])
        await peer.until(b"a OK")
        dialogue.login = Login("anna", Identity("anna"), proxy="frontend")
        dialogue.forget_login()
        assert (dialogue.connection.peer, dialogue.session_told) == ("127.0.0.1", "")


async def test_an_address_that_a_proxy_tells_has_no_zone_for_that_is_any_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with met("imap", tmp_path) as (_, dialogue):
        dialogue.is_clients("fe80::1%x TTL=0\r\nuser=anna", "143", "s")
        assert dialogue.connection.peer == "fe80::1"
    async with met("lmtp", tmp_path) as (_, dialogue):
        assert isinstance(dialogue, LmtpDialogue)
        monkeypatch.setattr(LmtpDialogue, "may_deliver", True)
        dialogue._xclient(b"ADDR=IPV6:fe80::1%x+0Auser=anna")
        assert dialogue.peer_address == "fe80::1"


async def test_nothing_that_a_proxy_told_before_tls_counts_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begin_tls(_: object) -> None:
        pass

    async with met("pop3", tmp_path) as (_, dialogue):
        monkeypatch.setattr(dialogue, "begin_tls", begin_tls)
        monkeypatch.setattr(dialogue, "service", SimpleNamespace(tls=object(), role="backend"))
        for words in ([b"ADDR=192.0.2.7", b"TTL=0"], [b"SESSION=s", b"TTL=0"]):
            dialogue.take_xclient(words)
            await dialogue.switch_to_tls(b"")
            assert dialogue.connection.peer == "127.0.0.1"
            assert (dialogue.session_told, dialogue.connection.hops_left) == ("", MAX_HOPS)
        monkeypatch.undo()
