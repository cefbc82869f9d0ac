"""`murder ctl store`: what the store of this host's backend finds wrong with its mail, and mends."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import asyncclick as click

from murder.admin.cli.options import Group, config_option, json_option, print_json
from murder.api import CanCheck, RenewsMailboxes
from murder.config import Config, load_config, parts_of
from murder.errors import Code, Refusal
from murder.hooks import load_plugins
from murder.node.control.node import ask_node
from murder.roles.backend.records.deliveries import FOLDER as DELIVERIES_FOLDER
from murder.roles.backend.records.deliveries import forget_begun
from murder.wire.nodes.control_words import AskPorts

ROLE: Final = "backend"


@click.group(cls=Group)
def store() -> None:
    """The mail itself, as the store keeps it on this host.

    \b
    murder ctl store check      # reads only; the node may run
    murder ctl store repair     # mends; says what it did, removes no mail
    murder ctl store renew user/anna    # a user's mail was put back from a backup
    """


@store.command()
@config_option()
@json_option("ok (true or false), found (a list)")
async def check(config_file: Path, as_json: bool) -> int:
    """Look for missing files, orphan files, damaged rows, wrong counts; exit code 1 if there are any.

    The node may run. All octets that a mailbox names are looked for, none are read.

    \b
    murder ctl store check
    """
    return _tell(await _look(config_file, repair=False), "faults", as_json)


@store.command()
@config_option()
@json_option("ok (true or false), found (a list)")
async def repair(config_file: Path, as_json: bool) -> int:
    """Mend what `check` finds, and say what was done.

    Counts are made right; what no mailbox has is kept in `lost` in the store's folder; a message whose
    octets are gone is expunged. The node may run, unless a database has damaged pages: then it is
    rebuilt from what can be read, and the old one is kept beside it. Space that expunged mail has left
    in databases is given back where it is more than half of one.

    \b
    murder ctl store repair
    """
    return _tell(await _look(config_file, repair=True), "faults mended", as_json)


@store.command()
@click.argument("mailbox")
@config_option()
@json_option("renewed (a number)")
async def renew(mailbox: str, config_file: Path, as_json: bool) -> int:
    """Say that a user's (or a shared tree's) folder was put back from a backup: each mailbox in it becomes a new one.

    Without it, new mail would have UIDs that clients have seen on other messages, and they would show the old ones. Each
    mailbox gets a new UIDVALIDITY and MAILBOXID: clients read it anew. What is kept in the same folder is renewed
    with it. Stop the node first, put the folder back as a whole, run this, start the node. After the whole store was
    put back nothing is to be done: the node notices.

    \b
    murder ctl store renew user/anna
    """
    config = _backend_config(config_file)
    if await _runs(config.node.data):
        raise Refusal(
            Code.IN_USE,
            "this node runs: stop it, put the folder back, and run this before its start",
        )
    name = config.namespace.namespace().internal(mailbox.encode(), "")
    made = load_plugins(config, ["backend"]).store()
    if not isinstance(made, RenewsMailboxes):
        raise Refusal(Code.CANNOT, f"{config.backend.store} cannot do that; use its own tools")
    await made.start()
    try:
        # that a message came here is no reason to drop it when it comes again: the copy may be without it
        forget_begun(config.node.data / ROLE / DELIVERIES_FOLDER)
        count = await made.renew_below(name)
    finally:
        await made.stop()
    if as_json:
        print_json({"renewed": count})
    else:
        click.echo(f"{count} mailboxes have a new UIDVALIDITY", err=True)
    return 0


async def _runs(data: Path) -> bool:
    """Whether a node with that data folder answers, or is there and does not."""
    try:
        return await ask_node(data, AskPorts()) is not None
    except (OSError, ValueError):  # TimeoutError is an OSError
        return True


async def _look(config_file: Path, repair: bool) -> Sequence[str]:
    config = _backend_config(config_file)
    plugin = config.backend.store
    made = load_plugins(config, ["backend"]).store()
    if not isinstance(made, CanCheck):
        raise Refusal(Code.CANNOT, f"{plugin} cannot check its mail; use its own tools")
    await made.start()
    try:
        return await made.check(repair)
    finally:
        await made.stop()


def _backend_config(config_file: Path) -> Config:
    """Raises Refusal where it is none that has run here."""
    config = load_config(config_file)
    if not config.node.data.is_dir() or (
        "backend" not in parts_of(config.node.roles) and config.node.roles
    ):
        text = f"{config_file} is not of a backend, or it has never run here: run this on a backend's host"
        raise Refusal(Code.CANNOT, text)
    return config


def _tell(lines: Sequence[str], what: str, as_json: bool) -> int:
    if as_json:
        print_json({"ok": not lines, "found": list(lines)})
    else:
        for line in lines:
            click.echo(line)
        click.echo(f"{len(lines)} {what}", err=True)
    return 1 if lines and what == "faults" else 0
