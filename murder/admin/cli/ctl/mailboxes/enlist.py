"""`murder ctl mailbox enlist|unlist`: the list alone, for servers that do not speak MUPDATE (a Dovecot, say)."""

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options, yes_option
from murder.admin.cli.options import json_option, say
from murder.admin.operate.reach import Reach
from murder.errors import Code, Refusal
from murder.model.acl import OWNER_RIGHTS, Acl, format_acl, parse_rights
from murder.model.entry import parse_location
from murder.model.name import owner_of


@click.command()
@operator_options
@click.argument("name")
@click.option(
    "--server",
    required=True,
    metavar="SERVER[!PARTITION]",
    help="Where it is; `[servers]` of the frontends says how that is reached.",
)
@click.option(
    "--right",
    "rights",
    multiple=True,
    metavar="WHO=RIGHTS",
    help="Who sees it; default: its owner, with all rights.",
)
@json_option("name, server")
async def enlist(
    reach: Reach, name: str, server: str, rights: tuple[str, ...], as_json: bool
) -> int:
    """Register a mailbox on a server that does not speak MUPDATE.

    Frontends then pass its user on to that server. For a user the INBOX is enough to log in, read and get mail; other
    mailboxes are shown if they are in the list.

    \b
    murder ctl mailbox enlist user/anna --server old.example.org
    murder ctl mailbox enlist user/anna/Sent --server old.example.org
    murder ctl mailbox enlist shared/news --server old --right anyone=lrs
    """
    canonical, location = reach.name(name), parse_location(server.encode())
    entry = await reach.master.find(canonical)
    if entry is not None and entry.server != location.server:
        raise Refusal(
            Code.ALREADY_EXISTS,
            f"{reach.shown(canonical)} is at {entry.server}: `murder ctl mailbox unlist` or `move` it first",
        )
    acl = _acl(rights, owner_of(canonical))
    raw_location = bytes(location)
    if entry is None:
        await reach.master.reserve(canonical, raw_location)
    await reach.master.activate(canonical, raw_location, format_acl(acl))
    facts = {"name": reach.shown(canonical), "server": location.server}
    return say(as_json, facts, f"{reach.shown(canonical)} is listed at {location.server}")


def _acl(rights: tuple[str, ...], owner: str | None) -> Acl:
    if not rights:
        if owner is None:
            raise click.UsageError("a shared mailbox has no owner: say --right, as anyone=lrs")
        return Acl({owner: OWNER_RIGHTS})
    entries = {}
    for text in rights:
        who, mark, letters = text.partition("=")
        if not who or not mark:
            raise click.UsageError(f"{text}: expected WHO=RIGHTS")
        entries[who] = parse_rights(letters)
    return Acl(entries)


@click.command()
@operator_options
@click.argument("name")
@yes_option("take it out of the list; its mail stays where it is")
@json_option("name, server")
async def unlist(reach: Reach, name: str, yes: bool, as_json: bool) -> int:
    """Take a mailbox out of the list without touching its mail. A backend of this murder would announce it again.

    \b
    murder ctl mailbox unlist user/anna --yes
    """
    entry = await reach.find(reach.name(name))
    if not yes:
        click.echo(
            f"{reach.shown(entry.name)} at {entry.server}. Re-run with --yes to forget it.",
            err=True,
        )
        return 2
    await reach.master.delete(entry.name)
    facts = {"name": reach.shown(entry.name), "server": entry.server}
    return say(as_json, facts, f"{reach.shown(entry.name)} is forgotten")
