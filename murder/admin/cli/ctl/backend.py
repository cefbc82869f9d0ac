"""`murder ctl backend`, `rebalance`, `placement`: the servers that keep mail."""

import time

import asyncclick as click

from murder.admin.cli.ctl.mailboxes.move import parallel_option, run_plan, show_plan
from murder.admin.cli.ctl.mailboxes.placing import placing
from murder.admin.cli.ctl.reaching import operator_options, yes_option
from murder.admin.cli.options import Group, json_option, print_json, print_table, say
from murder.admin.cli.screen import BAD, Painted, count, seconds
from murder.admin.operate import backends
from murder.admin.operate.backends import (
    all_backends,
    backends_of,
    find_backend,
    need_backend,
)
from murder.admin.operate.moves import drain_plan, rebalance_plan
from murder.admin.operate.parts import rows_at
from murder.admin.operate.reach import Reach
from murder.errors import Code, Refusal, UpstreamFailure
from murder.model.name import is_deleted, owner_of
from murder.model.protocol import BACKEND, IMAP, LMTP, client_keys


@click.group(cls=Group)
def backend() -> None:
    """The backends: what is on them, whether they answer, their share of new mailboxes, emptying one.

    \b
    murder ctl backend list
    murder ctl backend drain be1.example.org --yes
    """


@backend.command("list")
@operator_options
@json_option("a list of name, address, mailboxes, users, weight, answer_ms, software, problem")
async def list_backends(reach: Reach, as_json: bool) -> int:
    """Every backend: mailboxes, users, weight, whether it answers and how fast. Exit code 3 if one does not.

    \b
    murder ctl backend list
    """
    rows = await reach.heads()
    entries = []
    for server in backends_of(reach, rows):
        here = [row for row in rows if row.server == server and not is_deleted(row.name)]
        state = await backends.look(reach, server)
        entries.append(
            {
                "name": server,
                "address": reach.config.address_of(server),
                "mailboxes": len(here),
                "users": len({owner_of(row.name) for row in here} - {None}),
                "weight": state.weight,
                "answer_ms": round(1000 * state.answer_s, 1),
                "software": state.software,
                "problem": state.problem,
            }
        )
    if as_json:
        print_json(entries)
    else:
        print_table(
            ("name", "mailboxes", "users", "weight", "answer", "software", "problem"),
            [
                [
                    Painted(str(entry["name"]), BAD if entry["problem"] else ""),
                    str(entry["mailboxes"]),
                    str(entry["users"]),
                    f"{entry['weight']:g}",
                    f"{entry['answer_ms']} ms" if not entry["problem"] else "-",
                    str(entry["software"]) or "-",
                    Painted(str(entry["problem"]), BAD),
                ]
                for entry in entries
            ],
            right=("mailboxes", "users", "weight", "answer"),
            hosts=("name",),
            spare=("software",),
            empty="No backend has announced itself at the master, and [servers] names none",
        )
    return 3 if any(entry["problem"] for entry in entries) else 0


@backend.command()
@operator_options
@click.argument("name")
@json_option("name, address, imap, lmtp, partitions, weight, software, answer_ms, problem")
async def show(reach: Reach, name: str, as_json: bool) -> int:
    """One backend: address, mailboxes by partition, weight, what it runs.

    \b
    murder ctl backend show be1.example.org
    """
    server = await find_backend(reach, name)
    config = reach.config.server(server)
    state = await backends.look(reach, server)
    partitions: dict[str, int] = {}
    for row in await rows_at(reach, server):
        partition = row.location.partition or "-"
        partitions[partition] = partitions.get(partition, 0) + 1
    facts: dict[str, object] = {
        "name": server,
        "address": reach.config.address_of(server),
        "imap": config.port(IMAP.keys[0]),
        "lmtp": config.port(LMTP.keys[0]),
        "partitions": partitions,
        "weight": state.weight,
        "software": state.software,
        "answer_ms": round(1000 * state.answer_s, 1),
        "problem": state.problem,
    }
    if as_json:
        print_json(facts)
        return 3 if state.problem else 0
    shares = [f"{partition} ({number})" for partition, number in sorted(partitions.items())]
    listened = {key.name: config.port(key) for key in client_keys(BACKEND)}
    ports = ", ".join(f"{key} {port}" for key, port in {**listened, **config.services}.items())
    details = {
        "name": server,
        "address": f"{facts['address']} ({ports})",
        "mailboxes": f"{sum(partitions.values())}; by partition: {', '.join(shares) or '-'}",
        "weight": f"{state.weight:g}" + (" (takes no new mailboxes)" if not state.weight else ""),
        "software": state.software or "-",
        "answer": f"{facts['answer_ms']} ms",
    }
    if state.problem:
        details["answer"] = f"none: {state.problem} -> murder ctl doctor"
    for key, value in details.items():
        click.echo(f"{key:10}  {value}")
    return 3 if state.problem else 0


