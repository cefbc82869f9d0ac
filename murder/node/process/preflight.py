"""What would keep a node from running, found before it runs: each a line for an operator.

`murder serve` looks at certificates and plugins here; `murder config check` at names, ports and folders too.
"""

import contextlib
import os
import pwd
import socket
import ssl
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path

from murder.api.service import Service
from murder.config import ROLES, UNIFIED, Config, ConfigError, Endpoint, Problem, parts_of
from murder.config.load import unknown
from murder.config.popmap import read_popmap
from murder.config.popmap_regex import read_popmap_regex
from murder.errors import unreadable, user_name
from murder.hooks import Plugins, load_plugins
from murder.model.protocol import CONTROL, MUPDATE, client_keys, first_key
from murder.net.outgoing.proving import GSSAPI, ticket_problem
from murder.node.process.server import Port, bind, ports_of, running, section_of
from murder.pki.authority import (
    AuthorityError,
    flaws_of,
    names_of,
    read_certificate,
    roles_of,
)
from murder.pki.trust import read_trust


def roles_wanted(config: Config, named: Sequence[str]) -> tuple[str, ...]:
    """The roles to run: those named, else the configuration's; the master first, which the others ask. Raises ConfigError
    where there is none, or one twice."""
    wanted = dict.fromkeys(named or config.node.roles)
    roles = tuple(sorted(wanted, key=lambda role: role != MUPDATE.name))
    text = ""
    if not roles:
        text = f"no role; name one with --role {'|'.join(ROLES)}, or here"
    elif len(parts_of(roles)) < sum(len(parts_of([role])) for role in roles):
        text = "`unified` is frontend and backend in one: name no other of these beside it"
    if text:
        raise ConfigError([Problem(config.file, "node.roles", text)])
    return roles


def check_start(config: Config, roles: Sequence[str]) -> Plugins:
    """What `serve` needs to be right; the loaded plugins. Raises ConfigError with all that is not."""
    problems = [*_upstream_problems(config, parts_of(roles)), *_unified_problems(config, roles)]
    plugged: Sequence[Service] = ()
    try:
        plugins = load_plugins(config, roles)
        plugged = plugins.services()
    except ConfigError as error:
        problems += error.problems
    problems += [
        *certificate_problems(config, roles, plugged),
        *_double_problems(config, roles, plugged),
    ]
    if not problems:
        problems += service_problems(config, plugged)
    if problems:
        raise ConfigError(problems)
    return plugins


def _unified_problems(config: Config, roles: Sequence[str]) -> Iterator[Problem]:
    """What a unified node has in one place only."""
    if UNIFIED not in roles:
        return
    backend, frontend = config.backend, config.frontend
    for key in (*(key.name for key in client_keys()), "services"):
        if getattr(backend, key):
            text = f"a unified node listens where frontend.{key} says; remove this"
            yield Problem(config.file, f"backend.{key}", text)
    for user in sorted({*backend.proxies} & {*frontend.proxies}):
        text = f"{user} is in frontend.proxies too: on one port a proxy user speaks with the one or the other"
        yield Problem(config.file, "backend.proxies", text)


def service_problems(config: Config, plugged: Sequence[Service]) -> Iterator[Problem]:
    """Keys of protocols that no plugin brings."""
    tables: list[tuple[str, Iterable[str], Iterable[Service]]] = [
        (role, section.services, [offered for offered in plugged if role in offered.roles])
        for role in parts_of(ROLES)
        if (section := section_of(config, role)) is not None
    ]
    tables += [
        (f'servers."{name}"', server.services, plugged) for name, server in config.servers.items()
    ]
    for prefix, table, services in tables:
        known = [key.name for service in services for key in service.protocol.keys]
        for name in table:
            if name not in known:
                text = (
                    unknown("protocol", name, known)
                    if known
                    else "no plugin in [plugins] use brings it"
                )
                yield Problem(config.file, f"{prefix}.services.{name}", text)


