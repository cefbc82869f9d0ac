"""What a demo is made of: its nodes, their ports, folders, certificates and configurations.

Everything lives in one folder: `ca/`, `users`, and one folder a node with `murder.toml`, `data/` and `log`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar

from murder.api.kinds.kind import Kind
from murder.api.service import Service
from murder.config import (
    UNIFIED,
    Config,
    ConfigError,
    NodeConfig,
    PluginsConfig,
    Problem,
    parts_of,
)
from murder.config.write import format_value
from murder.errors import Code, Refusal
from murder.hooks import kinds_of, load_module, load_plugins, named_for, naming, site_plugin, why
from murder.model.protocol import BY_KEY, METRICS, WEB, client_keys
from murder.pki.authority import CA_CERTIFICATE, flaws_of, init_authority, issue, write_durably

DOMAIN: Final = "murder.test"  # RFC 6761 §6.2: never anybody's
HOST: Final = "127.0.0.1"
PASSWORD: Final = "secret"
ADMIN: Final = "admin"
PARTITION: Final = "default"
USER_FORMAT: Final = "user%d"
NAMESPACE: Final = {"separator": "/", "personal": "INBOX/", "users": "user/", "shared": ""}
RENEW_BEFORE: Final = timedelta(days=30)
OPERATOR: Final = "operator"
MASTER: Final = "mupdate"
MEMBERS: Final = 3  # of etcd: one may be lost

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """What `murder demo` was asked for."""

    folder: Path
    backends: int = 2
    frontends: int = 1
    users: int = 20
    workers: int = 1
    unified: int = 0  # nodes that are frontend and backend in one; then there are no others
    is_ha: bool = False  # each of those is a master, too, and etcd keeps the list
    port_base: int = 14300
    tls_required: bool = True
    plugins: tuple[Path, ...] = ()  # files or folders of a site's own
    used: tuple[str, ...] = ()  # those of them that `plugins.use` names
    # keys by section, of the others
    jobs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    services: tuple[Service, ...] = ()  # what all of them listen on


@dataclass(frozen=True, slots=True)
class Node:
    """One node: `label` is its short name (be1), `ports` by the keys of `model.protocol`; `mupdate` at the master, and at
    frontends for their copies of the list; `pages` those of HTTP, by protocol."""

    label: str
    roles: tuple[str, ...]
    ports: dict[str, int]
    folder: Path
    pages: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.label}.{DOMAIN}"

    def has(self, role: str) -> bool:
        """Whether it is that, alone or with others in one."""
        return role in parts_of(self.roles)

    @property
    def config_file(self) -> Path:
        return self.folder / "murder.toml"

    @property
    def log_file(self) -> Path:
        return self.folder / "log"


@dataclass(frozen=True, slots=True)
class Member:
    """One server of etcd. `port` is for masters, `peer_port` for the others of them."""

    label: str
    port: int
    peer_port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def peer_url(self) -> str:
        return f"http://{HOST}:{self.peer_port}"

    @property
    def log_file(self) -> Path:
        return self.folder / "log"

    def has(self, role: str) -> bool:
        """It has none of murder's."""
        return False


def members_of(options: Options) -> list[Member]:
    """Of etcd; their ports are the last ones."""
    if not options.is_ha:
        return []
    port = _last_of(nodes_of(options))
    return [
        Member(label, port + 2 * number - 1, port + 2 * number, options.folder / label)
        for number, label in enumerate((f"etcd{number}" for number in range(1, MEMBERS + 1)), 1)
    ]


