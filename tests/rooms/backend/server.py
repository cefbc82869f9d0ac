"""A backend in this process for tests: its role, without a supervisor, on a port of loopback."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from murder.api.auth import AuthBackend, Identity
from murder.api.delivery import DeliveryFilter
from murder.api.sasl import Mechanism
from murder.api.service import Service
from murder.api.store import MailboxStore
from murder.config import BackendConfig, Config, MupdateConfig
from murder.config.sections import NamespaceConfig, NodeConfig
from murder.model.acl import OWNER_RIGHTS, Acl, format_acl
from murder.model.name import MailboxName, inbox_of
from murder.model.protocol import IMAP, SIEVE
from murder.net.listener import Listener
from murder.roles.backend.moves.mover import Mover
from murder.roles.backend.role import BackendRole
from murder.roles.backend.shared import Backend
from plugins import store_memory
from plugins.store_maildir.store import MaildirStore
from plugins.store_maildir.store import Settings as MaildirSettings
from plugins.store_spool.store import Settings, SpoolStore
from tests.kit.listening import role_listening
from tests.kit.sections import near_master

USERS = ("ana", "bob")


class OnePassword:
    """Everybody's password is `secret`; everybody is in the group `staff`."""

    async def verify(self, user: str, password: bytes) -> Identity | None:
        return Identity(user, frozenset({"staff"})) if password == b"secret" else None

    async def lookup(self, user: str) -> Identity | None:
        return Identity(user, frozenset({"staff"}))


class Parts:
    """What the plugins would make."""

    def __init__(self, make_store: Callable[[], MailboxStore]) -> None:
        self._make_store = make_store

    def services(self, role: str) -> Sequence[Service]:
        return ()

    def mechanisms(self) -> Sequence[Mechanism]:
        return ()

    def delivery_filters(self) -> Sequence[tuple[str, DeliveryFilter]]:
        return ()

    def auth_backends(self) -> Sequence[tuple[str, AuthBackend]]:
        return [("one", OnePassword())]

    def store(self) -> MailboxStore:
        return self._make_store()


def config_in(
    folder: Path,
    *,
    master: str = "",
    namespace: NamespaceConfig | None = None,
    **backend: Any,
) -> Config:
    """A configuration with plain passwords and the admin `admin`."""
    section = BackendConfig(
        admins=("admin",), submitters=("post",), allow_plaintext=True, workers=1
    )
    return Config(
        file=folder / "murder.toml",
        node=NodeConfig(name="be1.test", data=folder, drain_timeout_s=0.5),
        mupdate=near_master(master, "be1") if master else MupdateConfig(),
        backend=replace(section, **backend),
        namespace=namespace or NamespaceConfig(),
    )


@dataclass(slots=True)
class Running:
    """A backend that listens."""

    role: BackendRole
    backend: Backend
    address: tuple[str, int]
    listener: Listener
    sieve: tuple[str, int] = ("", 0)  # where it listens for ManageSieve

    @property
    def mover(self) -> Mover:
        assert self.role.mover is not None
        return self.role.mover


def memory_store() -> MailboxStore:
    return store_memory.MemoryStore()


def spool_store(folder: Path) -> MailboxStore:
    return SpoolStore(Settings(), folder / "spool")


def maildir_store(folder: Path) -> MailboxStore:
    return MaildirStore(MaildirSettings(), folder / "maildir")


@asynccontextmanager
async def running_backend(
    folder: Path,
    make_store: Callable[[], MailboxStore] = memory_store,
    users: Sequence[str] = USERS,
    config: Config | None = None,
    parts: Parts | None = None,
) -> AsyncIterator[Running]:
    """A backend with an INBOX for each of the users."""
    role = BackendRole(config or config_in(folder), parts or Parts(make_store), 0)
    await role.start()
    backend = role.backend
    assert backend is not None
    for user in users:
        if backend.mailboxes.list.find(inbox_of(user)) is None:
            acl = format_acl(Acl({user: OWNER_RIGHTS}))
            await backend.announcer.create(inbox_of(user), acl)
    async with role_listening(role, (IMAP, SIEVE)) as (imap, sieve):
        yield Running(role, backend, imap.address, imap.listener, sieve.address)


async def subjects_of(backend: Backend, user: str, folder: str = "") -> list[tuple[str, list[str]]]:
    """Of all messages of a user's folder ("": INBOX), each with its flags."""
    inbox = inbox_of(user)
    name = MailboxName(inbox + b"." + folder.encode() if folder else inbox)
    mailbox = await backend.store.open(name, user)
    try:
        found = []
        for row in await mailbox.messages():
            octets = bytes(await mailbox.octets(row.uid))
            subject = octets.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode()
            found.append((subject, sorted(row.flags)))
        return found
    finally:
        mailbox.close()
