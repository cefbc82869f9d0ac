"""The placement decision as the commands ask for it: a frontend's, else that of the same plugins here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncclick as click

from murder.admin.operate.placing import Placing
from murder.admin.operate.reach import Reach
from murder.hooks import load_plugins


@contextmanager
def placing(reach: Reach, warn: Callable[[str], None] | None = None) -> Iterator[Placing]:
    """`warn` in place of standard error. Raises ConfigError where a plugin of `[plugins] use` cannot be loaded."""
    plugins = load_plugins(reach.config, ["frontend"])
    yield Placing(reach, plugins.choose_backend, warn or (lambda text: click.echo(text, err=True)))
