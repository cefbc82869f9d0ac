"""`murder auth app`: passwords for programs, each of which can be revoked alone."""

import asyncio
import json
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncclick as click

from murder.admin.cli.auth.file import taken
from murder.admin.cli.auth.there import at_hosts, heard_there, via_option
from murder.admin.cli.ctl.reaching import yes_option
from murder.admin.cli.options import (
    Group,
    config_option,
    json_option,
    print_json,
    print_table,
    say,
)
from murder.auth.app_passwords import PROTOCOLS, AppPasswords, shown
from murder.config import load_config
from murder.errors import Code, Refusal
from murder.hooks import load_plugins
from murder.serve.role import chain_of

DAY_S: Final = 86400

Named = tuple[str, str, float]  # whose, its name, when it was made


@click.group(cls=Group)
def app() -> None:
    """Application passwords: one for each program of a user, by any protocol that sends passwords.

    They are asked before the plugins, on every node that has them: `push` brings them to the others.

    \b
    murder auth app add anna --name phone --only imap
    murder auth app push fe2.example.org fe3.example.org
    """


def _passwords(config_file: Path) -> AppPasswords:
    return AppPasswords(load_config(config_file).node.data)


@app.command()
@click.argument("user")
@click.option("--name", required=True, help="What it is for; a user has one of each name.")
@click.option("--only", multiple=True, type=click.Choice(PROTOCOLS), help="Only by this protocol.")
@click.option("--expires", default="", metavar="DAYS", help="It ends after so many days: 90.")
@config_option()
@json_option("user, name, password")
async def add(
    user: str, name: str, only: tuple[str, ...], expires: str, config_file: Path, as_json: bool
) -> int:
    """Make a password for a program of USER, and print it: it is shown this once. USER must be known to a plugin.

    \b
    murder auth app add anna --name phone --only imap --expires 365
    """
    if expires and not re.fullmatch(r"[1-9][0-9]{0,4}d?", expires):
        raise click.UsageError(f"--expires takes a number of days, not {expires!r}")
    config = load_config(config_file)
    async with asyncio.timeout(config.auth.timeout_s):
        known = await chain_of(config, load_plugins(config, ())).lookup(user)
    if known is None:
        raise Refusal(
            Code.NONEXISTENT, f"no plugin knows {user}: `murder auth test {user} --lookup`"
        )
    ends = time.time() + int(expires.rstrip("d")) * DAY_S if expires else None
    password = _passwords(config_file).add(known.user, name, only, ends)
    restricted = [f"--only {protocol}" for protocol in only]
    restricted += [f"--expires {expires}"] if expires else []
    taken(config_file, " ".join([known.user, name, *restricted]))
    facts = {"user": known.user, "name": name, "password": password}
    return say(as_json, facts, password)


@app.command("list")
@click.argument("user", required=False, default="")
@click.option("--at", "hosts", multiple=True, metavar="HOST", help="Ask HOST, too; more than once.")
@via_option
@click.option(
    "--run",
    "line",
    default="murder auth app list --json",
    show_default=True,
    help="What is run there.",
)
@config_option()
@json_option("a list of user, name, only, made_at, expires_at, used_at (the latest)")
async def list_passwords(
    user: str, hosts: tuple[str, ...], via: str, line: str, config_file: Path, as_json: bool
) -> int:
    """Those of USER, or of everybody, and when each was used last: on this node, and on the nodes of --at. Exit code 1
    where one of these has not answered.

    \b
    murder auth app list anna
    murder auth app list anna --at fe2.example.org --at fe3.example.org
    """
    passwords = _passwords(config_file)
    used, problems = await _used_at(hosts, via, line)
    rows: list[dict[str, Any]] = []
    for password in passwords.all(user):
        row: dict[str, Any] = dict(shown(passwords, password))
        times = [row["used_at"], used.get(_named(row))]
        latest = max((at for at in times if isinstance(at, int | float)), default=None)
        rows.append({**row, "used_at": latest})
    for host, problem in problems.items():
        click.echo(f"{host}: {problem}", err=True)
    exit_code = 1 if problems else 0
    if as_json:
        print_json(rows)
        return exit_code
    heads = ("user", "name", "only", "made", "expires", "used")
    table = [
        (
            row["user"],
            row["name"],
            ",".join(row["only"]),
            _day(row["made_at"]),
            _day(row["expires_at"]),
            _day(row["used_at"], "never"),
        )
        for row in rows
    ]
    print_table(heads, table, empty="there are none")
    return exit_code


