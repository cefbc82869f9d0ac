"""What the commands share that reach a whole murder: the configuration, who the operator is, who can be asked."""

import functools
import getpass
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncclick as click

from murder.cli.options import config_option
from murder.config import load_config
from murder.errors import Code, Refusal
from murder.model.entry import MailboxEntry
from murder.operate.reach import Reach, reaching


def ask_password(user: str) -> str:
    """From the terminal. Raises Refusal where there is none."""
    if not sys.stdin.isatty():
        raise Refusal(
            Code.CANNOT,
            f"no password for {user}: set [operator] password_file, or use a certificate",
        )
    return getpass.getpass(f"Password of {user}: ")


def operator_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--config` and `--as USER`; the command gets a Reach first."""

    @functools.wraps(command)
    async def run(*args: Any, config_file: Path, as_user: str | None, **more: Any) -> Any:
        config = load_config(config_file)
        if as_user:
            operator = config.operator
            password = operator.password if operator.user == as_user else ""
            operator = replace(
                operator, certificate=None, key=None, user=as_user, password=password
            )
            config = replace(config, operator=operator)
        async with reaching(config, ask_password) as reach:
            return await command(reach, *args, **more)

    named = click.option(
        "--as",
        "as_user",
        default=None,
        metavar="USER",
        help="Log in with the password of this administrator in place of [operator].",
    )
    return config_option()(named(run))


def yes_option(what: str) -> Callable[..., Any]:
    """`--yes`."""
    return click.option("--yes", is_flag=True, help=f"Do not only show the plan: {what}.")


def backends_of(reach: Reach, rows: Collection[MailboxEntry]) -> list[str]:
    """Every backend of the murder, by the list and the configuration."""
    return sorted({row.server for row in rows if row.server} | set(reach.config.servers))


def octets(number: float) -> str:
    """A size for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError("not reached")


def seconds(number: float) -> str:
    """A duration for people."""
    if number < 1:
        return f"{1000 * number:.0f} ms"
    if number < 60:
        return f"{number:.1f} s"
    minutes, rest = divmod(int(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
