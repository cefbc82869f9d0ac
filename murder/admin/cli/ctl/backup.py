"""`murder ctl backup`: points in time of the mail, taken while the murder runs, proved, and let go of."""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import asyncclick as click

from murder.admin.cli.ctl.reaching import find_backend, operator_options, yes_option
from murder.admin.cli.ctl.restic import STALL_S, carry_away, need_restic
from murder.admin.cli.options import Group, json_option, print_json, print_table, say
from murder.admin.cli.screen import count, octets, seconds
from murder.admin.cli.span import Span
from murder.admin.operate.backup.keep import EVERY, Verified, Verifying, kept_of, prune, scopes_of
from murder.admin.operate.backup.kept import read_point
from murder.admin.operate.backup.take import Taken, Taking, root_of
from murder.admin.operate.backup.vault import open_vault
from murder.admin.operate.parts import rows_at
from murder.admin.operate.reach import Reach
from murder.errors import Code, Refusal
from murder.model.entry import MailboxEntry
from murder.model.name import inbox_of, is_below, is_inbox, owner_of

TELL_EVERY_S: Final = 0.2
SHOWN: Final = 20  # problems told in words
_ELSEWHERE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # as a URL begins, or a name for restic


@click.group(cls=Group)
def backup() -> None:
    """Points in time of the mail, in a folder: taken while everybody works, only what has changed since the last one.

    \b
    murder ctl backup run --to /backup/mail
    murder ctl backup list --from /backup/mail
    murder ctl backup verify --from /backup/mail
    murder ctl backup prune --from /backup/mail --keep-daily 14 --yes
    """


