"""`murder ctl expire`: what the rules of age would do today, or do now."""

import asyncclick as click

from murder.admin.cli.ctl.reaching import all_backends, find_backend, operator_options
from murder.admin.cli.options import json_option, print_json, print_table
from murder.admin.cli.screen import count, octets
from murder.admin.operate.expire import expire as ask
from murder.admin.operate.reach import Reach
from murder.errors import Refusal, UpstreamFailure
from murder.wire import mutf7


@click.command()
@operator_options
@click.option("--server", default=None, help="Only this backend.")
@click.option("--dry-run", is_flag=True, help="Show it only; the same without any option.")
@click.option("--yes", is_flag=True, help="Do it now.")
@json_option(
    "done (whether it was), expired, a list of server, rule, mailbox, messages, octets, target (empty: away), problem; "
    "problems, by server"
)
async def expire(reach: Reach, server: str | None, dry_run: bool, yes: bool, as_json: bool) -> int:
    """What the rules of `[expiry]` at each backend would remove, or send to the archive, if they acted now; they act by
    themselves once a day. Exit code 2 where there is something to do, 3 where a backend does not answer.

    \b
    murder ctl expire --dry-run
    murder ctl expire --server be1.example.org --yes
    """
    servers = [await find_backend(reach, server)] if server else await all_backends(reach)
    acts = yes and not dry_run
    expired: list[dict[str, object]] = []
    problems: dict[str, str] = {}
    away = False
    for backend in servers:
        try:
            outcome = await ask(reach, backend, acts=acts)
        except Refusal as refusal:
            problems[backend] = refusal.text
            continue
        except UpstreamFailure as failure:
            problems[backend], away = str(failure), True
            continue
        for row in outcome:
            expired.append(
                {
                    "server": backend,
                    "rule": row.rule,
                    "mailbox": mutf7.decode_leniently(row.mailbox),
                    "messages": row.messages,
                    "octets": row.octets,
                    "target": mutf7.decode_leniently(row.target),
                    "problem": row.problem,
                }
            )
    if as_json:
        print_json({"done": acts, "expired": expired, "problems": problems})
    else:
        _show(expired, problems, acts)
    if away:
        return 3
    return 2 if not acts and any(row["messages"] for row in expired) else 0


def _show(expired: list[dict[str, object]], problems: dict[str, str], acts: bool) -> None:
    print_table(
        ("mailbox", "rule", "messages", "size", "to", "problem", "server"),
        [
            [
                str(row["mailbox"]),
                str(row["rule"]),
                str(row["messages"]),
                octets(int(str(row["octets"]))),
                str(row["target"]) or ("" if row["problem"] else "away"),
                str(row["problem"]),
                str(row["server"]),
            ]
            for row in expired
        ],
        hosts=("server",),
        spare=("problem",),
        empty="Nothing is so old that a rule would act.",
    )
    for server, problem in problems.items():
        click.echo(f"{server}: {problem}", err=True)
    total = sum(int(str(row["messages"])) for row in expired)
    if total and not acts:
        click.echo(f"{count(total, 'message')}. Re-run with --yes to do it now.", err=True)
    elif acts:
        click.echo(f"Done: {count(total, 'message')}.", err=True)