def check_host(
    config: Config,
    roles: Sequence[str],
    own: Collection[str] = (),
    plugged: Sequence[Service] = (),
) -> list[Problem]:
    """What this host has to offer: names, ports, the data folder. `own`: the endpoints that the node itself has bound;
    `plugged`: what plugins bring."""
    problems = [*_name_problems(config, roles), *data_problems(config)]
    for role in running(config, roles):
        ports = ports_of(config, role, plugged, is_first=role == roles[0])
        if not [port for port in ports if port.protocol != CONTROL.name]:
            text = f"the {role} role has nothing to listen on"
            problems.append(Problem(config.file, first_key(role), text))
        for port in ports:
            if str(port.endpoint) not in own:
                problems += _port_problems(config, port)
    return problems


def _double_problems(
    config: Config, roles: Sequence[str], plugged: Sequence[Service]
) -> Iterator[Problem]:
    """One port for two keys."""
    seen: list[Port] = []
    for role in running(config, roles):
        for port in ports_of(config, role, plugged, is_first=role == roles[0]):
            twin = next(
                (earlier for earlier in seen if _collide(earlier.endpoint, port.endpoint)), None
            )
            seen.append(port)
            if twin is not None:
                text = f"{port.endpoint} is {twin.dotted}'s already ({twin.endpoint}); choose another port"
                yield Problem(config.file, port.dotted, text)


def _collide(endpoint: Endpoint, other: Endpoint) -> bool:
    """Whether two listeners want the same port: of one address, or of all of its family."""
    wild = {"0.0.0.0": False, "::": True}
    if endpoint.port != other.port or endpoint.port == 0:
        return False
    if endpoint.host == other.host:
        return True
    for this, that in ((endpoint, other), (other, endpoint)):
        if this.host in wild and (":" in that.host) is wild[this.host]:
            return True
    return False


def _port_problems(config: Config, port: Port) -> Sequence[Problem]:
    try:
        for sock in bind(config, port, 1):
            sock.close()
    except ConfigError as error:
        return error.problems
    return ()


def node_account(config: Config) -> pwd.struct_passwd | None:
    """Whom the node runs as, for root who looks: node.user, else the owner of its data folder. None: who looks."""
    if os.geteuid() != 0:
        return None
    try:
        if config.node.user:
            account = pwd.getpwnam(config.node.user)
        else:
            account = pwd.getpwuid(config.node.data.stat().st_uid)
    except (KeyError, OSError):
        return None  # `serve` says what is wrong with it
    return account if account.pw_uid != 0 else None


@contextlib.contextmanager
def acting_as(account: pwd.struct_passwd) -> Iterator[None]:
    """Files are opened as that user would, until the end. Only root can."""
    groups, group = os.getgroups(), os.getegid()
    os.initgroups(account.pw_name, account.pw_gid)
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def paths_of_plugins(settings: Mapping[str, object]) -> list[tuple[str, Path]]:
    """What plugins' settings name that is there: keys (`plugins.auth_pam.folder`) and paths. As root, who sees all but what
    another user has mounted (FUSE): that counts as there."""
    return [
        (f"plugins.{name}.{key.name}", path)
        for name, made in settings.items()
        if is_dataclass(made)
        for key in fields(made)
        if isinstance(path := getattr(made, key.name), Path) and _is_there(path)
    ]


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def paths_not_open(config: Config, paths: Sequence[tuple[str, Path]]) -> Iterator[Problem]:
    """Those that who looks (the effective user) may not open: plugins find that out when somebody logs in."""
    user = user_name()
    for key, path in paths:
        if os.access(path, os.R_OK, effective_ids=True):
            continue
        cure = f"`chown {user}: {path}`, or, where it is of a group, `usermod -aG GROUP {user}`"
        text = f"{path} cannot be opened by {user}, as whom the node runs; {cure}"
        yield Problem(config.file, key, text)


def check_plugins(plugins: Plugins, roles: Sequence[str]) -> list[Problem]:
    """Whether the auth backend and the store can be made."""
    makers: list[Callable[[], object]] = [plugins.auth_backends]
    makers += [plugins.store] if "backend" in parts_of(roles) else []
    problems: list[Problem] = []
    for make in makers:
        try:
            make()
        except ConfigError as error:
            problems.extend(error.problems)
    return problems


