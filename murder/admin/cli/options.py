"""Options that several commands have, and how they print."""

import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import asyncclick as click

from murder.admin.cli.screen import Table, columns, plain

DEFAULT_CONFIG: Final = Path("/etc/murder/murder.toml")
PATH: Final = click.Path(path_type=Path)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def config_option() -> Decorator:
    """`--config FILE`."""
    return click.option(
        "--config",
        "-c",
        "config_file",
        type=PATH,
        default=DEFAULT_CONFIG,
        envvar="MURDER_CONFIG",
        help=f"The node's murder.toml.  [default: $MURDER_CONFIG, else {DEFAULT_CONFIG}]",
    )


def role_option() -> Decorator:
    """`--role ROLE`, as often as wanted."""
    return click.option(
        "--role",
        "roles",
        multiple=True,
        type=click.Choice(["mupdate", "frontend", "backend", "unified"]),
        help="A role of this node (may be given several times; default: node.roles).",
    )


def json_option(keys: str) -> Decorator:
    """`--json`; `keys` is what is printed, for --help: those stay."""
    return click.option(
        "--json", "as_json", is_flag=True, help=f"Print JSON, for programs: {keys}."
    )


def print_json(value: object) -> None:
    """One line of JSON on standard output."""
    click.echo(json.dumps(value))


def say(as_json: bool, facts: Mapping[str, object], text: str) -> int:
    """What has been done, for a program or for people; exit code 0."""
    if as_json:
        print_json(facts)
    elif text:
        click.echo("\n".join(map(plain, text.split("\n"))))
    return 0


def print_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    empty: str = "",
    right: Collection[str] = (),
    hosts: Collection[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """A table (`screen.Table`), fitted to a terminal. In a pipe neither heads nor cuts, so that `cut` and `awk` work.
    `empty` is said on standard error where there are no rows."""
    if not rows:
        if empty:
            click.echo(empty, err=True)
        return
    table = Table(heads, rows, right=right, hosts=hosts, spare=spare)
    for line in table.lines(columns()) if sys.stdout.isatty() else table.bare():
        click.echo(line)


def keep_owner(data: Path, made: Iterable[Path]) -> None:
    """What root has made in a node's folder belongs to whom the folder belongs to: else the node could not read it."""
    if os.geteuid() != 0 or not data.is_dir():
        return
    owner = data.stat()
    for path in made:
        if path.exists() and path.lstat().st_uid == 0 != owner.st_uid:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


class Group(click.Group):
    """A group that lists its commands with whole sentences."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, first_sentence(command.help or ""))
                    for name, command in commands
                    if command
                ]
            )


def first_sentence(text: str) -> str:
    """Of a help text, on one line."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    head, dot, _ = paragraph.partition(". ")
    return head + "." if dot else paragraph
