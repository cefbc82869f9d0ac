"""What services of plugins get of a backend: its own mailboxes."""

from collections.abc import Awaitable

from murder.api.service import BackendStream
from murder.errors import Code, Refusal
from murder.model.entry import MailboxEntry
from murder.model.identity import Login
from murder.model.name import MailboxName
from murder.model.protocol import ProtocolSpec
from murder.net.connection import Connection
from murder.roles.backend.shared import Backend
from murder.serve.service import Session


class BackendReach:
    """See `murder.serve.plugged.Reach`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def sessions(self) -> set[Session]:
        return self._backend.sessions

    async def welcome(self, login: Login) -> None:
        await self._backend.ensure_inbox(login)

    async def find(self, name: MailboxName, login: Login) -> MailboxEntry:
        await self._backend.notice(name)
        return self._backend.mailboxes.look(name, login).entry

    async def open_backend(
        self, server: str, protocol: ProtocolSpec, client: Connection, login: Login | None
    ) -> BackendStream:
        raise Refusal(Code.CANNOT, "A backend does not proxy to other servers")

    async def enter(self, stream: BackendStream, entering: Awaitable[None]) -> None:
        await entering
