"""Every section and key of murder.toml, with its default and its meaning: the one place that says so.

The file `murder.toml.example`, `murder config example`, the error messages and the loader are all made from these
classes. Units end the names; a path that is relative counts from the file's own folder.
"""

# ruff: noqa: RUF009 (`option` and `required` are dataclasses.field with a doc, not shared values)

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from murder.config.auth import AuthConfig as AuthConfig  # others find it here
from murder.config.dns import DnsConfig
from murder.config.expiry import ExpiryRule
from murder.config.monitor import LogConfig, MetricsConfig, TracesConfig, WebConfig
from murder.config.multiplexor import MultiplexorConfig as MultiplexorConfig
from murder.config.mupdate import MupdateConfig
from murder.config.sieve import ImapScriptRule, ProgramConfig, SieveConfig
from murder.config.submission import SubmissionConfig as SubmissionConfig
from murder.config.value import (
    ANY_HOST,
    MIB,
    Endpoint,
    Network,
    TlsMode,
    UpstreamAuth,
    option,
    parse_network,
    required,
)
from murder.model.name import MAX_DEPTH, Namespace
from murder.model.protocol import CONTROL, MUPDATE, PortKey, client_keys
from murder.model.query.listing import MAX_WILDCARDS

T = TypeVar("T")