def nodes_of(options: Options) -> list[Node]:
    """The master, the frontends, the backends; ports counted up in this order, and then for the frontends' lists. Or the
    unified nodes, the first of which (with etcd each) is a master, too."""
    port = options.port_base
    nodes: list[Node] = []
    wanted = [("fe", "frontend", options.frontends), ("be", "backend", options.backends)]
    if options.unified:
        wanted = [("n", UNIFIED, options.unified)]
    else:
        nodes.append(Node(MASTER, (MASTER,), {MASTER: port}, options.folder / MASTER))
    for prefix, role, count in wanted:
        for number in range(1, count + 1):
            is_master = not nodes
            ports = {MASTER: port} if is_master else {}
            if options.is_ha and nodes:
                port, is_master = port + 1, True
                ports = {MASTER: port}
            roles = (MASTER, role) if is_master else (role,)
            own = "frontend" if role == UNIFIED else role
            plugged = [service.protocol for service in options.services if own in service.roles]
            for key in chain(client_keys(own), *(spec.keys for spec in plugged)):
                port += 1
                ports[key.name] = port
            label = f"{prefix}{number}"
            nodes.append(Node(label, roles, ports, options.folder / label))
    for node in nodes:
        if node.has("frontend") and not node.has(MASTER):
            port += 1
            node.ports[MASTER] = port
    for node in nodes:
        port += 1
        node.pages[METRICS.name] = port
    for node in nodes:
        port += 1
        node.pages[WEB.name] = port
    return nodes


def last_port(options: Options) -> int:
    """The highest that nodes and members have."""
    return _last_of(nodes_of(options)) + 2 * len(members_of(options))


def _last_of(nodes: Sequence[Node]) -> int:
    return max(port for node in nodes for port in (*node.ports.values(), *node.pages.values()))


def plugins_folder(folder: Path) -> Path:
    """The site's own plugins, each alone."""
    return folder / "plugins"


def with_plugins(options: Options) -> Options:
    """The same with what its plugins are for, and listen on. Raises ConfigError."""
    if not options.plugins:
        return options
    home = plugins_folder(options.folder)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in options.plugins:
        link = home / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path.absolute())
    config = Config(
        file=options.folder,
        node=NodeConfig(name=DOMAIN, data=options.folder),
        plugins=PluginsConfig(path=(home,)),
    )
    used, roles = [], set()
    jobs: dict[str, dict[str, object]] = {}
    for path in options.plugins:
        kinds = _kinds_of(path)
        if not kinds or any(not kind.key for kind in kinds):
            used.append(path.stem)
        for kind in kinds:
            if kind.key:
                section, key, named = _job(config, kind, path)
                if jobs.setdefault(section, {}).setdefault(key, named) != named:
                    text = f"there is a plugin for {section}.{key} already; take one out"
                    raise ConfigError([Problem(path, "", text)])
                config = naming(config, kind, path.stem)
                roles.add(kind.role)
    config = replace(config, plugins=replace(config.plugins, use=tuple(used)))
    services = tuple(load_plugins(config, roles).services())
    return replace(options, used=tuple(used), jobs=jobs, services=services)


def _kinds_of(path: Path) -> list[Kind]:
    """Raises ConfigError."""
    plugin = site_plugin(path)
    try:
        return kinds_of(load_module(plugin)) if plugin is not None else []
    except (Exception, SystemExit) as error:
        raise ConfigError([Problem(path, "", f"does not load: {why(error)}")]) from error


def _job(config: Config, kind: Kind, path: Path) -> tuple[str, str, object]:
    """The section and key that name a plugin of this kind, and what they say then. Where there may be several it is asked
    first, and then the one that a demo has: it knows the demo's users."""
    section, _, key = (kind.several or kind.key).partition(".")
    if kind.several:
        return section, key, [path.stem, *named_for(config, kind)[0]]
    return section, key, path.stem.removeprefix(kind.prefix)


def users_of(options: Options) -> Iterator[str]:
    """user1 … userN."""
    return (USER_FORMAT % number for number in range(1, options.users + 1))


def ca_file(folder: Path) -> Path:
    """The authority's certificate: what clients need to trust."""
    return folder / "ca" / CA_CERTIFICATE


def prepare(options: Options, nodes: Sequence[Node]) -> None:
    """Make or complete the folder: certificates are kept, configurations written anew, data left alone."""
    authority = options.folder / "ca"
    authority.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not ca_file(options.folder).exists():
        init_authority(authority)
    for member in members_of(options):
        _prepare_member(member)
    for node in nodes:
        (node.folder / "data").mkdir(mode=0o700, parents=True, exist_ok=True)
        certificate = node.folder / f"{node.name}.pem"
        key = certificate.with_suffix(".key")
        soon = datetime.now(UTC) + RENEW_BEFORE
        if flaws_of(certificate, key, ca_file(options.folder), soon):
            issue(
                authority,
                node.name,
                parts_of(node.roles),
                addresses=("localhost", HOST, "::1"),
                out=node.folder,
            )
        text = format_node(options, nodes, node)
        write_durably(node.config_file, text.encode("utf-8"), 0o600)
    _prepare_operator(options, nodes, authority)


