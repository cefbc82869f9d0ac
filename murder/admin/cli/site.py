"""The hosts of a murder, as `murder init` plans them: site.toml, and the configuration that each of them gets.

    admins = ["admin"]
    operator = "operator"
    [hosts."mupdate.example.org"]
    role = "mupdate"
    [hosts."be1.example.org"]
    role = "backend"
    address = "10.0.0.2"               # where the others call it, if that is not its name
    names = ["imap.example.org"]       # more names and addresses that its certificate is good for

A role is a row of `ROLES`: which roles its certificate has, and what its configuration says. Knows no files.
"""

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from murder.config import UNIFIED, ConfigError, Problem
from murder.config.write import format_value

SITE: Final = "site.toml"
# RFC 1123 §2.1
HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*", re.ASCII)
MAX_HOST_NAME: Final = 253
OPERATOR_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Host:
    """One, with one node on it."""

    name: str
    role: str
    address: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """All hosts, who administers mail, who runs `murder ctl`; `etcd` where several masters share their list; whether users
    are `user@domain`."""

    hosts: Mapping[str, Host]
    admins: tuple[str, ...] = ("admin",)
    operator: str = "operator"
    etcd: tuple[str, ...] = ()
    domains: bool = False

    def of(self, role: str) -> list[Host]:
        """Those of a role, in order."""
        return [host for host in self.hosts.values() if role in ROLES[host.role].certified]


@dataclass(frozen=True, slots=True)
class Role:
    """What a node of it is certified for, and its own part of murder.toml. Its name has the node's roles, joined by `+`."""

    certified: tuple[str, ...]
    blocks: Callable[[Site, Host], Iterator[str]]


def _master(site: Site, _host: Host) -> Iterator[str]:
    shared = {"engine": "etcd"} if site.etcd else {}
    yield _table("mupdate", listen=["*:3905"], admins=site.admins, **shared)
    if site.etcd:
        yield _etcd(site.etcd)


def _all(site: Site, host: Host) -> Iterator[str]:
    """A unified node that is a master, too: with others, its own is asked first."""
    if site.etcd:
        masters = _own_first(_places(site), {host.address or host.name})
        mine = {"engine": "etcd", "master": masters, "admins": site.admins}
        yield _table("mupdate", listen=["*:3905"], **mine)
        own = {urlsplit(url).hostname or "": url for url in site.etcd}
        nearest = {own[name] for name in (host.name, host.address) if name in own}
        yield _etcd(_own_first(site.etcd, nearest))
    else:
        yield _table("mupdate", listen=["*:3905"], admins=site.admins)
    yield from _unified(site, host)


def _etcd(endpoints: Sequence[str]) -> str:
    text = _table("plugins.list_etcd", endpoints=list(endpoints))
    if not any(url.startswith("https:") for url in endpoints):
        return text
    return text + (
        "\n# etcd's certificates are of an authority of its own: `murder help masters`"
        '\n#ca = "etcd-ca.pem"\n#certificate = "etcd.pem"\n#key = "etcd.key"'
    )


def _own_first(places: Sequence[str], own: Collection[str]) -> list[str]:
    return sorted(places, key=lambda place: place not in own)


def _backend(site: Site, _host: Host) -> Iterator[str]:
    ports = {"imap": ["*:143"], "pop3": ["*:110"], "lmtp": ["*:24"], "sieve": ["*:4190"]}
    yield _table("backend", **ports, lmtp_trusted=[], admins=list(site.admins))


def _frontend(site: Site, _host: Host) -> Iterator[str]:
    ports = {"imap": ["*:143"], "imaps": ["*:993"], "pop3s": ["*:995"], "sieve": ["*:4190"]}
    mta = {"lmtp": ["127.0.0.1:24"]}
    yield _table("frontend", **ports, **mta, admins=list(site.admins))


def _unified(site: Site, _host: Host) -> Iterator[str]:
    clients = {"imap": ["*:143"], "imaps": ["*:993"], "pop3": ["*:110"], "pop3s": ["*:995"]}
    mail = {"lmtp": ["*:24"], "sieve": ["*:4190"], "lmtp_trusted": ["127.0.0.0/8"]}
    yield _table("frontend", **clients, **mail, admins=list(site.admins))
    yield _table("backend", admins=list(site.admins))


ROLES: Final[Mapping[str, Role]] = MappingProxyType(
    {
        "mupdate": Role(("mupdate",), _master),
        "frontend": Role(("frontend",), _frontend),
        "backend": Role(("backend",), _backend),
        UNIFIED: Role(("frontend", "backend"), _unified),
        f"mupdate+{UNIFIED}": Role(("mupdate", "frontend", "backend"), _all),
    }
)


def site_from(table: Mapping[str, object], file: Path) -> Site:
    """What a site.toml says. Raises ConfigError with all that is wrong with it."""
    problems: list[Problem] = []

    def texts(key: str, value: object) -> tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        problems.append(Problem(file, key, "must be a list of texts"))
        return ()

    hosts = {}
    tables = table.get("hosts", {})
    for name, given in (tables if isinstance(tables, Mapping) else {}).items():
        key = f'hosts."{name}"'
        if not isinstance(given, Mapping) or not isinstance(given.get("role"), str):
            problems.append(Problem(file, key, f"must have a role: one of {', '.join(ROLES)}"))
            continue
        if unknown := sorted(given.keys() - {"role", "address", "names"}):
            problems.append(Problem(file, f"{key}.{unknown[0]}", "is no key of a host"))
        address, names = given.get("address", ""), texts(f"{key}.names", given.get("names", []))
        if not isinstance(address, str):
            problems.append(Problem(file, f"{key}.address", "must be a text"))
        hosts[name] = Host(name, given["role"], str(address), names)
    domains = table.get("domains", False)
    if not isinstance(domains, bool):
        problems.append(Problem(file, "domains", "must be true or false"))
    if unknown := sorted(table.keys() - {"hosts", "admins", "operator", "etcd", "domains"}):
        problems.append(Problem(file, unknown[0], "is no key of a site"))
    site = Site(
        hosts,
        texts("admins", table.get("admins", ["admin"])),
        str(table.get("operator", "operator")),
        texts("etcd", table.get("etcd", [])),
        bool(domains),
    )
    problems += [Problem(file, key, text) for key, text in flaws(site)]
    if problems:
        raise ConfigError(problems)
    return site


