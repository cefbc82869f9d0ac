"""A toy protocol for test_service_plugin.py, as a site's plugin: lines, a login, and a way through to the user's backend."""

import base64
from dataclasses import dataclass, field

from murder.api import BackendStream, PortKey, ProtocolSpec, Service, ServiceClient, hookimpl
from murder.errors import BadSyntax, Refusal, UpstreamFailure, UpstreamKind
from murder.model.name import inbox_of


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.service_toy]."""

    motto: str = field(default="toy", metadata={"doc": "What clients are greeted with."})
    listen: str = field(default="", metadata={"doc": "Where it listens by itself."})
    is_open: bool = field(default=False, metadata={"doc": "Whether clients stay without a login."})


class Toy:
    """QUIT, STARTTLS, AUTH mechanism initial, LOGIN user password, WHERE, ECHO count, GO."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def serve(self, client: ServiceClient) -> None:
        await client.write(f"OK {self.settings.motto} at {client.server_name}\r\n".encode())
        while (line := await client.read_line()) is not None:
            word, *words = line.decode("utf-8", "replace").split(" ")
            try:
                if await self._run(client, word.upper(), words):
                    return
            except (BadSyntax, Refusal) as error:
                await client.write(f"NO {error}\r\n".encode())
            except UpstreamFailure as failure:
                await client.write(f"NO {failure.kind.value}\r\n".encode())

    async def _run(self, client: ServiceClient, word: str, words: list[str]) -> bool:
        reply = "OK"
        match word, words:
            case "QUIT", []:
                await client.write(b"OK bye\r\n")
                return True
            case "STARTTLS", []:
                await client.start_tls(b"OK TLS\r\n")
                return False
            case "AUTH", [mechanism, initial]:
                found = await client.authenticate(
                    mechanism, base64.b64decode(initial), lambda octets: self._ask(client, octets)
                )
                reply = f"OK {found.user}"
            case "LOGIN", [user, password]:
                reply = f"OK {(await client.log_in(user, password.encode())).user}"
            case "WHERE", [user]:
                reply = f"OK {(await client.find(inbox_of(user))).server}"
            case "ECHO", [count]:
                octets = await client.read_exactly(int(count))
                await client.write(octets)
            case "GO", [user]:
                entry = await client.find(inbox_of(user))
                await client.relay(await client.open_backend(entry.server, self._enter))
                return True
            case _:
                raise BadSyntax("no such command")
        await client.write(reply.encode() + b"\r\n")
        return False

    async def _ask(self, client: ServiceClient, octets: bytes) -> bytes:
        await client.write(b"+ " + base64.b64encode(octets) + b"\r\n")
        return base64.b64decode(await client.read_line() or b"")

    async def _enter(self, backend: BackendStream) -> None:
        await backend.read_line()
        if backend.needs_tls:
            await backend.write(b"STARTTLS\r\n")
            await self._expect_ok(backend)
            await backend.start_tls()
        mechanism, initial = backend.credentials()
        word = mechanism.encode() + b" " + base64.b64encode(initial)
        await backend.write(b"AUTH " + word + b"\r\n")
        await self._expect_ok(backend)

    async def _expect_ok(self, backend: BackendStream) -> None:
        line = await backend.read_line()
        if not (line or b"").startswith(b"OK"):
            raise UpstreamFailure(UpstreamKind.AUTH, backend.server, repr(line))


@hookimpl
def make_service(settings: Settings) -> Service:
    keys = (
        PortKey("toy", 4000, "The toy.", default=(settings.listen,) if settings.listen else ()),
        PortKey("toys", 4001, "The toy over TLS.", is_implicit=True),
    )
    spec = ProtocolSpec("toy", keys, refusal=b"NO room\r\n")
    bye = b"NO shutting down\r\n"
    return Service(spec, Toy(settings).serve, bye, needs_login=not settings.is_open)
