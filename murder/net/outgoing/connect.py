"""Opening a TCP connection to a server, and why that failed, in words."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable

from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.connection import Connection, Receiver
from murder.net.outgoing.resolve import create_connection


def why(error: OSError) -> str:
    """In the system's or the TLS library's words; asyncio has its own, which say less."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def failure_of(error: OSError, host: str, port: int, server: str) -> UpstreamFailure:
    """What an attempt to connect to `server`, which is at this host and port, came to."""
    where = "" if server == f"{host}:{port}" else f"{host}:{port}: "
    if host == server:  # the failure is told with its name
        where = f"port {port}: "
    if isinstance(error, socket.gaierror):
        what = f"{host}: " if where and host != server else ""
        text = f"{what}its name has no address ({error.strerror})"
        return UpstreamFailure(UpstreamKind.RESOLVE, server, text)
    kind = UpstreamKind.TLS if isinstance(error, ssl.SSLError) else UpstreamKind.CONNECT
    return UpstreamFailure(kind, server, f"{where}{why(error)}")


async def connect(
    host: str,
    port: int,
    make_receiver: Callable[[Connection], Receiver],
    *,
    server: str,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    timeout_s: float = 10.0,
    source: str | None = None,
) -> Connection:
    """Open a connection. `server` is its name in errors, `source` the address to connect from.

    Raises UpstreamFailure: RESOLVE, CONNECT or TLS.
    """
    try:
        async with asyncio.timeout(timeout_s):
            connection = await create_connection(
                asyncio.get_running_loop(),
                lambda: Connection(make_receiver),
                host,
                port,
                ssl=tls,
                server_hostname=(server_hostname or host) if tls else None,
                local_addr=(source, 0) if source else None,
            )
    except TimeoutError:
        raise UpstreamFailure(
            UpstreamKind.CONNECT, server, f"no answer in {timeout_s:g} s"
        ) from None
    except OSError as error:
        raise failure_of(error, host, port, server) from error
    return connection
