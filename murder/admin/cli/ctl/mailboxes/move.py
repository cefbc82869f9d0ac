"""`murder ctl mailbox move` and `murder ctl move`, `backend drain`, `rebalance`: mailboxes go to other backends."""

import time
from collections.abc import Sequence
from typing import Final

import asyncclick as click

from murder.admin.cli.ctl.mailboxes.progress import Screen
from murder.admin.cli.ctl.reaching import operator_options, yes_option
from murder.admin.cli.options import Decorator, Group, json_option, print_json, print_table, say
from murder.admin.cli.screen import BAD, DIM, GOOD, Painted, count, octets, plain, seconds
from murder.admin.operate.backends import all_backends
from murder.admin.operate.moves import (
    Planned,
    Record,
    act,
    carry_out,
    find_record,
    plan_of,
    records,
    undoing,
)
from murder.admin.operate.moves import verify as compare_ends
from murder.admin.operate.parts import rows_below
from murder.admin.operate.reach import Reach
from murder.errors import Code, Refusal
from murder.model.entry import parse_location
from murder.wire.nodes.move_words import RESULTS, MoveCompared


def show_plan(reach: Reach, planned: Sequence[Planned], as_json: bool) -> None:
    heads = ("name", "mailboxes", "from", "to")
    rows = [
        [reach.shown(tree.root), str(tree.mailboxes), tree.source, tree.target] for tree in planned
    ]
    if as_json:
        print_json(
            [{**dict(zip(heads, row, strict=True)), "mailboxes": int(row[1])} for row in rows]
        )
    else:
        print_table(heads, rows, right=("mailboxes",), hosts=("from", "to"))


async def run_plan(reach: Reach, planned: Sequence[Planned], parallel: int, as_json: bool) -> int:
    """Carry it out, with progress and a summary; the exit code."""
    began = time.monotonic()
    screen = Screen(reach, planned, quiet=as_json)
    await carry_out(reach, planned, parallel, screen.tell)
    screen.end()
    failed = [tree for tree in planned if tree.state == "failed"]
    passed = time.monotonic() - began
    carried = sum(tree.octets for tree in planned)
    if as_json:
        print_json(
            {
                "moved": len(planned) - len(failed),
                "failed": {reach.shown(tree.root): tree.problem for tree in failed},
                "octets": carried,
                "seconds": round(passed, 3),
            }
        )
    else:
        for tree in failed:
            click.echo(f"{plain(reach.shown(tree.root))}: {tree.problem}", err=True)
        click.echo(
            f"{len(planned) - len(failed)} moved, {len(failed)} failed, {octets(carried)} in {seconds(passed)}"
        )
        if failed:
            click.echo(
                "Those that failed are unharmed, at their old place unless they go on. Again: the same command, or\n"
                "`murder ctl move resume ID` (`murder ctl move status` has the ID).",
                err=True,
            )
    return 1 if failed else 0


def parallel_option() -> Decorator:
    return click.option(
        "--parallel",
        type=click.IntRange(1, 64),
        default=2,
        show_default=True,
        help="So many at once.",
    )


@click.command("move")
@operator_options
@click.argument("what")
@click.option("--to", "target", required=True, metavar="SERVER[!PARTITION]", help="Where to.")
@parallel_option()
@yes_option("move them")
@json_option(
    "moved, failed (name: problem), octets, seconds; without --yes the plan, a list of name, mailboxes, from, to"
)
async def move_mailboxes(
    reach: Reach, what: str, target: str, parallel: int, yes: bool, as_json: bool
) -> int:
    """Move WHAT to another backend while people use it: a user, a mailbox with all below it, or a pattern.

    Clients notice a pause of milliseconds; UIDs, flags, rights, subscriptions and quotas stay. What has moved is kept
    at the old backend for a while ([backend] move_grace_s), so `murder ctl move undo` is quick.

    \b
    murder ctl mailbox move anna --to be2.example.org --yes
    murder ctl mailbox move 'user/a*' --to be2.example.org       # the plan
    murder ctl mailbox move shared/lists --to 'be2.example.org!ssd' --yes
    """
    location = parse_location(target.encode())
    server, planned = await plan_of(reach, what, location.server, location.partition)
    if not planned and not as_json:
        click.echo(f"All of it is at {server} already", err=True)
        return 0
    if not yes and planned:
        show_plan(reach, planned, as_json)
        click.echo(f"{count(len(planned), 'move')}. Re-run with --yes to carry out.", err=True)
        return 2
    return await run_plan(reach, planned, parallel, as_json)


