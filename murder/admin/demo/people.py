"""The users of a demo: their passwords, their INBOXes spread over the backends, and whether the frontends see them.

INBOXes are made as an administrator does, over IMAP at the backends, by several connections at once.
"""

import asyncio
import ssl
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from murder.admin.demo.plan import (
    ADMIN,
    HOST,
    PARTITION,
    PASSWORD,
    Node,
    Options,
    ca_file,
    users_of,
)
from murder.api import ManagesUsers
from murder.config import load_config
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.hooks import load_plugins

T = TypeVar("T")

CONNECTIONS: Final = 8  # to each backend while INBOXes are made: their commits are shared
ANSWER_LIMIT_S: Final = 30.0
SEEN_LIMIT_S: Final = 30.0
RETRY_S: Final = 0.05


class Client:
    """As much of an IMAP client as a demo needs: log in, send lines, read to the tagged answer."""

    def __init__(
        self, server: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer

    @classmethod
    async def login(cls, node: Node, ca: Path, user: str) -> Self:
        """Connect over TLS and log in. Raises UpstreamFailure, or Refusal where the login is denied."""
        context = ssl.create_default_context(cafile=str(ca))
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                streams = await asyncio.open_connection(HOST, node.ports["imaps"], ssl=context)
                client = cls(node.label, *streams)
                await client._line()
        except (OSError, TimeoutError) as error:
            text = str(error) or "did not answer"
            raise UpstreamFailure(UpstreamKind.CONNECT, node.label, text) from error
        try:
            await client.ask(f"LOGIN {user} {PASSWORD}")
        except Refusal:
            client.close()
            raise
        return client

    async def ask(self, line: str) -> list[bytes]:
        """One command; its untagged lines. Raises Refusal for NO and BAD, UpstreamFailure for silence."""
        return (await self.ask_all([line]))[0]

    async def ask_all(self, lines: Sequence[str]) -> list[list[bytes]]:
        """Commands in one burst; the untagged lines of each. Raises for the first that is denied."""
        self._writer.write(b"".join(f"a{n} {line}\r\n".encode() for n, line in enumerate(lines)))
        answers: list[list[bytes]] = []
        try:
            for number, line in enumerate(lines):
                async with asyncio.timeout(ANSWER_LIMIT_S):
                    answers.append(await self._answer(f"a{number} ".encode(), line))
        except (OSError, TimeoutError) as error:
            raise UpstreamFailure(UpstreamKind.TIMEOUT, self._server, "did not answer") from error
        return answers

    async def _answer(self, tag: bytes, asked: str) -> list[bytes]:
        untagged: list[bytes] = []
        while not (line := await self._line()).startswith(tag):
            untagged.append(line)
        if not line.startswith(tag + b"OK"):
            verb = " ".join(asked.split(" ")[:2]) if not asked.startswith("LOGIN") else "LOGIN"
            said = line.decode("utf-8", "replace").partition(" ")[2]
            raise Refusal(Code.NONE, f"{self._server}: {verb}: {said}")
        return untagged

    async def _line(self) -> bytes:
        line = await self._reader.readline()
        if not line:
            raise UpstreamFailure(UpstreamKind.LOST, self._server, "closed the connection")
        return line.rstrip(b"\r\n")

    def close(self) -> None:
        self._writer.close()


async def make_passwords(options: Options, node: Node) -> None:
    """Give every user, and the administrator, the demo's password; those that exist are left alone."""
    config = load_config(node.config_file)
    _, backend = load_plugins(config, ()).auth_backends()[0]
    assert isinstance(backend, ManagesUsers)
    known = {identity.user for identity in await backend.users()}
    missing = [user for user in (ADMIN, *users_of(options)) if user not in known]
    if missing:
        await backend.set_passwords({user: PASSWORD.encode() for user in missing})


async def make_inboxes(options: Options, nodes: Sequence[Node]) -> None:
    """Make the INBOXes that no backend has, in turn on each backend. Raises Refusal, UpstreamFailure."""
    backends = [node for node in nodes if node.has("backend")]
    ca = ca_file(options.folder)
    existing = set().union(*await _all(_inboxes_at(node, ca) for node in backends))
    shares: dict[tuple[int, int], list[str]] = {}
    for number, user in enumerate(users_of(options)):
        if f"user/{user}" not in existing:
            turn, at = divmod(number, len(backends))
            shares.setdefault((at, turn % CONNECTIONS), []).append(user)
    await _all(_make_some(backends[at], ca, users) for (at, _), users in shares.items())


async def _inboxes_at(node: Node, ca: Path) -> set[str]:
    client = await Client.login(node, ca, ADMIN)
    try:
        lines = await client.ask('LIST "" "user/%"')
    finally:
        client.close()
    return {line.rsplit(b" ", 1)[-1].strip(b'"').decode() for line in lines if b"* LIST " in line}


async def _make_some(node: Node, ca: Path, users: Sequence[str]) -> None:
    client = await Client.login(node, ca, ADMIN)
    try:
        place = f"{node.name}!{PARTITION}"  # a unified node takes it for any
        await client.ask_all([f'CREATE "user/{user}" {place}' for user in users])
    finally:
        client.close()


async def await_frontends(options: Options, nodes: Sequence[Node]) -> None:
    """Wait until every frontend reaches the last INBOX of every backend. Raises what kept it from that."""
    backends = sum(node.has("backend") for node in nodes)
    last = list(users_of(options))[-backends:]
    frontends = [node for node in nodes if node.has("frontend")]
    ca = ca_file(options.folder)
    await _all(_until_seen(node, ca, user) for node in frontends for user in last)


async def _until_seen(node: Node, ca: Path, user: str) -> None:
    deadline = asyncio.get_running_loop().time() + SEEN_LIMIT_S
    while True:
        try:
            client = await Client.login(node, ca, user)
            try:
                await client.ask("SELECT INBOX")
            finally:
                client.close()
        except (Refusal, UpstreamFailure):
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(RETRY_S)
        else:
            return


async def _all(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run them at once; their results in order, or the first one's error."""
    return list(await asyncio.gather(*coroutines))
