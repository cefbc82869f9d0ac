"""`murder ctl check`: the mailbox list three ways, and how to put it right."""

from typing import Final

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options, yes_option
from murder.admin.cli.options import json_option, print_json, print_table
from murder.admin.cli.screen import count
from murder.admin.operate.backends import backends_of
from murder.admin.operate.lists import check as compare_lists
from murder.admin.operate.lists import fix as carry_out
from murder.admin.operate.reach import Reach
from murder.admin.operate.running.masters import compare_masters
from murder.admin.operate.running.nodes import ask_all, learn
from murder.wire.nodes.control_words import AskStatus

FRONTENDS: Final = "the frontends"


@click.command()
@operator_options
@click.option("--fix", is_flag=True, help="Put right what has one right answer; with --yes.")
@yes_option("carry out the cures")
@json_option(
    "mailboxes, differences (a list of name, what, server, cure), unreachable, frontends, masters"
)
async def check(reach: Reach, fix: bool, yes: bool, as_json: bool) -> int:
    """Compare the master's list with what each backend has, with the frontends' own lists, and with the other masters',
    where several share one. Exit code 1 if they
    differ, 3 if a server or a node could not be asked: which, is said.

    --fix lets the backends concerned compare again: what only a backend has is announced, what only the master has is
    forgotten. A mailbox at two places is never touched: look at both, then remove or rename one.

    \b
    murder ctl check
    murder ctl check --fix            # shows the cures
    murder ctl check --fix --yes
    """
    rows = await reach.rows()
    checked = await compare_lists(reach, rows, backends_of(reach, rows))
    behind = await _frontends(reach, len(rows), checked.unreachable)
    masters = await compare_masters(reach, rows)
    checked.unreachable.update(masters.unreachable)
    if as_json:
        print_json(
            {
                "mailboxes": checked.mailboxes,
                "differences": [
                    {
                        "name": reach.shown(difference.name),
                        "what": difference.what,
                        "server": difference.server,
                        "cure": difference.cure,
                    }
                    for difference in checked.differences
                ],
                "unreachable": checked.unreachable,
                "frontends": behind,
                "masters": masters.differences,
            }
        )
    else:
        print_table(
            ("mailbox", "server", "what", "cure"),
            [
                [
                    reach.shown(difference.name),
                    difference.server,
                    difference.what,
                    difference.cure or "-",
                ]
                for difference in checked.differences
            ],
            hosts=("server",),
        )
        for server, problem in checked.unreachable.items():
            click.echo(f"murder: {server} cannot be asked: {problem}", err=True)
        for line in (*behind, *masters.differences):
            click.echo(line)
        mailboxes_text = count(checked.mailboxes, "mailbox", "mailboxes")
        differences_text = count(len(checked.differences), "difference")
        unasked = ", ".join(checked.unreachable)
        among = f" among those that were asked; NOT asked: {unasked}" if unasked else ""
        click.echo(f"{mailboxes_text}, {differences_text}{among}", err=True)
    if fix:
        curable = [difference for difference in checked.differences if difference.cure]
        if curable and not yes:
            click.echo(f"{len(curable)} can be cured. Re-run with --fix --yes.", err=True)
            return 2
        for curing in curable:
            await carry_out(reach, curing)
        if curable:
            click.echo(
                f"{count(len(curable), 'cure')} handed to the backends; run `murder ctl check` again",
                err=True,
            )
    if checked.unreachable:
        return 3
    return 1 if checked.differences or behind or masters.differences else 0


async def _frontends(reach: Reach, mailboxes: int, unreachable: dict[str, str]) -> list[str]:
    """Frontends whose lists are not the master's now; nodes that do not answer go to the `unreachable`."""
    if not await learn(reach):
        unreachable[FRONTENDS] = "no node is known: name them in [operator] nodes"
        return []
    said = []
    for node in await ask_all(reach, AskStatus()):
        if node.problem and node.name not in unreachable:
            unreachable[node.name] = f"{node.problem} ({node.cure})" if node.cure else node.problem
        for answer, status in zip(node.answers, node.statuses, strict=True):
            copy, rows = status.role.copy, status.role.mailboxes
            if answer.get("role") != "frontend" or copy is None:
                continue
            if copy.list != "streaming" or copy.lag_entries:
                said.append(f"{node.name}: its list is {copy.list}{_behind(copy.lag_entries)}")
            elif rows not in (None, mailboxes):
                said.append(f"{node.name}: its list has {rows} rows, the master's {mailboxes}")
    return said


def _behind(entries: object) -> str:
    """Not known before a list has met its master."""
    return "" if entries is None else f", {count(int(str(entries)), 'change')} behind the master's"
