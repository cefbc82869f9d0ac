"""Multiplexors that lead to themselves: a login comes to an end there, after few rounds, whichever password it has."""

import asyncio
import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from murder.api.auth import Identity
from murder.config.sections import AuthConfig, MultiplexorConfig
from murder.log import set_up
from murder.model.address import MAX_HOPS
from tests.kit.peer import Peer
from tests.rooms.frontend.server import Parts, running_frontend

BELIEVED = AuthConfig(failure_delay_s=0, client_address_from=(ip_network("127.0.0.0/8"),))
SAID = {
    "imap": [b"a LOGIN ana secret"],
    "pop3": [b"USER ana", b"PASS secret"],
    "sieve": [b'AUTHENTICATE "PLAIN" "AGFuYQBzZWNyZXQ="'],
}
REFUSED = {"imap": b"a NO [UNAVAILABLE]", "pop3": b"-ERR [SYS/TEMP]", "sieve": b"NO (TRYLATER)"}


class Circle:
    """A server that is the multiplexor again, by another address."""

    def __init__(self) -> None:
        self.port = self.rounds = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.rounds += 1
        there, back = await asyncio.open_connection("127.0.0.1", self.port)

        async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            while octets := await source.read(65536):
                to.write(octets)
            to.close()

        await asyncio.gather(copy(reader, back), copy(there, writer))


async def answered(port: int, kind: str) -> bytes:
    """The end of a login."""
    peer = await Peer.at(port)
    line = await peer.line()
    while kind == "sieve" and not line.startswith(b"OK"):
        line = await peer.line()
    for command in SAID[kind]:
        peer.send(command + b"\r\n")
        line = await peer.line()
    await peer.close()
    return line


@pytest.mark.parametrize("login", ["through", "password"])
@pytest.mark.parametrize("kind", SAID)
async def test_a_circle_of_multiplexors_ends(kind: str, login: str, tmp_path: Path) -> None:
    circle = Circle()
    config = MultiplexorConfig(
        find=("hash",),
        hash_servers=("be1.test",),
        login=login,  # type: ignore[arg-type]  # one of those that it takes
    )
    async with running_frontend(
        tmp_path,
        {"be1.test": (kind, circle)},
        {},
        auth=BELIEVED,
        mode="multiplexor",
        multiplexor=config,
    ) as running:
        circle.port = running.ports[kind]
        assert (await answered(circle.port, kind)).startswith(REFUSED[kind])
        before = circle.rounds
        assert before <= MAX_HOPS + 2  # ManageSieve looks at its servers once, before it greets
        assert (await answered(circle.port, kind)).startswith(REFUSED[kind])
        assert circle.rounds - before == MAX_HOPS + 1


class Here(Parts):
    """The directory says that everybody's server is this port."""

    port = 0

    async def verify(self, user: str, password: bytes) -> Identity | None:
        return Identity(user, host=f"127.0.0.1:{self.port}")


@pytest.mark.parametrize("kind", SAID)
async def test_a_multiplexor_knows_its_own_address(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No proxy need be believed for that."""
    set_up("info", "json")
    here = Here()
    async with running_frontend(
        tmp_path,
        {},
        {},
        parts=here,
        mode="multiplexor",
        multiplexor=MultiplexorConfig(find=("host",), login="password"),
    ) as running:
        here.port = running.ports[kind]
        assert (await answered(here.port, kind)).startswith(REFUSED[kind])
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (failed,) = [line for line in lines if line["event"] == "upstream.failed"]
    assert failed["problem"].startswith("it is this node itself")
