"""`murder ctl message`: what has happened to a message."""

from collections.abc import Mapping
from typing import Any

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options
from murder.admin.cli.ctl.running.status import say_unreachable
from murder.admin.cli.options import Group, json_option, print_json
from murder.admin.cli.screen import plain
from murder.admin.cli.span import Span
from murder.admin.operate.reach import Reach
from murder.admin.operate.running.messages import called
from murder.admin.operate.running.messages import trace as trace_message
from murder.admin.operate.running.nodes import need_nodes


@click.group(cls=Group)
def message() -> None:
    """What has happened to a message.

    \b
    murder ctl message trace '<20261129.1@example.org>'
    """


@message.command()
@operator_options
@click.argument("word")
@click.option("--since", type=Span(), default=0.0, help="Not longer ago: 90s, 30m, 12h, 7d.")
@json_option("a list of lines as the mail log has them, with node and role")
async def trace(reach: Reach, word: str, since: float, as_json: bool) -> int:
    """All that the nodes' mail logs say of a message, in the order of time. WORD: its Message-ID, the id that a reply or the
    log gave it, or the address of its sender or of a recipient. Exit code 1 if nobody knows of it.

    Where backends have `[log] mail = "full"`: also who has appended, copied, moved, expunged and restored it, from where to
    where; and WORD may be a user, too, or a message's `place` in the log.

    \b
    murder ctl message trace '<20261129.1@example.org>'
    murder ctl message trace anna@example.org --since 2h
    murder ctl message trace 692ab7c1-1f4-2a-1 --json
    """
    await need_nodes(reach)
    traced = await trace_message(reach, word, since)
    if as_json:
        print_json(list(traced.lines))
    else:
        for line in traced.lines:
            click.echo(_shown(called(reach, line)))
        if not traced.lines:
            click.echo(f"No node knows of {plain(word)}", err=True)
    return say_unreachable(traced.silent) or (0 if traced.lines else 1)


def _shown(line: Mapping[str, Any]) -> str:
    """One line of the mail log, for a person."""
    what = str(line.get("event", "")).removeprefix("message.")
    words = [str(line.get("at", "")), str(line["node"]), what]
    words += [str(line[key]) for key in ("id", "message_id") if line.get(key)]
    if "sender" in line:
        words.append(f"from <{line['sender']}>")
    elif line.get("user"):
        words.append(f"by {line['user']}")
    if line.get("rule"):
        words.append(f"by the rule {line['rule']} of age")
    if line.get("protocol") == "imapsieve":
        words.append("by a script that saw it")
    if line.get("protocol") == "submission":
        words.append("since nobody took what a script redirects")
    if line.get("recipient"):
        words.append(f"to <{line['recipient']}>")
    if line.get("backend"):
        words.append(f"at {line['backend']}")
    if line.get("filtered"):
        words.append(f"filtered ({', '.join(map(str, line['filtered']))})")
    for copy in line.get("copies", ()):
        words.append(f"in {copy['mailbox']}")
        words.append(f"UID {copy['uid']}" if "uid" in copy else "(there before)")
    if line.get("mailbox"):
        words.append(f"in {line['mailbox']}{_uids(line, 'uid')}")
    if line.get("event") == "message.unexpunged":
        words.append(f"back as{_uids(line, 'new_uid')}")
    if line.get("source"):
        words.append(f"from {line['source']}")
    if line.get("target"):
        words.append(f"to {line['target']}{_uids(line, 'new_uid')}")
    if "size" in line:
        words.append(f"{line['size']} octets")
    if "ms" in line:
        words.append(f"{line['ms']} ms")
    if line.get("reply"):
        words.append(f": {line['reply']}")
    return plain(" ".join(words))


MOST_UIDS = 10  # of one line


def _uids(line: Mapping[str, Any], key: str) -> str:
    """Of the messages that a line is about."""
    uids = [str(place[key]) for place in line.get("messages", ()) if key in place]
    more = f" and {len(uids) - MOST_UIDS} more" if len(uids) > MOST_UIDS else ""
    return f" UID {','.join(uids[:MOST_UIDS])}{more}" if uids else ""