def _prepare_member(member: Member) -> None:
    """Its folder. What members know of each other's addresses cannot be changed from outside. Raises Refusal."""
    member.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (member.folder / "data").mkdir(mode=0o700, exist_ok=True)
    noted = member.folder / "peer"
    before = noted.read_text("utf-8") if noted.exists() else member.peer_url
    if before != member.peer_url:
        text = f"{member.folder} was at {before}: use the --port-base of then, or another --dir"
        raise Refusal(Code.CANNOT, text)
    write_durably(noted, member.peer_url.encode(), 0o600)


def _prepare_operator(options: Options, nodes: Sequence[Node], authority: Path) -> None:
    """A murder.toml and a certificate for `murder ctl`."""
    folder = options.folder / OPERATOR
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate = folder / f"{OPERATOR}.pem"
    key = certificate.with_suffix(".key")
    soon = datetime.now(UTC) + RENEW_BEFORE
    if flaws_of(certificate, key, ca_file(options.folder), soon):
        issue(authority, OPERATOR, ["operator"], out=folder)
    blocks = [
        "# Written by `murder demo`; written anew at each start. For `murder ctl`.",
        _table("node", name=OPERATOR, data="data"),
        _table("tls", ca=str(ca_file(options.folder).absolute())),
        _operator(nodes, Path()),  # beside it
        _table("mupdate", master=_masters(nodes)),
        _table("namespace", unix_hierarchy=True, alternative=False),
        *_servers(nodes),
        *_users(options),
    ]
    write_durably(operator_file(options.folder), ("\n\n".join(blocks) + "\n").encode(), 0o600)


def _masters(nodes: Sequence[Node], first: Node | None = None) -> str | list[str]:
    """Where they listen; this one's own before the others."""
    masters = sorted((node for node in nodes if node.has(MASTER)), key=lambda node: node != first)
    endpoints = [f"{HOST}:{master.ports[MASTER]}" for master in masters]
    return endpoints if len(endpoints) > 1 else endpoints[0]


def _operator(nodes: Sequence[Node], folder: Path) -> str:
    """Who shows the operator's certificate, which is in this folder."""
    certificate = folder / f"{OPERATOR}.pem"
    return _table(
        "operator",
        certificate=str(certificate),
        key=str(certificate.with_suffix(".key")),
        nodes=[str((node.folder / "data").absolute()) for node in nodes],
    )


def operator_file(folder: Path) -> Path:
    """The configuration that `murder ctl --config` takes to speak to a demo."""
    return folder / OPERATOR / "murder.toml"


def _servers(nodes: Sequence[Node]) -> list[str]:
    return [
        _table(
            f'servers."{node.name}"',
            address=HOST,
            **_by_key({key: port for key, port in node.ports.items() if key != MASTER}),
        )
        for node in nodes
        if node.has("backend")
    ]


def _by_key(ports: Mapping[str, T]) -> dict[str, object]:
    """As keys of a section: those of plugins' protocols are in its `services`."""
    own = {key: value for key, value in ports.items() if key in BY_KEY}
    plugged = {key: value for key, value in ports.items() if key not in BY_KEY}
    return {**own, **({"services": plugged} if plugged else {})}


