"""`murder config`: check, show, example."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncclick as click

from murder.admin.cli.options import Group, config_option, json_option, print_json, role_option
from murder.api.service import Service
from murder.config import ROLES, UNIFIED, Config, ConfigError, Problem, load_config, parts_of
from murder.config.load import SECTIONS
from murder.config.sections import OperatorConfig
from murder.config.write import format_config, format_example, plain, values_of
from murder.errors import BadSyntax
from murder.hooks import bundled_settings, load_plugins
from murder.node.control.node import ask_node
from murder.node.process.exposed import exposed_secrets
from murder.node.process.preflight import (
    acting_as,
    check_host,
    check_plugins,
    check_start,
    data_problems,
    node_account,
    paths_not_open,
    paths_of_plugins,
    roles_wanted,
)
from murder.node.process.server import ports_of, running
from murder.pki.authority import flaws_of
from murder.roles.backend.scripts.site import flaws_of_site
from murder.wire.nodes.control_answers import parse_own_ports
from murder.wire.nodes.control_words import AskPorts


@click.group(cls=Group)
def config() -> None:
    """Check, show, or write an example configuration.

    \b
    murder config check
    murder config example > murder.toml
    """


@config.command()
@config_option()
@role_option()
@click.option("--running", is_flag=True, help="Do not try the ports.")
@json_option("ok (true or false), problems (a list of file, key, problem), cautions (likewise)")
async def check(config_file: Path, roles: tuple[str, ...], running: bool, as_json: bool) -> int:
    """Say what would keep this node from running; nothing is changed.

    Looks at the file, certificates, plugins, host names, ports and folders; as root also with the permissions of the
    user that the node runs as (node.user, else the owner of node.data). The ports of this very node, where it runs,
    are no problem. One line for each thing wrong, and exit code 2; nothing wrong: 0, also where it cautions that
    everybody on this host can read a secret. Without --role it checks node.roles, else every role that has something
    to listen on. As a backend it also compiles the scripts of [sieve].

    \b
    murder config check
    murder config check --config be1.toml --role backend
    """
    problems: list[Problem] = []
    cautions: list[Problem] = []
    try:
        loaded = load_config(config_file)
        cautions = exposed_secrets(config_file, _settings_of(loaded))
        plugged = _plugged(loaded)
        wanted = _roles_to_check(loaded, roles, plugged)
        problems += [*_file_problems(config_file, wanted), *_operator_problems(loaded, wanted)]
        own = await _own_ports(loaded, wanted, running, plugged)
        problems += check_host(loaded, wanted, own, plugged)
        if "backend" in parts_of(wanted):
            problems += [Problem(config_file, *flaw) for flaw in flaws_of_site(loaded)]
        account = node_account(loaded)
        if account is not None:
            paths = paths_of_plugins(_settings(loaded))
            with acting_as(account):
                mine = [*_file_problems(config_file, wanted), *data_problems(loaded)]
                known = {problem.key for problem in mine}
                problems += mine
                problems += [p for p in paths_not_open(loaded, paths) if p.key not in known]
    except ConfigError as error:
        problems += error.problems
    problems = list(dict.fromkeys(problems))
    if as_json:
        rows = [{"file": str(p.file), "key": p.key, "problem": p.text} for p in problems]
        warned = [{"file": str(p.file), "key": p.key, "problem": p.text} for p in cautions]
        print_json({"ok": not problems, "problems": rows, "cautions": warned})
    else:
        for problem in problems:
            click.echo(str(problem), err=True)
        for caution in cautions:
            click.echo(f"Caution: {caution}", err=True)
        if not problems:
            whose = f"as {', '.join(wanted)} {loaded.node.name}" if wanted else "for `murder ctl`"
            click.echo(f"{config_file}: good, {whose}")
    return 2 if problems else 0


def _file_problems(file: Path, roles: Sequence[str]) -> list[Problem]:
    """The file and those it names, for the user that looks."""
    try:
        loaded = load_config(file)
        return check_plugins(check_start(loaded, roles), roles)
    except ConfigError as error:
        return list(error.problems)


def _plugged(loaded: Config) -> Sequence[Service]:
    """The protocols of plugins; none where that goes wrong, which the check of the file says."""
    try:
        return load_plugins(loaded, ()).services()
    except ConfigError:
        return ()


def _settings(loaded: Config) -> Mapping[str, object]:
    """Of the plugins in use; none where they cannot be read, which the check of the file says."""
    try:
        return load_plugins(loaded, ()).settings
    except ConfigError:
        return {}


def _settings_of(loaded: Config) -> Mapping[str, type]:
    """Of the plugins that come with it, and of those that are used, by name."""
    used = _settings(loaded)
    return bundled_settings() | {name: type(made) for name, made in used.items()}


async def _own_ports(
    loaded: Config, roles: Sequence[str], skip: bool, plugged: Sequence[Service]
) -> set[str]:
    """The endpoints that this node has bound, where it runs; all of them where they are not to be tried."""
    if skip:
        everything = running(loaded, roles)
        ports = [
            port for role in everything for port in ports_of(loaded, role, plugged, is_first=True)
        ]
        return {str(port.endpoint) for port in ports}
    try:
        answer = await ask_node(loaded.node.data, AskPorts())
        return set() if answer is None else parse_own_ports(answer).endpoints
    except (OSError, ValueError, BadSyntax):  # another user's, or no answer: then the ports say so
        return set()


def _roles_to_check(
    loaded: Config, roles: Sequence[str], plugged: Sequence[Service]
) -> tuple[str, ...]:
    if roles or loaded.node.roles:
        return roles_wanted(loaded, roles)
    listening = [role for role in ROLES if role != UNIFIED and ports_of(loaded, role, plugged)]
    if not listening and loaded.operator != OperatorConfig():
        return ()  # for `murder ctl` alone
    return roles_wanted(loaded, listening)


def _operator_problems(loaded: Config, roles: Sequence[str]) -> list[Problem]:
    """Of a file that is an operator's and no node's; one with an old certificate of his keeps no node from running."""
    certificate, key = loaded.operator.certificate, loaded.operator.key
    if roles or certificate is None or key is None:
        return []
    flaws = flaws_of(certificate, key, loaded.tls.ca, datetime.now(UTC))
    return [Problem(loaded.file, f"operator.{flaw.file}", str(flaw)) for flaw in flaws]


@config.command()
@config_option()
@json_option("every section with its keys")
def show(config_file: Path, as_json: bool) -> int:
    """Print all that is in effect: defaults and what the file changes. Secrets are masked.

    \b
    murder config show | grep timeout
    """
    loaded = load_config(config_file)
    settings = load_plugins(loaded).settings
    if not as_json:
        click.echo(format_config(loaded, settings), nl=False)
        return 0
    sections: dict[str, Any] = {name: values_of(getattr(loaded, name)) for name in SECTIONS}
    sections["servers"] = {name: values_of(server) for name, server in loaded.servers.items()}
    sections["plugins"] |= {name: values_of(made) for name, made in settings.items()}
    print_json(plain(sections))
    return 0


@config.command()
def example() -> int:
    """Print a murder.toml with every key, its default and what it means.

    \b
    murder config example > /etc/murder/murder.toml
    """
    click.echo(format_example(bundled_settings()), nl=False)
    return 0
