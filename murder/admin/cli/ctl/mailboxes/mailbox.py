"""`murder ctl mailbox`: mailboxes of the whole murder, wherever they are."""

from collections.abc import Mapping

import asyncclick as click

from murder.admin.cli.ctl.mailboxes.enlist import enlist, unlist
from murder.admin.cli.ctl.mailboxes.move import move_mailboxes
from murder.admin.cli.ctl.mailboxes.placing import placing
from murder.admin.cli.ctl.mailboxes.quotas import limits_of
from murder.admin.cli.ctl.mailboxes.unexpunge import unexpunge
from murder.admin.cli.ctl.reaching import operator_options, yes_option
from murder.admin.cli.options import Group, json_option, print_json, print_table, say
from murder.admin.cli.screen import BAD, Painted, count, octets, plain
from murder.admin.operate import backends, mailboxes
from murder.admin.operate.backends import all_backends, find_backend
from murder.admin.operate.lists import settle_force
from murder.admin.operate.moves import chosen
from murder.admin.operate.parts import rows_at, rows_below, rows_deleted, rows_meant, rows_resting
from murder.admin.operate.quotas import quota_text
from murder.admin.operate.reach import Reach
from murder.errors import Code, Refusal
from murder.model.acl import format_rights, parse_acl
from murder.model.entry import Location, MailboxEntry, parse_location
from murder.model.name import MailboxName, is_deleted, is_inbox, owner_of


@click.group(cls=Group)
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
mailbox.add_command(unexpunge)


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
@json_option("a list of name, server, partition, state, acl")
async def list_mailboxes(
    reach: Reach, pattern: str, server: str | None, deleted: bool, as_json: bool
) -> int:
    """All mailboxes as the master knows them, with their backends.

    \b
    murder ctl mailbox list
    murder ctl mailbox list 'user/a*'
    murder ctl mailbox list --server be1.example.org
    murder ctl mailbox list --deleted
    """
    if server is not None:
        server = await find_backend(reach, server)
    if deleted:
        entries = [row for row in await rows_resting(reach) if is_deleted(row.name)]
    elif pattern != "*":
        entries = chosen(reach, await rows_meant(reach, pattern, acls=True), pattern)
    else:
        rows = await (reach.rows() if server is None else rows_at(reach, server))
        entries = [row for row in rows if row.is_active and not is_deleted(row.name)]
    if server is not None:
        entries = [row for row in entries if row.server == server]
    if as_json:
        print_json([_row(reach, row) for row in entries])
    else:
        print_table(
            ("mailbox", "server", "partition"),
            [
                [
                    reach.shown(row.name),
                    row.server if row.is_active else Painted(f"{row.server} (reserved)", BAD),
                    row.location.partition,
                ]
                for row in entries
            ],
            hosts=("server",),
            spare=("partition",),
            empty="No deleted mailbox is kept"
            if deleted
            else f"No mailbox is called {pattern}" + (f" at {server}" if server else ""),
        )
    return 0


@mailbox.command()
@operator_options
@click.argument("name")
@json_option("name, server, partition, state")
async def find(reach: Reach, name: str, as_json: bool) -> int:
    """The backend of one mailbox.

    \b
    murder ctl mailbox find user/anna
    """
    entry = await reach.find(reach.name(name))
    facts = {key: value for key, value in _row(reach, entry).items() if key != "acl"}
    text = f"{entry.server}!{entry.location.partition}" + ("" if entry.is_active else " (reserved)")
    return say(as_json, facts, text)