def flaws(site: Site) -> Iterator[tuple[str, str]]:
    """What is wrong with it: (key, what)."""
    for name, host in site.hosts.items():
        key = f'hosts."{name}"'
        if not is_host_name(name):
            yield key, "is no host name"
        if host.role not in ROLES:
            yield f"{key}.role", f"{host.role!r} is none of {', '.join(ROLES)}"
        for written in (host.address, *host.names):
            if written and not is_host_name(written) and not is_address(written):
                yield key, f"{written!r} is neither a host name nor an address"
    if not OPERATOR_NAME.fullmatch(site.operator) or site.operator in site.hosts:
        yield "operator", f"{site.operator!r} is no name for an operator"
    if any(host.role not in ROLES for host in site.hosts.values()):
        return
    for role, what in (
        ("mupdate", "a master"),
        ("backend", "a backend"),
        ("frontend", "a frontend"),
    ):
        if not site.of(role):
            yield "hosts", f"{what} is missing: a host of role {role}"
    if len(site.of("mupdate")) > 1 and not site.etcd:
        yield (
            "etcd",
            "several masters share their list through etcd: name its servers (https://HOST:2379)",
        )


def is_host_name(text: str) -> bool:
    """Whether it may be a host's name, which is a folder's and a certificate's too."""
    return bool(HOST_NAME.fullmatch(text)) and len(text) <= MAX_HOST_NAME


def is_address(text: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def with_hosts(site: Site, more: Mapping[str, Host]) -> Site:
    """The same with these hosts: new ones at the end."""
    return replace(site, hosts={**site.hosts, **more})


def format_site(site: Site) -> str:
    """As `site_from` reads it."""
    head = "# The hosts of this murder, written by `murder init`, which reads it when it is called again."
    lines = [head, f"admins = {format_value(site.admins)}"]
    lines.append(f"operator = {format_value(site.operator)}")
    if site.etcd:
        lines.append(f"etcd = {format_value(site.etcd)}")
    if site.domains:
        lines.append("domains = true")
    blocks = ["\n".join(lines)]
    for host in site.hosts.values():
        keys: dict[str, object] = {"role": host.role}
        if host.address:
            keys["address"] = host.address
        if host.names:
            keys["names"] = host.names
        blocks.append(_table(f"hosts.{format_value(host.name)}", **keys))
    return "\n\n".join(blocks) + "\n"


def format_host(site: Site, host: Host) -> str:
    """A host's murder.toml."""
    control, roles = ["*:3906"], host.role.split("+")
    blocks = [
        "# Written by `murder init`, which leaves it alone once you have changed it.",
        _table("node", name=host.name, data="/var/lib/murder", roles=roles, control=control),
        _table(
            "tls",
            ca="ca.pem",
            crl="crl.pem",
            certificate=f"{host.name}.pem",
            key=f"{host.name}.key",
        ),
    ]
    if "frontend" in ROLES[host.role].certified:
        blocks[-1] += (
            "\n# what mail clients see, from a CA that they trust; without it, the certificate above"
            '\n#public_certificate = "/etc/ssl/mail.pem"\n#public_key = "/etc/ssl/mail.key"'
        )
    if "mupdate" not in roles:
        blocks.append(_table("mupdate", master=_masters(site)))
    blocks += _namespace(site)
    blocks += ROLES[host.role].blocks(site, host)
    if host.role != "mupdate":
        blocks += _servers(site)
    return "\n\n".join(blocks) + "\n"


def format_operator(site: Site) -> str:
    """The murder.toml of who runs `murder ctl`."""
    # else they are learnt, by their names, which DNS may not have where addresses were told
    nodes = [host.address or host.name for host in site.hosts.values()]
    reached = {"nodes": nodes} if any(host.address for host in site.hosts.values()) else {}
    own = {"certificate": f"{site.operator}.pem", "key": f"{site.operator}.key"}
    blocks = [
        "# Written by `murder init`. For `murder ctl`: export MURDER_CONFIG=…/murder.toml",
        _table("node", name=site.operator, data="/tmp"),
        _table("tls", ca="ca.pem", crl="crl.pem"),
        _table("operator", **own, **reached),
        _table("mupdate", master=_masters(site)),
        *_namespace(site),
        *_servers(site),
    ]
    return "\n\n".join(blocks) + "\n"


def _masters(site: Site) -> object:
    places = _places(site)
    return places[0] if len(places) == 1 else places


def _places(site: Site) -> list[str]:
    return [host.address or host.name for host in site.of("mupdate")]


def _namespace(site: Site) -> Iterator[str]:
    """The same on every node."""
    if site.domains:
        yield _table("namespace", domains=True)


def _servers(site: Site) -> Iterator[str]:
    for host in site.of("backend"):
        keys = {"address": host.address} if host.address else {}
        yield _table(f"servers.{format_value(host.name)}", **keys)


def _table(header: str, **keys: object) -> str:
    return "\n".join([f"[{header}]", *(f"{key} = {format_value(it)}" for key, it in keys.items())])
