"""`murder ctl mailbox`: mailboxes of the whole murder, wherever they are."""

import asyncclick as click

from murder.cli.enlist import enlist, unlist
from murder.cli.move import move_mailboxes
from murder.cli.options import json_option, print_json, print_table
from murder.cli.placing import choosing, weights_of
from murder.cli.reaching import backends_of, operator_options, yes_option
from murder.errors import Code, Refusal
from murder.model.acl import parse_acl
from murder.model.entry import Location, MailboxEntry, parse_location
from murder.model.name import MailboxName, is_deleted
from murder.operate import mailboxes
from murder.operate.moves import chosen
from murder.operate.reach import Reach


@click.group()
def mailbox() -> None:
    """Mailboxes, wherever they are: find, make, remove, rename, move; rights, quotas, annotations.

    Names are as administrators see them: user/anna, user/anna/Sent, shared/news (with `unix_hierarchy = false`:
    user.anna). A pattern may have * and %.

    \b
    murder ctl mailbox list 'user/a*'
    murder ctl mailbox show user/anna
    murder ctl mailbox create user/anna --quota STORAGE=1048576
    murder ctl mailbox move anna --to be2.example.org --yes
    murder ctl mailbox enlist user/anna --server old-dovecot.example.org
    murder ctl mailbox force user/anna --to be2.example.org --yes
    """


mailbox.add_command(move_mailboxes)
mailbox.add_command(enlist)
mailbox.add_command(unlist)


def _row(reach: Reach, entry: MailboxEntry) -> dict[str, object]:
    return {
        "name": reach.shown(entry.name),
        "server": entry.server,
        "partition": entry.location.partition,
        "state": entry.state.value,
        "acl": {
            who: "".join(sorted(rights)) for who, rights in parse_acl(entry.raw_acl).entries.items()
        },
    }


@mailbox.command("list")
@operator_options
@click.argument("pattern", default="*")
@click.option("--server", default=None, help="Only those of this backend.")
@click.option("--deleted", is_flag=True, help="Those that wait for their removal (delayed delete).")
@json_option()
async def list_mailboxes(
    reach: Reach, pattern: str, server: str | None, deleted: bool, as_json: bool
) -> int:
    """All mailboxes as the master knows them, with their backends."""
    rows = await reach.rows()
    if deleted:
        found = [row for row in rows if is_deleted(row.name)]
    else:
        found = chosen(reach, rows, pattern) if rows else []
    found = [row for row in found if server in (None, row.server)]
    if as_json:
        print_json([_row(reach, row) for row in found])
    else:
        print_table(
            ("mailbox", "server", "partition"),
            [[reach.shown(row.name), row.server, row.location.partition] for row in found],
        )
    return 0


@mailbox.command()
@operator_options
@click.argument("name")
async def find(reach: Reach, name: str) -> int:
    """The backend of one mailbox."""
    entry = await reach.find(reach.name(name))
    click.echo(
        f"{entry.server}!{entry.location.partition}" + ("" if entry.is_active else " (reserved)")
    )
    return 0


@mailbox.command()
@operator_options
@click.argument("name")
@json_option()
async def show(reach: Reach, name: str, as_json: bool) -> int:
    """Where it is, who may what, how much is in it, its quota and annotations."""
    shown = await mailboxes.show(reach, reach.name(name))
    if as_json:
        print_json(
            {
                **_row(reach, shown.entry),
                "counts": dict(shown.counts),
                "quota": {root: list(words) for root, words in shown.quota.items()},
                "annotations": dict(shown.annotations),
            }
        )
        return 0
    click.echo(f"mailbox    {reach.shown(shown.entry.name)}")
    click.echo(
        f"backend    {shown.entry.server}  partition {shown.entry.location.partition or '-'}"
    )
    if not shown.entry.is_active:
        click.echo("state      reserved: being made or moved")
    for who, rights in sorted(shown.acl.entries.items()):
        click.echo(f"rights     {who}  {''.join(sorted(rights))}")
    if shown.counts:
        click.echo(
            "counts     " + ", ".join(f"{key} {value}" for key, value in shown.counts.items())
        )
    for root, words in shown.quota.items():
        click.echo(f"quota      {root}  {' '.join(words)}")
    for key, value in sorted(shown.annotations.items()):
        click.echo(f"annotation {key}  {value}")
    return 0


