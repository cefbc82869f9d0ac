"""The plugin that keeps users itself, and what follows from a change in it."""

import getpass
import os
import sys
from pathlib import Path
from typing import Final

import asyncclick as click

from murder.admin.cli.options import keep_owner
from murder.api import ManagesUsers
from murder.auth.remembered import flush
from murder.config import load_config
from murder.errors import Code, Refusal
from murder.hooks import load_plugins
from murder.trail.audit import NODE, audit_trail

_NOT_SAID: Final = frozenset({"config_file", "as_json", "yes"})


def users_backend(config_file: Path) -> ManagesUsers:
    """The first plugin of `[auth]` that keeps users. Raises Refusal."""
    config = load_config(config_file)
    plugins = load_plugins(config, ()).auth_backends()
    managing = next((backend for _, backend in plugins if isinstance(backend, ManagesUsers)), None)
    if managing is None:
        names = ", ".join(name for name, _ in plugins)
        text = f"of {names} none keeps users itself; use the tools of what they ask"
        raise Refusal(Code.CANNOT, text)
    return managing


def new_password(user: str, *, may_be_none: bool = False) -> bytes:
    """Ask on a terminal, else read one line. Never an argument: other users see those. Raises Refusal."""
    if not sys.stdin.isatty():
        return sys.stdin.buffer.readline().rstrip(b"\r\n")
    otherwise = " (empty: none)" if may_be_none else ""
    first = getpass.getpass(f"Password of {user}{otherwise}: ")
    if may_be_none and not first:
        return b""
    if getpass.getpass("Once more: ") != first:
        raise Refusal(Code.CANNOT, "the passwords differ; nothing was changed")
    return first.encode("utf-8")


def taken(config_file: Path, arguments: str = "") -> None:
    """It has changed: nobody gets in by what was right before, the audit trail has it (with the command's own arguments, if
    no others are given), the node's user owns its files."""
    config = load_config(config_file)
    data = config.node.data
    flush(data)
    context = click.get_current_context()
    given = {key: value for key, value in context.params.items() if key not in _NOT_SAID}
    trail = audit_trail(data, f"{NODE}-auth", 0, config.log.audit_keep_bytes)
    by = {"user": f"uid {os.getuid()}", "sudo": os.environ.get("SUDO_USER", "")}
    said = arguments or " ".join(map(_shown, given.values()))
    trail.write(context.command_path, {**by, "arguments": said})
    if not trail.settle():
        warning = f"this is not in the audit trail: another process does not let go of {trail.path}"
        click.echo(f"warning: {warning}", err=True)
    folder = trail.path.parent  # is not there where no trail is kept
    keep_owner(data, (*data.iterdir(), folder, *folder.glob("*")))


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
