"""`murder ctl log`: the last lines of all logs."""

import time

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options
from murder.admin.cli.ctl.running.status import say_unreachable
from murder.admin.cli.options import json_option, print_json
from murder.admin.cli.screen import plain
from murder.admin.operate.reach import Reach
from murder.admin.operate.running.logs import tail
from murder.admin.operate.running.nodes import need_nodes
from murder.wire.nodes.control_words import LOG_LEVELS


@click.command("log")
@operator_options
@click.argument("word", default="")
@click.option(
    "--level", type=click.Choice(LOG_LEVELS), default="info", show_default=True, help="The least."
)
@json_option("a list of node, role, at, level, text")
async def show_log(reach: Reach, word: str, level: str, as_json: bool) -> int:
    """The last lines of all nodes' logs in the order of time: what each process still holds, a few hundred. WORD: only
    lines in which it stands. All lines are in the logs that the nodes write (`journalctl -u murder`). Exit code 1 if
    there is none.

    \b
    murder ctl log
    murder ctl log anna
    murder ctl log --level warning --json
    """
    await need_nodes(reach)
    lines = await tail(reach, word, level)
    if as_json:
        print_json([{"node": said.node, "role": said.role, **said.shown()} for said in lines.lines])
    else:
        for line in lines.lines:
            at = time.strftime("%H:%M:%S", time.localtime(line.at))
            click.echo(f"{at} {line.node} {plain(line.text)}")
        if not lines.lines:
            click.echo("No line matches", err=True)
    return say_unreachable(lines.silent) or (0 if lines.lines else 1)
