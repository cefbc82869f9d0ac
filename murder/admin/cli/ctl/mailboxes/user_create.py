"""`murder ctl user create`: all that a new user needs, in one go."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncclick as click

from murder.admin.cli.auth.file import new_password, taken, users_backend
from murder.admin.cli.ctl.mailboxes.mailbox import make
from murder.admin.cli.ctl.reaching import operator_options
from murder.admin.cli.options import json_option, say
from murder.admin.cli.screen import count
from murder.admin.operate import mailboxes
from murder.admin.operate.reach import Reach
from murder.api import ManagesUsers
from murder.errors import Code, Refusal
from murder.model.entry import Location
from murder.model.name import MailboxName, inbox_of

STANDARD: Final = ("Archive", "Drafts", "Junk", "Sent", "Trash")


@click.command()
@operator_options
@click.argument("name")
@click.option(
    "--server", default="", metavar="SERVER[!PARTITION]", help="Default: the policy's choice."
)
@click.option(
    "--quota",
    "limits",
    multiple=True,
    metavar="RESOURCE=LIMIT",
    help="STORAGE=2G (or KiB without a letter), MESSAGE=100000, MAILBOX=50. Default: what the user's directory says, where "
    "a frontend can be asked ([operator] nodes).",
)
@click.option(
    "--folder",
    "folders",
    multiple=True,
    help=f"A folder to make, several times for several, in place of {', '.join(STANDARD)}.",
)
@click.option("--no-folders", is_flag=True, help="Make the INBOX alone.")
@click.option(
    "--password-stdin", is_flag=True, help="Read the password, a line, from standard input."
)
@json_option("user, server, folders (a list), password (whether one was set)")
async def create(
    reach: Reach,
    name: str,
    server: str,
    limits: tuple[str, ...],
    folders: tuple[str, ...],
    no_folders: bool,
    password_stdin: bool,
    as_json: bool,
) -> int:
    """Create a user: a password, an INBOX, placed by the policy, with a quota and folders. These are subscribed, and
    Archive, Drafts, Junk (or Spam), Sent and Trash are known as such to mail programs (RFC 6154); that needs an operator's
    certificate. The password is set where [auth] of this murder.toml keeps users (auth_file), and asked for on a terminal
    if users are there already.

    \b
    murder ctl user create anna
    murder ctl user create anna --quota STORAGE=2G --folder Sent --folder Trash
    murder ctl user create anna --server be2.example.org --no-folders
    echo "$PASSWORD" | murder ctl user create anna --password-stdin
    """
    reach.check_user(name)
    if folders and no_folders:
        raise click.UsageError("say --folder or --no-folders, not both")
    wanted = {} if no_folders else mailboxes.folders_of(reach, name, folders or STANDARD)
    async with _let_in(reach, name, password_stdin) as has_password:
        location = await make(reach, inbox_of(name), server, limits)
    await _furnish(reach, name, wanted, location)
    facts = {
        "user": name,
        "server": location.server,
        "folders": [reach.shown(folder) for folder in wanted],
        "password": has_password,
    }
    given = ["a password"] if has_password else []
    given += [count(len(wanted), "folder")] if wanted else []
    with_it = f", with {' and '.join(given)}" if given else ""
    outcome = say(as_json, facts, f"{name} is at {location.server}{with_it}")
    if not has_password and not await _is_known(reach, name):
        where = f"{reach.config.file} does not know them"
        hint = f"where your users are kept, or `murder auth add {name}` there"
        click.echo(f"No password was set: {where}. It is set {hint}.", err=True)
    return outcome


async def _is_known(reach: Reach, name: str) -> bool:
    """Whether they have a password; True as well where this murder.toml says that others are asked."""
    try:
        users = await users_backend(reach.config.file).users()
    except Refusal:
        return True
    return name in {user.user for user in users}


@asynccontextmanager
async def _let_in(reach: Reach, name: str, from_stdin: bool) -> AsyncIterator[bool]:
    """Whether they have a password from here on: without a mailbox at the end it is taken back. Raises Refusal."""
    backend = await _keeper(reach, name, from_stdin)
    password = new_password(name, may_be_none=not from_stdin) if backend is not None else b""
    if backend is None or not (password or from_stdin):
        yield False
        return
    await backend.set_passwords({name: password})
    made = False
    try:
        yield True
        made = True
    finally:
        if not made:
            await backend.remove(name)
    taken(reach.config.file, name)


async def _keeper(reach: Reach, name: str, is_wanted: bool) -> ManagesUsers | None:
    """Who takes a password of somebody new; None: it is not asked for. Raises Refusal."""
    if not is_wanted and not sys.stdin.isatty():
        return None
    try:
        backend = users_backend(reach.config.file)
    except Refusal:
        if is_wanted:
            raise
        return None
    known = {user.user for user in await backend.users()}
    if is_wanted and not known:
        where = f"{reach.config.file} knows no users: run this where they are kept"
        raise Refusal(Code.CANNOT, f"{where}, or make the first by `murder auth add {name}`")
    if is_wanted and name in known:
        hint = f"leave out --password-stdin; `murder auth passwd {name}` changes it"
        raise Refusal(Code.ALREADY_EXISTS, f"{name} has a password: {hint}")
    return backend if known and name not in known else None


async def _furnish(
    reach: Reach, name: str, wanted: dict[MailboxName, str], location: Location
) -> None:
    """Folders, subscriptions, special uses; what is missing is told. Raises Refusal, UpstreamFailure."""
    lacking: dict[str, list[str]] = {}

    def note(folder: MailboxName, problems: Sequence[str]) -> None:
        for problem in problems:
            lacking.setdefault(problem, []).append(reach.shown(folder))

    if wanted:
        note(inbox_of(name), await mailboxes.dress(reach, inbox_of(name), name, ""))
    for folder, use in wanted.items():
        await mailboxes.create(reach, folder, location)
        note(folder, await mailboxes.dress(reach, folder, name, use))
    for problem, those in lacking.items():
        click.echo(f"murder: {', '.join(those)}: {problem}", err=True)