@click.group(cls=Group)
def move() -> None:
    """Moves, running and finished: status, verify, resume, abort, undo, forget.

    \b
    murder ctl move status
    murder ctl move verify 3f1c…
    murder ctl move undo 3f1c…
    """


def _shown(reach: Reach, record: Record) -> list[str]:
    facts = record.move
    took = facts.finished_at - facts.started_at
    return [
        record.id,
        reach.shown(record.root),
        record.backend,
        facts.server,
        Painted(record.state, _STATES.get(record.state, "")),
        str(facts.messages),
        octets(facts.octets),
        seconds(took) if took > 0 else "",
        seconds(facts.stop_s) if facts.stop_s else "",
        Painted(facts.problem, BAD),
    ]


_STATES: Final = {"done": GOOD, "failed": BAD, "removed": DIM, "undone": DIM, "aborted": DIM}


@move.command()
@operator_options
@click.argument("move_id", required=False)
@click.option("--all", "everything", is_flag=True, help="Those that are over, too.")
@json_option(
    "a list of backend, id, root, server, partition, state, by, started_at, finished_at, stop_s, messages, octets, problem"
)
async def status(reach: Reach, move_id: str | None, everything: bool, as_json: bool) -> int:
    """Moves as their sources know them; without --all those that are not over, or still kept.

    \b
    murder ctl move status
    murder ctl move status --all
    murder ctl move status 3f1c5e02ab47 --json
    """
    kept, failures = await records(reach, await all_backends(reach))
    listed = [
        record
        for record in kept
        if record.is_out
        and (
            record.id == move_id
            if move_id
            else everything or record.state not in ("removed", "undone", "aborted")
        )
    ]
    if as_json:
        print_json([{"backend": record.backend, **record.move.shown()} for record in listed])
    else:
        heads = (
            "id",
            "mailbox",
            "from",
            "to",
            "state",
            "messages",
            "size",
            "took",
            "stop",
            "problem",
        )
        print_table(
            heads,
            [_shown(reach, record) for record in listed],
            right=("messages", "size", "took", "stop"),
            hosts=("from", "to"),
            spare=("messages", "size", "stop", "took"),
            empty=f"No move {move_id} is known"
            if move_id
            else "No moves are known"
            if everything
            else "No moves are under way or kept (--all: also those that are over)",
        )
    for server, problem in failures.items():
        click.echo(f"murder: {server} cannot be asked: {problem}", err=True)
    return 3 if failures else 0


@move.command()
@operator_options
@click.argument("move_id")
@json_option(
    "move, result, mailboxes (a list of mailbox, result, messages, octets, arrived, expunged, flags, told, more)"
)
async def verify(reach: Reach, move_id: str, as_json: bool) -> int:
    """Compare both ends of a move completely, while it runs and as long as the old copy is kept.

    Compared are mailboxes, UIDVALIDITY, counts, UIDs, flags, mod-sequences, dates, what was expunged, and all octets;
    after the switch also rights, metadata, quota and subscriptions. The result is `same`; or `changed`: what differs
    has happened at the new place since (while the move runs: at the old one, and follows); or `different`: something is
    lost or damaged at one end, and the exit code is 1. Nothing is changed, nobody is kept waiting.

    \b
    murder ctl move verify 3f1c5e02ab47
    murder ctl move verify 3f1c5e02ab47 --json | jq .result
    """
    record, _ = await find_record(reach, await all_backends(reach), move_id)
    if not record.is_out:
        raise Refusal(
            Code.CANNOT,
            f"{record.move.server}, where the move {move_id} begins, does not show it",
        )
    compared: list[MoveCompared] = []
    try:
        await compare_ends(reach, record.backend, move_id, compared.append)
    except Refusal as refusal:
        if refusal.code is not Code.UNAVAILABLE:
            raise
        click.echo(f"murder: {refusal.text}", err=True)  # the other end cannot be reached
        return 3
    result = max((mailbox.result for mailbox in compared), key=RESULTS.index, default="same")
    if as_json:
        mailboxes = [
            {**mailbox.shown(), "mailbox": reach.shown(mailbox.mailbox)} for mailbox in compared
        ]
        print_json({"move": move_id, "result": result, "mailboxes": mailboxes})
    else:
        _show_compared(reach, compared)
        click.echo(f"{move_id}: {_SAID[result]}")
    return 1 if result == "different" else 0