@mailbox.command()
@operator_options
@click.argument("name")
@json_option("name, server, partition, state, acl, counts, quota, annotations")
async def show(reach: Reach, name: str, as_json: bool) -> int:
    """Where it is, its ACL, how much is in it, its quota and annotations.

    \b
    murder ctl mailbox show user/anna
    murder ctl mailbox show shared/news --json | jq .acl
    """
    details = await mailboxes.show(reach, reach.name(name))
    if as_json:
        print_json(
            {
                **_row(reach, details.entry),
                "counts": dict(details.counts),
                "quota": {root: list(words) for root, words in details.quota.items()},
                "annotations": dict(details.annotations),
            }
        )
        return 0
    place, counts = details.entry.location, details.counts
    click.echo(f"mailbox     {plain(reach.shown(details.entry.name))}")
    click.echo(
        f"backend     {place.server}" + (f", partition {place.partition}" * bool(place.partition))
    )
    if not details.entry.is_active:
        click.echo("state       reserved: being created or moved")
    if counts:
        size = octets(counts.get("size", 0))
        click.echo(f"mail        {count(counts.get('messages', 0), 'message')}, {size}")
        click.echo(f"unseen      {counts.get('unseen', 0)}")
        for key in ("uidnext", "uidvalidity", "highestmodseq"):
            click.echo(f"{key:13} {counts.get(key, '-')}")
    for root, words in details.quota.items():
        click.echo(f"quota       {quota_text(root, words)}")
    for who, rights in sorted(details.acl.entries.items()):
        click.echo(f"rights      {who}  {''.join(sorted(rights))}")
    for key, value in sorted(details.annotations.items()):
        click.echo(f"annotation  {key}  {plain(value)}")
    return 0


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
    "--quota",
    "limits",
    multiple=True,
    metavar="RESOURCE=LIMIT",
    help="STORAGE=2G (or KiB without a letter), MESSAGE=100000, MAILBOX=50.",
)
@json_option("name, server, acl")
async def create(
    reach: Reach, name: str, server: str, limits: tuple[str, ...], as_json: bool
) -> int:
    """Create a mailbox; a user by creating their INBOX, user/NAME. What is not below user/ is shared: with the rights
    of the mailbox above, else with those that `[backend] default_acl` of its server says; `mailbox acl` changes them.

    \b
    murder ctl mailbox create shared/news
    murder ctl mailbox create user/anna --quota STORAGE=2G
    murder ctl mailbox create user/anna/Sent
    murder ctl mailbox create shared/big --server 'be2.example.org!ssd'
    """
    canonical = reach.name(name)
    location = await make(reach, canonical, server, limits)
    external = reach.shown(canonical)
    acl = {
        who: format_rights(rights)
        for who, rights in parse_acl((await reach.find(canonical)).raw_acl).entries.items()
    }
    kind = "" if owner_of(canonical) else ", a shared mailbox"
    facts = {"name": external, "server": location.server, "acl": acl}
    rights = ", ".join(f"{who} {letters}" for who, letters in acl.items()) or "nobody"
    return say(as_json, facts, f"{external} is at {location.server}{kind}; rights: {rights}")


@mailbox.command()
@operator_options
@click.argument("name")
@yes_option("remove them, with all mail")
@json_option("removed (a list of name, server); without --yes: plan, the same")
async def delete(reach: Reach, name: str, yes: bool, as_json: bool) -> int:
    """Remove a mailbox with all below it; where the backends delay it, `undelete` brings it back. What is on several
    backends is removed by all of them or by none: where one is away, nothing changes, and it is named.

    \b
    murder ctl mailbox delete shared/news          # what would go
    murder ctl mailbox delete shared/news --yes
    """
    return await remove(reach, reach.name(name), yes, as_json)


@mailbox.command()
@operator_options
@click.argument("name")
@json_option("restored, a list of names")
async def undelete(reach: Reach, name: str, as_json: bool) -> int:
    """Bring back what was last deleted under NAME, with all below it (of backends with `delete = "delayed"`).

    \b
    murder ctl mailbox list --deleted
    murder ctl mailbox undelete shared/news
    """
    return await restore(reach, reach.name(name), as_json)


@mailbox.command()
@operator_options
@click.argument("old")
@click.argument("new")
@json_option("old, new")
async def rename(reach: Reach, old: str, new: str, as_json: bool) -> int:
    """Rename a mailbox with all below it; each stays on its backend. What is on several backends is renamed by all of
    them or by none: where one is away, nothing changes, and it is named. To another backend: `move`.

    \b
    murder ctl mailbox rename shared/news shared/herald
    """
    said = await mailboxes.rename(reach, reach.name(old), reach.name(new))
    tell_late(said)
    return say(as_json, {"old": old, "new": new}, f"{old} is now {new}")


