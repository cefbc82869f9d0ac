"""`murder ctl mailbox move` and `murder ctl move`, `backend drain`, `rebalance`: mailboxes go to other backends."""

import sys
import time
from collections.abc import Sequence

import asyncclick as click

from murder.cli.options import Decorator, json_option, print_json, print_table
from murder.cli.reaching import backends_of, octets, operator_options, seconds, yes_option
from murder.errors import Code, Refusal
from murder.model.entry import parse_location
from murder.operate.moves import (
    Planned,
    Record,
    act,
    carry_out,
    chosen,
    find_record,
    plan,
    records,
)
from murder.operate.reach import Reach

BAR = 24


class Screen:
    """Progress: bars on a terminal, a line for each end otherwise."""

    def __init__(self, reach: Reach, planned: Sequence[Planned], *, quiet: bool) -> None:
        self._reach = reach
        self._planned = planned
        self._quiet = quiet
        self._live = sys.stderr.isatty() and not quiet
        self._drawn = 0
        self._drawn_at = 0.0
        self._began = time.monotonic()

    def tell(self, each: Planned) -> None:
        if self._quiet:
            return
        if not self._live:
            if each.state in ("done", "failed"):
                click.echo(self._ended(each), err=True)
            return
        now = time.monotonic()
        if now - self._drawn_at >= 0.1 or each.state in ("done", "failed"):
            self._drawn_at = now
            self._draw()

    def _ended(self, each: Planned) -> str:
        name = self._reach.shown(each.root)
        if each.state == "failed":
            return f"{name}: failed: {each.problem}"
        return f"{name}: now at {each.target} ({each.messages} messages, {octets(each.octets)})"

    def _draw(self) -> None:
        over = [one for one in self._planned if one.state in ("done", "failed")]
        active = [one for one in self._planned if one.state not in ("done", "failed", "waiting")]
        lines = [self._line(one) for one in active]
        carried = sum(one.octets for one in self._planned)
        passed = max(time.monotonic() - self._began, 0.001)
        left = ""
        if over and len(over) < len(self._planned):
            left = f", about {seconds(passed / len(over) * (len(self._planned) - len(over)))} left"
        lines.append(
            f"{len(over)} of {len(self._planned)} moved, {octets(carried)}, {octets(carried / passed)}/s{left}"
        )
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        sys.stderr.write(up + "".join(f"\x1b[K{line}\n" for line in lines) + "\x1b[J")
        sys.stderr.flush()
        self._drawn = len(lines)

    def _line(self, one: Planned) -> str:
        part = min(1.0, one.messages / one.total) if one.total else 0.0
        bar = "#" * round(BAR * part)
        name = self._reach.shown(one.root)[:30]
        return f"{name:30} [{bar:{BAR}}] {100 * part:3.0f} %  {octets(one.octets):>10}  {one.state}"

    def end(self) -> None:
        if self._live:
            self._draw()


def show_plan(reach: Reach, planned: Sequence[Planned]) -> None:
    heads = ("mailbox", "mailboxes", "from", "to")
    rows = [[reach.shown(one.root), str(one.mailboxes), one.source, one.target] for one in planned]
    print_table(heads, rows)


