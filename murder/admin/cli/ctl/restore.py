"""`murder ctl restore`: mail of a backup, beside what is there, in its place, or where it is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncclick as click

from murder.admin.cli.ctl.backup import SHOWN, complain, from_option, teller
from murder.admin.cli.ctl.reaching import find_backend, operator_options, yes_option
from murder.admin.cli.options import Group, json_option, print_json, print_table
from murder.admin.cli.screen import count, octets
from murder.admin.operate.backup.kept import time_of
from murder.admin.operate.backup.plan import Exchange, Planned, Planning, point_at, points_of
from murder.admin.operate.backup.put import Put, Putting
from murder.admin.operate.backup.take import root_of
from murder.admin.operate.backup.vault import Vault, open_vault
from murder.admin.operate.parts import rows_at
from murder.admin.operate.reach import Reach
from murder.errors import Refusal
from murder.model.name import MailboxName, inbox_of
from murder.wire import mutf7

JSON = "point, mailboxes, messages, octets, empty (a list), left (name: reason), lost (message: reason)"


@click.group(cls=Group)
def restore() -> None:
    """Mail out of a backup. What is there now is never removed, and no UID comes to mean another message.

    \b
    murder ctl restore list --from /backup/mail --user anna
    murder ctl restore user anna --from /backup/mail --into Restored --yes
    murder ctl restore backend be1.example.org --from /backup/mail --yes
    """


def _at_option() -> Callable[..., Any]:
    return click.option(
        "--at",
        default="",
        metavar="TIME",
        help="The last point before: 2026-11-20 (its end), 2026-11-20T03:00 (UTC), or a point's name.  [default: the last]",
    )


@restore.command("list")
@from_option()
@click.option("--user", default="", help="Only points that have this user.")
@json_option("a list of point, scope, began, messages, missing (name: reason)")
def list_points(folder: Path, user: str, as_json: bool) -> int:
    """The points in time that mail can be restored from, the oldest first.

    \b
    murder ctl restore list --from /backup/mail
    murder ctl restore list --from /backup/mail --user anna
    """
    points = points_of(open_vault(folder), inbox_of(user) if user else None)
    if as_json:
        print_json(
            [
                {
                    "point": point.name,
                    "scope": point.scope,
                    "began": point.began,
                    "messages": point.messages,
                    "missing": dict(point.missing),
                }
                for point in points
            ]
        )
        return 0
    print_table(
        ("point", "scope", "users and mailboxes", "missing"),
        [
            [point.name, point.scope, str(len(point.units)), str(len(point.missing))]
            for point in points
        ],
        right=("users and mailboxes", "missing"),
        empty=f"No point has {user}" if user else "No point yet: murder ctl backup run --to DIR",
    )
    return 0


@restore.command("user")
@operator_options
@click.argument("name")
@from_option()
@_at_option()
@click.option(
    "--into", default="", metavar="FOLDER", help="Beside: into this new folder of theirs."
)
@click.option("--instead", is_flag=True, help="In the place of what is there, which is set aside.")
@click.option("--backend", default="", help="For a user who is nowhere; else where they were.")
@yes_option("restore")
@json_option(JSON)
async def restore_user(
    reach: Reach,
    name: str,
    folder: Path,
    at: str,
    into: str,
    instead: bool,
    backend: str,
    yes: bool,
    as_json: bool,
) -> int:
    """All mailboxes of a user as they were: flags, dates, rights, metadata, quota, subscriptions, scripts.

    A user who is gone, or whose backend has lost them, comes back under their own name. For one who is there say how:
    `--into FOLDER` makes a copy beside; with `--instead` the messages of the point come into the mailboxes (with new UIDs)
    and those that are there are set aside in a folder `Replaced-…`. Mail goes on arriving meanwhile.

    \b
    murder ctl restore user anna --from /backup/mail --into Restored --yes
    murder ctl restore user anna --from /backup/mail --at 2026-11-20 --instead
    """
    if into and instead:
        raise click.UsageError("--into and --instead exclude each other")
    inbox = inbox_of(name)
    reach.check_user(name)
    vault = open_vault(folder)
    with vault.reading():
        planning = Planning(reach, vault, point_at(vault, at, {inbox}, f"the user {name}"))
        if into:
            planned = await planning.beside(inbox, _folder(reach, inbox, into))
        elif instead:
            planned = await planning.instead(name)
        else:
            server = await find_backend(reach, backend) if backend else ""
            planned = await planning.back(inbox, server)
        return await _carry_out(reach, vault, planned, yes, as_json, name if instead else "")


def _folder(reach: Reach, inbox: MailboxName, into: str) -> MailboxName:
    levels = reach.namespace.inward(mutf7.encode(into))
    return MailboxName(inbox + b"." + levels)


@restore.command("mailbox")
@operator_options
@click.argument("name")
@from_option()
@_at_option()
@click.option("--into", default="", metavar="NAME", help="Beside: under this new name.")
@yes_option("restore")
@json_option(JSON)
async def restore_mailbox(
    reach: Reach, name: str, folder: Path, at: str, into: str, yes: bool, as_json: bool
) -> int:
    """A mailbox and those below it: where it is lost or deleted, or beside under another name.

    \b
    murder ctl restore mailbox shared/news --from /backup/mail --yes
    murder ctl restore mailbox shared/a --from /backup/mail --into shared/b --yes
    """
    wanted = reach.name(name)
    vault = open_vault(folder)
    with vault.reading():
        planning = Planning(reach, vault, point_at(vault, at, {root_of(wanted)}, name))
        if into:
            planned = await planning.beside(wanted, reach.name(into))
        else:
            planned = await planning.back(wanted)
        return await _carry_out(reach, vault, planned, yes, as_json)


@restore.command("backend")
@operator_options
@click.argument("name")
@from_option()
@_at_option()
@yes_option("restore")
@json_option(JSON)
async def restore_backend(
    reach: Reach, name: str, folder: Path, at: str, yes: bool, as_json: bool
) -> int:
    """All that the master names at a backend and that it has lost: its disk, say. The node runs, with its name and
    certificate; people come back one by one, as soon as theirs is complete.

    Mailboxes that were made since the point come back empty, so that mail for them arrives.

    \b
    murder ctl restore backend be1.example.org --from /backup/mail
    murder ctl restore backend be1.example.org --from /backup/mail --yes
    """
    server = await find_backend(reach, name)
    vault = open_vault(folder)
    with vault.reading():
        roots = {root_of(row.name) for row in await rows_at(reach, server)}
        point = point_at(vault, at, roots, f"anything of {server}")
        planned = await Planning(reach, vault, point).backend(server)
        code = await _carry_out(reach, vault, planned, yes, as_json)
    if yes and planned.trees and not as_json:
        since = f"{time_of(planned.point):%Y-%m-%d %H:%M:%S} UTC"
        click.echo(
            f"Mail that came to them between {since} and the loss is gone from here: tell them. Frontends know what it was: "
            "murder ctl message trace USER"
        )
    return code


async def _carry_out(
    reach: Reach, vault: Vault, planned: Planned, yes: bool, as_json: bool, instead: str = ""
) -> int:
    if not yes:
        return _show(reach, planned, as_json)

    def text_of(put: Put) -> str:
        trees = f"{put.trees} of {len(planned.trees)}"
        return f"{trees}: {count(put.messages, 'message')} ({octets(put.octets)})"

    putting = Putting(reach, vault, planned.point, teller(text_of))
    problems: dict[str, str] = {}
    for tree in planned.trees:
        try:
            await putting.tree(tree)
        except Refusal as refusal:  # the others come back all the same
            problems[reach.shown(tree.root)] = refusal.text
    exchanged = planned.replaced and not problems
    if exchanged and instead:
        back = await Exchange(reach, vault, instead, planned).run()
        if not putting.put.messages:  # all had come before this was broken off
            putting.put.messages = back
    put = putting.put
    facts = {
        "point": planned.point,
        "mailboxes": put.mailboxes,
        "messages": put.messages,
        "octets": put.octets,
        "empty": put.empty,
        "left": planned.left | problems,
        "lost": put.lost,
    }
    if as_json:
        print_json(facts)
    else:
        text = f"{count(put.mailboxes, 'mailbox', 'mailboxes')}, {count(put.messages, 'message')}"
        click.echo(f"{text} ({octets(put.octets)}) restored as of {planned.point}")
    if exchanged and planned.aside is not None:
        click.echo(f"what was there is in {reach.shown(planned.aside)}", err=True)
    complain([f"{name}: made since, now empty" for name in put.empty])
    complain([f"{name}: {why}" for name, why in planned.left.items()])
    complain([f"{name} was not restored: {why}" for name, why in problems.items()])
    complain([f"{what} is lost: {why}" for what, why in put.lost.items()])
    return 1 if problems or put.lost else 0


def _show(reach: Reach, planned: Planned, as_json: bool) -> int:
    """What would be done; exit code 2."""
    comings = [(tree, coming) for tree in planned.trees for coming in tree.mailboxes]
    messages = sum(mailbox.kept.messages for _, mailbox in comings if mailbox.kept is not None)
    size = sum(mailbox.kept.octets for _, mailbox in comings if mailbox.kept is not None)
    if as_json:
        print_json(
            {
                "point": planned.point,
                "mailboxes": len(comings),
                "messages": messages,
                "octets": size,
                "empty": planned.made_since,
                "left": planned.left,
                "lost": {},
            }
        )
    else:
        print_table(
            ("mailbox", "at", "messages", "size"),
            [
                [
                    reach.shown(mailbox.name),
                    tree.server,
                    str(mailbox.kept.messages) if mailbox.kept else "0 (made since)",
                    octets(mailbox.kept.octets) if mailbox.kept else "-",
                ]
                for tree, mailbox in comings[: 10 * SHOWN]
            ],
            right=("messages", "size"),
            hosts=("at",),
        )
        complain([f"{name}: {why}" for name, why in planned.left.items()])
    if planned.aside is not None and planned.replaced:
        aside = reach.shown(planned.aside)
        click.echo(f"What is there now goes to {aside}, and these take its place.", err=True)
    text = f"{count(len(comings), 'mailbox', 'mailboxes')}, {count(messages, 'message')} ({octets(size)})"
    click.echo(f"{text} of {planned.point}. Re-run with --yes.", err=True)
    return 2
