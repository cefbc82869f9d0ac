"""A Dovecot proxy before a frontend of ours, which is a multiplexor before a Dovecot: what is told of the client goes all
the way, from who is believed, and from nobody else.
"""

import asyncio
import base64
import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest

from murder.auth.penalty import Penalties
from murder.config.auth import AuthConfig
from murder.config.sections import MultiplexorConfig
from tests.clients.test_multiplexor import MORE, AtHome, section
from tests.kit.peer import Peer
from tests.kit.programs.dovecot import Dovecot, dovecot, why_not
from tests.rooms.frontend.server import Running, running_frontend

NUMBERS = itertools.count(1)
CLIENT, OTHER = "127.0.0.31", "127.0.0.32"
KINDS = ("imap", "pop3", "sieve")


def said(kind: str, user: str) -> list[bytes]:
    """What a client says up to its login."""
    if kind == "imap":
        return [f"a LOGIN {user} hers\r\n".encode()]
    if kind == "pop3":
        return [f"USER {user}\r\n".encode(), b"PASS hers\r\n"]
    plain = base64.b64encode(f"\0{user}\0hers".encode()).decode()
    return [f'AUTHENTICATE "PLAIN" "{plain}"\r\n'.encode()]


ENDS = {"imap": b"a ", "pop3": b"+OK", "sieve": b"OK"}
TOLD = {  # as Dovecot tells it
    "imap": b'i ID ("x-originating-ip" "192.0.2.7" "x-originating-port" "4711" "x-session-id" "s")\r\n',
    "pop3": b"XCLIENT ADDR=192.0.2.7 PORT=4711 SESSION=s TTL=4\r\n",
    "sieve": b"XCLIENT ADDR=192.0.2.7 PORT=4711 SESSION=s TTL=4\r\n",
}


@pytest.fixture(scope="module")
def dove() -> Iterator[Dovecot]:
    """Where dora's mail is, and which takes pia to wherever a file for each protocol says."""
    if reason := why_not():
        pytest.skip(reason)
    passdb = "passdb {{\ndriver = passwd-file\nargs = scheme=PLAIN {}/%u-%s\n}}"
    # each start of a pytest closes the folder of all runs, and Dovecot reads as another user
    with tempfile.TemporaryDirectory(prefix="murder-via-") as folder:
        Path(folder).chmod(0o755)
        with dovecot({"dora": "own"}, more=[*MORE, passdb.format(folder)]) as running:
            object.__setattr__(running, "folder_of_proxied", Path(folder))
            yield running


def passed_on(dove: Dovecot, running: Running, password: str = "secret") -> str:
    """Somebody whom Dovecot logs in here as dora. Another in each test: it looks at a file once a second."""
    user = f"pia{next(NUMBERS)}"
    folder: Path = dove.__dict__["folder_of_proxied"]
    for kind in KINDS:
        file = folder / f"{user}-{kind}"
        there = f"proxy=y host=127.0.0.1 port={running.ports[kind]} destuser=dora pass={password}"
        file.write_text(f"{user}:hers::::::{there}\n")
        file.chmod(0o644)
    return user


@asynccontextmanager
async def multiplexor(folder: Path, dove: Dovecot, *believed: str) -> AsyncIterator[Running]:
    auth = AuthConfig(
        failure_delay_s=0.001,
        max_failure_delay_s=0.001,
        client_address_from=tuple(ip_network(network) for network in believed),
    )
    async with running_frontend(
        folder,
        {},
        {},
        parts=AtHome("dove"),
        sections={"dove": section(dove)},
        mode="multiplexor",
        multiplexor=MultiplexorConfig(),
        auth=auth,
    ) as running:
        yield running


def penalties_of(running: Running) -> Penalties:
    assert running.role.frontend is not None
    return running.role.frontend.gate.penalties


async def come(port: int, kind: str, local: str) -> Peer:
    peer = Peer(*await asyncio.open_connection("127.0.0.1", port, local_addr=(local, 0)))
    await peer.until(b"* OK" if kind == "imap" else ENDS[kind])
    return peer


