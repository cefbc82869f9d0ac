"""`murder ctl`: what an operator does to a murder."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import asyncclick as click

COMMANDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "status": ("murder.cli.nodes:status", "The whole murder on one screen."),
        "top": ("murder.cli.nodes:top", "The same, live."),
        "doctor": ("murder.cli.look:doctor", "What is wrong, and what to do about it."),
        "sessions": ("murder.cli.nodes:sessions", "Who is connected where."),
        "kick": ("murder.cli.nodes:kick", "End sessions."),
        "trace": ("murder.cli.nodes:trace", "What passes between a user's clients and the nodes."),
        "check": (
            "murder.cli.checking:check",
            "The lists of master, backends, frontends: do they agree?",
        ),
        "conflicts": ("murder.cli.nodes:conflicts", "Who wanted another server's mailbox."),
        "reservations": ("murder.cli.nodes:reservations", "Names being made or moved."),
        "lmtp": ("murder.cli.look:lmtp", "Where mail goes."),
        "raw": ("murder.cli.look:raw", "Speak a protocol to a node yourself."),
        "mailbox": ("murder.cli.mailbox:mailbox", "Mailboxes: find, make, remove, move, rights."),
        "user": ("murder.cli.user:user", "All of one user's mailboxes."),
        "import": ("murder.cli.bring:import_mail", "Mail from other servers and Maildirs."),
        "move": ("murder.cli.move:move", "Moves under way, and over: status, resume, undo."),
        "backend": ("murder.cli.backend:backend", "The backends: look, test, weigh, drain."),
        "rebalance": ("murder.cli.backend:rebalance", "Even out the backends."),
        "placement": ("murder.cli.backend:placement", "Where a new mailbox would go."),
        "list": (
            "murder.cli.mailbox_list:mailbox_list",
            "The mailbox list's file: dump, load, check.",
        ),
        "store": ("murder.cli.store:store", "The mail itself: check, repair."),
    }
)


class LazyControl(click.Group):
    """Commands are imported when one is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        found: click.Command = getattr(importlib.import_module(module), name)
        return found


@click.group(cls=LazyControl)
def ctl() -> None:
    """Look into a murder, and change it."""