def certificate_problems(
    config: Config, roles: Sequence[str], plugged: Sequence[Service] = ()
) -> Iterator[Problem]:
    """What is wrong with this node's certificates, for the user that looks."""
    tls, now = config.tls, datetime.now(UTC)
    if tls.certificate is None or tls.key is None:
        has_public = tls.public_certificate is not None and tls.public_key is not None
        for role in running(config, roles):
            is_public = "frontend" in parts_of([role])  # which shows clients that one
            if is_public and has_public:
                continue
            beside = ", or tls.public_certificate and tls.public_key" if is_public else ""
            text = f"needs a certificate; set tls.certificate and tls.key{beside}"
            for port in ports_of(config, role, plugged):
                if port.implicit_tls:
                    yield Problem(config.file, port.dotted, text)
    else:
        flaws = flaws_of(tls.certificate, tls.key, tls.ca, now)
        yield from (Problem(config.file, f"tls.{flaw.file}", str(flaw)) for flaw in flaws)
        if not flaws:
            yield from _identity_problems(config, tls.certificate, roles)
    yield from _trust_problems(config)
    yield from _server_problems(config)
    if tls.public_certificate is not None and tls.public_key is not None:
        for flaw in flaws_of(tls.public_certificate, tls.public_key, None, now):
            yield Problem(config.file, f"tls.public_{flaw.file}", str(flaw))


def _trust_problems(config: Config) -> Iterator[Problem]:
    """What was taken back: whether it can be read, and whether it is this node itself."""
    tls = config.tls
    if tls.crl is None and not tls.revoked:
        return
    key = "tls.crl" if tls.crl is not None else "tls.revoked"
    try:
        trust = read_trust(tls.ca, tls.crl, tls.revoked)
    except AuthorityError as error:
        yield Problem(config.file, key, str(error))
        return
    with contextlib.suppress(AuthorityError):
        if tls.certificate is not None and trust.is_revoked(read_certificate(tls.certificate)):
            text = f"{tls.certificate} was revoked ({key}); `murder ca issue {config.node.name}` makes another"
            yield Problem(config.file, "tls.certificate", text)


def _server_problems(config: Config) -> Iterator[Problem]:
    """Whether the authorities of servers that have one of their own can be read."""
    for name, server in config.servers.items():
        if server.ca is None:
            continue
        try:
            ssl.create_default_context(cafile=str(server.ca))
        except (OSError, ValueError) as error:
            text = f"{server.ca} is no file of certificates (PEM) that can be read: {error}"
            yield Problem(config.file, f'servers."{name}".ca', text)


def _identity_problems(config: Config, path: Path, roles: Sequence[str]) -> Iterator[Problem]:
    """The other nodes believe the certificate, not the configuration: the two must agree."""
    try:
        certificate = read_certificate(path)
    except AuthorityError:
        return
    name = config.node.name
    if name.lower() not in (known.lower() for known in names_of(certificate)):
        text = f"{path} is not for {name} (node.name); `murder ca issue {name}` makes one that is"
        yield Problem(config.file, "tls.certificate", text)
    missing = [role for role in parts_of(roles) if role not in roles_of(certificate)]
    if missing:
        text = f"{path} is not for the role {', '.join(missing)}; issue one with --role"
        yield Problem(config.file, "tls.certificate", text)


def _upstream_problems(config: Config, roles: Sequence[str]) -> Iterator[Problem]:
    """Whom this node must reach, and by what right."""
    mupdate, frontend, has_certificate = config.mupdate, config.frontend, config.tls.certificate
    follows = [role for role in roles if role != "mupdate"]
    passes_on = frontend.mode == "multiplexor"
    if "frontend" in roles and config.master is None and not passes_on:
        yield Problem(
            config.file, "mupdate.master", "missing: a frontend needs its master's host:port"
        )
    if follows and config.master is not None:
        if mupdate.master_auth == "external" and has_certificate is None:
            text = "`external` needs tls.certificate, or use `plain` with master_user and _password"
            yield Problem(config.file, "mupdate.master_auth", text)
        if mupdate.master_auth == "plain" and not (mupdate.master_user and mupdate.master_password):
            text = "`plain` needs mupdate.master_user and mupdate.master_password_file"
            yield Problem(config.file, "mupdate.master_auth", text)
        if mupdate.master_auth == GSSAPI and (text := ticket_problem(config.node.keytab)):
            yield Problem(config.file, "mupdate.master_auth", text)
    if "frontend" in parts_of(roles) and passes_on:
        yield from multiplexor_problems(config)
    if "frontend" in roles and not (passes_on and config.multiplexor.login != "proxy"):
        if frontend.upstream_auth == "external" and has_certificate is None:
            text = "`external` needs tls.certificate, or use `plain` with proxy_user and _password"
            yield Problem(config.file, "frontend.upstream_auth", text)
        if frontend.upstream_auth == "plain" and not (
            frontend.proxy_user and frontend.proxy_password
        ):
            text = "`plain` needs frontend.proxy_user and frontend.proxy_password_file"
            yield Problem(config.file, "frontend.upstream_auth", text)
        if frontend.upstream_auth == GSSAPI and (text := ticket_problem(config.node.keytab)):
            yield Problem(config.file, "frontend.upstream_auth", text)