@mailbox.command()
@operator_options
@click.argument("name")
@click.option(
    "--to", "server", required=True, metavar="SERVER[!PARTITION]", help="The backend that has it."
)
@yes_option("say so to the master")
@json_option("name, server, before")
async def force(reach: Reach, name: str, server: str, yes: bool, as_json: bool) -> int:
    """Make the master record another backend for a mailbox. Moves no mail: for a backend that is lost,
    or where two have it. What the former one has is put into quarantine: at once, or when that server is back.

    \b
    murder ctl mailbox force user/anna --to be2.example.org --yes
    """
    canonical, location = reach.name(name), parse_location(server.encode())
    entry = await reach.find(canonical)
    to = await find_backend(reach, location.server)
    facts = {"name": reach.shown(canonical), "server": to, "before": entry.server}
    if not yes:
        text = f"{reach.shown(canonical)}: from {entry.server} to {to}, without its mail"
        say(as_json, facts, text)
        click.echo("Re-run with --yes to tell the master so.", err=True)
        return 2
    place = f"{to}!{location.partition or entry.location.partition}"
    await reach.master.force(canonical, place.encode(), entry.raw_acl)
    done = f"{reach.shown(canonical)} is at {to}, it was at {entry.server}"
    if entry.server != to:
        for problem in await settle_force(reach, canonical, entry.server, to):
            click.echo(f"murder: {problem}", err=True)
    return say(as_json, facts, done)


@mailbox.command()
@operator_options
@click.argument("name")
@click.argument("identifier", required=False)
@click.argument("rights", required=False)
@click.option("--remove", is_flag=True, help="Remove the identifier.")
@json_option("name, acl (who: rights)")
async def acl(
    reach: Reach,
    name: str,
    identifier: str | None,
    rights: str | None,
    remove: bool,
    as_json: bool,
) -> int:
    """Show or change the ACL: IDENTIFIER (a user, group:NAME, anyone, -NAME) gets RIGHTS: lrswipkxtea, +r, -x.

    \b
    murder ctl mailbox acl shared/news
    murder ctl mailbox acl shared/news anyone lrsp
    murder ctl mailbox acl shared/news bert --remove
    """
    canonical = reach.name(name)
    if identifier is not None:
        if not rights and not remove:
            raise click.UsageError("name RIGHTS, or --remove")
        await mailboxes.set_acl(reach, canonical, identifier, "" if remove else rights or "")
    entry = await reach.find(canonical)
    facts = _row(reach, entry)
    if as_json:
        print_json({"name": facts["name"], "acl": facts["acl"]})
    else:
        rows = sorted(parse_acl(entry.raw_acl).entries.items())
        print_table(
            ("who", "rights"),
            [[who, "".join(sorted(letters))] for who, letters in rows],
            empty="Nobody has rights",
        )
    return 0


@mailbox.command()
@operator_options
@click.argument("name")
@click.argument("limits", nargs=-1)
@click.option("--none", is_flag=True, help="No limits any more.")
@json_option("name, quota (root: a list of resource, usage, limit, …; STORAGE in KiB)")
async def quota(reach: Reach, name: str, limits: tuple[str, ...], none: bool, as_json: bool) -> int:
    """Show the quota, or set all limits: STORAGE=SIZE MESSAGE=COUNT MAILBOX=COUNT. A size is in KiB, or has a letter:
    500M, 2G. Limits that are not named are removed.

    \b
    murder ctl mailbox quota user/anna
    murder ctl mailbox quota user/anna STORAGE=2G MESSAGE=100000
    murder ctl mailbox quota user/anna --none
    """
    canonical = reach.name(name)
    if limits or none:
        await mailboxes.set_quota(reach, canonical, limits_of(limits))
    details = await mailboxes.show(reach, canonical)
    if as_json:
        quotas = {root: list(words) for root, words in details.quota.items()}
        print_json({"name": reach.shown(canonical), "quota": quotas})
        return 0
    for root, words in details.quota.items():
        click.echo(quota_text(root, words))
    if not details.quota:
        click.echo(f"{name} has no quota", err=True)
    return 0


@mailbox.command()
@operator_options
@click.argument("name")
@click.argument("key", required=False)
@click.argument("value", required=False)
@click.option("--remove", is_flag=True, help="Remove KEY.")
@json_option("name, annotations (key: value)")
async def metadata(
    reach: Reach, name: str, key: str | None, value: str | None, remove: bool, as_json: bool
) -> int:
    """Show the shared annotations, or set one: /shared/comment 'for all'.

    \b
    murder ctl mailbox metadata shared/news
    murder ctl mailbox metadata shared/news /shared/comment 'for all'
    murder ctl mailbox metadata shared/news /shared/comment --remove
    """
    canonical = reach.name(name)
    if key is not None:
        if value is None and not remove:
            raise click.UsageError("name a VALUE, or --remove")
        await mailboxes.set_annotation(reach, canonical, key, None if remove else value)
    annotations = (await mailboxes.show(reach, canonical)).annotations
    if as_json:
        print_json({"name": reach.shown(canonical), "annotations": dict(annotations)})
    else:
        print_table(
            ("key", "value"),
            [[*item] for item in sorted(annotations.items())],
            empty="No annotations",
        )
    return 0


