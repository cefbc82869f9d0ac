"""`murder ctl user`: all of one user's mailboxes at once."""

from collections.abc import Mapping, Sequence

import asyncclick as click

from murder.admin.cli.ctl.mailboxes.mailbox import restore, tell_late
from murder.admin.cli.ctl.mailboxes.user_create import create
from murder.admin.cli.ctl.reaching import keep_rights_option, operator_options, yes_option
from murder.admin.cli.options import Group, json_option, print_json, print_table, say
from murder.admin.cli.screen import count, octets
from murder.admin.operate import mailboxes
from murder.admin.operate.grants import Grant, grants_of, hand_on
from murder.admin.operate.parts import rows_about, rows_below
from murder.admin.operate.quotas import quota_text
from murder.admin.operate.reach import Reach
from murder.admin.operate.users import users_in
from murder.errors import Code, Refusal
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, inbox_of, is_below


@click.group(cls=Group)
def user() -> None:
    """Users: all of one's mailboxes at once. Passwords are the auth plugin's: `murder auth`.

    \b
    murder ctl user create anna --quota STORAGE=1048576
    murder ctl user show anna
    murder ctl mailbox move anna --to be2.example.org --yes
    """


user.add_command(create)


@user.command("list")
@operator_options
@json_option("a list of user, server, mailboxes")
async def list_users(reach: Reach, as_json: bool) -> int:
    """Every user that has an INBOX, with its backend and how many mailboxes they have.

    \b
    murder ctl user list
    murder ctl user list | awk '$2 == "be1.example.org"'
    """
    users = [
        {"user": summary.user, "server": summary.server, "mailboxes": summary.mailboxes}
        for summary in users_in(await reach.heads())
    ]
    if as_json:
        print_json(users)
    else:
        print_table(
            ("user", "server", "mailboxes"),
            [
                [str(fields["user"]), str(fields["server"]), str(fields["mailboxes"])]
                for fields in users
            ],
            right=("mailboxes",),
            hosts=("server",),
            empty="No user has mailboxes here: `murder ctl user create NAME`",
        )
    return 0


@user.command()
@operator_options
@click.argument("name")
@json_option("user, mailboxes (a list of name, server, messages, octets), quota")
async def show(reach: Reach, name: str, as_json: bool) -> int:
    """One user: their mailboxes, where each is, messages and octets, quota.

    \b
    murder ctl user show anna
    """
    inbox = inbox_of(name)
    rows = [
        row for row in await rows_below(reach, inbox) if is_below(row.name, inbox) and row.is_active
    ]
    if not rows:
        reach.check_user(name)
        raise Refusal(Code.NONEXISTENT, f"No user {name} has mailboxes here")
    details = [await mailboxes.show(reach, row.name) for row in rows]
    facts = [
        {
            "name": reach.shown(detail.entry.name),
            "server": detail.entry.server,
            "messages": detail.counts.get("messages"),
            "octets": detail.counts.get("size"),
        }
        for detail in details
    ]
    quota = {root: list(words) for detail in details for root, words in detail.quota.items()}
    if as_json:
        print_json({"user": name, "mailboxes": facts, "quota": quota})
        return 0
    print_table(
        ("mailbox", "server", "messages", "size"),
        [
            [
                str(fact["name"]),
                str(fact["server"]),
                "-" if fact["messages"] is None else str(fact["messages"]),
                "-" if fact["octets"] is None else octets(float(str(fact["octets"]))),
            ]
            for fact in facts
        ],
        right=("messages", "size"),
        hosts=("server",),
    )
    for root, words in quota.items():
        click.echo(f"quota {quota_text(root, words)}")
    click.echo(sum_of(facts), err=True)
    return 0


def sum_of(facts: Sequence[Mapping[str, object]]) -> str:
    """Of mailboxes as `user show` tells them in JSON. Who asks by a password is not told what is in others' mailboxes."""
    text = count(len(facts), "mailbox", "mailboxes")
    if unknown := sum(fact["messages"] is None for fact in facts):
        return f"{text}; what is in {unknown} of them is told to an operator's certificate"
    total = sum(int(str(fact["octets"] or 0)) for fact in facts)
    messages = sum(int(str(fact["messages"])) for fact in facts)
    return f"{text}, {count(messages, 'message')}, {octets(total)}"


