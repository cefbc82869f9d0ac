"""`murder system-unit` and `murder completion`: what a host needs to run murder well."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import asyncclick as click

from murder.__main__ import archive_path
from murder.admin.cli.options import PATH
from murder.config import ROLES

HOMES: Final = tuple(map(Path, ("/home", "/root", "/run/user")))  # what ProtectHome hides
UNIT: Final = """\
# /etc/systemd/system/{unit}.service, written by `murder system-unit{named}`
[Unit]
Description=murder ({roles})
Documentation=https://datatracker.ietf.org/doc/html/rfc3656
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=all
ExecStart={program} serve {flags}--config {config}
# waits, and fails where the file or a certificate is refused
ExecReload={program} reload --config {config}
Restart=on-failure
RestartSec=1
WatchdogSec=30
# longer than [node] drain_timeout_s: sessions end at a quiet point
TimeoutStopSec=60
# the first process ends its workers itself, a frontend's follower of the master last
KillMode=mixed
User={user}
# ports below 1024 without root
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
# where the archive unpacks its native parts, and where lists and mail are
CacheDirectory={user}
StateDirectory=murder
StateDirectoryMode=0700
{writes}LimitNOFILE=262144
NoNewPrivileges=true
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=true
PrivateDevices=true
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectKernelLogs=true
ProtectControlGroups=true
ProtectClock=true
ProtectHostname=true
ProtectProc=invisible
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
LockPersonality=true
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallFilter=@system-service
SystemCallArchitectures=native
UMask=0077

[Install]
WantedBy=multi-user.target
"""


@click.command("system-unit")
@click.argument("roles", nargs=-1, type=click.Choice(ROLES))
@click.option(
    "--config",
    "config_file",
    default="",
    help="Default: /etc/murder/murder.toml; of a template %i.toml there.",
)
@click.option("--user", default="murder", show_default=True, help="The user that it runs as.")
@click.option(
    "--writes",
    multiple=True,
    type=PATH,
    metavar="DIR",
    help="A folder outside of /var/lib/murder that it writes: mail in /var/vmail, a [node] data of its own. All others are "
    "read-only to it; it sees nothing of /tmp, nor of /home unless one of them is there.",
)
@click.option("--program", default="", help="Default: this file, else /usr/local/bin/murder.")
@click.option("--template", is_flag=True, help="For several nodes on a host: murder@.service.")
def system_unit(
    roles: tuple[str, ...],
    config_file: str,
    user: str,
    writes: tuple[Path, ...],
    program: str,
    template: bool,
) -> None:
    """Print a hardened systemd unit for this node: own user, watchdog, no more rights than it needs.

    With --template each node on the host has its file: murder@be1 runs /etc/murder/be1.toml.

    \b
    murder system-unit backend > /etc/systemd/system/murder.service
    systemctl daemon-reload && systemctl enable --now murder
    murder system-unit --template > /etc/systemd/system/murder@.service
    murder system-unit --user vmail --writes /var/vmail > murder.service
    """
    for folder in writes:
        if not folder.is_absolute():
            raise click.UsageError(f"--writes {folder}: systemd wants the whole path, from / on")
    text = format_unit(roles, config_file, user, program, writes=writes, template=template)
    click.echo(text, nl=False)


def format_unit(
    roles: Sequence[str] = (),
    config_file: str = "",
    user: str = "murder",
    program: str = "",
    *,
    writes: Sequence[Path] = (),
    template: bool = False,
) -> str:
    """The text of a unit."""
    # systemd opens nothing below what it hides; read-only it is all the same
    is_home_seen = any(folder.is_relative_to(home) for folder in writes for home in HOMES)
    flags = "".join(f"--role {role} " for role in roles)
    default = f"/etc/murder/{'%i' if template else 'murder'}.toml"
    return UNIT.format(
        unit="murder@" if template else "murder",
        named="".join(f" {role}" for role in roles) + " --template" * template,
        roles=" ".join(roles) or ("%i" if template else "the roles of its murder.toml"),
        program=shlex.quote(program or archive_path() or "/usr/local/bin/murder"),
        flags=flags,
        config=shlex.quote(config_file or default),
        user=user,
        writes="".join(f"ReadWritePaths={_in_unit(folder)}\n" for folder in writes),
        home="false" if is_home_seen else "true",
    )


def _in_unit(folder: Path) -> str:
    return shlex.quote(str(folder)).replace("%", "%%")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete murder's commands and options.

    \b
    murder completion bash > /etc/bash_completion.d/murder
    murder completion zsh > /usr/local/share/zsh/site-functions/_murder
    murder completion fish > ~/.config/fish/completions/murder.fish
    """
    from asyncclick.shell_completion import get_completion_class

    from murder.admin.cli.program import murder

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(murder, {}, "murder", "_MURDER_COMPLETE").source())