def format_node(options: Options, nodes: Sequence[Node], node: Node) -> str:
    """A node's murder.toml, as an operator would write it for a host of its own."""
    blocks = [
        "# Written by `murder demo`; written anew at each start.",
        _table(
            "node",
            name=node.name,
            data="data",
            roles=list(node.roles),
            drain_timeout_s=5.0,
        ),
        _table(
            "tls",
            ca=str(ca_file(options.folder).absolute()),
            certificate=f"{node.name}.pem",
            key=f"{node.name}.key",
        ),
        _format_mupdate(options, nodes, node),
    ]
    listeners = {key: [f"{HOST}:{port}"] for key, port in node.ports.items()}
    if node.has(MASTER):
        del listeners[MASTER]
    section: dict[str, object] = {"admins": [ADMIN]}
    if not options.tls_required:
        section["allow_plaintext"] = True
    if node.has("frontend"):
        own = {"workers": options.workers, **section, **_by_key(listeners)}
        blocks.append(_table("frontend", **own))
    if node.has("backend"):
        own = {"partition": PARTITION, **section, **options.jobs.get("backend", {})}
        if UNIFIED not in node.roles:
            own = {"workers": options.workers, **own, **_by_key(listeners)}
        blocks.append(_table("backend", **own))
    blocks.append(_table("namespace", unix_hierarchy=True, alternative=False))
    blocks += _servers(nodes)
    if options.plugins:
        use = [*options.used, *PluginsConfig().use]
        folder = str(plugins_folder(options.folder).absolute())
        blocks.append(_table("plugins", path=[folder], use=use))
    blocks += [
        *(
            _table(name, **keys)
            for name, keys in options.jobs.items()
            if name not in (MASTER, "backend")
        ),
        *_users(options),
        _table("log", format="text"),
        _table("metrics", listen=[f"{HOST}:{node.pages[METRICS.name]}"]),
        _table("web", listen=[f"{HOST}:{node.pages[WEB.name]}"], admins=[ADMIN]),
        "# For the web page: what `murder ctl` on this host would have, too.",
        _operator(nodes, operator_file(options.folder).absolute().parent),
    ]
    if options.is_ha:
        members = members_of(options)
        at = nodes.index(node) % len(members)
        endpoints = [member.url for member in (*members[at:], *members[:at])]
        blocks.append(_table("plugins.list_etcd", endpoints=endpoints))
    return "\n\n".join(blocks) + "\n"


def _users(options: Options) -> list[str]:
    """Where passwords are."""
    users_file = str((options.folder / "users").absolute())
    return [
        "# A real murder leaves log2_cost at its default: this is quick to log in to, and to guess.",
        _table("plugins.auth_file", file=users_file, log2_cost=10, scram_iterations=4096),
    ]


def _format_mupdate(options: Options, nodes: Sequence[Node], node: Node) -> str:
    masters = _masters(nodes, node)
    if node.roles == ("backend",):
        return _table("mupdate", master=masters)
    place: dict[str, object] = {"master": masters}
    if node.has(MASTER):
        place = {"listen": [f"{HOST}:{node.ports[MASTER]}"], **options.jobs.get(MASTER, {})}
    if options.is_ha:
        place |= {"engine": "etcd", "master": masters}
    section: dict[str, object] = {**place, "admins": [ADMIN]}
    if not options.tls_required:
        section["allow_plaintext"] = True
    return _table("mupdate", **section)


def _table(header: str, /, **values: object) -> str:
    lines = [f"{key} = {format_value(value)}" for key, value in values.items()]
    return "\n".join([f"[{header}]", *lines])


def describe(options: Options, nodes: Sequence[Node], pids: dict[str, int]) -> dict[str, object]:
    """The line of `--json`: a contract with the tools that drive a demo."""
    by_role: dict[str, list[dict[str, object]]] = {MASTER: [], "frontend": [], "backend": []}
    for node in nodes:
        for role in parts_of(node.roles):
            ports = {"port": node.ports[MASTER]} if role == MASTER else node.ports
            numbers = {**ports, **node.pages, "pid": pids[node.label]}
            by_role[role].append({"name": node.name, "node": node.label, "host": HOST, **numbers})
    return {
        "ready": True,
        "dir": str(options.folder),
        "ca": str(ca_file(options.folder)),
        "admin": {"user": ADMIN, "password": PASSWORD},
        "users": options.users,
        "user_format": USER_FORMAT,
        "password": PASSWORD,
        "namespace": NAMESPACE,
        "partition": PARTITION,
        "mupdate": by_role[MASTER][0],
        "frontends": by_role["frontend"],
        "backends": by_role["backend"],
        "operator": str(operator_file(options.folder)),
        "mupdates": by_role[MASTER],
        "engine": [
            {"name": member.label, "host": HOST, "port": member.port, "pid": pids[member.label]}
            for member in members_of(options)
        ],
    }
