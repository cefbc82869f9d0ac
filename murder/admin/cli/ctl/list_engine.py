"""`murder ctl list engine`: what keeps the mailbox list, and bringing it elsewhere."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options, yes_option
from murder.admin.cli.options import PATH, Group, config_option, json_option, print_json, say
from murder.admin.cli.screen import count, plain
from murder.admin.operate.reach import Reach
from murder.admin.operate.running.masters import copy_list
from murder.admin.operate.running.nodes import NodeAnswers, ask_all, need_nodes
from murder.config import load_config
from murder.errors import Code, Refusal
from murder.roles.mupdate.commits.moving import EMBEDDED, STOP_S
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.remote.following import list_path
from murder.wire.nodes.control_answers import CopyStage, ListCopied
from murder.wire.nodes.control_words import AskStatus

MOST_S: Final = 2 * STOP_S


@click.group(cls=Group, name="engine")
def list_engine() -> None:
    """What keeps the mailbox list: a file of one master, or a log that several masters share.

    \b
    murder ctl list engine copy --to etcd
    murder ctl list engine copy --to embedded --node n1.example.org --yes
    """


@list_engine.command()
@operator_options
@click.option("--to", required=True, help="`embedded`, or an engine as `etcd`.")
@click.option("--node", "name", default="", help="The master, where there are several.")
@yes_option("bring it there")
@json_option("engine, rows (compared one by one), seq (the number of the last change), waited_s")
async def copy(reach: Reach, to: str, name: str, yes: bool, as_json: bool) -> int:
    """Bring the mailbox list from one engine to another while its master serves. Rows are copied and compared one by one
    while changes go on; then changes wait for the last ones, for some seconds at most. Numbers and marks stay, so that
    replicas go on. The same command brings it back.

    To a log (`--to etcd`): `[plugins.list_etcd]` of the master says where. Then set `engine` there, and start the other
    masters. To `embedded`: this master keeps the list alone, all others answer nobody any more: make replicas of them, or
    stop them.

    \b
    murder ctl list engine copy --to etcd
    murder ctl list engine copy --to embedded --node n1.example.org --yes
    """
    await need_nodes(reach)
    node = _master(await ask_all(reach, AskStatus()), name)
    (role,) = (status.role for status in node.statuses if status.role.is_master)
    rows = count(role.mailboxes or 0, "mailbox", "mailboxes")
    if not yes:
        click.echo(
            f"The list of {node.name}, {rows}, goes to {to} while it serves; at the end changes wait for at most "
            f"{MOST_S:g} s. Re-run with --yes.",
            err=True,
        )
        return 2
    moved: ListCopied | None = None
    async for stage in copy_list(reach, node.place, to):
        if isinstance(stage, ListCopied):
            moved = stage
        elif not as_json:
            _show(stage)
    if moved is None:
        raise Refusal(Code.UNAVAILABLE, f"{node.name} has not said that it is done: see its log")
    if as_json:
        facts = {"engine": moved.engine, "rows": moved.rows, "seq": moved.seq}
        print_json({**facts, "waited_s": moved.waited_s})
        return 0
    click.echo(
        f"{moved.engine} keeps the list now: {moved.rows} rows compared, none differs; changes waited "
        f"{moved.waited_s:.2f} s"
    )
    then = "start the other masters" if to != EMBEDDED else "make replicas of the other masters"
    click.echo(plain(f'Set [mupdate] engine = "{to}" at {node.name}; then {then}.'))
    return 0


def _show(stage: CopyStage) -> None:
    """On a terminal over the last one."""
    text = stage.what if not stage.of else f"{stage.what}: {stage.done} of {stage.of}"
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", err=True, nl=not stage.of)
    elif stage.done >= stage.of:
        click.echo(text, err=True)


def _master(nodes: list[NodeAnswers], name: str) -> NodeAnswers:
    masters = [node for node in nodes if any(status.role.is_master for status in node.statuses)]
    if name:
        masters = [
            master for master in masters if name in (master.name, master.name.partition(".")[0])
        ]
    if len(masters) == 1:
        return masters[0]
    if masters:
        names = ", ".join(master.name for master in masters)
        raise click.UsageError(f"there are several masters ({names}): choose with --node")
    silent = [f"{node.place}: {node.problem}" for node in nodes if node.problem]
    why = f" ({'; '.join(silent)})" if silent else ""
    raise Refusal(Code.NONEXISTENT, f"no master {name or ''}answers{why}")


def _offline(function: Callable[..., Any]) -> Callable[..., Any]:
    path = click.option("--path", type=PATH, help="The list's folder itself.")
    return config_option()(path(function))


@list_engine.command()
@_offline
@click.option("--yes", is_flag=True, help="Yes, take it.")
@json_option("engine, rows")
def take(config_file: Path, path: Path | None, yes: bool, as_json: bool) -> int:
    """The last resort, where all members of the log are lost and no snapshot is left: this host's own copy of the list is
    the list from now on, of this master alone. The log is not asked. Stop all masters first, and take the copy with the
    highest number (`murder ctl list engine show`).

    \b
    systemctl stop murder && murder ctl list engine take --yes
    """
    folder = path or list_path(load_config(config_file), "mupdate")
    if not (folder / "data.mdb").exists():
        raise Refusal(Code.NONEXISTENT, f"{folder} has no mailbox list")
    mailboxes = MailboxList.open(folder)
    try:
        if not yes:
            text = f"{mailboxes.path}, {mailboxes.count()} rows, becomes the list, whatever the log has. Re-run with --yes."
            click.echo(text, err=True)
            return 2
        mailboxes.keep_by(EMBEDDED)
        rows = mailboxes.count()
    finally:
        mailboxes.close()
    text = 'It is. Set [mupdate] engine = "embedded" before the start.'
    return say(as_json, {"engine": EMBEDDED, "rows": rows}, text)


@list_engine.command()
@_offline
@json_option("engine (empty: as murder.toml says), mark, rows")
def show(config_file: Path, path: Path | None, as_json: bool) -> int:
    """What this host's list says that it is kept by, and how far it is: its epoch, the number of its last change, that
    commit's mark.

    \b
    murder ctl list engine show
    """
    folder = path or list_path(load_config(config_file), "mupdate")
    if not (folder / "data.mdb").exists():
        raise Refusal(Code.NONEXISTENT, f"{folder} has no mailbox list")
    mailboxes = MailboxList.open(folder, read_only=True)
    facts = {"engine": mailboxes.kept_by, "mark": mailboxes.mark(), "rows": mailboxes.count()}
    mailboxes.close()
    if as_json:
        print_json(facts)
    else:
        kept_by = facts["engine"] or "what murder.toml says"
        click.echo(f"kept by {kept_by}, at {facts['mark']}, {facts['rows']} rows")
    return 0
