"""`murder ctl user`: all of one user's mailboxes at once."""

import asyncclick as click

from murder.cli.mailbox import make, remove
from murder.cli.options import json_option, print_json, print_table
from murder.cli.reaching import operator_options, yes_option
from murder.errors import Code, Refusal
from murder.model.name import inbox_of, is_below, is_deleted, is_inbox, owner_of
from murder.operate import mailboxes
from murder.operate.reach import Reach


@click.group()
def user() -> None:
    """Users: all of one's mailboxes at once. Passwords are the auth plugin's: `murder auth`.

    \b
    murder ctl user create anna --quota STORAGE=1048576
    murder ctl user show anna
    murder ctl mailbox move anna --to be2.example.org --yes
    """


@user.command("list")
@operator_options
@json_option()
async def list_users(reach: Reach, as_json: bool) -> int:
    """Every user that has an INBOX, with its backend and how many mailboxes he has."""
    rows = [row for row in await reach.rows() if row.is_active and not is_deleted(row.name)]
    counts: dict[str, int] = {}
    for row in rows:
        owner = owner_of(row.name)
        if owner is not None:
            counts[owner] = counts.get(owner, 0) + 1
    found = [
        {
            "user": owner_of(row.name),
            "server": row.server,
            "mailboxes": counts[owner_of(row.name) or ""],
        }
        for row in rows
        if is_inbox(row.name)
    ]
    if as_json:
        print_json(found)
    else:
        print_table(
            ("user", "server", "mailboxes"),
            [[str(one["user"]), str(one["server"]), str(one["mailboxes"])] for one in found],
        )
    return 0


@user.command()
@operator_options
@click.argument("name")
@json_option()
async def show(reach: Reach, name: str, as_json: bool) -> int:
    """One user: his mailboxes, where each is, messages and octets, quota."""
    inbox = inbox_of(name)
    rows = [row for row in await reach.rows() if is_below(row.name, inbox) and row.is_active]
    if not rows:
        raise Refusal(Code.NONEXISTENT, f"No user {name} has mailboxes here")
    shown = [await mailboxes.show(reach, row.name) for row in rows]
    facts = [
        {
            "name": reach.shown(one.entry.name),
            "server": one.entry.server,
            "messages": one.counts.get("messages"),
            "octets": one.counts.get("size"),
        }
        for one in shown
    ]
    quota = {root: list(words) for one in shown for root, words in one.quota.items()}
    if as_json:
        print_json({"user": name, "mailboxes": facts, "quota": quota})
        return 0
    print_table(
        ("mailbox", "server", "messages", "octets"),
        [[str("-" if value is None else value) for value in one.values()] for one in facts],
    )
    for root, words in quota.items():
        click.echo(f"quota {root}  {' '.join(words)}")
    return 0


@user.command()
@operator_options
@click.argument("name")
@click.option(
    "--server", default="", metavar="SERVER[!PARTITION]", help="Default: the policy's choice."
)
@click.option(
    "--quota", "limits", multiple=True, metavar="RESOURCE=LIMIT", help="STORAGE counts KiB."
)
@click.option(
    "--folder", "folders", multiple=True, help="A folder to make; several times for several."
)
async def create(
    reach: Reach, name: str, server: str, limits: tuple[str, ...], folders: tuple[str, ...]
) -> int:
    """Give a user his INBOX, by the placement policy, with a quota and folders."""
    location = await make(reach, inbox_of(name), server, limits)
    for folder in folders:
        canonical = reach.namespace.internal(
            reach.namespace.personal_prefix + folder.encode(), name
        )
        await mailboxes.create(reach, canonical, location)
    click.echo(f"{name} is at {location.server}")
    return 0


@user.command()
@operator_options
@click.argument("name")
@yes_option("remove all his mail")
async def delete(reach: Reach, name: str, yes: bool) -> int:
    """Remove all of a user's mailboxes."""
    return await remove(reach, inbox_of(name), yes)


@user.command()
@operator_options
@click.argument("old")
@click.argument("new")
async def rename(reach: Reach, old: str, new: str) -> int:
    """Give a user another name: his mailboxes, rights and subscriptions."""
    await mailboxes.rename(reach, inbox_of(old), inbox_of(new))
    click.echo(f"{old} is now {new}")
    return 0
