"""A frontend as a multiplexor before real Dovecots: whole sessions, for users who are in no mailbox list."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from murder.api.auth import Identity
from murder.config.popmap import parse_popmap
from murder.config.sections import MultiplexorConfig, ServerConfig
from murder.pki.authority import init_authority, issue
from murder.roles.frontend.multiplexor.find import Finder, server_by_hash
from murder.roles.frontend.shared import Frontend
from tests.kit.peer import Peer
from tests.kit.programs.dovecot import PROXY, Dovecot, dovecot, why_not
from tests.kit.sections import server_section
from tests.kit.waiting import until_soon
from tests.rooms.frontend.server import Parts, Running, running_frontend

USERS = {"dora": "own", "emil": "his"}
MORE = (
    "login_trusted_networks = 127.0.0.0/8",
    "auth_failure_delay = 0",
    "service anvil {\nunix_listener anvil-auth-penalty {\nmode = 0\n}\n}",
)


class AtHome(Parts):
    """Where the directory says that everybody is; `secret` is their password."""

    def __init__(self, host: str = "") -> None:
        self._host = host

    async def verify(self, user: str, password: bytes) -> Identity | None:
        return Identity(user, host=self._host) if password == b"secret" else None


@pytest.fixture(scope="module")
def dove() -> Iterator[Dovecot]:
    if reason := why_not():
        pytest.skip(reason)
    with dovecot(USERS, more=MORE) as running:
        yield running


def section(server: Dovecot, **more: Any) -> ServerConfig:
    given = {"tls": "none", "auth": "plain", "proxy_user": PROXY[0], "proxy_password": PROXY[1]}
    return server_section(address="127.0.0.1", **{**given, **server.ports, **more})


@asynccontextmanager
async def multiplexor(
    folder: Path,
    servers: Mapping[str, ServerConfig],
    host: str = "",
    users: Mapping[str, str] | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """`settings` are of [frontend.multiplexor]; `users` are in the mailbox list, by server."""
    async with running_frontend(
        folder,
        {},
        users or {},
        parts=AtHome(host),
        sections=servers,
        mode="multiplexor",
        multiplexor=MultiplexorConfig(**settings),
    ) as running:
        yield running


def frontend_of(running: Running) -> Frontend:
    assert running.role.frontend is not None
    return running.role.frontend


def table_of(running: Running) -> Finder:
    multiplexor = frontend_of(running).multiplexor
    assert multiplexor is not None
    return multiplexor.finder


async def entered(running: Running, user: str, password: str = "secret", local: str = "") -> Peer:
    """A client that is in."""
    port = running.ports["imap"]
    source = (local, 0) if local else None
    peer = Peer(*await asyncio.open_connection("127.0.0.1", port, local_addr=source))
    await peer.line()
    said = await peer.ask(f"a LOGIN {user} {password}".encode())
    assert said[-1].startswith(b"a OK [CAPABILITY IMAP4rev1 "), said
    return peer


async def refused(running: Running, user: str, password: str = "secret") -> bytes:
    """What a client is told that does not come in."""
    peer = await Peer.at(running.ports["imap"])
    await peer.line()
    said = await peer.ask(f"a LOGIN {user} {password}".encode())
    await peer.close()
    return said[-1]


async def test_a_session_goes_to_the_server_that_the_directory_names(
    tmp_path: Path, dove: Dovecot
) -> None:
    async with multiplexor(tmp_path, {"dove": section(dove)}, host="dove") as running:
        peer = await entered(running, "dora", local="127.0.0.7")
        peer.send(b"b APPEND INBOX {5}\r\n")
        assert (await peer.line()).startswith(b"+ ")
        peer.send(b"A: b\n\r\nc STATUS INBOX (MESSAGES)\r\n")
        assert b"* STATUS INBOX (MESSAGES 1)" in await peer.until(b"c OK")
        assert (await peer.ask(b"d SELECT INBOX"))[-1].startswith(b"d OK [READ-WRITE]")
        (pipe,) = frontend_of(running).sessions
        session = pipe.describe()  # type: ignore[attr-defined]  # all sessions have it
        assert (session.user, session.state, session.backend) == ("dora", "pipe", "dove")
        peer.send(b"z LOGOUT\r\n")
        await peer.until(b"z OK")
        assert await peer.line() == b"" and peer.reader.at_eof()
        await peer.close()
        await until_soon(lambda: not frontend_of(running).sessions)
    dove.until_logged("user=<dora>", "rip=127.0.0.7")


async def test_what_came_behind_the_login_is_the_servers(tmp_path: Path, dove: Dovecot) -> None:
    async with multiplexor(tmp_path, {"dove": section(dove)}, host="dove") as running:
        peer = await Peer.at(running.ports["imap"])
        peer.send(b'a LOGIN dora secret\r\nb NOOP\r\nc LIST "" INBOX\r\nd LOGOUT\r\n')
        said = b"\n".join(await peer.until(b"d OK"))
        assert b"b OK" in said and b"* LIST (" in said and b"c OK" in said
        await peer.close()


async def test_pop3_is_passed_on(tmp_path: Path, dove: Dovecot) -> None:
    async with multiplexor(tmp_path, {"dove": section(dove)}, host="dove") as running:
        port = running.ports["pop3"]
        peer = Peer(*await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.8", 0)))
        assert (await peer.line()).startswith(b"+OK")
        peer.send(b"USER emil\r\nPASS secret\r\nSTAT\r\n")
        assert await peer.line() == b"+OK Now the password"
        assert await peer.line() == b"+OK Logged in."  # Dovecot's word
        assert await peer.line() == b"+OK 0 0"
        (pipe,) = frontend_of(running).sessions
        assert pipe.describe().state == "pipe"  # type: ignore[attr-defined]
        peer.send(b"QUIT\r\n")
        assert (await peer.line()).startswith(b"+OK") and await peer.line() == b""
        await peer.close()
    dove.until_logged("pop3-login: Info: Login: user=<emil>", "rip=127.0.0.8")


async def test_managesieve_is_passed_on(tmp_path: Path, dove: Dovecot) -> None:
    async with multiplexor(tmp_path, {"dove": section(dove)}, host="dove") as running:
        port = running.ports["sieve"]

        async def greeted() -> tuple[Peer, list[bytes]]:
            came_from = ("127.0.0.9", 0)
            peer = Peer(*await asyncio.open_connection("127.0.0.1", port, local_addr=came_from))
            return peer, await peer.until(b"OK")

        peer, said = await greeted()
        # which Dovecot understands; a greeting waits only a second for its word
        while not any(b"foreverypart" in line for line in said):
            await peer.close()
            frontend_of(running).sieve_looked_at.clear()
            peer, said = await greeted()
        peer.send(b'AUTHENTICATE "PLAIN" "AGVtaWwAc2VjcmV0"\r\nLISTSCRIPTS\r\n')
        assert await peer.line() == b"OK"
        assert b"Listscripts completed" in await peer.line()
        (pipe,) = frontend_of(running).sessions
        assert pipe.describe().state == "pipe"  # type: ignore[attr-defined]
        peer.send(b"LOGOUT\r\n")
        assert (await peer.line()).startswith(b"OK")
        await peer.close()
    dove.until_logged("managesieve-login: Info: Login: user=<emil>", "rip=127.0.0.9")


@pytest.mark.parametrize("protocol", ["pop3", "sieve"])
async def test_other_protocols_pass_passwords_through(
    protocol: str, tmp_path: Path, dove: Dovecot
) -> None:
    servers = {"dove": section(dove, proxy_password="no")}
    async with multiplexor(
        tmp_path, servers, find=("hash",), hash_servers=("dove",), login="through"
    ) as running:
        peer = await Peer.at(running.ports[protocol])
        ok, no = (b"+OK", b"-ERR [AUTH]") if protocol == "pop3" else (b"OK", b"NO")
        await peer.until(ok)
        say = b"AUTH PLAIN %s\r\n" if protocol == "pop3" else b'AUTHENTICATE "PLAIN" "%s"\r\n'
        peer.send(say % base64.b64encode(b"\0dora\0wrong"))
        assert (await peer.line()).startswith(no)
        peer.send(say % base64.b64encode(b"\0dora\0own"))
        assert (await peer.line()).startswith(ok)
        await peer.close()


async def test_a_table_has_users_domains_names_and_ports(tmp_path: Path, dove: Dovecot) -> None:
    table = tmp_path / "popmap"
    port = dove.ports["imap"]
    table.write_text(f"# users\nanna:dora@dove\nemil:dove:{port}\n\n@example.org:dove:1\n")
    async with multiplexor(
        tmp_path, {"dove": section(dove, imap=1)}, find=("table",), table=table
    ) as running:
        assert b"[UNAVAILABLE]" in await refused(running, "anna")  # the section's port
        peer = await entered(running, "emil")
        await peer.close()
        assert b"[NONEXISTENT]" in await refused(running, "nobody")
        table.write_text(f"anna:dora@dove:{port}\n")
        await table_of(running).read_table_again()
        peer = await entered(running, "anna")
        await peer.close()
        assert b"[NONEXISTENT]" in await refused(running, "emil")
        table.write_text("anna\n")
        await table_of(running).read_table_again()
        peer = await entered(running, "anna")  # by the table that could be read
        await peer.close()


async def test_expressions_say_where_who_is_in_no_table_goes(tmp_path: Path, dove: Dovecot) -> None:
    table, expressions = tmp_path / "popmap", tmp_path / "popmap.re"
    table.write_text("anna:dove\n")
    expressions.write_text("^do(.)a$: do$1a@dove\n^(.*)-at-(.*)$: $1@$2\n")
    async with multiplexor(
        tmp_path, {"dove": section(dove)}, find=("table",), table=table, table_regex=expressions
    ) as running:
        for user in ("anna", "dora", "dora-at-dove"):
            peer = await entered(running, user)
            await peer.close()
        assert b"[NONEXISTENT]" in await refused(running, "emil")
        # who logs in does not choose where the proxy user's password is sent
        assert b"[UNAVAILABLE]" in await refused(running, "dora-at-127.0.0.1")
        expressions.write_text("(: dove\n")
        await table_of(running).read_table_again()
        peer = await entered(running, "dora")
        await peer.close()


async def test_users_own_passwords_are_carried_on(tmp_path: Path, dove: Dovecot) -> None:
    """Checked here first; the server has the last word."""
    (dove.folder / "users").write_text("dora:own\nemil:secret\n")
    async with multiplexor(
        tmp_path, {"dove": section(dove, proxy_password="no")}, host="dove", login="password"
    ) as running:
        peer = await entered(running, "emil")
        await peer.close()
        assert b"[AUTHENTICATIONFAILED]" in await refused(running, "emil", "wrong")
        assert b"[UNAVAILABLE]" in await refused(running, "dora")
        peer = await Peer.at(running.ports["imap"])
        assert b"AUTH=PLAIN AUTH=LOGIN]" in await peer.line()  # nothing that keeps the password
        await peer.close()
    (dove.folder / "users").write_text("dora:own\nemil:his\n")


async def test_passwords_that_only_the_server_knows(tmp_path: Path, dove: Dovecot) -> None:
    servers = {"dove": section(dove, proxy_password="no")}
    async with multiplexor(
        tmp_path, servers, find=("hash",), hash_servers=("dove",), login="through"
    ) as running:
        peer = await entered(running, "dora", "own")
        await peer.close()
        assert b"[AUTHENTICATIONFAILED]" in await refused(running, "dora", "secret")
        assert b"[AUTHENTICATIONFAILED]" in await refused(running, "nobody", "own")
        assert b"[AUTHENTICATIONFAILED]" in await refused(running, "dora", '""')
        peer = await Peer.at(running.ports["imap"])
        await peer.line()
        for number in range(5):
            said = await peer.ask(b"%d AUTHENTICATE PLAIN AGRvcmEAbm8=" % number)
        assert said[-1].startswith(b"* BYE") or b"BYE" in await peer.line()
        await peer.close()


async def test_a_password_goes_nowhere_without_tls_that_the_server_shall_have(
    tmp_path: Path, dove: Dovecot
) -> None:
    servers, before = {"dove": section(dove, tls="starttls")}, dove.log()
    async with multiplexor(
        tmp_path, servers, find=("hash",), hash_servers=("dove",), login="through"
    ) as running:
        assert b"[UNAVAILABLE]" in await refused(running, "dora", "own")
    assert "dora" not in dove.log().removeprefix(before)


@pytest.mark.parametrize("login", ["proxy", "password"])
async def test_a_server_under_tls_is_believed_by_its_authority(tmp_path: Path, login: str) -> None:
    if reason := why_not():
        pytest.skip(reason)
    own, others = tmp_path / "own", tmp_path / "others"
    for folder in (own, others):
        folder.mkdir()
        init_authority(folder)
    made = issue(own, "localhost", ["backend"])
    with dovecot({"dora": "secret"}, tls=(made.certificate, made.key), more=MORE) as dove:
        for ca, name in ((own, "localhost"), (others, "localhost"), (own, "imap.test")):
            one = section(dove, tls="starttls", ca=ca / "ca.pem", tls_name=name)
            folder = tmp_path / f"{ca.name}-{name}"
            folder.mkdir()
            async with multiplexor(
                folder, {"d.test": one}, find=("hash",), hash_servers=("d.test",), login=login
            ) as running:
                if (ca, name) == (own, "localhost"):
                    peer = await entered(running, "dora")
                    await peer.ok(b"SELECT INBOX")
                    await peer.close()
                else:
                    assert (await refused(running, "dora")).startswith(b"a NO [UNAVAILABLE]")


def test_a_hash_moves_nobody_but_who_must() -> None:
    users = [f"user{number}" for number in range(2000)]
    three, four = ("a", "b", "c"), ("a", "b", "c", "d")
    before = {user: server_by_hash(user, three) for user in users}
    after = {user: server_by_hash(user, four) for user in users}
    moved = [user for user in users if before[user] != after[user]]
    assert {after[user] for user in moved} == {"d"} and 400 < len(moved) < 600
    assert all(600 < list(before.values()).count(server) < 740 for server in three)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("anna", "line 1: write `server`"),
        ("anna:", "line 1: write `server`"),
        (":be1", "line 1: write `user:server`"),
        ("a:be1\nb:@be1", "line 2: no user before the @"),
        ("a:be1:noport", "line 1: 'noport' is no port"),
        ("a:be1:70000", "is no port"),
        ("a:2001:db8::1", "write an IPv6 address in brackets"),
    ],
)
def test_a_table_that_is_wrong_says_where(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("[", r"\[")):
        parse_popmap(text)


def test_a_table_is_read_as_perdition_does() -> None:
    table = parse_popmap("horms:foo.bar:110\njain:jane@foo.bar\nhorms:other\nsix:[::1]:imap2\n")
    assert table == {
        "horms": ("foo.bar", 110, ""),
        "jain": ("foo.bar", 0, "jane"),
        "six": ("::1", 143, ""),
    }
