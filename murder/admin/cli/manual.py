"""`murder help`: the manual's pages."""

import difflib

import asyncclick as click

from murder.admin.cli.options import json_option, say
from murder.admin.manual.pages import TOPICS, page


@click.command("help")
@click.argument("topic", required=False)
@json_option("topic, text; without TOPIC: topics")
def show(topic: str | None, as_json: bool) -> int:
    """Print a page of the manual; without TOPIC, what pages there are.

    \b
    murder help
    murder help trouble
    murder help install | less
    """
    if topic is None:
        width = max(map(len, TOPICS))
        lines = [f"murder help {name.ljust(width)}  {text}" for name, text in TOPICS.items()]
        lines.append(
            "\nOptions of a command: murder COMMAND --help. All keys: murder config example."
        )
        return say(as_json, {"topics": dict(TOPICS)}, "\n".join(lines))
    if topic not in TOPICS:
        near = difflib.get_close_matches(topic, TOPICS, 1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise click.UsageError(f"no page {topic}{hint} There are: {', '.join(TOPICS)}")
    text = page(topic)
    return say(as_json, {"topic": topic, "text": text}, text.rstrip("\n"))
