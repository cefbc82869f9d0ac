"""A frontend in this process for tests: its services on ports of loopback, over a list that the test writes, and backends
that are scripts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from murder.api.auth import AuthBackend, Identity
from murder.api.placement import BackendLoad, NewMailbox
from murder.api.referral import Conduct, ReferralQuestion
from murder.api.sasl import Mechanism
from murder.api.service import Service
from murder.config import Config, FrontendConfig, MupdateConfig
from murder.config.sections import (
    AuthConfig,
    MultiplexorConfig,
    NamespaceConfig,
    NodeConfig,
    ServerConfig,
)
from murder.model.entry import EntryState, Location, MailboxEntry
from murder.model.name import MailboxName, inbox_of
from murder.model.protocol import protocol_named
from murder.net.listener import Bounds, Guests, Listener
from murder.net.shared_counter import Counts
from murder.roles.frontend.role import FrontendRole
from murder.roles.mupdate.database.change import PutEntry
from murder.roles.mupdate.database.mboxlist import MailboxList, mark_synchronised
from tests.kit.listening import role_listening
from tests.kit.sections import server_section

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
RIGHTS = b"anyone\tlrsp\t"
KINDS = ("imap", "pop3", "lmtp", "sieve")


class Parts:
    """What the plugins would make: everybody's password is `secret`."""

    async def verify(self, user: str, password: bytes) -> Identity | None:
        return Identity(user) if password == b"secret" else None

    async def lookup(self, user: str) -> Identity | None:
        return Identity(user)

    def services(self, role: str) -> Sequence[Service]:
        return ()

    def mechanisms(self) -> Sequence[Mechanism]:
        return ()

    def auth_backends(self) -> Sequence[tuple[str, AuthBackend]]:
        return [("all", self)]

    def choose_backend(self, mailbox: NewMailbox, candidates: object) -> Location | None:
        raise AssertionError(mailbox)

    def refers_logins(self) -> bool:
        return False

    def refers_unable(self) -> bool:
        return False

    def relay_or_refer(self, question: ReferralQuestion) -> Conduct:
        return Conduct.RELAY

    loads: tuple[BackendLoad, ...] = ()


def named(mailbox: str) -> MailboxName:
    """`user` is their INBOX, `user/Folder` that below it."""
    user, _, folder = mailbox.partition("/")
    return MailboxName(inbox_of(user) + (b"." + folder.encode() if folder else b""))


@dataclass(slots=True)
class Running:
    """A frontend that listens."""

    role: FrontendRole
    config: Config
    ports: Mapping[str, int]
    listeners: list[Listener]
    mailboxes: MailboxList


async def served(stack: AsyncExitStack, speak: Speak) -> int:
    """A scripted server on a port of its own."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await speak(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0, limit=2**26)
    stack.push_async_callback(_closed, server)
    return int(server.sockets[0].getsockname()[1])


async def _closed(server: asyncio.Server) -> None:
    server.close()


@asynccontextmanager
async def running_frontend(
    folder: Path,
    backends: Mapping[str, tuple[str, Speak]],
    users: Mapping[str, str],
    bounds: Bounds | None = None,
    auth: AuthConfig | None = None,
    namespace: NamespaceConfig | None = None,
    parts: Parts | None = None,
    ports: Mapping[str, int] | None = None,
    sections: Mapping[str, ServerConfig] | None = None,
    multiplexor: MultiplexorConfig | None = None,
    counts: Counts | None = None,
    keytab: Path | None = None,
    **frontend: Any,
) -> AsyncIterator[Running]:
    """`backends`: name -> (imap, pop3 or lmtp; script); `ports`: name -> where one runs already, `sections`
    likewise, with all that is to be said of it.
    `users`: user -> the backend they are on. `counts`: what it counts with other workers; `keytab`: its tickets."""
    async with AsyncExitStack() as stack:
        servers = {
            name: server_section(address="127.0.0.1", **{kind: await served(stack, speak)})
            for name, (kind, speak) in backends.items()
        }
        for name, port in (ports or {}).items():
            servers[name] = server_section(address="127.0.0.1", imap=port)
        servers |= sections or {}
        section = FrontendConfig(
            upstream_auth="plain",
            upstream_tls="none",
            proxy_user="murder",
            proxy_password="secret",
            allow_plaintext=True,
            workers=1,
        )
        config = Config(
            file=folder / "murder.toml",
            node=NodeConfig(name="fe1.test", data=folder, drain_timeout_s=0.5, keytab=keytab),
            mupdate=MupdateConfig(),
            frontend=replace(section, **frontend),
            servers=servers,
            multiplexor=multiplexor or MultiplexorConfig(),
            namespace=namespace or NamespaceConfig(),
            auth=auth or AuthConfig(failure_delay_s=0),
        )
        mailboxes = MailboxList.open(folder / "list")
        entries = [
            PutEntry(
                MailboxEntry(named(user), EntryState.ACTIVE, f"{server}!default".encode(), RIGHTS)
            )
            for user, server in users.items()
        ]
        mailboxes.commit([*entries, mark_synchronised(1.0)])
        role = FrontendRole(config, parts or Parts(), 0)
        if counts is not None:
            role.count_with(counts)
        role.serve_from(mailboxes, _present)
        specs = [protocol_named(kind) for kind in KINDS]
        async with role_listening(role, specs, bounds, Guests(counts)) as places:
            ports_by_kind = {kind: place.port for kind, place in zip(KINDS, places, strict=True)}
            listeners = [place.listener for place in places]
            yield Running(role, config, ports_by_kind, listeners, mailboxes)


async def _present(timeout_s: float) -> None:
    """The list is always as new as the master's."""
