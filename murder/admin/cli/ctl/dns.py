"""`murder ctl dns`: names of users in DNS."""

import asyncio
from dataclasses import replace

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options
from murder.admin.cli.options import json_option, print_json
from murder.admin.operate.reach import Reach
from murder.errors import Code, Refusal
from murder.roles.mupdate.zone.names import difference, names_of, zone_lines
from murder.roles.mupdate.zone.server import ZoneServer

SHOWN = 20  # names told one by one


@click.group()
def dns() -> None:
    """Names of users in DNS, each of which leads to the server of their INBOX (`murder help dns`).

    \b
    murder ctl dns zone --suffix imap.example.org
    """


@dns.command()
@operator_options
@click.option("--suffix", default="", help="What stands behind the names.  [default: [dns] suffix]")
@click.option("--by", type=click.Choice(["user", "letter"]), help="In place of [dns] by.")
@click.option("--update", is_flag=True, help="Send the changes to [dns] server (RFC 2136).")
@click.option("--dry-run", is_flag=True, help="With --update: show them only.")
@json_option(
    "names, by name the server; unfit and elsewhere, by user why; with --update put, remove, foreign, by name the server, "
    "and done"
)
async def zone(
    reach: Reach, suffix: str, by: str | None, update: bool, dry_run: bool, as_json: bool
) -> int:
    """Print the records that there should be, as a zone file without SOA and NS; who can have none is listed, too. With
    --update the zone's primary server is asked what it has, and sent what differs. Exit code 2 where names are others'.

    \b
    murder ctl dns zone --suffix imap.example.org > users.zone
    murder ctl dns zone --update
    """
    config = reach.config.dns
    config = replace(config, suffix=suffix or config.suffix)
    if by is not None:
        config = replace(config, by="letter" if by == "letter" else "user")
    if not config.suffix:
        raise Refusal(Code.CANNOT, "Give --suffix, or [dns] suffix: what stands behind the names?")
    rows = await reach.heads()
    names = names_of(rows, config)
    facts: dict[str, object] = {
        "names": dict(names.targets),
        "unfit": dict(names.unfit),
        "elsewhere": dict(names.elsewhere),
    }
    unfit = [f"{user}: no name: {why}" for user, why in names.unfit.items()]
    unfit += [f"{user}: {why}" for user, why in names.elsewhere.items()]
    if not update:
        if as_json:
            print_json(facts)
        else:
            for line in zone_lines(names, config):
                click.echo(line)
            _tell(unfit)
        return 0
    server = ZoneServer(config)
    there = await asyncio.to_thread(server.records)
    ours = {row.server for row in rows} | set(reach.config.servers)
    wanted = difference(names, there, ours)
    if not dry_run:
        await asyncio.to_thread(server.change, wanted)
    unfit += [f"{name}: is others' ({what}), and stays" for name, what in wanted.foreign.items()]
    if as_json:
        by_kind = {"put": wanted.put, "remove": wanted.remove, "foreign": wanted.foreign}
        print_json(
            {
                **facts,
                **{key: dict(records) for key, records in by_kind.items()},
                "done": not dry_run,
            }
        )
    else:
        for name, target in wanted.put.items():
            click.echo(f"{name} -> {target}")
        for name, target in wanted.remove.items():
            click.echo(f"{name} -> nothing (was {target})")
        is_done = "would be changed" if dry_run else "changed"
        click.echo(
            f"{len(wanted.put) + len(wanted.remove)} of {len(names.targets)} names {is_done}"
        )
        _tell(unfit)
    return 2 if wanted.foreign else 0


def _tell(lines: list[str]) -> None:
    """To people, beside what programs read."""
    for line in lines[:SHOWN]:
        click.echo(line, err=True)
    if len(lines) > SHOWN:
        click.echo(f"... and {len(lines) - SHOWN} more (--json has all)", err=True)