@user.command()
@operator_options
@click.argument("name")
@keep_rights_option("what the user may do in other people's mailboxes")
@yes_option("remove all their mail")
@json_option(
    "removed (a list of name, server), rights (what is taken away: a list of name, who, rights); without --yes: plan, as "
    "removed"
)
async def delete(reach: Reach, name: str, keep_rights: bool, yes: bool, as_json: bool) -> int:
    """Remove all of a user's mailboxes, and their name from the access lists of all others. The password is the auth
    plugin's: `murder auth remove`. `user undelete` brings back the mail, not the rights that others had granted.

    \b
    murder ctl user delete anna          # what would go
    murder ctl user delete anna --yes
    """
    rows = await (rows_below(reach, inbox_of(name)) if keep_rights else rows_about(reach, name))
    given = [] if keep_rights else grants_of(rows, name)
    doomed = mailboxes.doomed(rows, inbox_of(name))
    if not doomed and not given:
        raise Refusal(Code.NONEXISTENT, f"No user {name} has mailboxes here")
    gone = [{"name": reach.shown(row.name), "server": row.server} for row in reversed(doomed)]
    if not yes:
        if as_json:
            print_json({"removed": [], "plan": gone, "rights": _shown(reach, given)})
        else:
            print_table(
                ("mailbox", "server"),
                [list(mailbox.values()) for mailbox in gone],
                hosts=("server",),
            )
            _show_grants(reach, given, "taken away")
        what = count(len(doomed), "mailbox with all its mail", "mailboxes with all their mail")
        click.echo(f"{what}{_and_rights(given)}. Re-run with --yes to remove them.", err=True)
        return 2
    if doomed:
        tell_late(await mailboxes.delete(reach, doomed))
    problems = await hand_on(reach, given, None)
    facts = {"removed": gone, "rights": _shown(reach, given)}
    say(as_json, facts, f"{len(doomed)} removed{_and_rights(given)}")
    return _tell_problems(problems)


@user.command()
@operator_options
@click.argument("name")
@json_option("restored, a list of names")
async def undelete(reach: Reach, name: str, as_json: bool) -> int:
    """Bring back all of a user's mailboxes that were last deleted (of backends with `delete = "delayed"`).

    \b
    murder ctl user undelete anna
    """
    return await restore(reach, inbox_of(name), as_json)


@user.command()
@operator_options
@click.argument("old")
@click.argument("new")
@keep_rights_option("the old name in other people's access lists")
@yes_option("rename them")
@json_option(
    "old, new, rights (what the new name gets: a list of name, who, rights); without --yes: plan (a list of name, new, "
    "server), rights"
)
async def rename(
    reach: Reach, old: str, new: str, keep_rights: bool, yes: bool, as_json: bool
) -> int:
    """Give a user another name: their mailboxes, subscriptions, and rights, also in other people's mailboxes. The
    login itself is the auth plugin's: `murder auth`.

    \b
    murder ctl user rename anna anna.berg          # what would be renamed
    murder ctl user rename anna anna.berg --yes
    """
    reach.check_user(new)
    rows = await rows_about(reach, old, new)
    plan = mailboxes.renamed(rows, inbox_of(old), inbox_of(new))
    given = [] if keep_rights else grants_of(rows, old)
    taken = [row for row in rows if is_below(row.name, inbox_of(new))]
    if not plan and not (given and taken):  # else the rights are what an earlier try has left
        raise Refusal(Code.NONEXISTENT, f"No user {old} has mailboxes here")
    if plan and taken:
        where = taken[0].server
        raise Refusal(Code.ALREADY_EXISTS, f"{new} has mailboxes already, at {where}")
    if plan:
        await mailboxes.check_together(reach, rows, plan[0][0])
    if not yes:
        return _show_renames(reach, plan, given, as_json)
    if plan:
        tell_late(await mailboxes.rename(reach, inbox_of(old), inbox_of(new)))
    problems = await hand_on(reach, given, new)
    facts = {"old": old, "new": new, "rights": _shown(reach, given)}
    say(as_json, facts, f"{old} is now {new}{_and_rights(given)}")
    return _tell_problems(problems)


def _shown(reach: Reach, given: Sequence[Grant]) -> list[dict[str, str]]:
    return [
        {"name": reach.shown(grant.row.name), "who": grant.identifier, "rights": grant.rights}
        for grant in given
    ]


def _show_grants(reach: Reach, given: Sequence[Grant], fate: str) -> None:
    if given:
        click.echo()
        heads = (f"rights that are {fate}", "who", "rights")
        print_table(heads, [list(grant.values()) for grant in _shown(reach, given)])


def _and_rights(given: Sequence[Grant]) -> str:
    return f", and {count(len(given), 'access list entry', 'access list entries')}" if given else ""


def _tell_problems(problems: Sequence[str]) -> int:
    """The exit code."""
    for problem in problems:
        click.echo(f"murder: {problem}", err=True)
    if problems:
        click.echo("Run this again when that is fixed: what is done stays done.", err=True)
    return 1 if problems else 0


def _show_renames(
    reach: Reach,
    plan: Sequence[tuple[MailboxEntry, MailboxName]],
    given: Sequence[Grant],
    as_json: bool,
) -> int:
    rows = [
        {"name": reach.shown(row.name), "new": reach.shown(name), "server": row.server}
        for row, name in plan
    ]
    if as_json:
        print_json({"plan": rows, "rights": _shown(reach, given)})
    else:
        heads = ("mailbox", "new", "server")
        print_table(heads, [list(renamed.values()) for renamed in rows], hosts=("server",))
        _show_grants(reach, given, "the new name's then")
    what = count(len(plan), "mailbox", "mailboxes") + _and_rights(given)
    several = len(plan) + len(given) > 1
    click.echo(f"{what}. Re-run with --yes to rename {'them' if several else 'it'}.", err=True)
    return 2
