"""`murder auth`: users and passwords, where an auth plugin keeps them (the power ManagesUsers: auth_file has it), and what
all auth plugins say to somebody.
"""

from pathlib import Path

import asyncclick as click

from murder.admin.cli.auth.app import app
from murder.admin.cli.auth.file import new_password, taken, users_backend
from murder.admin.cli.auth.groups import disable, enable, group
from murder.admin.cli.auth.there import at_hosts, via_option
from murder.admin.cli.auth.trial import try_login
from murder.admin.cli.ctl.reaching import yes_option
from murder.admin.cli.options import (
    Group,
    config_option,
    json_option,
    keep_owner,
    print_json,
    print_table,
    say,
)
from murder.admin.cli.screen import count
from murder.api import ManagesGroups
from murder.auth.app_passwords import AppPasswords
from murder.auth.remembered import flush as flush_passwords
from murder.auth.remembered import flushed_file
from murder.config import load_config
from murder.errors import Code, Refusal
from murder.model.identity import Identity


@click.group(cls=Group)
def auth() -> None:
    """Who may log in: users and passwords where a plugin of [auth] keeps them, and what all plugins say.

    \b
    murder auth test anna                      # which plugin decides
    murder auth add anna                       # asks for the password
    echo "$PASSWORD" | murder auth add anna    # reads it
    """


for command in (try_login, group, disable, enable, app):
    auth.add_command(command)


@auth.command()
@click.argument("user")
@config_option()
@json_option("user")
async def add(user: str, config_file: Path, as_json: bool) -> int:
    """Add a user; the password is asked for, or read from standard input.

    \b
    murder auth add anna
    echo "$PASSWORD" | murder auth add anna
    """
    backend = users_backend(config_file)
    if user in {known.user for known in await backend.users()}:
        raise Refusal(Code.ALREADY_EXISTS, f"{user} exists; `murder auth passwd {user}` changes it")
    await backend.set_passwords({user: new_password(user)})
    taken(config_file)
    return say(as_json, {"user": user}, f"{user}: made")


@auth.command()
@click.argument("user")
@config_option()
@json_option("user")
async def passwd(user: str, config_file: Path, as_json: bool) -> int:
    """Change a user's password; it is asked for, or read from standard input.

    \b
    murder auth passwd anna
    """
    backend = users_backend(config_file)
    if user not in {known.user for known in await backend.users()}:
        raise Refusal(
            Code.NONEXISTENT, f"there is no user {user}; `murder auth add {user}` makes it"
        )
    await backend.set_passwords({user: new_password(user)})
    taken(config_file)
    return say(as_json, {"user": user}, f"{user}: changed")


@auth.command()
@click.argument("user")
@config_option()
@yes_option("remove the user and the password")
@json_option("user, app_passwords (how many were revoked)")
async def remove(user: str, config_file: Path, yes: bool, as_json: bool) -> int:
    """Remove a user, their password, and those of their programs. The mail stays: `murder ctl user delete`.

    \b
    murder auth remove anna --yes
    """
    backend = users_backend(config_file)
    if not yes and user in {known.user for known in await backend.users()}:
        click.echo(f"{user} could no longer log in. Re-run with --yes.", err=True)
        return 2
    if not await backend.remove(user):
        raise Refusal(Code.NONEXISTENT, f"there is no user {user}")
    # whoever is called so some day must not be met by them
    revoked = AppPasswords(load_config(config_file).node.data).revoke(user)
    taken(config_file)
    more = f", and {count(revoked, 'application password')}" if revoked else ""
    return say(as_json, {"user": user, "app_passwords": revoked}, f"{user}: removed{more}")


@auth.command("list")
@config_option()
@json_option("a list of user, groups, disabled (true or false)")
async def list_users(config_file: Path, as_json: bool) -> int:
    """All users that the plugin knows, and those of other plugins whom it keeps out.

    \b
    murder auth list
    """
    backend = users_backend(config_file)
    by_name = {identity.user: identity for identity in await backend.users()}
    manages = isinstance(backend, ManagesGroups)
    disabled = set(await backend.disabled_users()) if isinstance(backend, ManagesGroups) else set()
    known = [by_name.get(user) or Identity(user) for user in sorted(by_name.keys() | disabled)]
    if as_json:
        print_json(
            [
                {"user": who.user, "groups": sorted(who.groups), "disabled": who.user in disabled}
                for who in known
            ]
        )
        return 0
    rows = [
        (
            who.user,
            ",".join(sorted(who.groups)),
            *(("disabled" if who.user in disabled else "",) if manages else ()),
        )
        for who in known
    ]
    print_table(("user", "groups", *(("state",) if manages else ())), rows)
    return 0


@auth.command()
@click.argument("hosts", nargs=-1)
@via_option
@click.option(
    "--run", "line", default="murder auth flush", show_default=True, help="What is run there."
)
@config_option()
@json_option("flushed (the data folder); with HOSTS a list of host, problem (empty: done)")
async def flush(
    hosts: tuple[str, ...], via: str, line: str, config_file: Path, as_json: bool
) -> int:
    """Drop the passwords that the node of this murder.toml remembers, or the nodes at HOSTS, and ask the plugins again: for
    users who were locked out in the directory, or have a new password there. Open sessions stay: `murder ctl kick` ends
    them. Exit code 1 where a host has not: run it again.

    \b
    murder auth flush
    murder auth flush fe1.example.org fe2.example.org --via "ssh -l root"
    """
    if hosts:
        done = "remembered passwords were dropped"
        return await at_hosts(hosts, via, line, b"", done, as_json)
    data = load_config(config_file).node.data
    try:
        flush_passwords(data)
    except OSError as problem:
        raise Refusal(Code.CANNOT, f"{problem}; run it as root or as the node's user") from None
    keep_owner(data, [flushed_file(data)])
    return say(
        as_json,
        {"flushed": str(data)},
        "remembered passwords were dropped; the plugins are asked again",
    )