@backend.command("test-login")
@operator_options
@click.argument("name")
@click.option("--user", default="", help="As this user (the operator acts for them).")
@json_option("server, user, seconds, tls (true or false)")
async def test_login(reach: Reach, name: str, user: str, as_json: bool) -> int:
    """Log in there, as a frontend does, and say how long it took.

    \b
    murder ctl backend test-login be1.example.org
    murder ctl backend test-login be1.example.org --user anna
    """
    server = await find_backend(reach, name)
    began = time.monotonic()
    upstream = await reach.backend(server, user)
    took = time.monotonic() - began
    is_tls = upstream.connection.is_tls
    facts = {"server": server, "user": user, "seconds": round(took, 4), "tls": is_tls}
    who = f" as {user}" if user else ""
    tls = "TLS" if is_tls else "no TLS"
    return say(as_json, facts, f"{server}: logged in{who} in {seconds(took)}, {tls}")


@backend.command()
@operator_options
@click.argument("name")
@json_option("a list of words")
async def capabilities(reach: Reach, name: str, as_json: bool) -> int:
    """The capabilities that it announces, one a line.

    \b
    murder ctl backend capabilities be1.example.org | grep QUOTA
    """
    server = await find_backend(reach, name)
    upstream = await reach.backend(server)
    words = sorted(word.decode("ascii", "replace") for word in upstream.capabilities)
    if as_json:
        print_json(words)
    else:
        click.echo("\n".join(words))
    return 0


@backend.command()
@operator_options
@click.argument("name", required=False)
@click.argument("weight", type=click.FloatRange(0), required=False)
@click.option("--configured", is_flag=True, help="As in [servers] again.")
@json_option("name: weight, of each")
async def weight(
    reach: Reach, name: str | None, weight: float | None, configured: bool, as_json: bool
) -> int:
    """Show each backend's share of new mailboxes, or set that of one for all frontends at once; 0: no new ones.

    \b
    murder ctl backend weight                       # of all
    murder ctl backend weight be1.example.org 2     # twice its share
    murder ctl backend weight be1.example.org 0     # no new mailboxes
    murder ctl backend weight be1.example.org --configured
    """
    servers = [await find_backend(reach, name)] if name else await all_backends(reach)
    if name and (weight is not None or configured):
        await backends.set_weight(reach, servers[0], None if configured else weight)
    elif configured:
        raise click.UsageError("name a backend whose weight is set")
    weights = {}
    for server in servers:
        state = await backends.look(reach, server)
        if state.problem:
            raise UpstreamFailure(state.kind, server, state.problem)
        weights[server] = state.weight
    if as_json:
        print_json(weights)
    else:
        cells = [[server, f"{value:g}"] for server, value in weights.items()]
        print_table(("backend", "weight"), cells, right=("weight",))
    return 0


