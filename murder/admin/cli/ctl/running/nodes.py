"""`murder ctl sessions`, `kick`, `trace`, `conflicts`, `reservations`: the murder as it runs."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options, yes_option
from murder.admin.cli.ctl.running.status import say_unreachable
from murder.admin.cli.options import json_option, print_json, print_table, say
from murder.admin.cli.screen import count, plain, seconds
from murder.admin.operate.reach import Reach
from murder.admin.operate.running.conflicts import conflicts as all_conflicts
from murder.admin.operate.running.conflicts import forget as forget_conflicts
from murder.admin.operate.running.conflicts import shown_name
from murder.admin.operate.running.nodes import follow, need_nodes
from murder.admin.operate.running.sessions import connected, end
from murder.wire.nodes.control_answers import (
    ConflictShown,
    parse_conflict,
    parse_session,
    parse_traced,
)
from murder.wire.nodes.control_words import AskTrace, Wanted


def filter_options(command: Any) -> Any:
    """`--user`, `--backend`, `--address`."""
    for name, text in (
        ("--address", "Only from this address."),
        ("--backend", "Only with a mailbox of this backend selected."),
        ("--user", "Only of this user."),
    ):
        command = click.option(name, default="", help=text)(command)
    return command


@click.command()
@operator_options
@filter_options
@json_option("a list of node, role, cid, user, protocol, address, proxy, mailbox, idle_s")
async def sessions(reach: Reach, user: str, backend: str, address: str, as_json: bool) -> int:
    """Who is connected where: user, protocol, address, selected mailbox, how long idle.

    \b
    murder ctl sessions
    murder ctl sessions --user anna
    murder ctl sessions --backend be1.example.org --json
    """
    await need_nodes(reach)
    clients = await connected(reach, Wanted(user, backend, address))
    rows = [row for row in clients.rows if row.get("protocol")]
    if as_json:
        print_json(rows)
    else:
        print_table(
            ("node", "role", "protocol", "user", "address", "via", "mailbox", "idle", "cid"),
            [
                [
                    session.node,
                    session.role,
                    session.protocol,
                    session.user or "-",
                    session.address,
                    session.proxy,
                    session.mailbox,
                    seconds(session.idle_s) if session.idle_s is not None else "",
                    session.cid,
                ]
                for session in map(parse_session, rows)
            ],
            right=("idle",),
            hosts=("node", "via"),
            spare=("role", "via"),
            empty="Nobody is connected",
        )
    return say_unreachable(clients.silent)


@click.command()
@operator_options
@filter_options
@click.option("--cid", default="", help="Only this connection (as `sessions` and the log name it).")
@yes_option("end them")
@json_option("kicked, a number; without --yes: would_kick")
async def kick(
    reach: Reach, user: str, backend: str, address: str, cid: str, yes: bool, as_json: bool
) -> int:
    """End sessions: clients get BYE, and may connect again.

    \b
    murder ctl kick --user anna           # shows which ones
    murder ctl kick --user anna --yes
    murder ctl kick --address 192.0.2.7 --yes
    """
    await need_nodes(reach)
    wanted = Wanted(user, backend, address, cid)
    if not wanted.given():
        raise click.UsageError("which sessions? name --user, --backend, --address or --cid")
    there = await connected(reach, wanted)
    number = there.clients
    if not yes:
        if as_json:
            print_json({"would_kick": number})
        if not number:
            click.echo("No session is like that", err=True)
            return say_unreachable(there.silent)
        click.echo(f"{count(number, 'session')}. Re-run with --yes to end them.", err=True)
        return 2
    nodes = await end(reach, wanted)
    say(as_json, {"kicked": number}, f"{count(number, 'session')} ended")
    return say_unreachable(nodes)


@click.command()
@operator_options
@click.argument("user")
@click.option(
    "--seconds", "limit_s", type=float, default=0, help="Stop after so many; 0: until Ctrl-C."
)
@json_option("a line for each read and write: node, cid, who, at, octets")
async def trace(reach: Reach, user: str, limit_s: float, as_json: bool) -> int:
    """What passes between USER's clients and the nodes. C: client, S: server. Who connects while it runs is shown from
    the first octet, others from now on; what could be a password is left out. Mail is shown as it passes: pass on no
    more of it than you must.

    \b
    murder ctl trace anna
    murder ctl trace anna --seconds 60 > anna.trace
    """
    await need_nodes(reach)
    with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C is how it ends
        async for line in follow(reach, AskTrace(user), limit_s):
            _show_traced(line, as_json)
    return 0


def _show_traced(line: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(line)
    elif "no" in line:
        click.echo(f"murder: {line['node']}: {line['no']}", err=True)
    elif traced := parse_traced(line):
        at = time.strftime("%H:%M:%S", time.localtime(traced.at))
        for part in traced.octets.splitlines():
            click.echo(f"{at} {line['node']} {traced.cid} {traced.who}: {plain(part)}")


@click.command()
@operator_options
@click.option("--forget", is_flag=True, help="Forget them, once each was looked at; with --yes.")
@yes_option("forget them")
@json_option("a list of node, name, holder, claimant, peer, command, at, kept_as, target, rename")
async def conflicts(reach: Reach, forget: bool, yes: bool, as_json: bool) -> int:
    """Which servers claimed a mailbox that another one has, as the master has recorded. Exit code 1 if there are any.

    The holder has it, and keeps it: nothing has changed. If that is right (somebody tried to make a mailbox that
    exists), forget it; if the claimant should have it, `murder ctl mailbox force NAME --to CLAIMANT`. With FORCE it was
    decided so by an operator.

    QUARANTINED: the claimant has mail of a mailbox that is the holder's, and keeps it aside. It comes back by itself when
    the master names the claimant (`murder ctl mailbox force`). Until then an administrator of mail reads it at the
    claimant itself, not through a frontend, under the name that is shown below the table, having given themselves the
    rights: `murder ctl mailbox acl` does not know it, SETACL at that backend does (`murder ctl raw imap`).

    RENAME: the claimant has prepared its part of a RENAME (or a deletion) over several backends, and the holder, where
    the root is, does not say what became of it: start the holder. Until then nobody can make, rename or delete
    mailboxes in that tree at the claimant; mail is read and delivered. Where the holder is lost for ever, look under
    which names the others have theirs, and end it at the claimant by hand, with the ID that is shown below the table;
    ABORT keeps the old names. RENAMED: it is decided, and the claimant has not done its part: start the claimant; it
    does so by itself.

    \b
    murder ctl conflicts
    printf '1 XSETTLE ID COMMIT\\r\\n' | murder ctl raw imap be2.example.org
    murder ctl conflicts --forget --yes    # when each has been looked at
    """
    await need_nodes(reach)
    reports = await all_conflicts(reach, reach)
    rows = reports.rows
    parsed = [parse_conflict(row) for row in rows]
    if as_json:
        print_json(rows)
    else:
        heads = ("name", "holder", "claimant", "peer", "command")
        print_table(
            ("when", *heads),
            [[_when(conflict.at), *_row(reach, conflict, heads)] for conflict in parsed],
            hosts=("holder", "claimant", "peer"),
            spare=("peer", "when", "command"),
            empty="No conflicts",
        )
        is_kept = False
        for conflict in parsed:
            if conflict.kept_as is not None:
                name, kept_as = (
                    shown_name(reach, word) for word in (conflict.name, conflict.kept_as)
                )
                click.echo(f"{name} is kept at {conflict.claimant} as {kept_as}")
                is_kept = True
            if conflict.rename is not None:
                name = shown_name(reach, conflict.name)
                target = shown_name(reach, conflict.target) if conflict.target else ""
                what = f"{name} to {target} is" if target else f"to delete {name} is"
                click.echo(f"{what} the RENAME {conflict.rename}")
        if is_kept:
            click.echo("It is read there as `murder ctl conflicts --help` says.", err=True)
    if rows and forget and yes:
        ended = await forget_conflicts(reach)
        click.echo("Forgotten.", err=True)
        return say_unreachable(ended)
    if rows and not as_json:
        click.echo(
            "Re-run with --yes to forget them. What is in quarantine, or in doubt, stays."
            if forget
            else "Right as it is? `murder ctl conflicts --forget --yes`. "
            "Else: `murder ctl mailbox force NAME --to CLAIMANT`.",
            err=True,
        )
    undecided = any(conflict.command != "FORCE" for conflict in parsed)
    return say_unreachable(reports.silent) or (2 if rows and forget else 1 if undecided else 0)


def _row(reach: Reach, conflict: ConflictShown, heads: Sequence[str]) -> list[str]:
    named = replace(conflict, name=shown_name(reach, conflict.name))
    return [getattr(named, head) or "" for head in heads]


def _when(at: object) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(float(str(at)))) if at else ""


@click.command()
@operator_options
@json_option("a list of name, server")
async def reservations(reach: Reach, as_json: bool) -> int:
    """Names that are reserved at the master: being created or moved now, or left so by a crash.

    \b
    murder ctl reservations
    """
    rows = [row for row in await reach.heads() if not row.is_active]
    if as_json:
        print_json([{"name": reach.shown(row.name), "server": row.server} for row in rows])
    else:
        print_table(
            ("mailbox", "server"),
            [[reach.shown(row.name), row.server] for row in rows],
            empty="No names are reserved",
        )
    return 0
