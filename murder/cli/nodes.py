"""`murder ctl status`, `top`, `sessions`, `kick`, `trace`, `conflicts`, `reservations`: the murder as it runs."""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import asyncclick as click

from murder.cli.options import json_option, print_json, print_table
from murder.cli.reaching import operator_options, seconds, yes_option
from murder.errors import Code, Refusal
from murder.operate.nodes import NodeAnswers, NodeLine, ask_all, follow, lines_of, places
from murder.operate.reach import Reach


def need_nodes(reach: Reach) -> None:
    """Raises Refusal where nobody can be asked."""
    if not places(reach):
        raise Refusal(
            Code.CANNOT,
            f"{reach.config.file}: [operator] nodes names no node, and none has run on this host",
        )


def _memory(kib: int) -> str:
    return f"{kib / 1024:.0f} MiB"


def _row(line: NodeLine, cpu: str) -> list[str]:
    lag = "-" if line.lag_s is None else seconds(line.lag_s)
    return [
        line.node,
        line.role,
        line.version,
        str(line.workers),
        seconds(line.uptime_s),
        str(line.connections),
        str(line.mailboxes),
        lag,
        cpu,
        _memory(line.memory_kib),
    ]


HEADS = ("node", "role", "version", "procs", "up", "conns", "mailboxes", "lag", "cpu", "memory")


def screen(
    told: Sequence[NodeAnswers], cpu: Mapping[tuple[str, str], str], now: float
) -> list[str]:
    """The whole murder, line by line."""
    lines = lines_of(told, now)
    rows = [list(HEADS), *(_row(one, cpu.get((one.node, one.role), "-")) for one in lines)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADS))]
    shown = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    problems = [f"{one.node} ({one.role}): {text}" for one in lines for text in one.problems]
    problems += [f"{node.place}: {node.problem}" for node in told if node.problem]
    versions = {one.version for one in lines}
    if len(versions) > 1:
        problems.append(f"different versions run: {', '.join(sorted(versions))}")
    shown.append("")
    shown += [f"! {problem}" for problem in problems] or ["Everything is well."]
    return shown


@click.command()
@operator_options
@json_option()
async def status(reach: Reach, as_json: bool) -> int:
    """The whole murder on one screen: nodes, roles, versions, connections, lag, and what somebody should look at.

    Asks the nodes of `[operator] nodes` and this host's own. Exit code 0: all is well, 1: something should be looked
    at, 3: a node does not answer.
    """
    need_nodes(reach)
    told = await ask_all(reach, {"do": "status"})
    now = time.time()
    if as_json:
        print_json(
            {
                "nodes": [answer for node in told for answer in node.answers],
                "unreachable": {node.place: node.problem for node in told if node.problem},
                "problems": {
                    f"{one.node}/{one.role}": list(one.problems)
                    for one in lines_of(told, now)
                    if one.problems
                },
            }
        )
    else:
        for line in screen(told, {}, now):
            click.echo(line)
    if any(node.problem for node in told):
        return 3
    return 1 if any(one.problems for one in lines_of(told, now)) else 0


@click.command()
@operator_options
@click.option(
    "--every", type=click.FloatRange(0.2), default=1.0, show_default=True, help="Seconds."
)
@click.option("--count", type=int, default=0, help="Screens to show; 0: until Ctrl-C.")
async def top(reach: Reach, every: float, count: int) -> int:
    """As `status`, live: processor time of each node, connections coming and going."""
    need_nodes(reach)
    before: dict[tuple[str, str], tuple[float, float]] = {}
    shown = 0
    while True:
        told = await ask_all(reach, {"do": "status"})
        now, cpu = time.time(), {}
        for one in lines_of(told, now):
            key = (one.node, one.role)
            if key in before:
                spent, at = before[key]
                cpu[key] = f"{100 * max(0.0, one.cpu_s - spent) / (now - at):.0f} %"
            before[key] = (one.cpu_s, now)
        lines = [time.strftime("%H:%M:%S"), *screen(told, cpu, now)]
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
            sys.stdout.flush()
        else:
            click.echo("\n".join(lines))
        shown += 1
        if shown == count:
            return 0
        await asyncio.sleep(every)


def _wanted(user: str, backend: str, address: str) -> dict[str, str]:
    given = {"user": user, "backend": backend, "address": address}
    return {key: value for key, value in given.items() if value}


