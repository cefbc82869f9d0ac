"""Plugins that bring a protocol."""

from typing import Final

from murder.api.contract.service import SERVICE_CHECKS
from murder.api.kinds.kind import Kind

TEMPLATE: Final = '''
from dataclasses import dataclass, field

from murder.api import PortKey, ProtocolSpec, Service, ServiceClient, hookimpl
from murder.errors import BadSyntax, Refusal, UpstreamFailure


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.@MODULE@] of murder.toml; a key that is not here is refused at the start."""

    # 1. Your own keys.
    motto: str = field(default="hello", metadata={"doc": "What clients are greeted with."})


class @CLASS@:
    """A protocol of lines. One object in each process; `serve` is called with each connection."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def serve(self, client: ServiceClient) -> None:
        """2. From the greeting to the end. What `client` raises for time-outs and who has gone is left to murder."""
        await client.write(f"OK {self.settings.motto} from {client.server_name}\\r\\n".encode())
        while (line := await client.read_line()) is not None:
            word, _, rest = line.partition(b" ")
            if word.upper() == b"QUIT":
                await client.write(b"OK bye\\r\\n")
                return
            try:
                reply = await self._run(client, word.upper(), rest)
            except (BadSyntax, Refusal) as error:
                reply = f"NO {error}"
            except UpstreamFailure:
                reply = "NO try again later"
            await client.write(reply.encode() + b"\\r\\n")

    async def _run(self, client: ServiceClient, word: bytes, rest: bytes) -> str:
        """3. Your commands. `client` starts TLS, logs in (`authenticate` by SASL, or `log_in`), finds mailboxes, and at a
        frontend opens a connection to a backend: murder/api/service.py."""
        if word == b"LOGIN":
            user, _, password = rest.partition(b" ")
            identity = await client.log_in(user.decode("utf-8", "replace"), password)
            return f"OK {identity.user}"
        raise BadSyntax("LOGIN and QUIT are all there is")


@hookimpl
def make_service(settings: Settings) -> Service:
    """Called once in each process, at the start."""
    # 4. Its name and its ports. They are listened on where murder.toml says so
    #    ([frontend] services = {@NAME@ = ["*:4444"]}), or by themselves where a PortKey has a `default`.
    port = PortKey("@NAME@", 4444, "What it is for.")
    spec = ProtocolSpec("@NAME@", (port,), refusal=b"NO too many connections\\r\\n")
    return Service(spec, @CLASS@(settings).serve, bye=b"NO shutting down\\r\\n")
'''
SERVICE: Final = Kind(
    "service",
    "make_service",
    "Services: a protocol of your own, on ports of its own.",
    SERVICE_CHECKS,
    TEMPLATE,
    makes=True,
    methods=("serve",),
)
