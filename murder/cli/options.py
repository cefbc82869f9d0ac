"""Options that several commands have, and how they print."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import asyncclick as click

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
        show_default=True,
        help="The node's murder.toml.",
    )


def role_option() -> Decorator:
    """`--role ROLE`, as often as wanted."""
    return click.option(
        "--role",
        "roles",
        multiple=True,
        type=click.Choice(["mupdate", "frontend", "backend"]),
        help="A role of this node (may be given several times; default: node.roles).",
    )


def json_option() -> Decorator:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def print_json(value: object) -> None:
    """One line of JSON on standard output."""
    click.echo(json.dumps(value))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their content; heads only on a terminal, so that `cut` and `awk` work."""
    shown = [list(heads), *rows] if sys.stdout.isatty() else list(rows)
    widths = [max((len(row[at]) for row in shown), default=0) for at in range(len(heads))]
    for row in shown:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())
