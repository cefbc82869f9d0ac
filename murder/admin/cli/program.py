"""The command `murder`: its subcommands, loaded only when asked for, and its exit codes.

0 done, 1 refused or failed, 2 usage or configuration, 3 a server could not be reached.
"""

import asyncio
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import asyncclick as click

from murder.admin.cli.options import json_option, say

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE = 0, 1, 2, 3

# name -> (module and attribute, one line of help)
COMMANDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "serve": (
            "murder.admin.cli.serve:serve",
            "Run this node's roles: mupdate, frontend, backend.",
        ),
        "reload": (
            "murder.admin.cli.reload:reload",
            "Have the running node read its murder.toml again.",
        ),
        "demo": ("murder.admin.cli.demo:demo", "A whole murder on this host, to try and to test."),
        "init": ("murder.admin.cli.init:init", "Certificates and configurations for all hosts."),
        "config": (
            "murder.admin.cli.config:config",
            "Check, show, or write an example configuration.",
        ),
        "ca": ("murder.admin.cli.ca:ca", "The cluster's own certificates."),
        "auth": (
            "murder.admin.cli.auth.users:auth",
            "Users, passwords, and what the auth plugins say.",
        ),
        "plugin": ("murder.admin.cli.plugin:plugin", "List plugins, start a new one, check one."),
        "log": ("murder.admin.cli.log:log", "What the log's events mean; a filter for fail2ban."),
        "metrics": (
            "murder.admin.cli.metrics:metrics",
            "A dashboard and alert rules for the metrics.",
        ),
        "ctl": ("murder.admin.cli.ctl.group:ctl", "Inspect and change a murder."),
        "help": ("murder.admin.cli.manual:show", "The manual: install, daily work, trouble, …"),
        "system-unit": ("murder.admin.cli.install:system_unit", "Print a hardened systemd unit."),
        "man": ("murder.admin.cli.man:man", "Print a manual page for man(1)."),
        "completion": ("murder.admin.cli.install:completion", "Print completion for a shell."),
        "version": ("murder.admin.cli.program:version", "Print the version."),
    }
)


class LazyGroup(click.Group):
    """A group whose commands are imported when one is run, so that `murder version` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def murder() -> None:
    """A Cyrus Murder: one mail store out of many servers, for IMAP, POP3, LMTP and ManageSieve.

    \b
    Try it:        murder demo
    One node:      murder serve --role backend --config murder.toml
    What is wrong: murder config check --config murder.toml
    The manual:    murder help
    """


@click.command()
@json_option("version")
def version(as_json: bool) -> int:
    """Print the version.

    \b
    murder version
    """
    from murder import __version__

    return say(as_json, {"version": __version__}, f"murder {__version__}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code. Nothing it meets becomes a traceback but a bug of ours."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with asyncio.Runner(loop_factory=_loop_factory(given)) as runner:
        try:
            return runner.run(_run(given))
        except KeyboardInterrupt:
            return EXIT_FAILED


def _loop_factory(given: Sequence[str]) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where mail flows; it takes longer to import than the other commands take to run."""
    if given[:1] != ["serve"]:
        return None
    from murder.net.loop import new_event_loop

    return new_event_loop


async def _run(given: list[str]) -> int:
    try:
        code: Any = await murder.main(args=given, prog_name="murder", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return EXIT_FAILED
    except BrokenPipeError:
        sys.stdout = None  # nobody reads on; say nothing more
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 (the end of a task)
        return explain(error)
    return code if isinstance(code, int) else EXIT_DONE


def explain(error: Exception) -> int:
    """Say on standard error what went wrong, a line for each thing; the exit code. Imports only what failed needs."""
    from murder.admin.cli.screen import plain
    from murder.config import ConfigError
    from murder.errors import Refusal, UpstreamFailure, UpstreamKind
    from murder.pki.authority import AuthorityError

    match error:
        case ConfigError():
            code = EXIT_USAGE
        case UpstreamFailure(kind=kind):
            code = EXIT_FAILED if kind is UpstreamKind.AUTH else EXIT_UNREACHABLE
        case AuthorityError() | Refusal() | OSError():
            code = EXIT_FAILED
        case _:
            traceback.print_exception(error)
            click.echo("murder: this is a bug of murder; please report the lines above", err=True)
            return EXIT_FAILED
    text = system_text(error) if isinstance(error, OSError) else str(error)
    priority = _priority()
    for number, line in enumerate(text.splitlines()):
        mark = priority + "murder: " if number == 0 or code == EXIT_USAGE else priority + "  "
        click.echo(mark + plain(line), err=True)
    return code


def _priority() -> str:
    """Under systemd `journalctl -p err` has what keeps a node from starting."""
    if "JOURNAL_STREAM" not in os.environ:
        return ""
    from murder.log import priority_of

    return priority_of("error")


def system_text(error: OSError) -> str:
    """What the system refused, without its number: `/etc/murder/node.key: Permission denied`."""
    names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    what = error.strerror or str(error) or type(error).__name__
    return f"{names}: {what}" if names else what
