"""`murder ctl status` and `top`: the whole murder on one screen."""

import asyncio
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options
from murder.admin.cli.ctl.running.masters import engine_lines
from murder.admin.cli.options import json_option, print_json
from murder.admin.cli.screen import (
    BAD,
    CAUTION,
    DIM,
    GOOD,
    Painted,
    Table,
    columns,
    count,
    finding,
    paint,
    plain,
    seconds,
)
from murder.admin.operate.reach import Reach
from murder.admin.operate.running.health import Meter, NodeLine, findings, lines_of
from murder.admin.operate.running.masters import engine_problems
from murder.admin.operate.running.nodes import (
    ALONE,
    NodeAnswers,
    ask_all,
    need_nodes,
    sees_itself_alone,
)
from murder.model.protocol import WEB
from murder.wire.nodes.control_words import AskStatus

HEADS: Final = (
    "node", "role", "up", "conns", "mailboxes", "lag", "cpu", "memory", "disk", "procs", "version",
)  # fmt: skip
NUMBERS: Final = ("up", "conns", "mailboxes", "lag", "cpu", "memory", "disk", "procs")
SPARE: Final = ("up", "disk", "procs", "version")  # the last goes first on a narrow terminal
LAG_S: Final = 5.0
FULL: Final = 0.9

Cpu = Mapping[tuple[str, str], float]


def say_unreachable(nodes: Sequence[NodeAnswers]) -> int:
    """Who did not answer, and why, on standard error; the exit code for that."""
    for node in nodes:
        if node.problem:
            click.echo(f"murder: {node.place}: {node.problem}", err=True)
    return 3 if any(node.problem for node in nodes) else 0


def _cells(line: NodeLine, cpu: Cpu) -> dict[str, str]:
    none = Painted("-", DIM)
    lag = line.lag_s
    used = line.disk_used
    part = cpu.get((line.node, line.role))
    return {
        "node": Painted(line.node, BAD) if line.problems else line.node,
        "role": line.role,
        "up": seconds(line.uptime_s),
        "conns": str(line.connections),
        "mailboxes": none if line.role == WEB.name else str(line.mailboxes),
        "lag": none if lag is None else Painted(seconds(lag), CAUTION if lag > LAG_S else ""),
        "cpu": none if part is None else f"{part:.0f} %",
        "memory": f"{line.memory_kib / 1024:.0f} MiB",
        "disk": none
        if used is None
        else Painted(f"{100 * used:.0f} %", CAUTION if used > FULL else ""),
        "procs": str(line.workers),
        "version": line.version,
    }


def screen(
    told_by: Sequence[NodeAnswers],
    cpu: Cpu | None,
    now: float,
    width: int = 0,
    *,
    alone: bool = False,
) -> list[str]:
    """The whole murder, line by line: the verdict, what is wrong with its cure, then every node. `cpu` None: leave
    processor time out. `alone`: other nodes cannot be asked."""
    lines = lines_of(told_by, now)
    wrong = [*findings(told_by, lines), *engine_problems(told_by)]
    versions = {line.version for line in lines}
    facts = [count(len(told_by), "node")]
    facts += [f"murder {version}" for version in versions if len(versions) == 1]
    facts.append(count(sum(line.connections for line in lines), "connection"))
    facts += [
        count(line.mailboxes, "mailbox", "mailboxes") for line in lines if line.role == "mupdate"
    ][:1]
    verdict = (
        paint(f"{count(len(wrong), 'thing is', 'things are')} wrong.", BAD)
        if wrong
        else paint("All is well here." if alone else "Everything is well.", GOOD)
    )
    output = [f"{verdict}  {', '.join(facts)}", *([ALONE] if alone else ()), ""]
    for whose, problem in wrong:
        what = f"{whose}: {problem.what}" if whose else problem.what
        output += finding("!", BAD, what, problem.cure, width)
    if wrong:
        output.append("")
    rows = [_cells(line, cpu or {}) for line in lines]
    none: dict[str, str] = dict.fromkeys(HEADS, Painted("-", DIM))
    rows += [
        {**none, "node": Painted(node.name, BAD), "role": Painted("away", BAD)}
        for node in told_by
        if node.problem
    ]
    heads = [head for head in HEADS if cpu is not None or head != "cpu"]
    if rows:
        table = Table(
            heads,
            [[row[head] for head in heads] for row in rows],
            right=NUMBERS,
            hosts=("node",),
            spare=SPARE,
        )
        output += table.lines(width or 1000)
    return output + engine_lines(told_by, width)