def filter_options(command: Any) -> Any:
    """`--user`, `--backend`, `--address`."""
    for name, text in (
        ("--address", "Only from this address."),
        ("--backend", "Only with a mailbox of this backend selected."),
        ("--user", "Only of this user."),
    ):
        command = click.option(name, default="", help=text)(command)
    return command


@click.command()
@operator_options
@filter_options
@json_option()
async def sessions(reach: Reach, user: str, backend: str, address: str, as_json: bool) -> int:
    """Who is connected where: user, protocol, address, selected mailbox, how long idle."""
    need_nodes(reach)
    told = await ask_all(reach, {"do": "sessions", **_wanted(user, backend, address)})
    found = [answer for node in told for answer in node.answers]
    if as_json:
        print_json(found)
    else:
        print_table(
            ("node", "role", "protocol", "user", "address", "via", "mailbox", "idle", "cid"),
            [
                [
                    str(one["node"]),
                    str(one["role"]),
                    str(one.get("protocol", "")),
                    str(one.get("user", "")),
                    str(one.get("address", "")),
                    str(one.get("proxy", "")),
                    str(one.get("mailbox", "")),
                    seconds(float(one["idle_s"])) if "idle_s" in one else "",
                    str(one["cid"]),
                ]
                for one in found
            ],
        )
    return _unreachable(told)


def _unreachable(told: Sequence[NodeAnswers]) -> int:
    for node in told:
        if node.problem:
            click.echo(f"murder: {node.place}: {node.problem}", err=True)
    return 3 if any(node.problem for node in told) else 0


@click.command()
@operator_options
@filter_options
@click.option("--cid", default="", help="Only this connection (as `sessions` and the log name it).")
@yes_option("end them")
async def kick(reach: Reach, user: str, backend: str, address: str, cid: str, yes: bool) -> int:
    """End sessions: clients are told BYE, and may come back."""
    need_nodes(reach)
    wanted = _wanted(user, backend, address) | ({"cid": cid} if cid else {})
    if not wanted:
        raise click.UsageError("whom? name --user, --backend, --address or --cid")
    if not yes:
        told = await ask_all(reach, {"do": "sessions", **wanted})
        click.echo(
            f"{sum(len(node.answers) for node in told)} sessions. Say --yes to end them.", err=True
        )
        return 2
    told = await ask_all(reach, {"do": "kick", **wanted})
    click.echo(f"{sum(int(answer['kicked']) for node in told for answer in node.answers)} ended")
    return _unreachable(told)


@click.command()
@operator_options
@click.argument("user")
@click.option(
    "--seconds", "limit_s", type=float, default=0, help="Stop after so many; 0: until Ctrl-C."
)
@json_option()
async def trace(reach: Reach, user: str, limit_s: float, as_json: bool) -> int:
    """What passes between USER's clients and the nodes, from now on. C: client, S: server. Begins behind the login;
    what looks like a password is cut out. Mail is shown as it passes: tell nobody more than you must."""
    need_nodes(reach)

    async for line in follow(reach, {"do": "trace", "user": user}, limit_s):
        _show_traced(line, as_json)
    return 0


def _show_traced(line: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(line)
    elif "no" in line:
        click.echo(f"murder: {line['node']}: {line['no']}", err=True)
    elif "octets" in line:
        at = time.strftime("%H:%M:%S", time.localtime(float(line["at"])))
        for part in str(line["octets"]).splitlines():
            click.echo(f"{at} {line['node']} {line['cid']} {line['who']}: {part}")


@click.command()
@operator_options
@json_option()
async def conflicts(reach: Reach, as_json: bool) -> int:
    """Who wanted a mailbox that is another server's, as the master has counted them. Exit code 1 if there are any."""
    need_nodes(reach)
    told = await ask_all(reach, {"do": "conflicts"})
    found = [answer for node in told for answer in node.answers]
    if as_json:
        print_json(found)
    else:
        heads = ("name", "holder", "claimant", "peer", "command")
        print_table(heads, [[str(one.get(head, "")) for head in heads] for one in found])
    return _unreachable(told) or (1 if found else 0)


@click.command()
@operator_options
@json_option()
async def reservations(reach: Reach, as_json: bool) -> int:
    """Names that are reserved at the master: being made or moved now, or left so by a crash."""
    rows = [row for row in await reach.rows() if not row.is_active]
    if as_json:
        print_json([{"name": reach.shown(row.name), "server": row.server} for row in rows])
    else:
        print_table(("mailbox", "server"), [[reach.shown(row.name), row.server] for row in rows])
    return 0
