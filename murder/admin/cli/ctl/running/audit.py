"""`murder ctl audit`: who did what."""

from collections.abc import Mapping
from typing import Any

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options
from murder.admin.cli.ctl.running.status import say_unreachable
from murder.admin.cli.options import json_option, print_json
from murder.admin.cli.screen import count, plain
from murder.admin.cli.span import Span
from murder.admin.operate.reach import Reach
from murder.admin.operate.running.audit import Meant, acts, breaks
from murder.admin.operate.running.nodes import need_nodes


@click.command()
@operator_options
@click.option("--user", default="", help="Acts by this user, or that name them.")
@click.option(
    "--mailbox",
    default="",
    help="Acts that name this mailbox, however their client calls it, or one below it.",
)
@click.option("--operator", default="", help="Acts of this administrator or operator alone.")
@click.option("--since", type=Span(), default=0.0, help="Not longer ago: 90s, 30m, 12h, 7d.")
@click.option("--verify", is_flag=True, help="Look whether lines were taken out or altered.")
@json_option(
    "a list of lines with node, role, at, event, user, arguments, mailbox, target, result; verify: breaks"
)
async def audit(
    reach: Reach,
    user: str,
    mailbox: str,
    operator: str,
    since: float,
    verify: bool,
    as_json: bool,
) -> int:
    """Who made, removed, renamed or moved mailboxes, changed rights, quotas, annotations and passwords, ended sessions,
    reloaded a node, or came as an administrator: what the nodes have kept, in the order of time.

    \b
    murder ctl audit --since 1d
    murder ctl audit --mailbox user/anna/Projects
    murder ctl audit --operator admin --json
    murder ctl audit --verify
    """
    await need_nodes(reach)
    if verify:
        return await _verify(reach, as_json)
    answer = await acts(reach, Meant(user, mailbox, operator), since)
    if as_json:
        print_json(answer.lines)
    else:
        for line in answer.lines:
            click.echo(_shown(line))
        if not answer.lines:
            click.echo("No entry matches", err=True)
    return say_unreachable(answer.silent) or (0 if answer.lines else 1)


def _shown(line: Mapping[str, Any]) -> str:
    words = [str(line.get("at", "")), str(line["node"]), str(line.get("user", ""))]
    if line.get("proxy"):
        words.append(f"by {line['proxy']}")
    if line.get("way"):
        words.append(f"by {line['way']}")
    if line.get("peer"):
        words.append(f"from {line['peer']}")
    words.append(str(line.get("event", "")))
    words += [str(line[key]) for key in ("arguments", "wanted") if line.get(key)]
    words += [
        f"({line[key]})" for key in ("mailbox", "target") if line.get(key, "") not in words[-1]
    ]
    if "result" in line:
        words.append(f": {line['result']}")
    return plain(" ".join(words))


async def _verify(reach: Reach, as_json: bool) -> int:
    broken, silent = await breaks(reach)
    if as_json:
        print_json({"breaks": broken})
    else:
        for node, places in sorted(broken.items()):
            click.echo(f"{node}: {count(len(places), 'break')}: {', '.join(places[:20])}")
        if not broken:
            click.echo("No line was taken out or altered")
    return say_unreachable(silent) or (1 if broken else 0)
