"""The manual, as `murder help` prints it."""

from typing import Final

from murder.admin.manual.pages import TOPICS, page
from murder.admin.web.desk import Desk, Page
from murder.errors import Code, Refusal
from murder.node.pages.http import Response


async def show(desk: Desk) -> Response:
    """One topic, or all that there are."""
    topic = desk.fields.get("topic", "")
    if topic and topic not in TOPICS:
        raise Refusal(Code.NONEXISTENT, f"The manual has no page {topic[:40]}")
    text = page(topic) if topic else ""
    return desk.page("manual.html", topics=TOPICS, topic=topic, lines=text.splitlines())


PAGES: Final = (Page("GET", "/manual", show),)
