"""`murder ctl list`: the mailbox list's file on this host, whether its node runs or not."""

import fcntl
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncclick as click

from murder.admin.cli.ctl.list_engine import list_engine
from murder.admin.cli.options import (
    PATH,
    Group,
    config_option,
    json_option,
    keep_owner,
    print_json,
    print_table,
    say,
)
from murder.config import load_config
from murder.errors import Code, Refusal
from murder.roles.mupdate.database.environment import sync_names
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.transfer import check as find_faults
from murder.roles.mupdate.database.transfer import dump as dump_rows
from murder.roles.mupdate.database.transfer import load as load_rows
from murder.roles.mupdate.database.transfer import read_rows
from murder.roles.mupdate.remote.following import list_path

ROLES = ("mupdate", "frontend", "backend")


def _folder(config_file: Path, path: Path | None, role: str | None) -> Path:
    """The list's folder: named, or of the role, or of the one role that has a list here."""
    if path is not None:
        return path
    config = load_config(config_file)
    if role is not None:
        return list_path(config, role)
    there = [
        candidate for candidate in ROLES if (list_path(config, candidate) / "data.mdb").exists()
    ]
    if len(there) == 1:
        return list_path(config, there[0])
    if there:
        raise click.UsageError(
            f"this node has several lists ({', '.join(there)}): choose with --role"
        )
    raise Refusal(
        Code.NONEXISTENT,
        f"{config.node.data} has no mailbox list: it is on the hosts of the nodes (run this there), and made at "
        "their first start; or name --role, to make one",
    )


def _existing(folder: Path) -> MailboxList:
    if not (folder / "data.mdb").exists():
        raise Refusal(Code.NONEXISTENT, f"{folder} has no mailbox list")
    return MailboxList.open(folder, read_only=True)


@click.group(cls=Group, name="list")
def mailbox_list() -> None:
    """The mailbox list's file: of a master, a frontend or a backend.

    \b
    murder ctl list dump > list.jsonl
    murder ctl list load --replace list.jsonl
    murder ctl list load --replace --from /var/lib/murder/frontend/mailboxes
    """


mailbox_list.add_command(list_engine)


