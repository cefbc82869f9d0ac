"""`murder init`: certificates, configurations and units for all hosts of a murder, a folder each, ready to copy."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncclick as click

from murder.admin.cli.ca import DEFAULT_FOLDER as DEFAULT_AUTHORITY
from murder.admin.cli.install import format_unit
from murder.admin.cli.options import PATH, print_json
from murder.admin.cli.site import (
    ROLES,
    SITE,
    Host,
    Site,
    flaws,
    format_host,
    format_operator,
    format_site,
    site_from,
    with_hosts,
)
from murder.config import ConfigError, Problem
from murder.config.load import load_config, read_table
from murder.node.process.preflight import check_start
from murder.pki.authority import (
    CA_CERTIFICATE,
    EXPIRES_SOON_DAYS,
    flaws_of,
    init_authority,
    issue,
    names_of,
    read_certificate,
    roles_of,
    write_durably,
)
from murder.pki.trust import CRL, init_list, read_crl

DEFAULT_FOLDER: Final = Path("murder-site")
CONFIG: Final = "murder.toml"
PROGRAM: Final = "/usr/local/bin/murder"  # on the hosts, wherever this one has it
FILES: Final = 6  # of a host: ca.pem, crl.pem, its certificate and key, murder.toml, murder.service
ASKED: Final = (
    ("mupdate", "The master's host name: "),
    ("backend", "Backends, which keep mail (host names): "),
    ("frontend", "Frontends, which mail clients talk to (host names): "),
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The folder of one host, or of the operator: what was written there now, and what the operator has to look at."""

    name: str
    folder: Path
    changed: tuple[str, ...]
    kept: bool = False


@click.command()
@click.option(
    "--dir",
    "folder",
    type=PATH,
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Where all of it goes: a folder for each host, and one for the operator.",
)
@click.option(
    "--ca",
    "authority",
    type=PATH,
    default=DEFAULT_AUTHORITY,
    show_default=True,
    help="Folder of ca.pem and ca.key, of `murder ca`; made if it is not there.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME=ROLE[@ADDRESS]",
    help=f"A host and what it is: {', '.join(ROLES)}. ADDRESS, where others call it by that.",
)
@click.option(
    "--from", "plan", type=PATH, help="A file with the hosts, as the site.toml it writes."
)
@click.option("--admin", "admins", multiple=True, help="Who administers mail.  [default: admin]")
@click.option("--operator", default="", help="Who runs `murder ctl`.  [default: operator]")
@click.option(
    "--etcd", multiple=True, metavar="URL", help="A server of the etcd that several masters share."
)
@click.option("--domains", is_flag=True, help="Users are user@domain, of several domains.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON, for programs: authority, hosts (a list of name, folder, changed, kept).",
)
def init(
    folder: Path,
    authority: Path,
    hosts: tuple[str, ...],
    plan: Path | None,
    admins: tuple[str, ...],
    operator: str,
    etcd: tuple[str, ...],
    domains: bool,
    as_json: bool,
) -> int:
    """Write certificates, configurations and units for all hosts of a murder: a folder each, ready to copy.

    Without --host and --from it asks. Called again it adds hosts, and renews certificates that end soon or were revoked.
    The authority stays, and a configuration that was changed by hand: the new one lies beside it as murder.toml.new.

    \b
    murder init
    murder init --host m=mupdate --host b=backend --host f=frontend
    murder init --host be2.example.org=backend@10.0.0.4
    murder init --host n1=mupdate+unified --etcd https://n1:2379
    murder init --from site.toml --json
    """
    earlier = _read(folder / SITE) if (folder / SITE).exists() else None
    if plan is not None:
        site = _read(plan)
    else:
        site = earlier or Site({})
    site = replace(
        site,
        admins=admins or site.admins,
        operator=operator or site.operator,
        etcd=etcd or site.etcd,
        domains=domains or site.domains,
    )
    if plan is None:
        site = with_hosts(site, {host.name: host for host in map(_host, hosts)})
        if not site.hosts and earlier is None:
            site = _ask(site)
    if wrong := list(flaws(site)):
        raise ConfigError(Problem(folder / SITE, key, text) for key, text in wrong)
    prepared = prepare(folder, authority, site, earlier)
    if as_json:
        rows = [
            {"name": it.name, "folder": str(it.folder), "changed": it.changed, "kept": it.kept}
            for it in prepared
        ]
        print_json({"authority": str(authority), "hosts": rows})
    else:
        click.echo("\n".join(_told(authority, site, prepared, is_new=earlier is None)))
    return 0


def _read(file: Path) -> Site:
    return site_from(read_table(file), file)


def _host(text: str) -> Host:
    """NAME=ROLE, NAME=ROLE@ADDRESS. Raises UsageError."""
    name, is_there, rest = text.partition("=")
    role, _, address = rest.partition("@")
    if not is_there or role not in ROLES:
        want = f"want NAME=ROLE or NAME=ROLE@ADDRESS, ROLE one of {', '.join(ROLES)}"
        raise click.UsageError(f"--host {text}: {want}")
    return Host(name, role, address)


