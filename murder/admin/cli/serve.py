"""`murder serve`: one node."""

import sys
from pathlib import Path

import asyncclick as click

from murder import log
from murder.admin.cli.options import config_option, role_option
from murder.config import load_config
from murder.node.process.preflight import check_start, roles_wanted
from murder.node.process.workers import serve as run_roles
from murder.node.process.workers import work


@click.command()
@role_option()
@config_option()
@click.option("--worker", type=int, default=None, hidden=True)
async def serve(roles: tuple[str, ...], config_file: Path, worker: int | None) -> int:
    """Run this node's roles until SIGTERM or Ctrl-C.

    Binds the ports, becomes node.user, starts the workers and restarts those that die. `murder reload` (or SIGHUP) has
    it read murder.toml and the certificates again: limits, timeouts, admins, servers, the log level; the log names what
    has changed, and what needs a restart (ports, workers, node, namespace, master, plugins). SIGTERM stops accepting,
    lets commands finish (node.drain_timeout_s), and ends; a second one ends at once.

    \b
    murder serve --role mupdate                      # the master
    murder serve --role backend --config be1.toml    # keeps mail
    murder serve --role frontend                     # what clients talk to
    murder serve --role unified                      # both on the same ports
    """
    if worker is not None:
        return await work(worker)
    sys.stdout.flush()
    config = load_config(config_file)
    wanted = roles_wanted(config, roles)
    check_start(config, wanted)
    log.set_up(config.log.level, config.log.format, node=config.node.name)
    return await run_roles(config, wanted)