def _where(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--config`, `--role`, `--path`: which list."""
    option = click.option(
        "--path", type=PATH, help="The list's folder itself, of any node or copy."
    )
    role = click.option(
        "--role", type=click.Choice(ROLES), help="Whose list, if the node has several."
    )
    return config_option()(role(option(function)))


@mailbox_list.command()
@_where
def dump(config_file: Path, role: str | None, path: Path | None) -> None:
    """Write all rows as JSON lines, in the list's order.

    \b
    murder ctl list dump > list.jsonl
    murder ctl list dump --path /backup/mailboxes
    """
    mailboxes = _existing(_folder(config_file, path, role))
    for line in dump_rows(mailboxes):
        click.echo(line)
    mailboxes.close()


@mailbox_list.command()
@_where
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option(
    "--from", "other", type=PATH, help="Another list's folder (a frontend's) in place of a file."
)
@click.option("--server", default="", help="Whose list it is, where a Cyrus dump names no server.")
@click.option("--replace", is_flag=True, help="Remove the rows that are not in the file.")
@click.option("--yes", is_flag=True, help="With --replace: yes, remove them.")
@json_option("read, rows")
def load(
    config_file: Path,
    role: str | None,
    path: Path | None,
    file: Path | None,
    other: Path | None,
    server: str,
    replace: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Read rows from a FILE (`-`: standard input): our JSON lines, or what Cyrus' `ctl_mboxlist -d` wrote.

    \b
    murder ctl list load list.jsonl
    murder ctl list load --replace list.jsonl --yes
    murder ctl list load --from /tmp/fe1/mailboxes     # a frontend's list
    ctl_mboxlist -d | murder ctl list load -           # a Cyrus' list
    """
    if (file is None) == (other is None):
        raise click.UsageError("name a FILE, or another list with --from")
    folder = _folder(config_file, path, role or ("mupdate" if path is None else None))
    if path is None:
        _check_alone(config_file, folder)
    mailboxes = MailboxList.open(folder)
    if replace and not yes and mailboxes.count():
        click.echo(
            f"This replaces the {mailboxes.count()} rows of {mailboxes.path}. Re-run with --yes.",
            err=True,
        )
        raise click.exceptions.Exit(2)
    if other is not None:
        source = _existing(other)
        read = load_rows(mailboxes, source.walk(), replace=replace)
        source.close()
    else:
        assert file is not None
        read = load_rows(mailboxes, read_rows(_lines(file), server), replace=replace)
    rows = mailboxes.count()
    mailboxes.close()
    _keep_owner(folder)
    if not as_json:
        click.echo(f"{read} rows read, {rows} in the list", err=True)
    return say(as_json, {"read": read, "rows": rows}, "")


def _check_alone(config_file: Path, folder: Path) -> None:
    """Raise Refusal where several masters share the list: its file is a copy of what their engine keeps."""
    config = load_config(config_file)
    if config.mupdate.engine != "embedded" and folder == list_path(config, "mupdate"):
        raise Refusal(
            Code.CANNOT,
            f"Several masters share this list (mupdate.engine is {config.mupdate.engine}): it is changed through a master, "
            "not in its file",
        )


def _keep_owner(folder: Path) -> None:
    """A role's list is at `data`/ROLE/mailboxes."""
    keep_owner(folder.parent.parent, [folder.parent, folder, *folder.iterdir()])


def _lines(file: Path) -> Iterator[str]:
    if str(file) == "-":
        yield from sys.stdin
        return
    with file.open(encoding="utf-8", errors="surrogateescape") as opened:
        yield from opened


@mailbox_list.command()
@_where
@json_option("rows, faults (a list)")
def check(config_file: Path, role: str | None, path: Path | None, as_json: bool) -> int:
    """Compare rows, indexes, log and counts; exit code 1 if they differ.

    \b
    murder ctl list check
    """
    mailboxes = _existing(_folder(config_file, path, role))
    faults = []
    for fault in find_faults(mailboxes):
        faults.append(str(fault))
        if not as_json:
            click.echo(fault)
    rows = mailboxes.count()
    mailboxes.close()
    if as_json:
        print_json({"rows": rows, "faults": faults})
    else:
        click.echo(f"{rows} rows, {len(faults)} faults", err=True)
    return 1 if faults else 0


@mailbox_list.command()
@_where
@json_option("before, after (octets)")
def compact(config_file: Path, role: str | None, path: Path | None, as_json: bool) -> int:
    """Make the file as small as its content. The node must be stopped.

    \b
    systemctl stop murder && murder ctl list compact && systemctl start murder
    """
    folder = _folder(config_file, path, role)
    mailboxes = _existing(folder)
    before = mailboxes.used_bytes()
    draft = folder.with_name(folder.name + ".compact")
    shutil.rmtree(draft, ignore_errors=True)
    mailboxes.compact_to(draft)
    mailboxes.close()
    with (folder / "lock.mdb").open("r+b") as lock:
        try:
            # LMDB's own sign that somebody has it open
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except OSError:
            shutil.rmtree(draft)
            raise Refusal(Code.IN_USE, f"{folder} is in use: stop the node first") from None
        (draft / "data.mdb").replace(folder / "data.mdb")
        sync_names(folder)
    shutil.rmtree(draft)
    _keep_owner(folder)
    after = (folder / "data.mdb").stat().st_size
    if not as_json:
        click.echo(f"{before} octets before, {after} now", err=True)
    return say(as_json, {"before": before, "after": after}, "")


@mailbox_list.command()
@_where
@json_option("a list of name, holder, claimant, peer, command, at")
@click.option("--forget", is_flag=True, help="Forget them.")
def conflicts(
    config_file: Path, role: str | None, path: Path | None, as_json: bool, forget: bool
) -> None:
    """Which servers claimed a mailbox that another one has.

    \b
    murder ctl list conflicts
    murder ctl list conflicts --forget
    """
    folder = _folder(config_file, path, role)
    mailboxes = MailboxList.open(folder) if forget else _existing(folder)
    rows = [
        {"name": name.decode("utf-8", "backslashreplace"), **json.loads(facts)}
        for name, facts in mailboxes.conflicts().items()
    ]
    if as_json:
        print_json(rows)
    else:
        heads = ("name", "holder", "claimant", "peer", "command")
        print_table(heads, [[str(row[head]) for head in heads] for row in rows])
    if forget:
        mailboxes.write(lambda transaction: transaction.forget_conflicts())
    mailboxes.close()
