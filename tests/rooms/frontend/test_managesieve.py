"""ManageSieve at a frontend: the same dialogues as with a backend, and what a backend that fails costs."""

import asyncio
from pathlib import Path

import pytest

from murder.net.bulk import SLICE_OCTETS
from murder.net.outgoing.lines import LineUpstream
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
        # without the text, which tells nobody anything
        assert rest == b"{300000}\r\n" + b"OK\r\n" * 75000 + b"\r\nOK\r\nOK\r\nOK\r\n"


class Small(Backend):
    """It has no room for more than 100,000 octets, and ends the connection where they come."""

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'"SIEVE" ""\r\n"SASL" "PLAIN"\r\nOK\r\n')
        while line := await reader.readline():
            words = line.split()
            self.heard.append(words[0])
            size = int(words[-1].strip(b"{+}")) if words[0] in BY_SIZE else 0
            if size > 100_000 and words[0] != b"HAVESPACE":
                writer.write(b'BYE "too much"\r\n')
                writer.close()
                return
            if words[0] != b"HAVESPACE":
                await reader.readexactly(size + 2 if size else 0)
            no = b'NO (QUOTA/MAXSIZE) "100000 octets at most"\r\n'
            writer.write(no if size > 100_000 else b"OK\r\n")


BY_SIZE = (b"HAVESPACE", b"PUTSCRIPT", b"CHECKSCRIPT")


async def test_a_script_for_which_the_backend_has_no_room_is_refused_in_its_words(
    tmp_path: Path,
) -> None:
    backend = Small()
    async with (
        running_frontend(tmp_path, {"be1": ("sieve", backend.speak)}, {"ana": "be1"}) as running,
        asyncio.timeout(20),
    ):
        reader, writer = await greeted(("127.0.0.1", running.ports["sieve"]))
        writer.write(LOGIN)
        assert [await reader.readline() for _ in range(2)] == [b"OK\r\n"] * 2
        for command in (b'PUTSCRIPT "x"', b"CHECKSCRIPT"):
            for size, answer in (
                (200_000, b'NO (QUOTA/MAXSIZE) "100000 octets at most"\r\n'),
                (90_000, b"OK\r\n"),
                (9, b"OK\r\n"),
            ):
                writer.write(b"%b {%d+}\r\n%b\r\n" % (command, size, b"#" * size))
                assert await reader.readline() == answer, (command, size)
        writer.close()
    assert backend.heard.count(b"HAVESPACE") == 4 and backend.heard.count(b"PUTSCRIPT") == 2


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


async def test_a_long_script_goes_on_a_slice_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a backend does not take waits once, and is no whole script of each of many connections."""
    script = b"#" * 200_000
    taken: list[bytes] = []
    sizes: list[int] = []
    send = LineUpstream.send

    def noted(upstream: LineUpstream, octets: bytes) -> None:
        sizes.append(len(octets))
        send(upstream, octets)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'"IMPLEMENTATION" "it"\r\n"SIEVE" "body"\r\n"SASL" "PLAIN"\r\nOK\r\n')
        while line := await reader.readline():
            if line.startswith(b"PUTSCRIPT"):
                taken.append(await reader.readexactly(len(script) + 2))
            writer.write(b"OK\r\n")

    monkeypatch.setattr(LineUpstream, "send", noted)
    async with (
        running_frontend(tmp_path, {"be1": ("sieve", speak)}, {"ana": "be1"}) as running,
        asyncio.timeout(20),
    ):
        reader, writer = await greeted(("127.0.0.1", running.ports["sieve"]))
        writer.write(LOGIN)
        assert [await reader.readline() for _ in range(2)] == [b"OK\r\n"] * 2
        writer.write(b'PUTSCRIPT "x" {%d+}\r\n%b\r\n' % (len(script), script))
        assert await reader.readline() == b"OK\r\n"
        writer.close()
    assert taken == [script + b"\r\n"]
    assert max(sizes) <= SLICE_OCTETS