class Folder(click.ParamType[Path]):
    """Of a backup: what names a place in the world (`s3://…`) would else become a folder here that is called so."""

    name = "path"

    def convert(
        self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        if _ELSEWHERE.match(str(value)):
            self.fail(
                f"{value} is no folder. A backup lies in one, and restic carries it away and back: "
                "--to DIR --restic s3:https://… (murder help backup)",
                param,
                ctx,
            )
        return Path(value)


def from_option() -> Callable[..., Any]:
    """`--from DIR`."""
    return click.option(
        "--from",
        "folder",
        type=Folder(),
        required=True,
        envvar="MURDER_BACKUP",
        help="The backup's folder.  [default: $MURDER_BACKUP]",
    )


def teller(text_of: Callable[[Any], str]) -> Callable[[Any], None]:
    """One line on a terminal, now and then."""
    shown_at = 0.0

    def tell(what: object) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if sys.stderr.isatty() and now - shown_at > TELL_EVERY_S:
            shown_at = now
            click.echo(f"\r{text_of(what)} \x1b[K", nl=False, err=True)

    return tell


@backup.command("run")
@operator_options
@click.option(
    "--to",
    "folder",
    type=Folder(),
    required=True,
    envvar="MURDER_BACKUP",
    help="The backup's folder; made if it is not there.  [default: $MURDER_BACKUP]",
)
@click.option("--backend", default="", help="Only users and mailboxes at this backend.")
@click.option("--user", default="", help="Only this user, with all their mailboxes.")
@click.option("--mailbox", default="", help="Only this mailbox and those below it.")
@click.option(
    "--restic",
    "repository",
    default="",
    metavar="REPOSITORY",
    help="Then copy the folder there by restic, encrypted: s3:https://HOST/BUCKET, sftp:…, a path. Its password: "
    "$RESTIC_PASSWORD_FILE.",
)
@click.option(
    "--restic-stall",
    "stall_s",
    type=Span(),
    default=STALL_S,
    metavar="SPAN",
    help="End restic where it has come no further for so long: 90s, 30m, 12h.  [default: 1h]",
)
@json_option(
    "point, units, mailboxes, messages, octets, new_octets, seconds, missing (name: reason), unreadable (message: reason)"
)
async def run_backup(
    reach: Reach,
    folder: Path,
    backend: str,
    user: str,
    mailbox: str,
    repository: str,
    stall_s: float,
    as_json: bool,
) -> int:
    """Take a point in time. Every mailbox is in it as it was at one moment; nobody is held up.

    Exit code 0: all of it is durable, and nothing is missing. 1: the point was made, and lacks what is named. A run that is
    killed leaves the points that were there; the next run goes on.

    \b
    murder ctl backup run --to /backup/mail
    murder ctl backup run --to /backup/mail --backend be1.example.org
    murder ctl backup run --to /backup/mail --user anna
    murder ctl backup run --to /backup/mail --restic s3:https://s3.example.org/b
    """
    if sum(map(bool, (backend, user, mailbox))) > 1:
        raise click.UsageError("--backend, --user and --mailbox exclude each other")
    if repository:
        need_restic()
    scope, chosen = await _scope(reach, backend, user, mailbox)
    vault = open_vault(folder, make=True)
    began = time.monotonic()

    def text_of(taken: Taken) -> str:
        read = f"{count(taken.read_messages, 'message')} ({octets(taken.read_octets)}) read"
        return f"{taken.units} of {taken.units_of} users and mailboxes, {read}"

    with vault.locked():
        taking = Taking(reach, vault, scope, chosen, teller(text_of))
        point = await taking.run()
    taken = taking.taken
    facts = {
        "point": point.name,
        "units": len(point.units),
        "mailboxes": taken.mailboxes,
        "messages": taken.messages,
        "octets": taken.octets,
        "new_octets": point.new_octets,
        "seconds": round(time.monotonic() - began, 1),
        "missing": dict(point.missing),
        "unreadable": taken.unreadable,
    }
    text = (
        f"{point.name}: {count(taken.mailboxes, 'mailbox', 'mailboxes')}, {count(taken.messages, 'message')} "
        f"({octets(taken.octets)}) in {seconds(time.monotonic() - began)}; "
        f"{count(taken.read_messages, 'message')} read, {octets(point.new_octets)} written"
    )
    say(as_json, facts, text)
    complain([f"{name} is missing: {why}" for name, why in point.missing.items()])
    complain([f"{what}: {why}" for what, why in taken.unreadable.items()])
    if repository:
        await carry_away(repository, folder, stall_s)
    return 1 if point.missing or taken.unreadable else 0


def complain(problems: list[str]) -> None:
    """On standard error, the first ones in words."""
    for text in problems[:SHOWN]:
        click.echo(text, err=True)
    if len(problems) > SHOWN:
        click.echo(f"and {len(problems) - SHOWN} more (--json names all)", err=True)


async def _scope(
    reach: Reach, backend: str, user: str, mailbox: str
) -> tuple[str, Callable[[MailboxEntry], bool]]:
    """What a run takes, for people and as a question. Raises Refusal where there is no such thing."""
    if backend:
        server = await find_backend(reach, backend)
        rows = await rows_at(reach, server)
        there = {root_of(row.name) for row in rows if _leads(row)}
        return server, lambda row: root_of(row.name) in there
    if user:
        inbox = inbox_of(user)
        if await reach.master.find(inbox) is None:
            reach.check_user(user)
            raise Refusal(Code.NONEXISTENT, f"No user {user} has mailboxes here")
        return f"user {user}", lambda row: owner_of(row.name) == user
    if mailbox:
        name = reach.name(mailbox)
        if owner_of(name) is not None:
            raise click.UsageError("a user's mailboxes are backed up together: --user")
        await reach.find(name)
        return f"mailbox {mailbox}", lambda row: is_below(row.name, name)
    return "all", lambda row: True


def _leads(row: MailboxEntry) -> bool:
    """Whether where it lies says where its unit is."""
    return is_inbox(row.name) or owner_of(row.name) is None


@backup.command("list")
@from_option()
@json_option(
    "a list of point, scope, units, messages, octets, new_octets, seconds, missing (a number)"
)
def list_points(folder: Path, as_json: bool) -> int:
    """The points in time that there are, the oldest first.

    \b
    murder ctl backup list --from /backup/mail
    """
    vault = open_vault(folder)
    points = [read_point(vault, name) for name in vault.points()]
    facts = [
        {
            "point": point.name,
            "scope": point.scope,
            "units": len(point.units),
            "messages": point.messages,
            "octets": point.octets,
            "new_octets": point.new_octets,
            "seconds": round(point.ended - point.began, 1),
            "missing": len(point.missing),
        }
        for point in points
    ]
    if as_json:
        print_json(facts)
        return 0
    print_table(
        ("point", "scope", "users and mailboxes", "messages", "size", "new", "missing"),
        [
            [
                point.name,
                point.scope,
                str(len(point.units)),
                str(point.messages),
                octets(point.octets),
                octets(point.new_octets),
                str(len(point.missing)),
            ]
            for point in points
        ],
        right=("users and mailboxes", "messages", "size", "new", "missing"),
        empty="No point yet: murder ctl backup run --to DIR",
    )
    return 0


@backup.command()
@from_option()
@click.option("--point", default="", help="Of this one; else of the last.")
def mailboxes(folder: Path, point: str) -> None:
    """Write the master's list as it was, for `murder ctl list load` on the host of a new master.

    \b
    murder ctl backup mailboxes --from /backup/mail > list.jsonl
    """
    vault = open_vault(folder)
    points = [point] if point else vault.points()
    if not points:
        raise Refusal(Code.NONEXISTENT, f"{folder} has no point yet")
    click.echo(vault.read(read_point(vault, points[-1]).mailbox_list), nl=False)


@backup.command()
@from_option()
@click.option("--point", default="", help="Only this one; else all.")
@json_option("points, objects, octets, problems (a list)")
async def verify(folder: Path, point: str, as_json: bool) -> int:
    """Read all that the points name, and compare it with its digest. Exit code 1 where something is missing or damaged.

    What is damaged is put aside, and the next `run` reads it from the backends again.

    \b
    murder ctl backup verify --from /backup/mail
    """
    vault = open_vault(folder)

    def text_of(verified: Verified) -> str:
        return f"{count(verified.objects, 'object')}, {octets(verified.octets)}"

    with vault.locked():
        points = [point] if point else vault.points()
        verified = await Verifying(vault, teller(text_of)).run(points)
    if as_json:
        print_json(
            {
                "points": verified.points,
                "objects": verified.objects,
                "octets": verified.octets,
                "problems": verified.problems,
            }
        )
    else:
        for text in verified.problems:
            click.echo(text)
        read = f"{count(verified.objects, 'object')} ({octets(verified.octets)}) read"
        problems = count(len(verified.problems), "problem")
        click.echo(f"{count(verified.points, 'point')}, {read}: {problems}", err=True)
    return 1 if verified.problems else 0


def _keep_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for period in reversed(list(EVERY)):
        option = click.option(
            f"--keep-{period}",
            type=click.IntRange(0),
            default=0,
            metavar="N",
            help=f"Keep the last point of each of the last N {PERIODS[period]} that have one.",
        )
        command = option(command)
    return command


PERIODS: Final = {
    "hourly": "hours",
    "daily": "days",
    "weekly": "weeks",
    "monthly": "months",
    "yearly": "years",
}


@backup.command("prune")
@from_option()
@_keep_options
@yes_option("remove the points")
@json_option("removed (a list), kept (a list), objects, octets")
def prune_points(folder: Path, yes: bool, as_json: bool, **keep: int) -> int:
    """Remove old points, and what only they had. The last one, and the last one that lacks nothing, always stay.
    Points of one backend, user or mailbox are counted by themselves.

    \b
    murder ctl backup prune --from /backup/mail --keep-daily 14   # only says it
    murder ctl backup prune --from /backup/mail --keep-daily 14 --yes
    """
    wanted = {name.removeprefix("keep_"): number for name, number in keep.items() if number}
    if not wanted:
        raise click.UsageError("say what stays: --keep-daily N, --keep-monthly N, …")
    vault = open_vault(folder)
    with vault.locked():
        points, whole = scopes_of(vault)
        kept = kept_of(points, wanted, whole)
        gone = [name for name in points if name not in kept]
        if not yes:
            say(
                as_json, {"removed": gone, "kept": kept, "objects": 0, "octets": 0}, "\n".join(gone)
            )
            text = f"{count(len(gone), 'point')} would go, {len(kept)} stay. Re-run with --yes."
            click.echo(text, err=True)
            return 2
        with vault.removing():
            pruned = prune(vault, gone)
    facts = {"removed": gone, "kept": kept, "objects": pruned.objects, "octets": pruned.octets}
    text = f"{count(len(gone), 'point')} removed, {len(kept)} kept; {octets(pruned.octets)} freed"
    return say(as_json, facts, text)
