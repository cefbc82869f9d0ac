"""Whose connection it is, as a backend is told before a login by POP3 and ManageSieve, which have no ID: by XCLIENT, where
it takes that from us."""

from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.connection import Connection


def xclient_line(connection: Connection, server: str) -> bytes:
    """XCLIENT as Dovecot has it, for a client's connection. Raises UpstreamFailure where that has come through too many
    proxies already, of which one must be there twice."""
    hops = connection.hops_left
    if hops < 0:
        raise UpstreamFailure(UpstreamKind.PROTOCOL, server, "a proxy loop")
    where = f"ADDR={connection.peer} PORT={connection.peer_port}"
    return f"XCLIENT {where} SESSION={connection.cid} TTL={hops}\r\n".encode()