@click.command()
@operator_options
@json_option(
    "nodes (a list of what each process tells), unreachable (node: why), problems (node/role: a list of what, cure), "
    "engine (of several masters: a list of of, what, cure)"
)
async def status(reach: Reach, as_json: bool) -> int:
    """The whole murder on one screen: what is wrong and how to mend it, then every node.

    Asks the master, the servers of its list, and who follows it (or `[operator] nodes`), and this host's own node.
    conns: connections of clients and nodes; lag: how far a frontend's list is behind the master's; disk: how full;
    procs: processes; role web: the page for operators, where it has a process of its own. Of several masters that share
    a list: how many changes each has taken up, and the members of their engine. Exit code 0: all is well, 1: something
    should be looked at, 3: a node does not answer.

    \b
    murder ctl status
    murder ctl status --json | jq .problems
    """
    await need_nodes(reach)
    told_by = await ask_all(reach, AskStatus())
    now = time.time()
    lines = lines_of(told_by, now)
    if as_json:
        print_json(
            {
                "nodes": [answer for node in told_by for answer in node.answers],
                "unreachable": {node.place: node.problem for node in told_by if node.problem},
                "problems": {
                    f"{process.node}/{process.role}": [
                        problem._asdict() for problem in process.problems
                    ]
                    for process in lines
                    if process.problems
                },
                "engine": [
                    {"of": whose, **problem._asdict()}
                    for whose, problem in engine_problems(told_by)
                ],
            }
        )
    else:
        width = columns() if sys.stdout.isatty() else 0
        for line in screen(told_by, None, now, width, alone=sees_itself_alone(reach, told_by)):
            click.echo(line)
    if any(node.problem for node in told_by):
        return 3
    return 1 if findings(told_by, lines) or engine_problems(told_by) else 0


@click.command()
@operator_options
@click.option(
    "--every", type=click.FloatRange(0.2), default=1.0, show_default=True, help="Seconds."
)
@click.option("--count", "most", type=int, default=0, help="Screens to show; 0: until Ctrl-C.")
async def top(reach: Reach, every: float, most: int) -> int:
    """As `status`, live, with each node's processor time (100 %: one processor). Ctrl-C ends it.

    \b
    murder ctl top
    murder ctl top --every 5 --count 12 > a-minute.txt
    """
    await need_nodes(reach)
    meter = Meter()
    live = sys.stdout.isatty()
    if live:
        reach.notice = None
        sys.stdout.write("\x1b[?1049h\x1b[?25l")  # a screen of its own, without the cursor
    screens = 0
    try:
        while True:
            told_by = await ask_all(reach, AskStatus())
            now = time.time()
            cpu = meter.measure(lines_of(told_by, now), now)
            alone = sees_itself_alone(reach, told_by)
            lines = screen(told_by, cpu, now, columns() if live else 0, alone=alone)
            if live:
                _draw(lines, every)
            else:
                click.echo("\n".join([time.strftime("%H:%M:%S"), *lines]))
            screens += 1
            if screens == most:
                return 0
            await asyncio.sleep(every)
    except asyncio.CancelledError:
        return 0  # Ctrl-C is how it ends
    finally:
        if live:
            sys.stdout.write("\x1b[?25h\x1b[?1049l")
            sys.stdout.flush()


def _draw(lines: list[str], every: float) -> None:
    """Over the last one, without flicker, and no higher than the terminal."""
    size = shutil.get_terminal_size((80, 24))
    foot = f"{time.strftime('%H:%M:%S')}  every {seconds(every)}, Ctrl-C ends"
    room = size.lines - 2
    if len(lines) > room:
        missing = len(lines) - room + 1
        lines = [*lines[: room - 1], paint(f"… {missing} more lines", DIM)]
    lines += [""] * (room - len(lines))
    text = "".join(f"{line}\x1b[K\n" for line in lines)
    sys.stdout.write(f"\x1b[H{text}\x1b[J{paint(plain(foot), DIM)}")
    sys.stdout.flush()