def multiplexor_problems(config: Config) -> Iterator[Problem]:
    """What [frontend.multiplexor] wants and does not have."""
    multiplexor, prefix = config.multiplexor, "frontend.multiplexor"
    ways = set(multiplexor.find)
    if "hash" in ways and not multiplexor.hash_servers:
        yield Problem(config.file, f"{prefix}.hash_servers", "missing: `find` has `hash`")
    for key, way in (("table", "table"), ("table_regex", "table"), ("hash_servers", "hash")):
        if getattr(multiplexor, key) and way not in ways:
            text = f'is not looked at: put "{way}" into {prefix}.find'
            yield Problem(config.file, f"{prefix}.{key}", text)
    known = {
        "host": multiplexor.login != "through",  # which no plugin is asked for
        "table": multiplexor.table is not None or multiplexor.table_regex is not None,
        "list": config.master is not None,
        "hash": True,
    }
    if not any(known[way] for way in ways):
        text = "finds no server: name a `table`, `hash_servers`, or the list's mupdate.master"
        yield Problem(config.file, f"{prefix}.find", text)
    tables: Sequence[tuple[str, Path | None, Callable[[Path], object]]] = (
        ("table", multiplexor.table, read_popmap),
        ("table_regex", multiplexor.table_regex, read_popmap_regex),
    )
    for key, file, read in tables:
        if file is not None:
            try:
                read(file)
            except FileNotFoundError:
                pass
            except (OSError, ValueError) as error:
                yield Problem(config.file, f"{prefix}.{key}", f"{file}: {error}")


def _name_problems(config: Config, roles: Sequence[str]) -> Iterator[Problem]:
    wanted: list[tuple[str, str]] = []
    if config.mupdate.master is not None and any(role != "mupdate" for role in roles):
        masters = (config.mupdate.master, *config.mupdate.master.others)
        wanted += [("mupdate.master", master.host) for master in masters]
    if "frontend" in parts_of(roles):
        for name in config.servers:
            wanted.append((f'servers."{name}".address', config.address_of(name)))
    for key, host in wanted:
        try:
            socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            text = f"the name {host!r} has no address; look at its spelling, DNS and /etc/hosts"
            yield Problem(config.file, key, text)


def data_problems(config: Config) -> Iterator[Problem]:
    """Whether the data folder can be used by who looks (the effective user)."""
    folder, user = config.node.data, config.node.user
    if user and os.geteuid() == 0:
        try:
            pwd.getpwnam(user)
        except KeyError:
            yield Problem(config.file, "node.user", f"no such user {user!r}")
    try:
        folder.exists()
    except OSError as error:  # of a folder above it, or of what is mounted there
        yield Problem(config.file, "node.data", f"{folder} {unreadable(folder, error)}")
        return
    if folder.exists():
        if not folder.is_dir():
            yield Problem(config.file, "node.data", f"{folder} is no folder")
        elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            yield Problem(
                config.file,
                "node.data",
                f"{folder} cannot be written by user {user_name()}; chown it",
            )
        return
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not os.access(above, os.W_OK | os.X_OK, effective_ids=True):
        yield Problem(
            config.file,
            "node.data",
            f"{folder} is missing and {above} cannot be written by user {user_name()}",
        )