def limits_of(texts: tuple[str, ...]) -> dict[str, int]:
    limits = {}
    for text in texts:
        resource, _, limit = text.partition("=")
        if not limit.isdecimal() or resource.upper() not in ("STORAGE", "MESSAGE", "MAILBOX"):
            raise click.UsageError(f"{text}: expected STORAGE=KIB, MESSAGE=COUNT or MAILBOX=COUNT")
        limits[resource.upper()] = int(limit)
    return limits


@mailbox.command()
@operator_options
@click.argument("name")
@click.option(
    "--server",
    default="",
    metavar="SERVER[!PARTITION]",
    help="Where; default: the policy's choice.",
)
@click.option(
    "--quota", "limits", multiple=True, metavar="RESOURCE=LIMIT", help="STORAGE counts KiB."
)
async def create(reach: Reach, name: str, server: str, limits: tuple[str, ...]) -> int:
    """Make a mailbox; a user by making his INBOX, user/NAME."""
    canonical = reach.name(name)
    location = await make(reach, canonical, server, limits)
    click.echo(f"{reach.shown(canonical)} is at {location.server}")
    return 0


@mailbox.command()
@operator_options
@click.argument("name")
@yes_option("remove them, with all mail")
async def delete(reach: Reach, name: str, yes: bool) -> int:
    """Remove a mailbox with all below it; where the backends delay it, `undelete` brings it back."""
    return await remove(reach, reach.name(name), yes)


@mailbox.command()
@operator_options
@click.argument("name")
async def undelete(reach: Reach, name: str) -> int:
    """Bring back what was last deleted under NAME, with all below it (of backends with `delete = "delayed"`)."""
    back = await mailboxes.undelete(reach, await reach.rows(), reach.name(name))
    for _, before in back:
        click.echo(reach.shown(before))
    return 0


@mailbox.command()
@operator_options
@click.argument("old")
@click.argument("new")
async def rename(reach: Reach, old: str, new: str) -> int:
    """Rename a mailbox with all below it, on its backend. To another backend: `move`."""
    await mailboxes.rename(reach, reach.name(old), reach.name(new))
    click.echo(f"{old} is now {new}")
    return 0


@mailbox.command()
@operator_options
@click.argument("name")
@click.option("--to", "server", required=True, metavar="SERVER[!PARTITION]", help="Who has it.")
@yes_option("say so to the master")
async def force(reach: Reach, name: str, server: str, yes: bool) -> int:
    """Tell the master that a mailbox is at another backend than it says. Moves no mail: for a backend that is lost,
    or where two have it. What the other one has is put into quarantine when it next compares lists."""
    canonical, location = reach.name(name), parse_location(server.encode())
    entry = await reach.find(canonical)
    to = need_backend(reach, await reach.rows(), location.server)
    if not yes:
        click.echo(f"{reach.shown(canonical)}: from {entry.server} to {to}, without its mail")
        click.echo("Say --yes to tell the master so.", err=True)
        return 2
    place = f"{to}!{location.partition or entry.location.partition}"
    await reach.master.force(canonical, place.encode(), entry.raw_acl)
    click.echo(f"{reach.shown(canonical)} is at {to}, it was at {entry.server}")
    return 0


@mailbox.command()
@operator_options
@click.argument("name")
@click.argument("identifier", required=False)
@click.argument("rights", required=False)
@click.option("--remove", is_flag=True, help="Remove the identifier.")
async def acl(
    reach: Reach, name: str, identifier: str | None, rights: str | None, remove: bool
) -> int:
    """Show who may what; or give IDENTIFIER (a user, group:NAME, anyone, -NAME) RIGHTS: lrswipkxtea, +r, -x.

    \b
    murder ctl mailbox acl shared/news
    murder ctl mailbox acl shared/news anyone lrsp
    murder ctl mailbox acl shared/news bert --remove
    """
    canonical = reach.name(name)
    if identifier is None:
        entry = await reach.find(canonical)
        for who, letters in sorted(parse_acl(entry.raw_acl).entries.items()):
            click.echo(f"{who}  {''.join(sorted(letters))}")
        return 0
    if not rights and not remove:
        raise click.UsageError("name RIGHTS, or --remove")
    await mailboxes.set_acl(reach, canonical, identifier, "" if remove else rights or "")
    return 0


