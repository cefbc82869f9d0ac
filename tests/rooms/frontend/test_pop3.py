"""POP3 at a frontend: who is meant, which maildrop, and what a backend that fails costs."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from murder.config.sections import NamespaceConfig
from tests.kit.peer import Peer
from tests.rooms.frontend.server import Running, Speak, running_frontend


class Backend:
    """A scripted POP3 server; who logged in."""

    def __init__(
        self,
        answer: bytes = b"+OK\r\n",
        greeting: bytes = b"+OK here\r\n",
        capa: bytes = b"-ERR\r\n",
    ) -> None:
        self.answer = answer
        self.capa = capa
        self.heard: list[bytes] = []
        self.greeting = greeting
        self.users: list[bytes] = []

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.greeting)
        while line := await reader.readline():
            words = line.split()
            self.heard.append(words[0])
            if words[0] == b"CAPA":
                writer.write(self.capa)
            elif words[0] == b"AUTH":
                self.users.append(base64.b64decode(words[2]).split(b"\0")[0])
                writer.write(self.answer)
            else:
                writer.write(b"+OK relayed " + line)


@asynccontextmanager
async def with_backend(
    folder: Path,
    backend: Backend,
    users: tuple[str, ...] = ("ana",),
    namespace: NamespaceConfig | None = None,
) -> AsyncIterator[Running]:
    scripts: dict[str, tuple[str, Speak]] = {"be1": ("pop3", backend.speak)}
    async with running_frontend(
        folder,
        scripts,
        dict.fromkeys(users, "be1"),
        namespace=namespace,
        upstream_login_timeout_s=20.0 if backend.greeting and backend.answer else 1.0,
    ) as running:
        yield running


async def logged_in(running: Running, user: bytes) -> tuple[Peer, bytes]:
    peer = await Peer.at(running.ports["pop3"])
    await peer.line()
    peer.send(b"USER " + user + b"\r\nPASS secret\r\nSTAT\r\n")
    await peer.line()
    return peer, await peer.line()


async def test_a_domain_says_nothing_and_a_detail_names_a_mailbox(tmp_path: Path) -> None:
    backend = Backend()

    async with with_backend(tmp_path, backend, users=("ana", "ana/Work")) as running:
        for user in (b"ana", b"ana@example.org", b"ana+Work@example.org"):
            peer, said = await logged_in(running, user)
            assert said.startswith(b"+OK")
            assert await peer.line() == b"+OK relayed STAT"
            peer.writer.close()
        _, said = await logged_in(running, b"ana+None")
        assert said.startswith(b"-ERR [SYS/PERM]")
        assert backend.users == [b"ana", b"ana", b"ana+Work"]


async def test_with_domains_they_are_part_of_the_user(tmp_path: Path) -> None:
    backend = Backend()

    async with with_backend(
        tmp_path, backend, ("ana@example.org",), namespace=NamespaceConfig(domains=True)
    ) as running:
        _, said = await logged_in(running, b"ana@example.org")
        assert said.startswith(b"+OK")
        _, said = await logged_in(running, b"ana")
        assert said.startswith(b"-ERR [SYS/PERM]")
        assert backend.users == [b"ana@example.org"]


async def test_what_a_backend_says_to_the_login_is_passed_on(tmp_path: Path) -> None:
    async with with_backend(tmp_path, Backend(b"-ERR [IN-USE] somebody is there\r\n")) as running:
        _, said = await logged_in(running, b"ana")
        assert said == b"-ERR [IN-USE] somebody is there"


async def test_a_backend_that_is_silent_or_strange_is_a_temporary_failure(tmp_path: Path) -> None:
    for number, backend in enumerate(
        (Backend(greeting=b""), Backend(b""), Backend(greeting=b"HTTP/1.1 400\r\n"))
    ):
        async with with_backend(tmp_path / str(number), backend) as running:
            peer, said = await logged_in(running, b"ana")
            assert said.startswith(b"-ERR [SYS/TEMP]")
            assert (await peer.line()).startswith(b"-ERR")  # STAT: not logged in
            peer.send(b"CAPA\r\n")
            assert (await peer.line()).startswith(b"+OK")


UTF8 = b"+OK\r\nTOP\r\nUTF8 USER\r\n.\r\n"


async def listing_of(peer: Peer) -> list[bytes]:
    peer.send(b"CAPA\r\n")
    lines = []
    while (line := await peer.line()) != b".":
        lines.append(line)
    return lines


@pytest.mark.parametrize(
    ("capa", "offered"), [((UTF8, UTF8), True), ((UTF8, b"-ERR\r\n"), False), ((b"",), False)]
)
async def test_utf8_is_offered_where_all_backends_do(
    tmp_path: Path, capa: tuple[bytes, ...], offered: bool
) -> None:
    backends = [Backend(capa=one) for one in capa]

    scripts: dict[str, tuple[str, Speak]] = {
        f"be{number}": ("pop3", backend.speak) for number, backend in enumerate(backends)
    }
    users = {f"user{number}": name for number, name in enumerate(scripts)}
    async with running_frontend(tmp_path, scripts, users) as running, asyncio.timeout(20):
        peer = await Peer.at(running.ports["pop3"])
        await peer.line()
        assert (b"UTF8 USER" in await listing_of(peer)) is offered
        peer.send(b"UTF8\r\n")
        assert (await peer.line()).startswith(b"+OK" if offered else b"-ERR")
        if offered:
            peer.send(b"USER user0\r\nPASS secret\r\nSTAT\r\n")
            await peer.line()
            assert (await peer.line()).startswith(b"+OK")
            assert await peer.line() == b"+OK relayed STAT"
            assert backends[0].heard == [b"CAPA", b"QUIT", b"UTF8", b"AUTH", b"STAT"]