async def run_plan(reach: Reach, planned: Sequence[Planned], parallel: int, as_json: bool) -> int:
    """Carry it out, with progress and a summary; the exit code."""
    began = time.monotonic()
    screen = Screen(reach, planned, quiet=as_json)
    await carry_out(reach, planned, parallel, screen.tell)
    screen.end()
    failed = [one for one in planned if one.state == "failed"]
    passed = time.monotonic() - began
    carried = sum(one.octets for one in planned)
    if as_json:
        print_json(
            {
                "moved": len(planned) - len(failed),
                "failed": {reach.shown(one.root): one.problem for one in failed},
                "octets": carried,
                "seconds": round(passed, 3),
            }
        )
    else:
        for one in failed:
            click.echo(f"{reach.shown(one.root)}: {one.problem}", err=True)
        click.echo(
            f"{len(planned) - len(failed)} moved, {len(failed)} failed, {octets(carried)} in {seconds(passed)}"
        )
        if failed:
            click.echo(
                "Those that failed are at their old place, unharmed. Again: the same command, or "
                "`murder ctl move resume ID`.",
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
@json_option()
async def move_mailboxes(
    reach: Reach, what: str, target: str, parallel: int, yes: bool, as_json: bool
) -> int:
    """Move WHAT to another backend while people use it: a user, a mailbox with all below it, or a pattern.

    Clients notice a pause of milliseconds; UIDs, flags, rights, subscriptions and quotas stay. What has moved is kept
    at the old backend for a while ([backend] move_grace_s), so `murder ctl move undo` is quick.

    \b
    murder ctl mailbox move anna --to be2.example.org --yes
    murder ctl mailbox move 'user/a*' --to be2.example.org       # shows what it would do
    murder ctl mailbox move shared/lists --to be2.example.org!ssd --yes
    """
    location = parse_location(target.encode())
    rows = await reach.rows()
    servers = backends_of(reach, rows)
    if location.server not in servers:
        raise Refusal(
            Code.NONEXISTENT,
            f"No backend is called {location.server}; known are {', '.join(servers)}",
        )
    planned = plan(chosen(reach, rows, what), location.server, location.partition, rows)
    if not planned:
        click.echo(f"All of it is at {location.server} already", err=True)
        return 0
    if not yes:
        show_plan(reach, planned)
        click.echo(f"{len(planned)} moves. Say --yes to carry them out.", err=True)
        return 0
    return await run_plan(reach, planned, parallel, as_json)


@click.group()
def move() -> None:
    """Moves under way, and over: status, resume, abort, undo, forget.

    \b
    murder ctl move status
    murder ctl move undo 3f1c…
    """


def _shown(reach: Reach, record: Record) -> list[str]:
    facts = record.facts
    took = float(facts["finished_at"]) - float(facts["started_at"])
    return [
        record.id,
        reach.shown(record.root),
        record.backend,
        str(facts["server"]),
        record.state,
        str(facts["messages"]),
        octets(float(facts["octets"])),
        seconds(took) if took > 0 else "",
        seconds(float(facts["stop_s"])) if facts["stop_s"] else "",
        str(facts["problem"]),
    ]


@move.command()
@operator_options
@click.argument("move_id", required=False)
@click.option("--all", "everything", is_flag=True, help="Those that are over, too.")
@json_option()
async def status(reach: Reach, move_id: str | None, everything: bool, as_json: bool) -> int:
    """Moves as their sources know them; without --all those that are not over, or still kept."""
    found, failures = await records(reach, backends_of(reach, await reach.rows()))
    shown = [
        one
        for one in found
        if one.is_out
        and (
            one.id == move_id
            if move_id
            else everything or one.state not in ("removed", "undone", "aborted")
        )
    ]
    if as_json:
        print_json([{"backend": one.backend, **one.facts} for one in shown])
    else:
        heads = (
            "id",
            "mailbox",
            "from",
            "to",
            "state",
            "messages",
            "octets",
            "took",
            "stop",
            "problem",
        )
        print_table(heads, [_shown(reach, one) for one in shown])
    for server, problem in failures.items():
        click.echo(f"murder: {server} cannot be asked: {problem}", err=True)
    return 3 if failures else 0


async def _act(reach: Reach, verb: str, move_id: str) -> int:
    record, _ = await find_record(reach, backends_of(reach, await reach.rows()), move_id)
    ended = await act(reach, record.backend, verb, move_id)
    click.echo(f"{move_id}: {ended.state}")
    return 0


@move.command()
@operator_options
@click.argument("move_id")
async def resume(reach: Reach, move_id: str) -> int:
    """Go on with a move that failed; what has been copied is not copied again."""
    return await _act(reach, "RESUME", move_id)


@move.command()
@operator_options
@click.argument("move_id")
async def abort(reach: Reach, move_id: str) -> int:
    """Give up a move that is not over: everything stays where it was.

    What has come to the target is removed there, if it cannot be reached as soon as it is back. A move whose source is no
    more is ended at its target: while that has not been told to show what came, the source has let go of nothing.
    """
    return await _act(reach, "ABORT", move_id)


@move.command()
@operator_options
@click.argument("move_id")
@yes_option("remove what the old backend keeps")
async def forget(reach: Reach, move_id: str, yes: bool) -> int:
    """Remove what the old backend still keeps of a move that is over. It can then not be undone quickly.

    Of a move that was given up: its target, which could not be reached, need not be told (it is no more)."""
    if not yes:
        click.echo(f"This removes what is kept of the move {move_id}. Say --yes.", err=True)
        return 2
    return await _act(reach, "LETGO", move_id)


@move.command()
@operator_options
@click.argument("move_id")
@parallel_option()
@json_option()
async def undo(reach: Reach, move_id: str, parallel: int, as_json: bool) -> int:
    """Move it back to where it was. Only what has changed since goes over the wire, while the old backend keeps it."""
    rows = await reach.rows()
    record, _ = await find_record(reach, backends_of(reach, rows), move_id)
    if not record.is_out or record.state not in ("done", "removed"):
        raise Refusal(Code.CANNOT, f"The move {move_id} is {record.state}: nothing to undo")
    entry = await reach.find(record.root)
    if entry.server == record.backend:
        raise Refusal(Code.CANNOT, f"{reach.shown(record.root)} is at {record.backend} already")
    planned = plan([entry], record.backend, "", rows)
    return await run_plan(reach, planned, parallel, as_json)
