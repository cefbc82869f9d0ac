"""A protocol that a plugin brings: one file beside murder, named in murder.toml, and everything knows it."""

import asyncio
import base64
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from murder.api.service import Service
from murder.auth.penalty import Penalties
from murder.config import load_config
from murder.hooks import load_plugins
from murder.net.dialogue import Dialogue
from murder.net.listener import Bounds
from murder.node.process.server import ports_of
from tests.kit.demo import Demo, running_demo
from tests.kit.listening import listening
from tests.kit.peer import BlockingPeer, Peer
from tests.kit.ports import free_ports
from tests.kit.process import run_murder, serving
from tests.kit.waiting import Naps, turns, until_soon
from tests.rooms.frontend.server import Parts, Running, running_frontend

TOY = Path(__file__).with_name("service_toy.py")
CONFIG = """\
[node]
name = "be1.example.org"
data = "data"
[backend]
workers = 2
imap = ["127.0.0.1:{imap}"]
services = {{ {key} = ["127.0.0.1:{toy}"] }}
max_connections_per_address = {room}
[plugins]
path = ["site"]
use = ["service_toy"]
[plugins.service_toy]
motto = "hi"
[plugins.auth_file]
file = "users"
"""


def write_config(folder: Path, imap: int, toy: int, room: int = 0, key: str = "toy") -> Path:
    (folder / "site").mkdir(exist_ok=True)
    shutil.copy(TOY, folder / "site")
    (folder / "users").touch(mode=0o600)
    file = folder / "murder.toml"
    file.write_text(CONFIG.format(imap=imap, toy=toy, room=room, key=key))
    return file


def in_base64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


# --- configuration, listeners, reload


def test_its_keys_are_in_the_configuration(tmp_path: Path) -> None:
    imap, toy = free_ports(2)
    file = write_config(tmp_path, imap, toy)
    assert ": good" in run_murder("config", "check", "--config", file, "--role", "backend").stdout
    shown = run_murder("config", "show", "--config", file).stdout
    assert f'services = {{"toy" = ["127.0.0.1:{toy}"]}}' in shown
    with socket.create_server(("127.0.0.1", toy)):
        said = run_murder("config", "check", "--config", file, "--role", "backend", code=2).stderr
    assert "backend.services.toy" in said and "the port is in use" in said


def test_keys_and_tls_that_are_wrong_are_told(tmp_path: Path) -> None:
    imap, toy = free_ports(2)
    command = "config", "check", "--role", "backend", "--config"
    said = run_murder(*command, write_config(tmp_path, imap, toy, key="toi"), code=2).stderr
    assert "backend.services.toi: unknown protocol; did you mean `toy`?" in said
    said = run_murder(*command, write_config(tmp_path, imap, toy, key="toys"), code=2).stderr
    assert "backend.services.toys: needs a certificate" in said
    said = run_murder(*command, write_config(tmp_path, toy, toy), code=2).stderr
    assert f"backend.services.toy: 127.0.0.1:{toy} is backend.imap's already" in said


def test_a_default_is_listened_on_where_nothing_is_configured(tmp_path: Path) -> None:
    imap, toy, other = free_ports(3)
    file = write_config(tmp_path, imap, other)
    configured = f'services = {{ toy = ["127.0.0.1:{other}"] }}\n'
    text = file.read_text().replace('motto = "hi"', f'listen = "127.0.0.1:{toy}"')
    assert configured in text

    def listened_on(text: str) -> list[tuple[str, int]]:
        file.write_text(text)
        config = load_config(file)
        services = load_plugins(config, ["backend"]).services("backend")
        ports = ports_of(config, "backend", services)
        return [(port.dotted, port.endpoint.port) for port in ports if port.protocol == "toy"]

    assert listened_on(text) == [("backend.services.toy", other)]
    assert listened_on(text.replace(configured, "services = { toy = [] }\n")) == []
    assert listened_on(text.replace(configured, "")) == [("backend.services.toy", toy)]
    with serving(file, "--role", "backend") as node:
        node.until_said("server.ready")
        assert BlockingPeer("127.0.0.1", toy).line() == "OK toy at be1.example.org"


