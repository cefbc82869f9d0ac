"""`murder ctl`: what an operator does to a murder."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import asyncclick as click

SECTIONS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = MappingProxyType(
    {
        "Health": {
            "status": ("running.status:status", "The whole murder on one screen."),
            "top": ("running.status:top", "The same, live."),
            "doctor": ("running.doctor:doctor", "What is wrong, and what to do about it."),
            "check": ("checking:check", "Do the lists of master, backends and frontends agree?"),
            "conflicts": ("running.nodes:conflicts", "Who wanted another server's mailbox."),
            "reservations": ("running.nodes:reservations", "Names being created or moved now."),
        },
        "Sessions": {
            "sessions": ("running.nodes:sessions", "Who is connected where."),
            "kick": ("running.nodes:kick", "End sessions."),
            "trace": ("running.nodes:trace", "What passes between a user's clients and the nodes."),
        },
        "What has happened": {
            "message": ("running.message:message", "What has happened to a message."),
            "audit": ("running.audit:audit", "Who did what."),
            "log": ("running.log:show_log", "The last lines of all logs."),
        },
        "Users and mailboxes": {
            "user": (
                "mailboxes.user:user",
                "All of one user's mailboxes: make, show, rename, delete.",
            ),
            "mailbox": (
                "mailboxes.mailbox:mailbox",
                "Mailboxes: find, make, move, remove, rights, quotas.",
            ),
            "expire": (
                "mailboxes.expire:expire",
                "Mail that goes by its age: what would, what does.",
            ),
            "sieve": ("sieve:sieve", "Users' mail filters: look, put, activate, try."),
            "import": ("bring:import_mail", "Mail from other servers and Maildirs."),
            "dns": ("dns:dns", "Names of users in DNS: print the zone, send changes."),
            "lmtp": ("route:lmtp", "Where mail for an address goes."),
        },
        "Backup": {
            "backup": ("backup:backup", "Points in time of the mail: take, look, verify, prune."),
            "restore": (
                "restore:restore",
                "Mail out of a backup: beside, instead, or where it is lost.",
            ),
        },
        "Backends": {
            "backend": ("backend:backend", "The servers that keep mail: look, test, weigh, drain."),
            "move": (
                "mailboxes.move:move",
                "Moves, running and finished: status, resume, abort, undo.",
            ),
            "rebalance": ("backend:rebalance", "Even out the backends."),
            "placement": ("backend:placement", "Where a new mailbox would go, and why."),
        },
        "On a node's own host, and by hand": {
            "list": ("mailbox_list:mailbox_list", "The mailbox list's file: dump, load, check."),
            "store": ("store:store", "The mail itself: check, repair."),
            "raw": ("raw:raw", "Speak a protocol to a node yourself."),
        },
    }
)
COMMANDS: Final = MappingProxyType(
    {name: place for section in SECTIONS.values() for name, (place, _) in section.items()}
)


class LazyControl(click.Group):
    """Commands are imported when one is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(
            importlib.import_module(f"murder.admin.cli.ctl.{module}"), name
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(width), text) for name, (_, text) in section.items()]
                )


@click.group(cls=LazyControl)
def ctl() -> None:
    """Inspect and change a murder: as an operator, with a murder.toml that names the nodes (murder help daily).

    Nothing is removed or moved without its plan and --yes. Exit codes: 0 done, 1 refused, failed, or something is
    wrong; 2 usage, or --yes is missing; 3 a server could not be reached.

    \b
    export MURDER_CONFIG=~/murder.toml
    murder ctl status
    murder ctl user create anna --quota STORAGE=2G
    murder ctl mailbox move anna --to be2.example.org --yes
    """
