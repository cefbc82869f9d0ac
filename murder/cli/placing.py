"""The placement policy as the commands ask it: the same plugins that the frontends load."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from murder.cli.reaching import backends_of
from murder.config import Config
from murder.hooks import load_plugins
from murder.model.entry import MailboxEntry
from murder.operate.moves import Choose
from murder.operate.reach import Reach


@contextmanager
def choosing(config: Config) -> Iterator[Choose]:
    """The hook, by `[plugins] use`. Raises ConfigError where a plugin cannot be loaded."""
    plugins = load_plugins(config, ["frontend"])
    yield plugins.choose_backend


def weights_of(reach: Reach, rows: Collection[MailboxEntry]) -> dict[str, float]:
    """Every backend with its `[servers] weight`."""
    return {server: reach.config.server(server).weight for server in backends_of(reach, rows)}
