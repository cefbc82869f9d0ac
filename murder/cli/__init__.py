"""The command line: `murder serve`, `demo`, `config`, `ca`, `auth`, `plugin`, and `ctl` for operators."""

from murder.cli.program import main

__all__ = ["main"]
