"""Whose connection it is, as other servers are told before a login: where POP3 and ManageSieve, which have no ID, take it
from us by XCLIENT; and that a chain of proxies comes to an end."""

from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.connection import Connection


def checked_hops(hops: int, server: str) -> int:
    """Through how many more proxies a session may go. Raises UpstreamFailure for less than none: one must be there twice."""
    if hops < 0:
        raise UpstreamFailure(UpstreamKind.PROTOCOL, server, "a proxy loop")
    return hops


def xclient_line(connection: Connection, server: str) -> bytes:
    """XCLIENT for a client's connection. Raises UpstreamFailure for a loop."""
    hops = checked_hops(connection.hops_left, server)
    port = str(connection.peer_port)
    return format_xclient(connection.peer, port, connection.cid, str(hops))


def format_xclient(address: str, port: str, session: str, hops: str) -> bytes:
    """As Dovecot reads it in POP3 and ManageSieve."""
    return f"XCLIENT ADDR={address} PORT={port} SESSION={session} TTL={hops}\r\n".encode()
