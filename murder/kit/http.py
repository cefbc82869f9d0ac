"""HTTP, for plugins that ask a server: what it says is read a little at a time, with rests between, and no more of it than a
bound.

Each chunk of a body, and each provisional answer before it, costs its reader some tens of microseconds, be it of six octets:
all that one reading brings of them would hold the event loop for a second.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from murder.api.addresses import addresses_of
from murder.api.turns import rest

if TYPE_CHECKING:
    import httpx

READ_OCTETS: Final = 1024  # between two rests: forty provisional answers, or a hundred chunks
PARTS: Final = 50  # of a body, likewise
HEAD_OCTETS: Final = 32 * 1024  # of an answer, and of what chunks cost beside their octets
KEPT_S: Final = 5.0  # a connection that nobody uses; as httpx


def make_client(
    verify: ssl.SSLContext | bool, timeout_s: float, most_octets: int, at_once: int | None = None
) -> httpx.AsyncClient:
    """For one event loop, in which it keeps its connections; `at_once` of them at most. An answer of more than HEAD_OCTETS
    and `most_octets` is httpx.RemoteProtocolError. Nothing of the environment counts; redirects are not followed."""
    import httpcore  # here: only plugins that ask so need it
    import httpx

    class Stream(httpcore.AsyncNetworkStream):
        """A connection that is read in small pieces."""

        def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
            self._inner = inner
            self._left = 0

        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            await rest()
            octets = await self._inner.read(min(max_bytes, READ_OCTETS), timeout)
            self._left -= len(octets)
            if self._left < 0:
                raise httpcore.RemoteProtocolError("it answers without end")
            return octets

        async def write(self, buffer: bytes, timeout: float | None = None) -> None:
            self._left = HEAD_OCTETS + most_octets  # of the answer to what is asked now
            await self._inner.write(buffer, timeout)

        async def aclose(self) -> None:
            await self._inner.aclose()

        async def start_tls(
            self,
            ssl_context: ssl.SSLContext,
            server_hostname: str | None = None,
            timeout: float | None = None,
        ) -> httpcore.AsyncNetworkStream:
            return Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

        def get_extra_info(self, info: str) -> Any:
            return self._inner.get_extra_info(info)

    class Backend(httpcore.AnyIOBackend):
        """Makes such connections."""

        async def connect_tcp(
            self, host: str, port: int, timeout: float | None = None, *local: Any, **how: Any
        ) -> httpcore.AsyncNetworkStream:
            """At the first of a name's addresses that takes it; each has its share of the time."""
            failure: Exception | None = None
            addresses = await _addresses(host, timeout)
            share_s = None if timeout is None else timeout / max(1, len(addresses))
            for address in addresses:
                try:
                    return Stream(await super().connect_tcp(address, port, share_s, *local, **how))
                except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                    failure = error
            raise failure or httpcore.ConnectError("no address")

    class Transport(httpx.AsyncHTTPTransport):
        """As httpx has it, over such connections."""

        def __init__(self) -> None:
            super().__init__(verify=verify, trust_env=False)
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=verify if isinstance(verify, ssl.SSLContext) else None,
                max_connections=at_once,
                max_keepalive_connections=at_once,
                keepalive_expiry=KEPT_S,
                network_backend=Backend(),
            )

    return httpx.AsyncClient(transport=Transport(), timeout=timeout_s, trust_env=False)


async def _addresses(host: str, timeout: float | None) -> Sequence[str]:
    import httpcore

    try:
        async with asyncio.timeout(timeout):
            return await addresses_of(host)
    except TimeoutError as error:
        raise httpcore.ConnectTimeout("its name was not found in time") from error
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error


async def read_body(response: httpx.Response, most: int) -> bytes | None:
    """The octets of an answer, as they are sent; None where they are more than that. Raises httpx.HTTPError."""
    octets = bytearray()
    parts = 0
    async for part in response.aiter_raw():
        octets += part
        parts += 1
        if len(octets) > most:
            return None
        if not parts % PARTS:
            await rest()
    return bytes(octets)
