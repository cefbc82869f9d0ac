"""The plugin that keeps users itself, and what follows from a change in it."""

from pathlib import Path

from murder.api import ManagesUsers
from murder.auth.remembered import flush
from murder.cli.options import keep_owner
from murder.config import load_config
from murder.errors import Code, Refusal
from murder.hooks import load_plugins


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
    """It has changed: nobody gets in by what was right before, and the node's user owns its files."""
    data = load_config(config_file).node.data
    flush(data)
    keep_owner(data, data.iterdir())
