"""The command line: `murder serve`, `demo`, `config`, `ca`, `auth`, `plugin`."""

from murder.cli.program import main

__all__ = ["main"]
