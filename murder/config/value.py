"""The kinds of value a key may have beyond what TOML knows, and how a key is declared."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any, Final, Literal

from murder.model.address import address_in

Network = IPv4Network | IPv6Network
UpstreamAuth = Literal["external", "plain", "gssapi"]
TlsMode = Literal["starttls", "implicit", "none"]

MIB: Final = 1024 * 1024

MAX_PORT: Final = 65535
ANY_HOST: Final = "*"


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where to listen, or whom to call: `host:port`, `[2001:db8::1]:port`; host `*` is every address.

    `others` are those to call where this one does not answer, for the keys that take several.
    """

    host: str
    port: int
    others: "tuple[Endpoint, ...]" = ()

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str, default_port: int | None = None) -> Endpoint:
    """Read `host:port`; `host` alone where a default port is known. Raises ValueError with what to write."""
    expected = 'expected "host:port", as "127.0.0.1:143", "[::1]:143" or "*:143"'
    if text.startswith("["):
        host, bracket, tail = text[1:].partition("]")
        port = tail.removeprefix(":")
        if not bracket or not host or (tail and not tail.startswith(":")):
            raise ValueError(f"{expected}, not {text!r}")
    else:
        host, _, port = text.partition(":")
        if ":" in port:
            raise ValueError(f"write an IPv6 address in brackets: [{text}]")
    if not host:
        raise ValueError(f"{expected}, not {text!r}")
    if not port and default_port is not None:
        return Endpoint(host, default_port)
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= MAX_PORT):
        most = f": a port is 1 to {MAX_PORT}" if port.isdigit() else ""
        raise ValueError(f"{expected}, not {text!r}{most}")
    return Endpoint(host, int(port))


def parse_network(text: str) -> Network:
    """Read `192.0.2.0/24`, `2001:db8::/32` or one address. Raises ValueError with what to write."""
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(
            f'expected a network as "192.0.2.0/24" or an address, not {text!r}'
        ) from None


def contains(networks: tuple[Network, ...], address: str) -> bool:
    """Whether the address (text; an IPv4 one mapped into IPv6 counts as IPv4) lies in one of the networks."""
    parsed = _address_of(address)
    return parsed is not None and any(parsed in network for network in networks)


@lru_cache(maxsize=1024)  # of peers of late: it is asked for each message of theirs
def _address_of(text: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = address_in(text)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def option(
    default: object,
    doc: str,
    *,
    example: str = "",
    least: float | None = None,
    most: float | None = None,
    secret: bool = False,
    must_exist: bool = False,
    default_port: int | None = None,
    several: bool = False,
    by_name: bool = False,
) -> Any:  # as dataclasses.field: the annotation beside it is the type
    """Declare one configuration key.

    `doc` is its line in murder.toml.example and in error messages; `example` (TOML) stands there in place of
    the default. `least` and `most` bound a number; a `secret` may also be given as `KEY_file`; a path that `must_exist` is
    looked at when the file is checked. An endpoint that may be `several` may be a list: the first that answers serves.
    `by_name`: a table of such values, whose names are known elsewhere.
    """
    metadata = {
        "doc": doc,
        "example": example,
        "least": least,
        "most": most,
        "secret": secret,
        "must_exist": must_exist,
        "default_port": default_port,
        "several": several,
        "by_name": by_name,
    }
    make: Callable[..., Any] = field
    if by_name:
        return make(default_factory=dict, metadata=metadata)
    return make(default=default, repr=not secret, metadata=metadata)


def required(doc: str, *, example: str) -> Any:  # as `option`
    """Declare a key without a default: the file must give it."""
    make: Callable[..., Any] = field
    return make(metadata={"doc": doc, "example": example, "required": True})
