"""ManageSieve at a frontend: the same dialogues as with a backend, and what a backend that fails costs."""

import asyncio
from pathlib import Path

import pytest

from tests.kit.dialogue import Player, Streams
from tests.kit.peer import Peer
from tests.rooms.backend.delivery.test_managesieve import FILES, LOGIN
from tests.rooms.backend.server import USERS
from tests.rooms.frontend.cluster import running_cluster
from tests.rooms.frontend.server import Speak, running_frontend
from tests.rooms.serve.sieve_kit import greeted


@pytest.mark.parametrize("backends", [1, 2])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_a_frontend_says_what_the_transcript_says(
    file: Path, backends: int, tmp_path: Path
) -> None:
    homes = {f"be{n + 1}.test": USERS[n::backends] for n in range(backends)}
    async with running_cluster(tmp_path, homes) as cluster:

        async def connect(_: str) -> Streams:
            return await greeted(cluster.frontends[0].sieve)

        await Player(connect).play(file.read_text(encoding="utf-8"))


class Backend:
    """A scripted ManageSieve server: it ends the connection at the command that is named, once."""

    def __init__(self, dies_at: bytes = b"", sieve: bytes = b"fileinto body") -> None:
        self.dies_at = dies_at
        self.sieve = sieve
        self.heard: list[bytes] = []

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b'"IMPLEMENTATION" "it"\r\n"SIEVE" "%b"\r\n"SASL" "PLAIN"\r\nOK\r\n' % self.sieve
        )
        while line := await reader.readline():
            word = line.split()[0]
            self.heard.append(word)
            if word == self.dies_at:
                self.dies_at = b""
                return
            if word == b"GETSCRIPT":
                writer.write(b"{300000}\r\n" + b"OK\r\n" * 75000 + b'\r\nOK "that was it"\r\n')
            else:
                writer.write(b"OK\r\n")


@pytest.mark.parametrize("dies_at", [b"", b"LISTSCRIPTS", b"AUTHENTICATE"])
async def test_a_backend_that_is_lost_costs_one_command(dies_at: bytes, tmp_path: Path) -> None:
    backend = Backend()
    async with (
        running_frontend(tmp_path, {"be1": ("sieve", backend.speak)}, {"ana": "be1"}) as running,
        asyncio.timeout(20),
    ):
        reader, writer = await greeted(("127.0.0.1", running.ports["sieve"]))
        backend.dies_at = dies_at
        writer.write(LOGIN)
        assert await reader.readline() == b"OK\r\n"
        said = await reader.readline()
        if dies_at == b"AUTHENTICATE":
            assert said.startswith(b"NO (TRYLATER) ")
            writer.write(LOGIN)
            said = await reader.readline()
        assert said == b"OK\r\n"
        writer.write(b"LISTSCRIPTS\r\n")
        said = await reader.readline()
        assert (
            said.startswith(b"NO (TRYLATER) ") if dies_at == b"LISTSCRIPTS" else said == b"OK\r\n"
        )
        writer.write(b'GETSCRIPT "x"\r\nLISTSCRIPTS\r\nLOGOUT\r\n')
        rest = await reader.read()
        writer.close()
        assert rest == b"{300000}\r\n" + b"OK\r\n" * 75000 + (
            b"\r\nOK\r\nOK\r\nOK\r\n"  # without the text, which tells nobody anything
        )


async def test_before_a_login_it_tells_what_all_backends_understand(tmp_path: Path) -> None:
    one, two = Backend(sieve=b"fileinto body copy"), Backend(sieve=b"copy regex fileinto")
    scripts: dict[str, tuple[str, Speak]] = {
        "be1": ("sieve", one.speak),
        "be2": ("sieve", two.speak),
    }
    async with (
        running_frontend(tmp_path, scripts, {"ana": "be1", "bob": "be2"}) as running,
        asyncio.timeout(20),
    ):
        peer = await Peer.at(running.ports["sieve"])
        assert b'"SIEVE" "fileinto copy"' in await lines_of(peer)
        peer.send(LOGIN)
        assert await peer.line() == b"OK"
        peer.send(b"CAPABILITY\r\n")
        told = await lines_of(peer)
        assert b'"SIEVE" "fileinto body copy"' in told and b'"OWNER" "ana"' in told
        peer.send(b"UNAUTHENTICATE\r\n" + LOGIN.replace(b"AGFuYQBzZWNyZXQ=", b"AGJvYgBzZWNyZXQ="))
        assert [await peer.line() for _ in range(2)][1] == b"OK"
        peer.send(b"CAPABILITY\r\n")
        assert b'"SIEVE" "copy regex fileinto"' in await lines_of(peer)
        assert two.heard.count(b"AUTHENTICATE") == 1
        peer.writer.close()


async def lines_of(peer: Peer) -> list[bytes]:
    lines: list[bytes] = []
    while not lines or lines[-1] != b"OK":
        lines.append(await peer.line())
    return lines
