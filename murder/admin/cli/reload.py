"""`murder reload`: a running node reads its murder.toml and certificates again, and says what came of it."""

from pathlib import Path

import asyncclick as click

from murder.admin.cli.options import config_option, json_option, print_json
from murder.config import ConfigError, Problem
from murder.config.load import read_table
from murder.errors import BadSyntax
from murder.node.control.node import ask_node, socket_of
from murder.wire.nodes.control_answers import Reloaded, parse_reloaded
from murder.wire.nodes.control_words import Reload

EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE = 1, 2, 3


@click.command()
@config_option()
@json_option("changed, waiting (lists of keys), problems (a list of file, key, problem)")
async def reload(config_file: Path, as_json: bool) -> int:
    """Have the running node of this murder.toml read it and its certificates again; wait until all its processes have.

    Run it on the node's host, as root or as the node's user. What is wrong is refused as a whole, and all stays as it was:
    exit code 2. Exit code 3: no node runs with that data folder. As SIGHUP, which does not wait and tells only the log.

    \b
    murder reload
    murder reload --config be1.toml --json
    """
    data = _data_of(config_file)
    try:
        answer = await ask_node(data, Reload())
    except PermissionError:
        click.echo(f"murder: {socket_of(data)}: run this as root or as the node's user", err=True)
        return EXIT_FAILED
    except (OSError, ValueError) as problem:  # TimeoutError is an OSError
        click.echo(f"murder: {socket_of(data)}: no answer: {problem}; see its log", err=True)
        return EXIT_UNREACHABLE
    if answer is None:
        click.echo(f"murder: no node runs with node.data {data} (of {config_file})", err=True)
        return EXIT_UNREACHABLE
    if "no" in answer:
        click.echo(f"murder: {answer['no']}", err=True)
        return EXIT_FAILED
    try:
        reloaded = parse_reloaded(answer)
    except BadSyntax as problem:
        click.echo(f"murder: {socket_of(data)}: no answer: {problem.text}; see its log", err=True)
        return EXIT_UNREACHABLE
    if as_json:
        print_json(answer)
    else:
        _show(reloaded)
    return EXIT_USAGE if reloaded.problems else 0


def _data_of(file: Path) -> Path:
    """What the file says of the node's folder, whatever else is wrong with it. Raises ConfigError."""
    node = read_table(file).get("node")
    data = node.get("data") if isinstance(node, dict) else None
    if not isinstance(data, str):
        raise ConfigError([Problem(file, "node.data", "missing: which node is meant?")])
    return file.parent / Path(data).expanduser()


def _show(reloaded: Reloaded) -> None:
    for problem in reloaded.problems:
        click.echo(f"murder: {problem.file}: {problem.key}: {problem.problem}", err=True)
    if reloaded.problems:
        click.echo("murder: refused; the node keeps its configuration", err=True)
        return
    changed = ", ".join(reloaded.changed)
    click.echo(f"taken: {changed}" if changed else "taken: no key has changed; certificates anew")
    if waiting := ", ".join(reloaded.waiting):
        click.echo(f"waiting for a restart: {waiting}")
