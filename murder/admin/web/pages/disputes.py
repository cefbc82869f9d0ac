"""Mailboxes that two servers want."""

from typing import Final

from murder.admin.operate.running.conflicts import conflicts, forget, shown_name
from murder.admin.operate.running.nodes import need_nodes
from murder.admin.web.desk import Desk, Page
from murder.admin.web.rendering import paged
from murder.node.pages.http import Response
from murder.wire.nodes.control_answers import parse_conflict


async def show(desk: Desk) -> Response:
    """All of them."""
    own = await desk.reach()
    async with desk.watch.reach() as reach:
        await need_nodes(reach)
        reports = await conflicts(reach, own)
    rows = [
        {
            "at": conflict.at,
            "name": shown_name(own, conflict.name),
            "holder": conflict.holder,
            "claimant": conflict.claimant,
            "command": conflict.command,
            "kept_as": shown_name(own, conflict.kept_as) if conflict.kept_as is not None else "",
        }
        for conflict in map(parse_conflict, reports.rows)
    ]
    page = paged(rows, desk.path, desk.fields)
    return desk.page("conflicts.html", page=page, silent=reports.silent)


async def forget_all(desk: Desk) -> Response:
    """Once each was looked at."""
    async with desk.watch.reach() as reach:
        nodes = await forget(reach)
    silent = [node.name for node in nodes if node.problem]
    desk.note("conflicts.forget", result=f"not at {', '.join(silent)}" if silent else "ok")
    desk.session.notice("Forgotten. What is in quarantine, or in doubt, stays.")
    if silent:
        desk.session.notice(f"Not asked, as they do not answer: {', '.join(silent)}", "bad")
    return desk.go("/conflicts")


PAGES: Final = (
    Page("GET", "/conflicts", show),
    Page("POST", "/conflicts/forget", forget_all),
)