_SAID: Final = {
    "same": "the same at both ends",
    "changed": "the same but for what has changed since",
    "different": "DIFFERENT: see above before anything is removed",
}
_COLOURS: Final = {"same": GOOD, "different": BAD}


def _show_compared(reach: Reach, compared: Sequence[MoveCompared]) -> None:
    heads = ("mailbox", "result", "messages", "size", "new", "expunged", "flags changed")
    rows = [
        [
            reach.shown(mailbox.mailbox),
            Painted(mailbox.result, _COLOURS.get(mailbox.result, "")),
            str(mailbox.messages),
            octets(mailbox.octets),
            *(str(number or "") for number in (mailbox.arrived, mailbox.expunged, mailbox.flags)),
        ]
        for mailbox in compared
    ]
    print_table(heads, rows, right=heads[2:], spare=("size",))
    for mailbox in compared:
        name = plain(reach.shown(mailbox.mailbox))
        for text in mailbox.told:
            click.echo(f"{name}: {plain(text)}")
        if mailbox.more:
            click.echo(f"{name}: and {mailbox.more} more like these")


async def _act(reach: Reach, verb: str, move_id: str, as_json: bool) -> int:
    record, _ = await find_record(reach, await all_backends(reach), move_id)
    ended = await act(reach, record.backend, verb, move_id)
    facts = {"backend": ended.backend, "id": move_id, "state": ended.state}
    return say(as_json, facts, f"{move_id}: {ended.state}")


@move.command()
@operator_options
@click.argument("move_id")
@json_option("backend, id, state")
async def resume(reach: Reach, move_id: str, as_json: bool) -> int:
    """Resume a move that failed; what has been copied is not copied again.

    \b
    murder ctl move resume 3f1c5e02ab47
    """
    return await _act(reach, "RESUME", move_id, as_json)


@move.command()
@operator_options
@click.argument("move_id")
@json_option("backend, id, state")
async def abort(reach: Reach, move_id: str, as_json: bool) -> int:
    """Abort a move that is not over: everything stays where it was.

    What was copied to the target is removed there, as soon as the target can be reached. A move whose source is gone
    for good is ended at its target: until that was told to activate the copy, the source still served everything.

    \b
    murder ctl move abort 3f1c5e02ab47
    """
    return await _act(reach, "ABORT", move_id, as_json)


@move.command()
@operator_options
@click.argument("move_id")
@yes_option("remove what the old backend keeps")
@json_option("backend, id, state")
async def forget(reach: Reach, move_id: str, yes: bool, as_json: bool) -> int:
    """Remove what the old backend still keeps of a move that is over. It can then not be undone quickly.

    So too what is kept longer because other software has put mail there since (`status` tells): fetch that first.

    For an aborted move: its target, which cannot be reached, need not be told (it is gone for good).

    \b
    murder ctl move forget 3f1c5e02ab47 --yes
    """
    if not yes:
        record, _ = await find_record(reach, await all_backends(reach), move_id)
        text = f"This removes what {record.backend} still keeps of {reach.shown(record.root)}. Re-run with --yes."
        click.echo(text, err=True)
        return 2
    return await _act(reach, "FORGET", move_id, as_json)


@move.command()
@operator_options
@click.argument("move_id")
@parallel_option()
@json_option("moved, failed (name: problem), octets, seconds")
async def undo(reach: Reach, move_id: str, parallel: int, as_json: bool) -> int:
    """Move it back to where it was. Only what has changed since goes over the wire, while the old backend keeps it.

    \b
    murder ctl move undo 3f1c5e02ab47
    """
    record, _ = await find_record(reach, await all_backends(reach), move_id)
    planned = await undoing(reach, await rows_below(reach, record.root), record)
    return await run_plan(reach, planned, parallel, as_json)