@mailbox.command()
@operator_options
@click.argument("name")
@click.argument("user")
@click.option("--off", is_flag=True, help="Unsubscribe.")
@json_option("name, user, subscribed")
async def subscribe(reach: Reach, name: str, user: str, off: bool, as_json: bool) -> int:
    """Subscribe USER to the mailbox NAME, as their mail program would.

    \b
    murder ctl mailbox subscribe shared/news anna
    murder ctl mailbox subscribe shared/news anna --off
    """
    await mailboxes.subscribe(reach, user, reach.name(name), not off)
    facts = {"name": name, "user": user, "subscribed": not off}
    return say(as_json, facts, f"{user} is {'no longer ' if off else ''}subscribed to {name}")


async def make(reach: Reach, name: MailboxName, server: str, limits: tuple[str, ...]) -> Location:
    """Make a mailbox where it is wanted (`server!partition`), else where the policy says, with its quota: as wanted, else as
    the policy's frontend knows it of the user's directory. Raises Refusal, UpstreamFailure."""
    location = parse_location(server.encode())
    wanted: Mapping[str, int] = limits_of(limits)
    row = await reach.master.find(name)
    if row is not None:
        state = "is at" if row.is_active else "is being created or moved at"
        raise Refusal(Code.ALREADY_EXISTS, f"{reach.shown(name)} {state} {row.server} already")
    if location.server:
        location = Location(await find_backend(reach, location.server), location.partition)
        wanted = wanted or await _limits_by_directory(reach, name)
    else:
        weights = await backends.weights(reach, await all_backends(reach))
        with placing(reach) as decision:
            choice = await decision.home(name, weights)
        location = Location(choice.server, location.partition)
        wanted = wanted or limits_of(choice.quota.split())
    await mailboxes.create(reach, name, location)
    if wanted:
        await mailboxes.set_quota(reach, name, wanted)
    return location


async def _limits_by_directory(reach: Reach, name: MailboxName) -> Mapping[str, int]:
    """What a new user may have whose server was said: as a frontend knows it of their directory; nothing where none can be
    asked."""
    if not is_inbox(name):
        return {}
    weights = await backends.weights(reach, await all_backends(reach))
    with placing(reach, lambda _: None) as decision:
        try:
            return limits_of((await decision.home(name, weights)).quota.split())
        except Refusal:  # no backend takes new ones; this one was said
            return {}


def tell_late(said: str) -> None:
    """Of what is decided and not done everywhere: what its backend has said."""
    if " follows " in said:
        click.echo(f"{said}: `murder ctl conflicts` shows when it is not over", err=True)


async def remove(reach: Reach, name: MailboxName, yes: bool, as_json: bool) -> int:
    """Show what goes, or remove it; the exit code. Raises Refusal, UpstreamFailure."""
    doomed = mailboxes.doomed(await rows_below(reach, name), name)
    if not doomed:
        raise Refusal(Code.NONEXISTENT, f"The master knows no mailbox {reach.shown(name)}")
    gone = [{"name": reach.shown(row.name), "server": row.server} for row in reversed(doomed)]
    facts = {"removed": gone if yes else [], **({} if yes else {"plan": gone})}
    if not yes:
        if as_json:
            print_json(facts)
        else:
            rows = [[mailbox["name"], mailbox["server"]] for mailbox in gone]
            print_table(("mailbox", "server"), rows, hosts=("server",))
        what = count(len(doomed), "mailbox with all its mail", "mailboxes with all their mail")
        click.echo(
            f"{what}. Re-run with --yes to remove {'it' if len(doomed) == 1 else 'them'}.", err=True
        )
        return 2
    tell_late(await mailboxes.delete(reach, doomed))
    return say(as_json, facts, f"{len(doomed)} removed")


async def restore(reach: Reach, name: MailboxName, as_json: bool) -> int:
    """Bring back what was last deleted; the exit code. Raises Refusal, UpstreamFailure."""
    said, back = await mailboxes.undelete(reach, await rows_deleted(reach, name), name)
    tell_late(said)
    names = [reach.shown(before) for _, before in back]
    return say(as_json, {"restored": names}, "\n".join(names))
