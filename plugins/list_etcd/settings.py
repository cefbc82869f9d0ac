"""The table [plugins.list_etcd] of murder.toml."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

_ENDPOINT: Final = re.compile(
    r"(?:(https?)://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?/?"
)
CLIENT_PORT: Final = 2379


class Endpoint(NamedTuple):
    """Where a member of the cluster listens for clients."""

    host: str
    port: int
    is_tls: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.list_etcd]. All masters of a murder have the same, but for the order of the endpoints and the
    certificate."""

    endpoints: tuple[str, ...] = field(
        default=("https://localhost:2379",),
        metadata={
            "doc": "Members of the cluster, each as https://host:port; http:// is without TLS. The nearest one first: it is "
            "asked while it answers."
        },
    )
    prefix: str = field(
        default="/murder/",
        metadata={"doc": "What the keys begin with: another one for each murder on a cluster."},
    )
    ca: Path | None = field(
        default=None,
        metadata={"doc": "The authority of the members' certificates; empty: the system's."},
    )
    certificate: Path | None = field(
        default=None, metadata={"doc": "This master's certificate, where etcd asks for one."}
    )
    key: Path | None = field(default=None, metadata={"doc": "Its key."})
    user: str = field(default="", metadata={"doc": "etcd's user; empty: none is told."})
    password: str = field(default="", metadata={"doc": "Their password.", "secret": True})
    timeout_s: float = field(
        default=4.0,
        metadata={
            "doc": "How long a change waits for etcd before the answer is `try again later`; longer than an election takes."
        },
    )
    max_message_bytes: int = field(
        default=16 << 20,
        metadata={
            "doc": "Of one message of a member, which is in memory as a whole; of a longer one less is asked for. At least "
            "twice etcd's --max-request-bytes.",
            "least": 1 << 16,
        },
    )

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError("endpoints: name a member at least")
        self.members()
        if not self.prefix.endswith("/"):
            raise ValueError("prefix ends with a slash, as in /murder/")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if not 0.5 <= self.timeout_s <= 60:
            raise ValueError("timeout_s is from 0.5 to 60")

    def members(self) -> list[Endpoint]:
        """Raises ValueError for what is no address."""
        endpoints = []
        for endpoint in self.endpoints:
            match = _ENDPOINT.fullmatch(endpoint)
            if match is None or int(match[3] or 0) > 65535:
                raise ValueError(f"endpoints: {endpoint!r} is no https://host:port")
            host = match[2].strip("[]")
            endpoints.append(Endpoint(host, int(match[3] or CLIENT_PORT), match[1] != "http"))
        return endpoints
