"""The command line: `murder serve`, `demo`, `config`, `ca`, `auth`, `plugin`, and `ctl` for operators."""

from murder.admin.cli.program import main

__all__ = ["main"]
