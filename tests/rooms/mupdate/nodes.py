"""Masters, replicas and raw peers in one event loop, over real sockets, for the tests of this folder."""

import asyncio
import contextlib
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import scramp  # type: ignore[import-untyped] # it ships no types
import uvloop

from murder.api.auth import Identity, ScramSecret
from murder.auth.gate import Gate
from murder.auth.penalty import Penalties
from murder.config import MupdateConfig
from murder.errors import UpstreamFailure
from murder.model.protocol import MUPDATE
from murder.net.listener import Bounds, Listener
from murder.roles.mupdate.commits.engine import Ordered
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.mboxlist import Committed, MailboxList
from murder.roles.mupdate.remote.link import Target
from murder.roles.mupdate.remote.replica import Replica, Timing
from murder.roles.mupdate.serving.master import MupdateService
from murder.roles.mupdate.serving.pulse import Pulse
from murder.roles.mupdate.serving.stream import Hub
from murder.roles.mupdate.zone.keeper import ZoneKeeper
from murder.wire.mupdate import MASTER
from plugins.list_etcd.log import EtcdLog
from tests.kit.engine import etcd_settings, is_shared
from tests.kit.peer import Peer
from tests.kit.waiting import until_soon

T = TypeVar("T")
USERS: Mapping[str, bytes] = {"murder": b"secret", "admin": b"secret", "stranger": b"secret"}
LIMIT_S = 60.0
JOURNAL_BYTES = 1 << 18


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run it on the loop of production, within bounds."""

    async def bounded() -> T:
        async with asyncio.timeout(LIMIT_S):
            return await scenario

    return uvloop.run(bounded())


class Users:
    """An auth backend with three users."""

    async def verify(self, user: str, password: bytes) -> Identity | None:
        return Identity(user) if USERS.get(user) == password else None

    async def lookup(self, user: str) -> Identity | None:
        return Identity(user) if user in USERS else None


class ScramUsers(Users):
    """The same, for SCRAM too."""

    async def scram_secret(self, user: str, mechanism: str) -> ScramSecret | None:
        made = scramp.ScramMechanism(mechanism).make_auth_info(USERS[user].decode())
        salt, stored_key, server_key, iterations = made
        return ScramSecret(salt, iterations, stored_key, server_key)


class Server:
    """A MUPDATE server on a port of its own; `start` again after `stop` finds the same list and port."""

    def __init__(self, folder: Path, auth: Users | None = None, **settings: Any) -> None:
        self.auth = auth or Users()
        chosen: Any = {
            "users": ("murder",),
            "admins": ("admin",),
            "allow_plaintext": True,
        } | settings
        self.folder = folder
        self.config = MupdateConfig(**chosen)
        self.port = 0
        self.service: MupdateService
        self.listener: Listener
        self.mailboxes: MailboxList
        self.ledger: Ledger | None = None
        self.keepers: list[ZoneKeeper] = []

    def _heard(self, committed: Committed) -> None:
        for keeper in self.keepers:
            keeper.heard(committed)

    def open(self) -> None:
        """The list, and who writes it."""
        self.mailboxes = MailboxList.open(self.folder, journal_bytes=JOURNAL_BYTES)
        self.hub = Hub(self.mailboxes, self.config.max_stream_backlog_bytes, self._heard)
        log = EtcdLog(etcd_settings(self.folder)) if is_shared() else None
        engine = Ordered(self.mailboxes, log) if log is not None else None
        self.ledger = Ledger(self.mailboxes, self.hub.committed, inline=True, engine=engine)

    async def start(self, replica_of: "Replica | None" = None) -> None:
        if replica_of is None:
            self.open()
            if is_shared() and self.ledger is not None:
                with contextlib.suppress(UpstreamFailure):  # an engine that is away comes later
                    await self.ledger.catch_up()
        gate = Gate(
            self.auth,
            admins=self.config.admins,
            allow_plaintext=self.config.allow_plaintext,
            penalties=Penalties(0, 0),
        )
        self.service = MupdateService(
            server_name="master.test",
            config=self.config,
            gate=gate,
            mailboxes=self.mailboxes,
            hub=self.hub,
            ledger=None if replica_of else self.ledger,
            tls=None,
            master=MASTER if replica_of is None else "mupdate://master.test/",
        )
        if self.service.pulse is not None:  # the loop is the test's, which does much else, or waits
            self.service.pulse = Pulse(lambda: 0.0)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.port))
        sock.listen(1000)
        self.port = sock.getsockname()[1]
        bounds = Bounds(receive_octets=MUPDATE.receive_octets)
        self.listener = Listener(sock, self.service, bounds)
        await self.listener.start()

    async def stop(self) -> None:
        """Cut everybody off, as a crash would; what was acknowledged is on disk."""
        self.listener.stop_accepting()
        self.listener.abort()
        self.hub.close()
        await until_soon(lambda: not self.service.dialogues)
        if self.ledger is not None:
            await self.ledger.close()
        self.mailboxes.close()

    @property
    def target(self) -> Target:
        return Target("127.0.0.1", self.port, None, "murder", "secret", 5.0, 5.0)


class Follower(Server):
    """A replica, which serves others too if it is asked to."""

    def __init__(self, folder: Path, target: Target) -> None:
        super().__init__(folder)
        self.target_of_replica = target

    async def follow(self) -> None:
        self.mailboxes = MailboxList.open(self.folder)
        self.hub = Hub(self.mailboxes, 1 << 26)
        self.ledger = Ledger(self.mailboxes, self.hub.committed)
        self.replica = Replica(self.target_of_replica, self.ledger, Timing(5.0, 0.01, 0.05))
        self.replica.start()

    async def unfollow(self) -> None:
        await self.replica.stop()
        self.hub.close()
        assert self.ledger is not None
        await self.ledger.close()
        self.mailboxes.close()


@asynccontextmanager
async def master(folder: Path, **settings: Any) -> AsyncIterator[Server]:
    server = Server(folder, **settings)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def follower(folder: Path, target: Target) -> AsyncIterator[Follower]:
    one = Follower(folder, target)
    await one.follow()
    try:
        yield one
    finally:
        await one.unfollow()


class Raw(Peer):
    """A peer that has had the banner."""

    banner: list[bytes]

    @classmethod
    async def connect(cls, port: int, user: str | None = "murder") -> Self:
        raw = await cls.at(port)
        raw.banner = await raw.until(b"* OK")
        if user is not None:
            response = b64encode(b"\0%b\0secret" % user.encode())
            answer = await raw.ask(b'A AUTHENTICATE "PLAIN" "%b"' % response)
            assert answer == [b'A OK "Authenticated"'], answer
        return raw