@backend.command()
@operator_options
@click.argument("name")
@parallel_option()
@yes_option("empty it")
@json_option("moved, failed (name: problem), octets, seconds")
async def drain(reach: Reach, name: str, parallel: int, yes: bool, as_json: bool) -> int:
    """Empty a backend: no new mailboxes, and all that it has moves to the others, where the placement policy would
    put it. Ready to be switched off when this ends with exit code 0. Back: `backend weight NAME --configured`.

    \b
    murder ctl backend drain be1.example.org          # what would move
    murder ctl backend drain be1.example.org --yes
    """
    rows = await reach.heads()
    server = need_backend(reach, backends_of(reach, rows), name)
    weights = await backends.weights(reach, backends_of(reach, rows))
    weights[server] = 0.0
    with placing(reach) as decision:
        planned = await drain_plan(rows, server, weights, decision.choose)
    if not yes:
        show_plan(reach, planned, as_json)
        click.echo(
            f"{count(len(planned), 'move')}, and no new mailboxes there. Re-run with --yes.",
            err=True,
        )
        return 2
    await backends.set_weight(reach, server, 0.0)
    code = await run_plan(reach, planned, parallel, as_json)
    left = [row for row in await rows_at(reach, server) if not is_deleted(row.name)]
    if left:
        text = count(len(left), "mailbox is", "mailboxes are")
        click.echo(f"{text} still at {server}: run this again", err=True)
        return 1
    click.echo(f"{server} has no mailboxes any more and can be switched off", err=True)
    return code


@click.command()
@operator_options
@click.option("--plan", "only_plan", is_flag=True, help="Show what would move (the default).")
@click.option("--apply", "apply", is_flag=True, help="Carry the plan out.")
@parallel_option()
@json_option(
    "moved, failed (name: problem), octets, seconds; without --apply the plan, a list of name, mailboxes, from, to"
)
async def rebalance(
    reach: Reach, only_plan: bool, apply: bool, parallel: int, as_json: bool
) -> int:
    """Even out the backends by their weights: users of those that have more than their share move to where the
    placement policy would put them. Nothing is moved without --apply.

    \b
    murder ctl rebalance --plan
    murder ctl rebalance --apply --parallel 4
    """
    if only_plan and apply:
        raise click.UsageError("--plan and --apply exclude each other")
    rows = await reach.heads()
    weights = await backends.weights(reach, backends_of(reach, rows))
    with placing(reach) as decision:
        planned = await rebalance_plan(rows, weights, decision.choose)
    if not planned and not as_json:
        click.echo("Nothing to move: every backend has about its share", err=True)
        return 0
    if not apply:
        show_plan(reach, planned, as_json)
        click.echo(f"{count(len(planned), 'move')}. Re-run with --apply to carry out.", err=True)
        return 0
    return await run_plan(reach, planned, parallel, as_json)


@click.group(cls=Group)
def placement() -> None:
    """The placement policy: which backend takes a new mailbox.

    \b
    murder ctl placement explain user/zoe
    """


@placement.command()
@operator_options
@click.argument("name")
@json_option(
    "server, reason, by (the frontend asked), candidates (a list of server, mailboxes, weight)"
)
async def explain(reach: Reach, name: str, as_json: bool) -> int:
    """Where NAME would be made, and what the policy had to choose from.

    \b
    murder ctl placement explain user/zoe
    murder ctl placement explain shared/news
    """
    canonical = reach.name(name)
    present = await reach.master.find(canonical)
    if present is not None:
        raise Refusal(Code.ALREADY_EXISTS, f"{name} exists, at {present.server}")
    weights = await backends.weights(reach, await all_backends(reach))
    with placing(reach) as decision:
        choice = await decision.home(canonical, weights)
    if as_json:
        loads = [
            {"server": load.location.server, "mailboxes": load.mailboxes, "weight": load.weight}
            for load in choice.loads
        ]
        facts = {"server": choice.server, "reason": choice.reason, "by": choice.by}
        print_json({**facts, "candidates": loads})
        return 0
    click.echo(f"{choice.server}: {choice.reason}" + (f" (says {choice.by})" if choice.by else ""))
    for load in choice.loads:
        mailboxes_text = count(load.mailboxes, "mailbox", "mailboxes")
        click.echo(f"  {load.location.server}: {mailboxes_text}, weight {load.weight:g}")
    return 0