async def say(peer: Peer, kind: str, lines: list[bytes]) -> bytes:
    """The last answer."""
    answer = b""
    for line in lines:
        peer.send(line)
        answer = await peer.line()
        while kind == "imap" and not answer.startswith((b"a ", b"i ")):
            answer = await peer.line()
    return answer


@pytest.mark.parametrize("kind", KINDS)
async def test_the_clients_address_goes_through_both(
    kind: str, tmp_path: Path, dove: Dovecot
) -> None:
    async with multiplexor(tmp_path, dove, "127.0.0.1/32") as running:
        user = passed_on(dove, running)
        peer = await come(dove.ports[kind], kind, CLIENT)
        assert (await say(peer, kind, said(kind, user))).startswith(
            b"a OK" if kind == "imap" else ENDS[kind]
        )
        frontend = running.role.frontend
        assert frontend is not None
        (pipe,) = frontend.sessions
        assert pipe.describe().address == CLIENT  # type: ignore[attr-defined]  # all sessions have it
        assert {"through", "session"} <= pipe.log_facts().keys()  # type: ignore[attr-defined]
        await peer.close()
    lines = [line for line in dove.log().splitlines() if f"{kind}-login: Info: Login" in line]
    assert "user=<dora>" in lines[-1] and f"rip={CLIENT}" in lines[-1]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_password_through_a_proxy_is_the_clients(
    kind: str, tmp_path: Path, dove: Dovecot
) -> None:
    async with multiplexor(tmp_path, dove, "127.0.0.1/32") as running:
        user = passed_on(dove, running, "wrong")
        peer = await come(dove.ports[kind], kind, OTHER)
        assert not (await say(peer, kind, said(kind, user))).startswith(
            (b"a OK", b"+OK Log", b"OK")
        )
        penalties = penalties_of(running)
        assert penalties.failures(OTHER, "dora") == 1
        assert penalties.failures("127.0.0.1", "dora") == 0
        await peer.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_not_believed_is_themselves_whatever_they_tell(
    kind: str, tmp_path: Path, dove: Dovecot
) -> None:
    async with multiplexor(tmp_path, dove, "127.0.0.1/32") as running:
        peer = await come(running.ports[kind], kind, OTHER)
        answer = await say(peer, kind, [TOLD[kind]])
        assert answer.startswith({"imap": b"i OK", "pop3": b"-ERR"}.get(kind, b"NO"))
        wrong = said(kind, "dora")
        await say(peer, kind, wrong)
        assert penalties_of(running).failures(OTHER, "dora") == 1
        await peer.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_believed_is_so_before_the_login_alone_and_says_what_is_an_address(
    kind: str, tmp_path: Path, dove: Dovecot
) -> None:
    async with multiplexor(tmp_path, dove, "127.0.0.32/32") as running:
        penalties = penalties_of(running)
        peer = await come(running.ports[kind], kind, OTHER)
        wrong = said(kind, "dora")
        for address, counted in (
            (b"nowhere", OTHER),
            (b"::ffff:192.0.2.9", "192.0.2.9"),
            (b"2001:db8::1", "2001:db8::1"),
            (b"192.0.2.7", "192.0.2.7"),
        ):
            await say(peer, kind, [TOLD[kind].replace(b"192.0.2.7", address), *wrong])
            assert penalties.failures(counted, "dora") == 1
        await peer.close()


@pytest.mark.parametrize("kind", ["pop3", "sieve"])
async def test_a_loop_of_proxies_comes_to_an_end(kind: str, tmp_path: Path, dove: Dovecot) -> None:
    async with multiplexor(tmp_path, dove, "127.0.0.0/8") as running:
        peer = await come(running.ports[kind], kind, OTHER)
        right = base64.b64encode(b"\0dora\0secret")
        login = b"AUTH PLAIN %s\r\n" if kind == "pop3" else b'AUTHENTICATE "PLAIN" "%s"\r\n'
        answer = await say(peer, kind, [TOLD[kind].replace(b"TTL=4", b"TTL=0"), login % right])
        assert answer.startswith((b"-ERR [SYS/TEMP]", b"NO (TRYLATER)"))
        await peer.close()
