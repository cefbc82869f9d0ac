"""`murder system-unit` and `murder completion`: what a host needs to run murder well."""

import shlex
from typing import Final

import asyncclick as click

from murder.__main__ import archive_path
from murder.config import ROLES

UNIT: Final = """\
# /etc/systemd/system/murder.service, written by `murder system-unit{named}`
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
StateDirectory={user}
StateDirectoryMode=0700
LimitNOFILE=262144
NoNewPrivileges=true
ProtectSystem=strict
ProtectHome=true
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
@click.option("--config", "config_file", default="/etc/murder/murder.toml", show_default=True)
@click.option("--user", default="murder", show_default=True, help="The user that it runs as.")
@click.option("--program", default="", help="Default: this file, else /usr/local/bin/murder.")
def system_unit(roles: tuple[str, ...], config_file: str, user: str, program: str) -> None:
    """Print a hardened systemd unit for this node: own user, watchdog, no more rights than it needs.

    \b
    murder system-unit backend > /etc/systemd/system/murder.service
    systemctl daemon-reload && systemctl enable --now murder
    """
    flags = "".join(f"--role {role} " for role in roles)
    click.echo(
        UNIT.format(
            named="".join(f" {role}" for role in roles),
            roles=" ".join(roles) or "the roles of its murder.toml",
            program=shlex.quote(program or archive_path() or "/usr/local/bin/murder"),
            flags=flags,
            config=shlex.quote(config_file),
            user=user,
        ),
        nl=False,
    )


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

    from murder.cli.program import murder

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(murder, {}, "murder", "_MURDER_COMPLETE").source())
