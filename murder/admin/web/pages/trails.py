"""What has happened: messages, and who did what."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from murder.admin.operate.running.audit import Meant, acts
from murder.admin.operate.running.logs import tail
from murder.admin.operate.running.messages import called, trace
from murder.admin.operate.running.nodes import need_nodes
from murder.admin.operate.wording import parse_span
from murder.admin.web.desk import Desk, Page
from murder.admin.web.rendering import paged
from murder.errors import BadSyntax
from murder.node.pages.http import Response
from murder.wire.nodes.control_words import LOG_LEVELS

WITHIN: Final = "1d"
OF_MESSAGES: Final = (
    *(
        "at",
        "node",
        "event",
        "id",
        "sender",
        "recipient",
        "message_id",
        "backend",
        "copies",
        "filtered",
    ),
    *("size", "ms", "reply", "user", "mailbox", "target", "messages"),
)
OF_ACTS: Final = (
    *("at", "node", "user", "proxy", "way", "peer", "event", "arguments", "wanted", "result"),
    *("mailbox", "target"),
)


def _within_s(since: str) -> float:
    """0: however old. Raises BadSyntax."""
    return parse_span(since) if since else 0.0


def _whole(line: Mapping[str, Any], keys: Sequence[str]) -> Mapping[str, Any]:
    """A line with all that a template asks it for."""
    return {key: line.get(key) for key in keys}


async def messages(desk: Desk) -> Response:
    """All that is known of one message, in the order of time."""
    word = desk.fields.get("word", "")
    since = desk.fields.get("since", "")
    lines: Sequence[Mapping[str, Any]] = ()
    silent: Sequence[object] = ()
    if word:
        async with desk.watch.reach() as reach:
            await need_nodes(reach)
            traced = await trace(reach, word, _within_s(since))
            lines = [_whole(called(reach, line), OF_MESSAGES) for line in traced.lines]
        silent = traced.silent
    return desk.page(
        "messages.html",
        page=paged(lines, desk.path, desk.fields),
        word=word,
        since=since,
        silent=silent,
    )


async def audit(desk: Desk) -> Response:
    """The last acts first."""
    fields = desk.fields
    user, mailbox, operator = (fields.get(name, "") for name in ("user", "mailbox", "operator"))
    since = fields.get("since", WITHIN)
    async with desk.watch.reach() as reach:
        await need_nodes(reach)
        recorded = await acts(reach, Meant(user, mailbox, operator), _within_s(since))
    lines = list(reversed(recorded.lines))
    return desk.page(
        "audit.html",
        page=paged([_whole(line, OF_ACTS) for line in lines], desk.path, fields),
        user=user,
        mailbox=mailbox,
        operator=operator,
        since=since,
        silent=recorded.silent,
    )


async def log(desk: Desk) -> Response:
    """The last lines of all nodes, the latest first."""
    word, level = desk.fields.get("word", ""), desk.fields.get("level", "info")
    if level not in LOG_LEVELS:
        raise BadSyntax(f"{level[:20]!r} is none of {', '.join(LOG_LEVELS)}")
    async with desk.watch.reach() as reach:
        await need_nodes(reach)
        lines = await tail(reach, word, level)
    return desk.page(
        "log.html",
        page=paged(list(reversed(lines.lines)), desk.path, desk.fields),
        word=word,
        level=level,
        levels=LOG_LEVELS,
        silent=lines.silent,
    )


PAGES: Final = (
    Page("GET", "/log", log),
    Page("GET", "/messages", messages),
    Page("GET", "/audit", audit),
)
