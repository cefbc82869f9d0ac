"""`murder auth group`, `disable`, `enable`: what is said of a user beside the password, where the plugin keeps that."""

import asyncio
import contextlib
from pathlib import Path

import asyncclick as click

from murder.admin.cli.auth.file import taken, users_backend
from murder.admin.cli.options import Group, config_option, json_option, print_json, print_table, say
from murder.api import ManagesGroups
from murder.config import load_config
from murder.errors import Code, Refusal, UpstreamFailure
from murder.hooks import load_plugins
from murder.model.identity import Identity
from murder.serve.role import chain_of


@click.group(cls=Group)
def group() -> None:
    """Groups of users: `group:staff` in access lists, on the nodes that have this file.

    \b
    murder auth group add staff anna ben
    murder ctl mailbox acl user/anna/plans group:staff lrs
    """


async def _all(config_file: Path) -> tuple[ManagesGroups, dict[str, Identity]]:
    backend = users_backend(config_file)
    if not isinstance(backend, ManagesGroups):
        raise Refusal(Code.CANNOT, "the plugin that keeps the users keeps no groups")
    return backend, {known.user: known for known in await backend.users()}


async def _member(config_file: Path, name: str, users: tuple[str, ...], *, add: bool) -> None:
    backend, known = await _all(config_file)
    for user in users:
        if user not in known:
            raise Refusal(Code.NONEXISTENT, f"there is no user {user}; nothing was changed")
    for user in users:
        groups = known[user].groups
        await backend.set_groups(user, groups | {name} if add else groups - {name})
    taken(config_file)


@group.command()
@click.argument("name")
@click.argument("users", nargs=-1, required=True)
@config_option()
@json_option("group, users")
async def add(name: str, users: tuple[str, ...], config_file: Path, as_json: bool) -> int:
    """Add USERS to the group NAME; a group exists while it has members.

    \b
    murder auth group add staff anna ben
    """
    await _member(config_file, name, users, add=True)
    text = f"group:{name}: {', '.join(users)} added; takes effect at their next login"
    return say(as_json, {"group": name, "users": users}, text)


@group.command()
@click.argument("name")
@click.argument("users", nargs=-1, required=True)
@config_option()
@json_option("group, users")
async def remove(name: str, users: tuple[str, ...], config_file: Path, as_json: bool) -> int:
    """Remove USERS from the group NAME.

    \b
    murder auth group remove staff ben
    """
    await _member(config_file, name, users, add=False)
    text = f"group:{name}: {', '.join(users)} removed; takes effect at their next login"
    return say(as_json, {"group": name, "users": users}, text)


@group.command("list")
@config_option()
@json_option("a list of group, users")
async def list_groups(config_file: Path, as_json: bool) -> int:
    """All groups, and who is in them.

    \b
    murder auth group list
    """
    _, known = await _all(config_file)
    members: dict[str, list[str]] = {}
    for user in sorted(known):
        for name in known[user].groups:
            members.setdefault(name, []).append(user)
    rows = sorted(members.items())
    if as_json:
        print_json([{"group": name, "users": users} for name, users in rows])
    else:
        print_table(("group", "users"), [(name, ",".join(users)) for name, users in rows])
    return 0


async def _set_disabled(config_file: Path, user: str, *, disabled: bool) -> str:
    """Who that is, by the plugin that knows them."""
    try:
        backend, known = await _all(config_file)
    except Refusal as refusal:
        cure = "or put auth_file first into auth.plugins, whose file keeps users of the others out, too"
        raise Refusal(refusal.code, f"{refusal.text}, {cure}") from refusal
    name = user if user in known else await _known_as(config_file, user)
    await backend.set_disabled(name or user, disabled)
    taken(config_file, name or user)
    if disabled and not name:
        text = f"warning: no plugin of [auth] says now that there is a user {user}; a slip? `murder auth enable {user}`"
        click.echo(text, err=True)
    return name or user


async def _known_as(config_file: Path, user: str) -> str:
    """ "" where that cannot be known: who is to be kept out is, all the same."""
    config = load_config(config_file)
    with contextlib.suppress(Refusal, UpstreamFailure, TimeoutError):
        async with asyncio.timeout(config.auth.timeout_s):
            decision = await chain_of(config, load_plugins(config, ())).find_surely(user)
            return "" if decision is None else decision.identity.user
    return ""


@click.command()
@click.argument("user")
@config_option()
@json_option("user, disabled (true)")
async def disable(user: str, config_file: Path, as_json: bool) -> int:
    """Refuse a user's logins from now on, whichever plugin knows them; mail still arrives. Open sessions stay: `murder ctl
    kick` ends them.

    \b
    murder auth disable anna
    """
    name = await _set_disabled(config_file, user, disabled=True)
    text = f"{name}: disabled; `murder ctl kick --user {name}` ends open sessions"
    return say(as_json, {"user": name, "disabled": True}, text)


@click.command()
@click.argument("user")
@config_option()
@json_option("user, disabled (false)")
async def enable(user: str, config_file: Path, as_json: bool) -> int:
    """Accept a disabled user's logins again; the password is unchanged.

    \b
    murder auth enable anna
    """
    name = await _set_disabled(config_file, user, disabled=False)
    return say(as_json, {"user": name, "disabled": False}, f"{name}: enabled")
