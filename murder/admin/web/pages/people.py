"""Who is connected, and the end of their sessions."""

from typing import Final

from murder.admin.operate.running.nodes import need_nodes
from murder.admin.operate.running.sessions import Connected, connected, end
from murder.admin.operate.wording import count
from murder.admin.web.desk import Desk, Page
from murder.admin.web.forms import Fields
from murder.admin.web.rendering import paged
from murder.errors import BadSyntax
from murder.node.pages.http import Response
from murder.wire.nodes.control_answers import parse_session
from murder.wire.nodes.control_words import Wanted

FILTERS: Final = ("user", "backend", "address", "cid")


def _wanted(fields: Fields) -> Wanted:
    return Wanted(*(fields.get(name, "") for name in FILTERS))


async def _connected(desk: Desk, wanted: Wanted) -> Connected:
    async with desk.watch.reach() as reach:
        await need_nodes(reach)
        return await connected(reach, wanted)


async def show(desk: Desk) -> Response:
    """Those that fit."""
    wanted = _wanted(desk.fields)
    clients = await _connected(desk, wanted)
    rows = [parse_session(row) for row in clients.rows if row.get("protocol")]
    rows.sort(key=lambda session: (session.user or "", session.node, session.cid))
    return desk.page(
        "sessions.html",
        page=paged(rows, desk.path, desk.fields),
        wanted=wanted,
        silent=clients.silent,
    )


async def plan(desk: Desk) -> Response:
    """What would be ended."""
    wanted = _wanted(desk.fields)
    if not wanted.given():
        raise BadSyntax("Which sessions? Name a user, a backend or an address")
    clients = await _connected(desk, wanted)
    rows = [parse_session(row) for row in clients.rows if row.get("protocol")]
    return desk.page(
        "kick.html",
        page=paged(rows, desk.path, desk.fields),
        wanted=wanted,
        clients=clients.clients,
        silent=clients.silent,
    )


async def kick(desk: Desk) -> Response:
    """End them. It goes by the node's right to ask others: each notes it, too."""
    wanted = _wanted(desk.form)
    if not wanted.given():
        raise BadSyntax("Which sessions? Name a user, a backend or an address")
    arguments = " ".join(f"{name}={value}" for name, value in wanted.given().items())
    number = (await _connected(desk, wanted)).clients
    async with desk.watch.reach() as reach:
        nodes = await end(reach, wanted)
    silent = [node.name for node in nodes if node.problem]
    result = f"ok, not at {', '.join(silent)}" if silent else "ok"
    desk.note("kick", arguments=arguments, result=result)
    gone = "" if number else " Whoever was meant has gone already."
    desk.session.notice(f"{count(number, 'session')} ended.{gone}")
    if silent:
        desk.session.notice(f"Not asked, as they do not answer: {', '.join(silent)}", "bad")
    return desk.go("/sessions")


PAGES: Final = (
    Page("GET", "/sessions", show),
    Page("GET", "/kick", plan),
    Page("POST", "/kick", kick),
)
