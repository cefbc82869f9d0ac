"""`murder ctl backend`, `rebalance`, `placement`: the servers that keep mail."""

import time

import asyncclick as click

from murder.cli.mailbox import need_backend
from murder.cli.move import parallel_option, run_plan, show_plan
from murder.cli.options import json_option, print_json, print_table
from murder.cli.placing import choosing
from murder.cli.reaching import backends_of, operator_options, seconds, yes_option
from murder.errors import Code, Refusal, UpstreamFailure
from murder.model.name import is_deleted, owner_of
from murder.operate import backends, mailboxes
from murder.operate.moves import drain_plan, rebalance_plan
from murder.operate.reach import Reach


@click.group()
def backend() -> None:
    """The backends: what is on them, whether they answer, their share of new mailboxes, emptying one."""


@backend.command("list")
@operator_options
@json_option()
async def list_backends(reach: Reach, as_json: bool) -> int:
    """Every backend: mailboxes, users, weight, whether it answers and how fast. Exit code 3 if one does not."""
    rows = await reach.rows()
    found = []
    for server in backends_of(reach, rows):
        here = [row for row in rows if row.server == server and not is_deleted(row.name)]
        state = await backends.look(reach, server)
        found.append(
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
        print_json(found)
    else:
        heads = ("name", "mailboxes", "users", "weight", "answer", "software", "problem")
        print_table(
            heads,
            [
                [
                    str(one["name"]),
                    str(one["mailboxes"]),
                    str(one["users"]),
                    f"{one['weight']:g}",
                    f"{one['answer_ms']} ms" if not one["problem"] else "-",
                    str(one["software"]),
                    str(one["problem"]),
                ]
                for one in found
            ],
        )
    return 3 if any(one["problem"] for one in found) else 0


@backend.command()
@operator_options
@click.argument("name")
@json_option()
async def show(reach: Reach, name: str, as_json: bool) -> int:
    """One backend: address, mailboxes by partition, weight, what it runs."""
    rows = await reach.rows()
    server = need_backend(reach, rows, name)
    config = reach.config.server(server)
    state = await backends.look(reach, server)
    partitions: dict[str, int] = {}
    for row in rows:
        if row.server == server:
            partition = row.location.partition or "-"
            partitions[partition] = partitions.get(partition, 0) + 1
    facts: dict[str, object] = {
        "name": server,
        "address": reach.config.address_of(server),
        "imap": config.imap,
        "lmtp": config.lmtp,
        "partitions": partitions,
        "weight": state.weight,
        "software": state.software,
        "answer_ms": round(1000 * state.answer_s, 1),
        "problem": state.problem,
    }
    if as_json:
        print_json(facts)
    else:
        for key, value in facts.items():
            click.echo(f"{key:10}  {value}")
    return 3 if state.problem else 0


@backend.command("test-login")
@operator_options
@click.argument("name")
@click.option("--user", default="", help="As this user (the operator acts for him).")
async def test_login(reach: Reach, name: str, user: str) -> int:
    """Log in there, as a frontend does, and say how long it took."""
    server = need_backend(reach, await reach.rows(), name)
    began = time.monotonic()
    upstream = await reach.backend(server, user)
    took = time.monotonic() - began
    tls = "TLS" if upstream.connection.is_tls else "no TLS"
    click.echo(f"{server}: logged in{' as ' + user if user else ''} in {seconds(took)}, {tls}")
    return 0


@backend.command()
@operator_options
@click.argument("name")
async def capabilities(reach: Reach, name: str) -> int:
    """What it says it can do, a word a line."""
    server = need_backend(reach, await reach.rows(), name)
    upstream = await reach.backend(server)
    for word in sorted(upstream.capabilities):
        click.echo(word.decode("ascii", "replace"))
    return 0


@backend.command()
@operator_options
@click.argument("name")
@click.argument("weight", type=click.FloatRange(0), required=False)
@click.option("--configured", is_flag=True, help="As in [servers] again.")
async def weight(reach: Reach, name: str, weight: float | None, configured: bool) -> int:
    """Show its share of new mailboxes, or set it for all frontends at once; 0: no new ones."""
    server = need_backend(reach, await reach.rows(), name)
    if weight is not None or configured:
        await backends.set_weight(reach, server, None if configured else weight)
    state = await backends.look(reach, server)
    if state.problem:
        raise UpstreamFailure(state.kind, server, state.problem)
    click.echo(f"{server}  {state.weight:g}")
    return 0


@backend.command()
@operator_options
@click.argument("name")
@parallel_option()
@yes_option("empty it")
@json_option()
async def drain(reach: Reach, name: str, parallel: int, yes: bool, as_json: bool) -> int:
    """Empty a backend: no new mailboxes, and all that it has moves to the others, where the placement policy would
    put it. Ready to be switched off when this ends with exit code 0. Back: `backend weight NAME --configured`."""
    rows = await reach.rows()
    server = need_backend(reach, rows, name)
    weights = await backends.weights(reach, backends_of(reach, rows))
    weights[server] = 0.0
    with choosing(reach.config) as choose:
        planned = drain_plan(rows, server, weights, choose)
    if not yes:
        show_plan(reach, planned)
        click.echo(f"{len(planned)} moves, and no new mailboxes there. Say --yes.", err=True)
        return 2
    await backends.set_weight(reach, server, 0.0)
    code = await run_plan(reach, planned, parallel, as_json)
    left = [row for row in await reach.rows() if row.server == server and not is_deleted(row.name)]
    if left:
        click.echo(f"{len(left)} mailboxes are still at {server}: run this again", err=True)
        return 1
    click.echo(f"{server} has no mailboxes any more and can be switched off", err=True)
    return code


@click.command()
@operator_options
@click.option(
    "--apply", "apply", is_flag=True, help="Carry the plan out; without it, it is only shown."
)
@parallel_option()
@json_option()
async def rebalance(reach: Reach, apply: bool, parallel: int, as_json: bool) -> int:
    """Even out the backends by their weights: users of those that have more than their share move to where the
    placement policy would put them."""
    rows = await reach.rows()
    weights = await backends.weights(reach, backends_of(reach, rows))
    with choosing(reach.config) as choose:
        planned = rebalance_plan(rows, weights, choose)
    if not planned:
        click.echo("Nothing to move: every backend has about its share", err=True)
        return 0
    if not apply:
        show_plan(reach, planned)
        click.echo(f"{len(planned)} moves. Say --apply to carry them out.", err=True)
        return 0
    return await run_plan(reach, planned, parallel, as_json)


@click.group()
def placement() -> None:
    """The placement policy: which backend takes a new mailbox."""


@placement.command()
@operator_options
@click.argument("name")
@json_option()
async def explain(reach: Reach, name: str, as_json: bool) -> int:
    """Where NAME would be made, and what the policy had to choose from."""
    rows = await reach.rows()
    canonical = reach.name(name)
    present = await reach.master.find(canonical)
    if present is not None:
        raise Refusal(Code.ALREADY_EXISTS, f"{name} exists, at {present.server}")
    weights = await backends.weights(reach, backends_of(reach, rows))
    with choosing(reach.config) as choose:
        found = mailboxes.explain_placement(canonical, rows, weights, choose)
    if as_json:
        loads = [
            {"server": one.location.server, "mailboxes": one.mailboxes, "weight": one.weight}
            for one in found.loads
        ]
        print_json({"server": found.server, "reason": found.reason, "candidates": loads})
        return 0
    click.echo(f"{found.server}: {found.reason}")
    for one in found.loads:
        click.echo(f"  {one.location.server}: {one.mailboxes} mailboxes, weight {one.weight:g}")
    return 0
