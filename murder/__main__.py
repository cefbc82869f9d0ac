"""Entry of the program, both for `python -m murder` and for the archive.

Whoever starts murder again (the demo, the supervisor's workers) asks `command()` how. The archive's own start
(murder/archive) sets `archive` and calls `main`; nothing here is taken from the environment, which a stranger may set.
`version` is answered before the command line is imported, which takes longer than all the rest.
"""

import sys

archive = ""  # the absolute path of the .pyz that runs; empty when murder runs from a checkout


def archive_path() -> str | None:
    """The archive that this process runs from; None from a checkout."""
    return archive or None


def command() -> list[str]:
    """The argv prefix that runs this program again; from a checkout its child must start in the same directory."""
    return [sys.executable, archive] if archive else [sys.executable, "-m", "murder"]


def main() -> int:
    """Run the command line of this process; returns the exit code."""
    if sys.argv[1:] in (["version"], ["--version"], ["-V"]):
        from murder import __version__

        print(f"murder {__version__}")
        return 0
    from murder.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