def with_ports(
    after: str, kind: object, make: Callable[[PortKey], Any]
) -> Callable[[type[T]], type[T]]:
    """Declare a key for each of `model.protocol.PROTOCOLS` in a section, of this type, behind the key `after` (else
    before all). Below @dataclass, which makes fields of them like of the others."""

    def declare(cls: type[T]) -> type[T]:
        own = list(cls.__annotations__.items())
        place = [name for name, _ in own].index(after) + 1 if after else 0
        ports = [(key.name, kind) for key in client_keys()]
        cls.__annotations__ = dict([*own[:place], *ports, *own[place:]])
        for key in client_keys():
            setattr(cls, key.name, make(key))
        return cls

    return declare


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """This host's part in the murder."""

    name: str = required(
        "The name by which the other nodes know this one; a backend's is in every location of the list.",
        example='"be1.example.org"',
    )
    data: Path = required("Folder for the mailbox list and the mail.", example='"/var/lib/murder"')
    roles: tuple[str, ...] = option(
        (),
        "What this node is, where `murder serve` is not told by --role: mupdate, frontend, backend; or unified, which is "
        "frontend and backend on the same ports, those of [frontend].",
        example='["backend"]',
    )
    user: str = option("", "Become this user after the ports are open (when started as root).")
    group: str = option("", "Become this group; empty: the user's own.")
    keytab: Path | None = option(
        None,
        "Kerberos keys by which this node logs in at others that want `gssapi` of it; empty: the system's "
        "(KRB5_CLIENT_KTNAME).",
        example='"murder.keytab"',
    )
    control: tuple[Endpoint, ...] = option(
        (),
        "Where `murder ctl status`, `sessions` and their like are answered for operators on other hosts (TLS, an "
        "operator's certificate); on this host they need no port.",
        example='["*:3906"]',
        default_port=CONTROL.keys[0].port,
    )
    worker_timeout_s: float = option(
        20.0,
        "A worker process that does nothing at all for so long is killed and replaced; 0: never. Others serve its new "
        "clients after two seconds.",
        least=0,
    )
    drain_timeout_s: float = option(
        30.0, "How long a stop waits for commands that run before it cuts them off.", least=0
    )


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Certificates. `murder ca init` and `murder ca issue NAME --role ROLE` make those between the nodes."""

    ca: Path | None = option(
        None,
        "The cluster's certificate authority: who may speak as a node of this murder.",
        example='"ca.pem"',
        must_exist=True,
    )
    certificate: Path | None = option(
        None, "This node's certificate, signed by it.", example='"node.pem"', must_exist=True
    )
    key: Path | None = option(
        None, "The certificate's private key (mode 0600).", example='"node.key"', must_exist=True
    )
    public_certificate: Path | None = option(
        None,
        "The certificate (with its chain) that mail clients see; empty: the node's.",
        example='"/etc/ssl/mail.example.org.pem"',
        must_exist=True,
    )
    public_key: Path | None = option(
        None,
        "The private key of that one.",
        example='"/etc/ssl/mail.example.org.key"',
        must_exist=True,
    )
    crl: Path | None = option(
        None,
        "Certificates of nodes and operators that count no longer: a revocation list (PEM) of `murder ca revoke`.",
        example='"crl.pem"',
        must_exist=True,
    )
    revoked: tuple[str, ...] = option(
        (),
        "More of them, by serial number in hexadecimal (`murder ca list`).",
        example='["3F0A…"]',
    )
    users_ca: Path | None = option(
        None,
        "The authority of users' certificates, with which they log in at frontends and backends (SASL EXTERNAL; see "
        "`[auth] certificate_user`). What `ca` has signed is a node's all the same.",
        example='"users-ca.pem"',
        must_exist=True,
    )
    minimum_version: Literal["1.2", "1.3"] = option("1.2", "The oldest TLS version spoken.")


@dataclass(frozen=True, slots=True)
@with_ports("", tuple[Endpoint, ...], lambda key: option((), key.doc, example=key.example))
class ClientConfig:
    """What frontend and backend have in common: the ports for clients, and their limits."""

    services: Mapping[str, tuple[Endpoint, ...]] = option(
        {},
        "Ports of protocols that plugins bring, by the plugins' keys (`murder plugin list` has them).",
        example='{nntp = ["*:119"]}',
        by_name=True,
    )
    lmtp_trusted: tuple[Network, ...] = option(
        (parse_network("127.0.0.0/8"), parse_network("::1")),
        "Networks that may deliver without authentication.",
    )
    workers: int = option(0, "Worker processes; 0: one for each processor.", least=0)
    admins: tuple[str, ...] = option(
        (), "Users who may do everything (never through another's proxy).", example='["admin"]'
    )
    allow_plaintext: bool = option(False, "Allow passwords on connections without TLS.")
    suppress_capabilities: tuple[str, ...] = option(
        (), "Capabilities not to be announced.", example='["COMPRESS=DEFLATE"]'
    )
    literal_minus: bool = option(
        False,
        "Announce LITERAL- in place of LITERAL+ (RFC 7888): literals above 4096 octets are sent only after "
        "the server's go-ahead, so that what is refused is never on its way.",
    )
    login_timeout_s: float = option(60.0, "How long a client may take to log in.", least=0.01)
    idle_timeout_s: float = option(
        1860.0, "Silence after which a client is logged out (RFC 3501 §5.4: 30 min).", least=0.01
    )
    command_timeout_s: float = option(
        60.0, "How long a client may pause inside a command.", least=0.01
    )
    write_timeout_s: float = option(
        120.0, "How long a client may leave an answer unread.", least=0.01
    )
    max_connections: int = option(
        20000,
        "Connections at once, over all ports and workers. Beyond it whoever has been there longest without a login goes, "
        "else the newcomer is refused.",
        least=1,
    )
    max_connections_per_address: int = option(
        2000,
        "Connections at once from one address (of IPv6: one /64), for many users behind one NAT; `auth.trusted` has no "
        "such limit. 0: no limit.",
        least=0,
    )
    max_strangers_per_address: int = option(
        1000,
        "Of those, so many who have not logged in, TLS handshakes too. Nodes of the murder are not bound. 0: no limit.",
        least=0,
    )
    max_connections_per_user: int = option(
        100,
        "Logins of one user at once, by IMAP and POP3; who comes through a proxy is counted there. 0: no limit.",
        least=0,
    )
    proxy_protocol_from: tuple[Network, ...] = option(
        (),
        "Load balancers: from these networks every connection must begin with a PROXY header (version 1 or 2) that "
        "tells the client's address.",
        example='["192.0.2.1"]',
    )
    max_line_bytes: int = option(
        1024 * 1024,
        "Longest command line of an IMAP client that has logged in; POP3 and LMTP: 65536 at most.",
        least=1024,
    )
    max_literal_bytes: int = option(
        4 * MIB, "Longest literal outside a message, and all of a command together.", least=1024
    )
    max_message_bytes: int = option(64 * MIB, "Largest message.", least=1024)
    max_list_wildcards: int = option(
        MAX_WILDCARDS,
        "Wildcards of one pattern of LIST, runs counted as one; all patterns of a command: ten times as many.",
        least=1,
    )
    max_recipients: int = option(1000, "LMTP: recipients of one message.", least=1)


@dataclass(frozen=True, slots=True)
class FrontendConfig(ClientConfig):
    """A frontend: what clients talk to. It keeps no mail and passes all on to the backends."""

    mode: Literal["murder", "multiplexor"] = option(
        "murder",
        "`murder` passes each command on to where its mailbox is; `multiplexor` makes a whole session one pipe to one "
        "server, by [frontend.multiplexor].",
    )
    mupdate: tuple[Endpoint, ...] = option(
        (),
        "Where it tells its copy of the mailbox list to others, read-only (RFC 3656). Who may ask: the other "
        "nodes, and mupdate.users and mupdate.admins.",
        example='["*:3905"]',
        default_port=MUPDATE.keys[0].port,
    )
    upstream_auth: UpstreamAuth = option(
        "external",
        "How this frontend logs in at backends: `external` is its certificate; `plain` is a proxy user "
        "(Cyrus backends); `gssapi` is a Kerberos ticket for IMAP/HOST, POP/HOST, by node.keytab.",
    )
    upstream_tls: TlsMode = option("starttls", "How it encrypts: starttls, implicit, none.")
    upstream_proxy_protocol: Literal["none", "v1", "v2"] = option(
        "none",
        "Whether connections to backends begin with a PROXY header that tells the client's address.",
    )
    proxy_user: str = option(
        "",
        "With `plain`: the proxy user; with `gssapi`: the principal, empty: the keytab's first.",
        example='"murder"',
    )
    proxy_password: str = option("", "With `plain`: its password.", secret=True)
    proxies: tuple[str, ...] = option(
        (),
        "Master users: who may log in for others with PLAIN (authorization identity, own name and password), with "
        "the others' rights, never an administrator's. Each such login is logged with both names.",
        example='["migration"]',
    )
    connect_timeout_s: float = option(5.0, "Waiting for a connection to a backend.", least=0.01)
    upstream_timeout_s: float = option(
        60.0, "Waiting for a backend in the middle of an answer.", least=0.01
    )
    upstream_login_timeout_s: float = option(
        10.0,
        "How long a backend may take to greet us, to accept our login, and (LMTP) to answer for a recipient.",
        least=0.01,
    )
    upstream_idle_s: float = option(
        60.0,
        "How long an unused connection to a backend is kept for the next session; to a Cyrus, for the same user's.",
        least=0,
    )
    max_upstreams_idle: int = option(
        100, "Unused connections kept to each backend, each worker.", least=0
    )
    breaker_failures: int = option(
        5, "Failures in a row after which a backend is only tested, not used.", least=1
    )
    breaker_retry_s: float = option(2.0, "How often it is tested then.", least=0.01)


@dataclass(frozen=True, slots=True)
class BackendConfig(ClientConfig):
    """A backend: the server that keeps mail."""

    max_connections_per_address: int = option(
        0,
        "Connections at once from one address; each frontend has thousands. 0: no limit.",
        least=0,
    )
    max_strangers_per_address: int = option(
        2000,
        "Connections from one address that have not logged in, TLS handshakes too; none of this for an address from which "
        "a node of the murder has logged in. 0: no limit.",
        least=0,
    )
    store: str = option("store_spool", "The plugin that keeps the messages.")
    partition: str = option("default", "The name of its place in locations (`server!partition`).")
    lmtp_over_quota: Literal["temporary", "permanent"] = option(
        "temporary",
        "LMTP to a mailbox that is full: `temporary` lets the sender's server try again (452), `permanent` sends "
        "the message back (552).",
    )
    quota_warning_percent: int = option(
        90,
        "A client that opens or fills a mailbox is warned (`* NO [OVERQUOTA]`) from so many percent of a limit on; "
        "0: never.",
        least=0,
    )
    suppress_duplicates_s: float = option(
        0.0,
        "LMTP: a message whose Message-ID has come to the same mailbox within so many seconds is taken and not "
        "kept again; 0: everything is kept.",
        least=0,
    )
    create_inbox: bool = option(
        False, "Make a user's INBOX at their first login (else an administrator does)."
    )
    proxies: tuple[str, ...] = option(
        (),
        "Users who may log in for others with PLAIN (Cyrus frontends); our frontends need none, they show "
        "their certificate.",
    )
    refers_logins: bool = option(
        False,
        "Whose INBOX is at another server is told where at their login, and goes there (RFC 2221); see `murder help dns`.",
    )
    takes_xfer_from: tuple[str, ...] = option(
        (),
        "Users as which Cyrus backends log in (their `proxy_authname`) and may send mailboxes here by XFER.",
        example='["murder"]',
    )
    submitters: tuple[str, ...] = option(
        (),
        "Submission servers, by the users they log in as: they may fetch what users refer them to "
        "(URLAUTH `submit+`, RFC 4467).",
        example='["submission"]',
    )
    delete: Literal["immediate", "delayed"] = option(
        "delayed",
        "`delayed` keeps deleted mailboxes for a while: `murder ctl mailbox undelete` brings them back; `immediate` does "
        "not.",
    )
    deleted_keep_s: float = option(
        604800.0, "With `delayed`: how long deleted mailboxes are kept.", least=0
    )
    expunged_keep_s: float = option(
        604800.0,
        "How long expunged messages are kept, outside the quota: `murder ctl mailbox unexpunge NAME` brings them back; 0: "
        "not.",
        least=0,
    )
    expunged_keep_messages: int = option(
        100_000,
        "So many of one user, or of one shared mailbox at the top with all below it; the oldest go first.",
        least=1,
    )
    expunged_keep_bytes: int = option(1024 * MIB, "And so many octets of them.", least=1)
    default_acl: str = option(
        "anyone lrs",
        "Who may do what in a new shared mailbox that has none above it: identifiers, each with its rights (RFC 4314); "
        "Cyrus' `defaultacl`. A user's mailboxes begin as their own, all others with the rights of the one above.",
    )
    max_acl_identifiers: int = option(
        1000,
        "Users and groups in the access list of one mailbox; an administrator may set more.",
        least=1,
    )
    max_mailboxes_per_user: int = option(
        10000,
        "Mailboxes below one user's INBOX, or below one shared mailbox at the top; an administrator may make more. "
        "Those kept since they were deleted count apart, up to as many: what is deleted then goes at once.",
        least=1,
    )
    max_mailbox_depth: int = option(
        MAX_DEPTH, "Levels of a mailbox name that a user may make.", least=2
    )
    max_subscriptions_per_user: int = option(
        10000, "Names that one user may be subscribed to.", least=1
    )
    max_metadata_entries: int = option(
        200,
        "Annotations that one user may have on one mailbox, or on the server; and as many that all share.",
        least=1,
    )
    max_metadata_bytes: int = option(
        256 * 1024,
        "Octets that these may have together, names and values.",
        least=1024,
    )
    max_metadata_value_bytes: int = option(64 * 1024, "Octets of one annotation.", least=256)
    max_metadata_bytes_per_user: int = option(
        16 * MIB,
        "Octets of all annotations on one user's INBOX and the mailboxes below it.",
        least=1024,
    )
    max_search_keys: int = option(
        1000,
        "Keys of one SEARCH, SORT or THREAD, without sets of numbers (with them ten times as many); a fifth may be texts.",
        least=5,
    )
    max_parsed_addresses: int = option(
        1000,
        "Addresses of one field of a mail that clients are told (ENVELOPE); those behind are left out.",
        least=1,
    )
    max_parsed_parts: int = option(
        10_000,
        "Parts of a mail that clients are told (BODYSTRUCTURE); what comes behind is one last part.",
        least=1,
    )
    max_parsed_levels: int = option(
        100,
        "Levels of parts within each other, up to 100; what lies deeper is told as one part.",
        least=1,
        most=100,  # as deep as FETCH names parts
    )
    max_parsed_header_bytes: int = option(
        MIB,
        "Octets that are read of one header of a mail, and four times as many of all its parts' together.",
        least=1024,
    )
    max_scripts_per_user: int = option(
        100, "Sieve scripts that one user may have; Cyrus' `sieve_maxscripts`.", least=1
    )
    max_script_bytes: int = option(
        256 * 1024, "Octets of one Sieve script; Cyrus' `sieve_maxscriptsize`.", least=1024
    )
    max_url_keys_per_mailbox: int = option(
        1000, "Users who may have made URLs of one mailbox's messages (URLAUTH, RFC 4467).", least=1
    )
    moves_parallel: int = option(
        2, "Moves to other servers under way at once, each worker; more wait.", least=1
    )
    move_bytes_per_s: int = option(
        0, "Octets a second that each of them may send; 0: as fast as it goes.", least=0
    )
    move_grace_s: float = option(
        604800.0,
        "How long what has moved away is kept here, for `murder ctl move undo` to be quick. A move that "
        "failed is given up after the same time.",
        least=0,
    )


@dataclass(frozen=True, slots=True)
class NamespaceConfig:
    """How clients see mailbox names. The same on every frontend and backend."""

    unix_hierarchy: bool = option(True, "`/` between the parts of a name; false: `.`.")
    alternative: bool = option(False, "Own mailboxes beside INBOX in place of below it.")
    domains: bool = option(
        False,
        "Users are `user@domain`, each domain with its own mailboxes; false: `@domain` behind a user says nothing.",
    )

    def namespace(self) -> Namespace:
        """The value that translates names."""
        return Namespace(self.unix_hierarchy, self.alternative, self.domains)


@dataclass(frozen=True, slots=True)
@with_ports("address", int, lambda key: option(key.port, key.server_doc, least=1))
class ServerConfig:
    """Where another server of the murder is reached, and how, where it differs from the rest."""

    address: str = option("", "Host name or address; empty: the server's name itself.")
    tls: TlsMode | None = option(None, "In place of frontend.upstream_tls.", example='"starttls"')
    tls_name: str = option("", "The name its certificate must carry; empty: the server's name.")
    ca: Path | None = option(
        None,
        "Who signs its certificate, where that is not tls.ca; on Debian whom the system trusts is in "
        "/etc/ssl/certs/ca-certificates.crt.",
        example='"/etc/ssl/certs/mail-ca.pem"',
        must_exist=True,
    )
    auth: UpstreamAuth | None = option(
        None, "In place of frontend.upstream_auth.", example='"plain"'
    )
    proxy_user: str = option("", "In place of frontend.proxy_user.")
    proxy_password: str = option("", "In place of frontend.proxy_password.", secret=True)
    services: Mapping[str, int] = option(
        {},
        "Its ports for protocols that plugins bring, by the plugins' keys.",
        example="{nntp = 119}",
        by_name=True,
    )
    weight: float = option(1.0, "Its share of new mailboxes against the others; 0: none.", least=0)

    def port(self, key: PortKey) -> int:
        """Where it is called, by a key of `model.protocol`."""
        own: int = getattr(self, key.name, key.port)
        return self.services.get(key.name, own)


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """Who `murder ctl` is. A certificate of `murder ca issue NAME --role operator`, or else an administrator's password.
    Needed only where ctl is run."""

    certificate: Path | None = option(
        None,
        "An operator's certificate.",
        example='"operator.pem"',
        must_exist=True,
    )
    key: Path | None = option(
        None, "Its private key (mode 0600).", example='"operator.key"', must_exist=True
    )
    nodes: tuple[str, ...] = option(
        (),
        "The nodes of the murder for `murder ctl status`: HOST:PORT of their [node] control, or the data folder of one "
        "on this host (/… or ./…); this node's own is always asked. None: the master, the servers of its list and who "
        "follows it, at port 3906.",
        example='["fe1.example.org:3906", "be1.example.org:3906"]',
    )
    user: str = option("", "Without a certificate: an administrator of the backends.")
    password: str = option("", "Their password; asked for where it is not here.", secret=True)


@dataclass(frozen=True, slots=True)
class PluginsConfig:
    """Where plugins are found, and which decide."""

    path: tuple[Path, ...] = option(
        (), "Folders with a site's own plugins.", example='["/etc/murder/plugins"]', must_exist=True
    )
    use: tuple[str, ...] = option(
        ("placement_with_parent", "placement_emptiest", "referral_when_able"),
        "Plugins that decide, asked first to last. The store and the auth plugin are named elsewhere.",
    )
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict, repr=False)
    """The tables `[plugins.NAME]` as they stand in the file, by plugin name."""


@dataclass(frozen=True, slots=True)
class Config:
    """A whole murder.toml. `file` is where it came from. It can be pickled: workers get theirs from the supervisor."""

    file: Path
    node: NodeConfig
    tls: TlsConfig = field(default_factory=TlsConfig)
    mupdate: MupdateConfig = field(default_factory=MupdateConfig)
    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    submission: SubmissionConfig = field(default_factory=SubmissionConfig)
    multiplexor: MultiplexorConfig = field(default_factory=MultiplexorConfig)
    sieve: SieveConfig = field(default_factory=SieveConfig)
    programs: Mapping[str, ProgramConfig] = field(default_factory=dict)
    imap: Mapping[str, ImapScriptRule] = field(default_factory=dict)
    namespace: NamespaceConfig = field(default_factory=NamespaceConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    servers: Mapping[str, ServerConfig] = field(default_factory=dict)
    expiry: Mapping[str, ExpiryRule] = field(default_factory=dict)
    operator: OperatorConfig = field(default_factory=OperatorConfig)
    dns: DnsConfig = field(default_factory=DnsConfig)
    plugins: PluginsConfig = field(default_factory=PluginsConfig)
    log: LogConfig = field(default_factory=LogConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    traces: TracesConfig = field(default_factory=TracesConfig)
    web: WebConfig = field(default_factory=WebConfig)

    def server(self, name: str) -> ServerConfig:
        """Where the server of that name is reached: its section, else all defaults."""
        return self.servers.get(name) or ServerConfig()

    def address_of(self, name: str) -> str:
        """Host name or address of a server of the list."""
        return self.server(name).address or name

    @property
    def is_master(self) -> bool:
        """Whether this node's mupdate role is a master, not a replica of one: those of several masters name each other."""
        return self.mupdate.master is None or self.mupdate.engine != "embedded"

    @property
    def master(self) -> Endpoint | None:
        """Whom this node's roles call for the list: `mupdate.master`; where the node listens as the master, itself."""
        own = self.mupdate.listen[:1]
        if self.mupdate.master is not None or not own:
            return self.mupdate.master
        here = {ANY_HOST: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
        return Endpoint(here.get(own[0].host, own[0].host), own[0].port)

    def workers_of(self, role: str) -> int:
        """How many worker processes a role has; 0 in the file means one for each processor."""
        if role in ("mupdate", "web"):
            return 1
        return (self.backend if role == "backend" else self.frontend).workers or os.cpu_count() or 1
