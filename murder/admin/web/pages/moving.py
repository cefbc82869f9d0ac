"""Moves: planned, begun, followed, taken back."""

import time
from collections.abc import Sequence
from typing import Any, Final

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
from murder.admin.operate.parts import rows_below
from murder.admin.operate.reach import Reach
from murder.admin.operate.wording import count
from murder.admin.web.desk import Desk, Page
from murder.admin.web.pages.mailboxes import check_digest, digest_of
from murder.admin.web.rendering import paged
from murder.admin.web.sessions import MAX_KEPT_MOVES
from murder.errors import BadSyntax
from murder.node.pages.http import Response

PARALLEL: Final = 2
EVERY_S: Final = 2
OVER: Final = ("removed", "undone", "aborted")
ENDED: Final = ("done", "failed")
VERBS: Final = {
    "undo": "Move it back to where it was. What has changed since goes along.",
    "resume": "Go on with it; what has been copied is not copied again.",
    "abort": "End it: everything stays where it was, and what was copied is removed at the target.",
    "forget": "Remove what the old backend still keeps of it. It can then not be undone quickly.",
}


def _digest(planned: Sequence[Planned]) -> str:
    return digest_of((), *(f"{move.root!r} {move.source} {move.target}" for move in planned))


def _own(desk: Desk) -> list[dict[str, Any]]:
    return [{"name": name, "move": move} for name, move in desk.session.moves[-MAX_KEPT_MOVES:]]


def _lines(reach: Reach, planned: Sequence[Planned]) -> list[dict[str, Any]]:
    return [
        {"name": reach.shown(move.root), "mailboxes": move.mailboxes, "move": move}
        for move in planned
    ]


async def show(desk: Desk) -> Response:
    """What this session has begun, and what the backends know."""
    reach = await desk.reach()
    everything = desk.fields.get("all", "")
    kept, failures = await records(reach, await all_backends(reach))
    listed = [
        record for record in kept if record.is_out and (everything or record.state not in OVER)
    ]
    page = paged(list(reversed(listed)), desk.path, desk.fields)
    return desk.page(
        "moves.html",
        page=page,
        rows=[(reach.shown(row.root), row) for row in page.rows],
        failures=failures,
        everything=everything,
        own=_own(desk),
        every_s=EVERY_S,
        at=time.time(),
    )


async def part(desk: Desk) -> Response:
    """How far those are that this session has begun."""
    return desk.page("moves_part.html", own=_own(desk))


async def _planned(desk: Desk, reach: Reach) -> list[Planned]:
    """Of `what` to `to`. Raises Refusal."""
    what, to = desk.field("what"), desk.field("to")
    return (await plan_of(reach, what, to))[1]


async def show_plan(desk: Desk) -> Response:
    """What would move."""
    reach = await desk.reach()
    planned = await _planned(desk, reach)
    return desk.page(
        "move.html",
        what=desk.field("what"),
        to=desk.field("to"),
        page=paged(_lines(reach, planned), desk.path, desk.fields),
        plan=_digest(planned),
    )


async def begin(desk: Desk) -> Response:
    """What was shown; it goes on behind the answer."""
    reach = await desk.reach()
    planned = await _planned(desk, reach)
    check_digest(desk, _digest(planned))
    _start(desk, planned, f"{desk.field('what')} to {desk.field('to')}")
    return desk.go("/moves")


def _start(desk: Desk, planned: Sequence[Planned], arguments: str) -> None:
    """Raises Refusal, ConfigError."""
    session = desk.session
    session.check_may_act(desk.config)
    own = session.own_reach(desk.config)
    desk.note("move", arguments=arguments, result="begun")
    over = [pair for pair in session.moves if pair[1].state in ENDED]
    open_ones = [pair for pair in session.moves if pair[1].state not in ENDED]
    fresh = [(own.shown(move.root), move) for move in planned]
    session.moves = [*over[-MAX_KEPT_MOVES:], *open_ones, *fresh]

    async def carry() -> None:
        try:
            await carry_out(own, planned, PARALLEL, lambda _: None)
        finally:
            await own.close()
            failed = sum(move.state != "done" for move in planned)
            desk.note("move", arguments=arguments, result=f"failed: {failed}" if failed else "done")

    session.keep(carry())
    session.notice(f"{count(len(planned), 'move')} begun. It goes on, also when you leave.")


async def _asked(desk: Desk) -> tuple[str, Reach, Record]:
    """The act on a move that the form names, and that move. Raises BadSyntax, Refusal."""
    verb = desk.field("verb")
    if verb not in VERBS:
        raise BadSyntax(f"{verb[:20]!r} is none of {', '.join(VERBS)}")
    reach = await desk.reach()
    record, _ = await find_record(reach, await all_backends(reach), desk.field("id"))
    return verb, reach, record


async def confirm(desk: Desk) -> Response:
    """What an act on a move means."""
    verb, reach, record = await _asked(desk)
    return desk.page(
        "move_act.html",
        verb=verb,
        meaning=VERBS[verb],
        record=record,
        name=reach.shown(record.root),
    )


async def do(desk: Desk) -> Response:
    """Undo, resume, abort or forget."""
    verb, reach, record = await _asked(desk)
    move_id = desk.field("id")
    if verb == "undo":
        planned = await undoing(reach, await rows_below(reach, record.root), record)
        _start(desk, planned, f"undo {move_id}")
        return desk.go("/moves")
    async with desk.doing(f"move.{verb}", move_id):
        ended = await act(reach, record.backend, verb.upper(), move_id)
    desk.session.notice(f"{move_id}: {ended.state}")
    return desk.go("/moves")


PAGES: Final = (
    Page("GET", "/moves", show),
    Page("GET", "/moves/part", part, is_part=True),
    Page("GET", "/move", show_plan),
    Page("POST", "/move", begin),
    Page("GET", "/moves/act", confirm),
    Page("POST", "/moves/act", do),
)