def test_workers_listen_and_reload(tmp_path: Path) -> None:
    imap, toy, other = free_ports(3)
    with serving(write_config(tmp_path, imap, toy, room=1), "--role", "backend") as node:
        node.until_said("server.ready")
        client = BlockingPeer("127.0.0.1", toy)
        assert client.line() == "OK hi at be1.example.org"
        assert BlockingPeer("127.0.0.1", toy).line() == "NO room"
        write_config(tmp_path, imap, other)
        node.signal(signal.SIGHUP)
        node.until_said('"key": "backend.services", "event": "config.needs_restart"')
        node.until_said("role.reloaded", 2)
        assert BlockingPeer("127.0.0.1", toy).line() == "OK hi at be1.example.org"
        node.signal(signal.SIGTERM)
        assert client.line() == "NO shutting down"


# --- a whole murder


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", "2", "--plugin", str(TOY)) as running:
        yield running


def test_a_demo_has_it_and_a_frontend_passes_its_user_on(demo: Demo) -> None:
    frontend = demo.frontend
    client = BlockingPeer(frontend["host"], frontend["toy"])
    assert client.line() == f"OK toy at {frontend['name']}"
    client.send("STARTTLS\r\n")
    assert client.line() == "OK TLS"
    context = ssl.create_default_context(cafile=demo.info["ca"])
    client.sock = context.wrap_socket(client.sock, server_hostname=frontend["name"])
    client.stream = client.sock.makefile("rb")
    client.send("WHERE user1\r\n")
    assert client.line() == "NO Nobody is logged in"
    client.send(f"LOGIN user1 {demo.password}\r\nWHERE user1\r\nWHERE user2\r\nGO user1\r\n")
    assert client.line() == "OK user1"
    where = client.line()
    (home,) = [one for one in demo.backends if f"OK {one['name']}" == where]
    assert client.line().startswith("NO ")  # another's, of which they may not know
    client.send("WHERE user1\r\nECHO 5\r\nhello")
    assert client.line() == f"OK {home['name']}"
    assert client.octets(5) == b"hello"
    assert client.line() == "OK"
    client.send("QUIT\r\n")
    assert client.line() == "OK bye"
    assert client.stream.read() == b""
    log = (demo.folder / home["node"] / "log").read_text()
    (line,) = [one for one in log.splitlines() if "login.succeeded" in one and "toy" in one]
    assert "user=user1" in line and f"proxy={frontend['name']}" in line


def test_a_doctor_knocks_at_it(demo: Demo) -> None:
    said = run_murder("ctl", "doctor", "--config", demo.info["operator"]).stdout
    assert "Everything is well." in said
    file = Path(demo.info["operator"])
    text = file.read_text()
    (closed,) = free_ports(1)
    port = demo.backends[0]["toy"]
    other = file.with_name("other.toml")
    other.write_text(text.replace(f'"toy" = {port}', f'"toy" = {closed}'))
    said = run_murder("ctl", "doctor", "--config", other, code=1).stdout
    assert f"toy ({closed})" in " ".join(said.split())
    name = demo.backends[0]["name"]
    assert f"toy {port}" in run_murder("ctl", "backend", "show", name, "--config", file).stdout
    said = run_murder("ctl", "raw", "toy", name, "--config", file, said="QUIT\r\n").stdout
    assert said.splitlines() == [f"OK toy at {name}", "OK bye"]


# --- bounds, in this process


class WithToy(Parts):
    """The parts of a frontend with the toy."""

    def __init__(self, folder: Path, *, is_open: bool = False) -> None:
        file = write_config(folder, 1, 2)
        if is_open:
            file.write_text(file.read_text().replace('motto = "hi"', "is_open = true"))
        self.plugins = load_plugins(load_config(file), ["frontend"])

    def services(self, role: str) -> Sequence[Service]:
        return self.plugins.services(role)


@asynccontextmanager
async def toy_at(
    folder: Path, *, is_open: bool = False, **frontend: Any
) -> AsyncIterator[tuple[Running, int]]:
    """A frontend with the toy, and where that is."""
    parts = WithToy(folder, is_open=is_open)
    async with running_frontend(folder, {}, {}, parts=parts, **frontend) as running:
        (plugged,) = parts.services("frontend")
        service = running.role.services()[plugged.protocol]
        async with listening(service, Bounds(refusal=plugged.protocol.refusal)) as place:
            yield running, place.port


def session_of(running: Running) -> Dialogue:
    assert running.role.frontend is not None
    (session,) = running.role.frontend.sessions
    return cast(Dialogue, session)