def _ask(site: Site) -> Site:
    """The site with the hosts that somebody names at a terminal; what is wrong with an answer is asked for again. Raises
    UsageError where there is no terminal."""
    if not sys.stdin.isatty():
        raise click.UsageError("name the hosts: --host NAME=ROLE, or --from FILE")
    before = set(flaws(site))  # of what is no answer: it is refused in the end
    for role, question in ASKED:
        names: list[str] = []
        while not names:
            names = input(question).replace(",", " ").split()
            wider = with_hosts(site, {name: Host(name, role) for name in names})
            again = [(name, "has another role already") for name in names if name in site.hosts]
            for key, text in [*again, *(set(flaws(wider)) - before)]:
                if key != "hosts":  # who is missing is asked for next
                    click.echo(f"  {key}: {text}; once more, please", err=True)
                    names = []
        site = wider
    return site


def prepare(folder: Path, authority: Path, site: Site, earlier: Site | None) -> list[Prepared]:
    """Make or complete all folders; the operator's is the last. Raises ConfigError, AuthorityError, OSError."""
    for directory in (folder, authority):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (authority / CA_CERTIFICATE).exists():
        init_authority(authority)
    if not (authority / CRL).exists():
        init_list(authority, datetime.now(UTC))
    prepared = []
    for host in site.hosts.values():
        before = earlier.hosts.get(host.name) if earlier else None
        certified = ROLES[host.role].certified
        home, changed = _certified(
            authority, folder / host.name, certified, [*host.names, host.address]
        )
        old = format_host(earlier, before) if earlier and before else ""
        written, kept = _configured(home, format_host(site, host), old)
        changed += written
        changed += _written(home / "murder.service", format_unit(program=PROGRAM))
        prepared.append(Prepared(host.name, home, tuple(changed), kept))
        check_start(load_config(home / CONFIG), host.role.split("+"))
    home, changed = _certified(authority, folder / site.operator, ("operator",), [])
    old = format_operator(earlier) if earlier else ""
    written, kept = _configured(home, format_operator(site), old)
    prepared.append(Prepared(site.operator, home, (*changed, *written), kept))
    load_config(home / CONFIG)
    _written(folder / SITE, format_site(site))  # last: what is noted is there
    return prepared


def _certified(
    authority: Path, home: Path, roles: Sequence[str], addresses: Sequence[str]
) -> tuple[Path, list[str]]:
    """A folder with a certificate that is good for a month and more, and was not revoked; files that are new in it."""
    name = home.name
    home.mkdir(mode=0o700, exist_ok=True)
    certificate = home / f"{name}.pem"
    key = certificate.with_suffix(".key")
    known = [address for address in addresses if address]
    soon = datetime.now(UTC) + timedelta(days=EXPIRES_SOON_DAYS)
    changed = []
    if flaws_of(certificate, key, authority / CA_CERTIFICATE, soon) or not _says(
        certificate, authority, roles, [name, *known]
    ):
        issue(authority, name, roles, addresses=known, out=home)
        changed += [certificate.name, key.name]
    for file in (CA_CERTIFICATE, CRL):
        changed += _written(home / file, (authority / file).read_text(encoding="ascii"))
    return home, changed


def _says(certificate: Path, authority: Path, roles: Sequence[str], names: Sequence[str]) -> bool:
    """Whether it is what we want to have said, and still is said."""
    present = read_certificate(certificate)
    revoked = read_crl(authority / CRL, [read_certificate(authority / CA_CERTIFICATE)])
    is_right = roles_of(present) == set(roles) and set(names) <= set(names_of(present))
    return is_right and present.serial_number not in revoked


def _configured(home: Path, text: str, earlier: str) -> tuple[list[str], bool]:
    """Write murder.toml, unless somebody has changed it: then the new one lies beside it."""
    file = home / CONFIG
    there = file.read_text(encoding="utf-8") if file.exists() else ""
    if there in ("", earlier, text):
        return _written(file, text), False
    draft = file.with_name(f"{CONFIG}.new")
    return (_written(draft, text), True) if text != earlier else ([], False)


def _written(file: Path, text: str) -> list[str]:
    """The file's name, where it was not like that already."""
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return []
    write_durably(file, text.encode("utf-8"), 0o644)
    return [file.name]


def _told(
    authority: Path, site: Site, prepared: Sequence[Prepared], *, is_new: bool
) -> Iterator[str]:
    """What to do now."""
    *hosts, operator = prepared
    yield f"The authority is in {authority}: it stays here, in a safe place; ca.key goes to no node."
    if changed := [host for host in hosts if host.changed]:
        yield "Copy to each host, which has the program and the user murder (murder help install):"
    for host in changed:
        home = shlex.quote(str(host.folder))
        files = (
            f"{home}/*"
            if len(host.changed) >= FILES
            else " ".join(f"{home}/{it}" for it in host.changed)
        )
        yield f"  scp {files} root@{host.name}:/etc/murder/"
    if changed:
        yield "and there, with murder.service in /etc/systemd/system where no package has brought a unit:"
        yield "  chown murder: /etc/murder/*.key && murder config check"
        yield "  systemctl enable --now murder" + (
            "" if is_new else "    # where it runs: murder reload"
        )
    else:
        yield "Nothing has changed for any host."
    certificate = f"{operator.name}.pem"
    if not is_new and certificate in operator.changed:
        yield f"The certificate of {operator.name} is new, too: {operator.folder / certificate}"
    for host in prepared:
        if host.kept:
            yield f"{host.folder / CONFIG} was changed by hand and stays; murder.toml.new beside it has what is new."
    if is_new:
        who = site.admins[0] if site.admins else "USER"
        yield f"Users: `murder auth add {who}` on one host; copy its /var/lib/murder/users to the others, the master too."
    yield f"Then: export MURDER_CONFIG={shlex.quote(str(operator.folder / CONFIG))}; murder ctl status"
