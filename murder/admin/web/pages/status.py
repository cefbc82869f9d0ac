"""The status screen, as `murder ctl top` has it."""

from collections.abc import Mapping
from typing import Any, Final

from murder.admin.operate.running.health import NodeLine, findings, lines_of
from murder.admin.operate.running.nodes import ALONE
from murder.admin.web.desk import Desk, Page
from murder.admin.web.rendering import paged
from murder.errors import Code, Refusal
from murder.node.pages.http import Response

EVERY_S: Final = 5
LAG_S: Final = 5.0
FULL: Final = 0.9


async def _words(desk: Desk) -> Mapping[str, Any]:
    looked = await desk.watch.status()
    lines = lines_of(looked.told, looked.at)
    return {
        "lines": [(line, looked.cpu.get((line.node, line.role))) for line in lines],
        "away": [node for node in looked.told if node.problem],
        "wrong": findings(looked.told, lines),
        "sums": _sums(lines),
        "nodes": len(looked.told),
        "alone": ALONE if looked.alone else "",
        "at": looked.at,
        "every_s": EVERY_S,
        "limits": {"lag_s": LAG_S, "full": FULL},
    }


def _sums(lines: list[NodeLine]) -> Mapping[str, int]:
    master = [line.mailboxes for line in lines if line.role == "mupdate"]
    return {
        "connections": sum(line.connections for line in lines),
        "mailboxes": max(master or [line.mailboxes for line in lines] or [0]),
    }


async def show(desk: Desk) -> Response:
    """All nodes."""
    return desk.page("status.html", **await _words(desk))


async def part(desk: Desk) -> Response:
    """What changes of it."""
    return desk.page("status_part.html", **await _words(desk))


async def node(desk: Desk) -> Response:
    """The processes of one node. Raises Refusal."""
    name = desk.field("name")
    looked = await desk.watch.status()
    answered = next(
        (
            node_answers
            for node_answers in looked.told
            if node_answers.answers and node_answers.name == name
        ),
        None,
    )
    if answered is None:
        raise Refusal(Code.NONEXISTENT, f"No node {name} answers")
    processes = [
        {"role": answer.get("role", ""), "worker": answer.get("worker", 0), "status": status}
        for answer, status in zip(answered.answers, answered.statuses, strict=True)
    ]
    problems = [problem for line in lines_of([answered], looked.at) for problem in line.problems]
    page = paged(processes, desk.path, desk.fields)
    return desk.page("node.html", name=name, page=page, problems=problems)


PAGES: Final = (
    Page("GET", "/node", node),
    Page("GET", "/status", show),
    Page("GET", "/status/part", part, is_part=True),
)
