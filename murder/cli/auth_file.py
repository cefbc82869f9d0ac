"""The plugin that keeps users itself, and what follows from a change in it."""

import os
from pathlib import Path
from typing import Final

import asyncclick as click

from murder.api import ManagesUsers
from murder.auth.remembered import flush
from murder.cli.options import keep_owner
from murder.config import load_config
from murder.errors import Code, Refusal
from murder.hooks import load_plugins
from murder.trail.audit import NODE, audit_trail

_NOT_SAID: Final = frozenset({"config_file", "as_json", "yes"})


def users_backend(config_file: Path) -> ManagesUsers:
    """The first plugin of `[auth]` that keeps users. Raises Refusal."""
    config = load_config(config_file)
    plugins = load_plugins(config, ()).auth_backends()
    found = next((backend for _, backend in plugins if isinstance(backend, ManagesUsers)), None)
    if found is None:
        names = ", ".join(name for name, _ in plugins)
        text = f"of {names} none keeps users itself; use the tools of what they ask"
        raise Refusal(Code.CANNOT, text)
    return found


def taken(config_file: Path) -> None:
    """It has changed: nobody gets in by what was right before, the audit trail has it, the node's user owns its files."""
    config = load_config(config_file)
    data = config.node.data
    flush(data)
    context = click.get_current_context()
    given = {key: value for key, value in context.params.items() if key not in _NOT_SAID}
    trail = audit_trail(data, f"{NODE}-auth", 0, config.log.audit_keep_bytes)
    by = {"user": f"uid {os.getuid()}", "sudo": os.environ.get("SUDO_USER", "")}
    trail.write(context.command_path, {**by, "arguments": " ".join(map(_shown, given.values()))})
    keep_owner(data, (*data.iterdir(), trail.path.parent, trail.path))


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
