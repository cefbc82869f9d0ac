"""A protocol that is listened on: one value, of which everything else about its ports is made.

To add one, write its ProtocolSpec here and put it into PROTOCOLS; what serves it is a class or a function in a role's room,
which `served_by` names in words, as it is above this room (a plugin brings its own: `murder.api.service`). From there it has
its keys in murder.toml (and in murder.toml.example), its listeners, its answer when there is no room, its ports in
`murder demo`, its place in `murder ctl doctor`, `raw` and `backend show`, and `net.outgoing.upstream` knows where it
is at a backend.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

LITTLE_OCTETS: Final = 16 * 1024

FRONTEND: Final = "frontend"
BACKEND: Final = "backend"


@dataclass(frozen=True, slots=True)
class PortKey:
    """One key that names ports of a protocol: where a role listens, and in `[servers."NAME"]` where it is called.

    `doc` and `server_doc` are its lines in murder.toml.example, `example` (TOML) stands there as its value. `section` is
    the section where it is, if not the role's own. `default`, of a plugin's only: where it is listened on if the
    configuration does not say.
    """

    name: str
    port: int
    doc: str = ""
    server_doc: str = ""
    example: str = ""
    is_implicit: bool = False  # TLS from the first octet
    section: str = ""
    default: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ProtocolSpec:
    """`keys`: the one without TLS at first (STARTTLS, STLS, or none) stands before the one with. `refusal`: the octets for
    who is one too many. `served_by`: by role the service, as `module:name`, called with the connection, the role's
    ClientService, and its Frontend or Backend. `has_clients`: whether they are counted as the role's clients.
    `receive_octets`: of one connection's that the kernel keeps until they are read; 0: as it likes.
    """

    name: str
    keys: tuple[PortKey, ...]
    refusal: bytes
    served_by: Mapping[str, str] = field(default_factory=dict)
    has_clients: bool = True
    receive_octets: int = 0

    @property
    def implicit_key(self) -> PortKey | None:
        """The key of its ports with TLS from the first octet; None where it has none."""
        return next((key for key in self.keys if key.is_implicit), None)

    def key_for(self, tls: str) -> PortKey:
        """The key of the port to call with that TLS: `starttls`, `implicit` or `none`."""
        implicit = self.implicit_key if tls == "implicit" else None
        return implicit or self.keys[0]


IMAP: Final = ProtocolSpec(
    "imap",
    (
        PortKey("imap", 143, "IMAP with STARTTLS.", "Its IMAP port.", '["*:143"]'),
        PortKey(
            "imaps", 993, "IMAP over TLS.", "Its IMAP-over-TLS port.", '["*:993"]', is_implicit=True
        ),
    ),
    b"* BYE [UNAVAILABLE] Too many connections, try again later\r\n",
    MappingProxyType(
        {
            FRONTEND: "murder.roles.frontend.imap.table:serve_imap",
            BACKEND: "murder.roles.backend.imap.table:serve_imap",
        }
    ),
)
POP3: Final = ProtocolSpec(
    "pop3",
    (
        PortKey("pop3", 110, "POP3 with STLS.", "Its POP3 port.", '["*:110"]'),
        PortKey(
            "pop3s", 995, "POP3 over TLS.", "Its POP3-over-TLS port.", '["*:995"]', is_implicit=True
        ),
    ),
    b"-ERR [SYS/TEMP] Too many connections, try again later\r\n",
    MappingProxyType(
        {
            FRONTEND: "murder.roles.frontend.pop3:FrontendPop3",
            BACKEND: "murder.roles.backend.pop3:BackendPop3",
        }
    ),
)
LMTP: Final = ProtocolSpec(
    "lmtp",
    (PortKey("lmtp", 24, "Where mail comes in: LMTP.", "Its LMTP port.", '["127.0.0.1:24"]'),),
    b"421 4.3.2 Too many connections, try again later\r\n",
    MappingProxyType(
        {
            FRONTEND: "murder.roles.frontend.lmtp:FrontendLmtp",
            BACKEND: "murder.roles.backend.lmtp:BackendLmtp",
        }
    ),
)
SIEVE: Final = ProtocolSpec(
    "sieve",
    (
        PortKey(
            "sieve",
            4190,
            "Users' mail filters: ManageSieve with STARTTLS.",
            "Its ManageSieve port.",
            '["*:4190"]',
        ),
    ),
    b'BYE (TRYLATER) "Too many connections, try again later"\r\n',
    MappingProxyType(
        {
            FRONTEND: "murder.roles.frontend.managesieve:FrontendSieve",
            BACKEND: "murder.roles.backend.managesieve:BackendSieve",
        }
    ),
    receive_octets=LITTLE_OCTETS,  # scripts are long, and there is a room for those that come in (`murder.net.inbound`)
)
PROTOCOLS: Final[tuple[ProtocolSpec, ...]] = (IMAP, POP3, LMTP, SIEVE)
"""Those that frontends and backends speak with clients, in the order of their keys in murder.toml."""

# The nodes' own. Their keys stand in the sections by hand: no other section has them.
MUPDATE: Final = ProtocolSpec(
    "mupdate",
    (PortKey("listen", 3905), PortKey("mupdate", 3905)),
    b'* BYE "Too many connections, try again later"\r\n',
    has_clients=False,
    receive_octets=LITTLE_OCTETS,  # a node has many connections, and may send much ahead on each
)
CONTROL: Final = ProtocolSpec(
    "control",
    (PortKey("control", 3906, is_implicit=True, section="node"),),
    b'{"no": "too many connections"}\n',
    has_clients=False,
)
METRICS: Final = ProtocolSpec(
    "metrics",
    (PortKey("metrics", 9190, section="metrics"),),
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    has_clients=False,
    receive_octets=LITTLE_OCTETS,
)
WEB: Final = ProtocolSpec(
    "web",
    (PortKey("web", 9443, is_implicit=True, section="web"),),
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    has_clients=False,
    receive_octets=LITTLE_OCTETS,
)
BY_KEY: Final[Mapping[str, tuple[ProtocolSpec, PortKey]]] = MappingProxyType(
    {key.name: (spec, key) for spec in (*PROTOCOLS, MUPDATE, CONTROL) for key in spec.keys}
)
"""Every key that is listened on, in the order of listening."""


def protocol_named(name: str) -> ProtocolSpec:
    """Raises KeyError where there is none of that name."""
    return {spec.name: spec for spec, _ in BY_KEY.values()}[name]


def client_keys(role: str = "") -> Iterator[PortKey]:
    """The keys of PROTOCOLS, of those only that the role serves."""
    for spec in PROTOCOLS:
        if not role or role in spec.served_by:
            yield from spec.keys


def first_key(role: str) -> str:
    """The dotted key of a role that everybody knows, for who has set none."""
    return "mupdate.listen" if role == MUPDATE.name else f"{role}.{PROTOCOLS[0].keys[0].name}"