async def test_guesses_are_slow_counted_and_end_the_connection(tmp_path: Path) -> None:
    naps = Naps()
    async with toy_at(tmp_path) as (running, port):
        assert running.role.frontend is not None
        running.role.frontend.gate.penalties = Penalties(sleep=naps.sleep, clock=naps.clock)
        peer = await Peer.at(port)
        await peer.line()
        for number in range(5):
            wrong = in_base64(b"\0user1\0wrong%d" % number)
            peer.send(b"AUTH PLAIN " + wrong + b"\r\n")
            assert await peer.line() == b"NO Wrong user or password"
        assert await peer.line() == b""
        assert len(naps.taken) >= 4


async def test_who_does_not_log_in_is_sent_away_in_time(tmp_path: Path) -> None:
    async with toy_at(tmp_path, login_timeout_s=0.3) as (_, port):
        peer = await Peer.at(port)
        await peer.line()
        said = b""
        # for ever, if commands prolonged it: the test's own limit would
        while said != b"NO shutting down":
            peer.send(b"WHERE user1\r\n")
            said = await peer.line()
            assert said.startswith(b"NO ")
        while said:  # what was asked last may be answered, too
            said = await peer.line()


async def test_without_logins_who_is_busy_stays_and_who_is_silent_goes(tmp_path: Path) -> None:
    limits = {"login_timeout_s": 0.1, "idle_timeout_s": 2.0}
    async with toy_at(tmp_path, is_open=True, **limits) as (_, port):
        busy, silent = await Peer.at(port), await Peer.at(port)
        assert await busy.line() == await silent.line()  # the greeting
        end = asyncio.ensure_future(silent.line())
        while not end.done():
            busy.send(b"ECHO 5\r\nhello")
            assert (await busy.octets(5), await busy.line()) == (b"hello", b"OK")
        assert await end == b"NO shutting down"
        assert await silent.line() == b""
        busy.send(b"LOGIN user1 secret\r\n")  # nobody needs to; who wants to may
        assert await busy.line() == b"OK user1"


async def test_what_nobody_takes_is_neither_written_nor_read(tmp_path: Path) -> None:
    async with toy_at(tmp_path) as (running, port):
        peer = await Peer.at(port)
        await peer.line()
        peer.send(b"LOGIN user1 secret\r\n")
        assert await peer.line() == b"OK user1"
        peer.transport.pause_reading()
        session = session_of(running)
        most = 0
        for _ in range(400):
            peer.send(b"ECHO 60000\r\n" + b"x" * 60000)
            await turns()
            most = max(most, session.session.held, session.connection.pending())
        await until_soon(lambda: session.connection.writing_paused, "it stops")
        assert most < 4 * 1024 * 1024
        peer.transport.abort()


async def test_a_stranger_may_not_send_much_ahead(tmp_path: Path) -> None:
    async with toy_at(tmp_path) as (running, port):
        peer = await Peer.at(port)
        await peer.line()
        session = session_of(running)
        peer.transport.pause_reading()
        peer.send((b"ECHO 60000\r\n" + b"x" * 60000) * 400)
        await until_soon(lambda: session.connection.is_lost, "it is cut off")
        peer.transport.abort()


async def test_a_long_line_and_a_long_literal_are_refused(tmp_path: Path) -> None:
    async with toy_at(tmp_path, max_literal_bytes=1000) as (_, port):
        peer = await Peer.at(port)
        await peer.line()
        peer.send(b"ECHO 1001\r\n")
        assert await peer.line() == b"NO more than 1000 octets"
        peer.send(b"x" * 9000)
        assert await peer.line() == b"NO shutting down"
        assert await peer.line() == b""


async def test_a_drain_waits_for_what_is_under_way(tmp_path: Path) -> None:
    async with toy_at(tmp_path) as (running, port):
        peer = await Peer.at(port)
        await peer.line()
        peer.send(b"ECHO 5\r\nhe")
        await until_soon(lambda: session_of(running).session.held == 2, "half of it")
        assert not session_of(running).is_quiet()
        peer.send(b"llo")
        assert await peer.octets(5) == b"hello"
        assert await peer.line() == b"OK"
        await until_soon(lambda: session_of(running).is_quiet(), "it waits for a command")
