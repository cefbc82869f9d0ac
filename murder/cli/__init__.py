"""The command line: `murder serve`, `demo`, `ctl`, `plugin`, `config`, `ca`."""