def _named(row: Mapping[str, Any]) -> Named:
    return str(row["user"]), str(row["name"]), float(row["made_at"])


async def _used_at(
    hosts: Sequence[str], via: str, line: str
) -> tuple[dict[Named, float], dict[str, str]]:
    """When each was used last at these hosts, and which of them have not said so, with why."""
    answers = await asyncio.gather(
        *(heard_there([*shlex.split(via), host, *shlex.split(line)]) for host in hosts)
    )
    used: dict[Named, float] = {}
    problems: dict[str, str] = {}
    for host, (written, problem) in zip(hosts, answers, strict=True):
        try:
            rows = [] if problem else json.loads(written)
            for row in rows:
                if row["used_at"] is not None:
                    name = _named(row)
                    used[name] = max(used.get(name, 0.0), float(row["used_at"]))
        except (ValueError, TypeError, KeyError) as error:
            problem = f"what it says is no such list: {error}"
        if problem:
            problems[host] = problem
    return used, problems


def _day(at: float | None, never: str = "") -> str:
    return never if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


@app.command()
@click.argument("user")
@click.argument("name", required=False, default="")
@config_option()
@yes_option("all of the user's, where no NAME is given")
@json_option("user, revoked (a number)")
async def revoke(user: str, name: str, config_file: Path, yes: bool, as_json: bool) -> int:
    """Revoke the password of USER called NAME, or all of theirs. Then `push`.

    \b
    murder auth app revoke anna phone
    """
    passwords = _passwords(config_file)
    if not name and not yes:
        known = passwords.all(user)
        click.echo(f"{user} would lose {len(known)} passwords. Re-run with --yes.", err=True)
        return 2
    count = passwords.revoke(user, name)
    if not count:
        raise Refusal(Code.NONEXISTENT, f"{user} has none" + (f" called {name}" if name else ""))
    taken(config_file, f"{user} {name or '(all)'}")
    text = f"{user}: {count} revoked here; `murder auth app push` brings that to the other nodes"
    return say(as_json, {"user": user, "revoked": count}, text)


@app.command()
@config_option()
@json_option("taken (a number)")
async def take(config_file: Path, as_json: bool) -> int:
    """Replace all application passwords of this node by those on standard input: what `push` runs there.

    \b
    cat app_passwords | murder auth app take
    """
    count = _passwords(config_file).take(sys.stdin.read())
    taken(config_file, f"all there are: {count}")
    return say(as_json, {"taken": count}, f"{count} application passwords taken")


@app.command()
@click.argument("hosts", nargs=-1, required=True)
@via_option
@click.option(
    "--run",
    "line",
    default="murder auth app take",
    show_default=True,
    help="What is run there.",
)
@config_option()
@json_option("a list of host, problem (empty: done)")
async def push(
    hosts: tuple[str, ...], via: str, line: str, config_file: Path, as_json: bool
) -> int:
    """Bring all application passwords of this node to HOSTS, which then have these and no others. One node is the one where
    they are made; the others take them. Exit code 1 where a host has not taken them: run it again.

    \b
    murder auth app push fe2.example.org fe3.example.org
    murder auth app push fe2 --via "ssh -l root"
    """
    text = _passwords(config_file).text().encode()
    return await at_hosts(hosts, via, line, text, "has them", as_json)
