"""`murder ctl lmtp route`: where mail for an address goes."""

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options
from murder.admin.cli.options import Group, json_option, say
from murder.admin.operate import routes
from murder.admin.operate.reach import Reach


@click.group(cls=Group)
def lmtp() -> None:
    """Where mail goes.

    \b
    murder ctl lmtp route anna+lists@example.org
    """


@lmtp.command()
@operator_options
@click.argument("address")
@json_option("address, name, server")
async def route(reach: Reach, address: str, as_json: bool) -> int:
    """The mailbox and backend that ADDRESS is delivered to: user, user+folder, user@domain, +shared/folder. A folder
    takes mail where its rights let anyone post (p), else the INBOX does.

    \b
    murder ctl lmtp route anna
    murder ctl lmtp route anna+lists@example.org
    murder ctl lmtp route +shared/news
    """
    entry, _ = await routes.route(reach, address)
    external = reach.shown(entry.name)
    facts = {"address": address, "name": external, "server": entry.server}
    return say(as_json, facts, f"{address} -> {external} at {entry.server}")
