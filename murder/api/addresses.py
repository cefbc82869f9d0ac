"""Where named servers are, for plugins that connect to some.

The system's resolver may wait for half a minute where a zone's servers are silent, and an event loop has few threads for it,
for all: a plugin that asks its loop keeps every other name from being found. In a server it is asked beside the loop.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def _by_loop(host: str) -> Sequence[str]:
    there = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in there))


class _Asking:
    how: Callable[[str], Awaitable[Sequence[str]]] = staticmethod(_by_loop)


async def addresses_of(host: str) -> Sequence[str]:
    """All of a name, as the system prefers them; an address is its own. Raises socket.gaierror, UnicodeError."""
    return await _Asking.how(host)


async def at_an_address(host: str, connect: Callable[[str], Awaitable[T]]) -> T:
    """What `connect` makes of the first of this server's addresses that takes it. It raises OSError where one does not;
    ssl.SSLError, which is one, is the server's last word. Raises as both."""
    failure: OSError | None = None
    for address in await addresses_of(host):
        try:
            return await connect(address)
        except ssl.SSLError:
            raise
        except OSError as error:
            failure = error
    raise failure or socket.gaierror(socket.EAI_NONAME, "no address")


def set_addresses(how: Callable[[str], Awaitable[Sequence[str]]]) -> None:
    """What `addresses_of` does from now on, in this process: the server's own way."""
    _Asking.how = staticmethod(how)