@mailbox.command()
@operator_options
@click.argument("name")
@click.argument("limits", nargs=-1)
@click.option("--none", is_flag=True, help="No limits any more.")
async def quota(reach: Reach, name: str, limits: tuple[str, ...], none: bool) -> int:
    """Show the quota, or set all limits: STORAGE=KIB MESSAGE=COUNT MAILBOX=COUNT."""
    canonical = reach.name(name)
    if limits or none:
        await mailboxes.set_quota(reach, canonical, limits_of(limits))
        return 0
    shown = await mailboxes.show(reach, canonical)
    for root, words in shown.quota.items():
        click.echo(f"{root}  {' '.join(words)}")
    return 0


@mailbox.command()
@operator_options
@click.argument("name")
@click.argument("key", required=False)
@click.argument("value", required=False)
@click.option("--remove", is_flag=True, help="Remove KEY.")
async def metadata(
    reach: Reach, name: str, key: str | None, value: str | None, remove: bool
) -> int:
    """Show the shared annotations, or set one: /shared/comment 'for all'."""
    canonical = reach.name(name)
    if key is None:
        for found, text in sorted((await mailboxes.show(reach, canonical)).annotations.items()):
            click.echo(f"{found}  {text}")
        return 0
    if value is None and not remove:
        raise click.UsageError("name a VALUE, or --remove")
    await mailboxes.set_annotation(reach, canonical, key, None if remove else value)
    return 0


@mailbox.command()
@operator_options
@click.argument("user")
@click.argument("name")
@click.option("--off", is_flag=True, help="Unsubscribe.")
async def subscribe(reach: Reach, user: str, name: str, off: bool) -> int:
    """Subscribe USER to a mailbox."""
    await mailboxes.subscribe(reach, user, reach.name(name), not off)
    return 0


def need_backend(reach: Reach, rows: list[MailboxEntry], server: str) -> str:
    """The name of a backend. Raises Refusal with those that are known."""
    known = backends_of(reach, rows)
    if server in known:
        return server
    near = [one for one in known if one.split(".")[0] == server]
    if len(near) == 1:
        return near[0]
    raise Refusal(Code.NONEXISTENT, f"No backend is called {server}; known are {', '.join(known)}")


async def make(reach: Reach, name: MailboxName, server: str, limits: tuple[str, ...]) -> Location:
    """Make a mailbox where it is wanted (`server!partition`), else where the policy says, with its quota. Raises Refusal,
    UpstreamFailure."""
    wanted, location = limits_of(limits), parse_location(server.encode())
    if not location.server:
        rows = await reach.rows()
        with choosing(reach.config) as choose:
            found = mailboxes.explain_placement(name, rows, weights_of(reach, rows), choose)
        location = Location(found.server, location.partition)
    await mailboxes.create(reach, name, location)
    if wanted:
        await mailboxes.set_quota(reach, name, wanted)
    return location


async def remove(reach: Reach, name: MailboxName, yes: bool) -> int:
    """Show what goes, or remove it; the exit code. Raises Refusal, UpstreamFailure."""
    doomed = mailboxes.doomed(await reach.rows(), name)
    if not yes:
        print_table(
            ("mailbox", "server"), [[reach.shown(row.name), row.server] for row in reversed(doomed)]
        )
        click.echo(
            f"{len(doomed)} mailboxes with all their mail. Say --yes to remove them.", err=True
        )
        return 2
    await mailboxes.delete(reach, doomed)
    click.echo(f"{len(doomed)} removed")
    return 0
