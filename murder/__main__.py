"""Entry of the program, both for `python -m murder` and for the archive.

Whoever starts murder again (the demo, the supervisor's workers) asks `command()` how. The archive's own start
(murder/archive) sets `archive` and calls `main`; nothing here is taken from the environment, which a stranger may set.
`version` is answered before the command line is imported, which takes longer than all the rest.
"""

import os
import sys

FROM_HOME = """\
import sys
home, archive = sys.argv[1:3]
sys.path[0] = home
sys.argv[:3] = ["murder"]
from murder import __main__ as entry
from murder.archive import start
start.hold(home)
entry.archive = archive
sys.exit(entry.main())
"""

archive = ""  # the absolute path of the .pyz that runs; empty when murder runs from a checkout


def archive_path() -> str | None:
    """The archive that this process runs from; None from a checkout."""
    return archive or None


def command() -> list[str]:
    """The argv prefix that runs this program again; from a checkout its child must start in the same directory."""
    return [sys.executable, archive] if archive else [sys.executable, "-m", "murder"]


def home() -> str:
    """The folder that this process has its code from."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def command_from(folder: str) -> list[str]:
    """The argv prefix that runs the code that an archive was unpacked to, whatever stands in the archive's place now."""
    return [sys.executable, "-c", FROM_HOME, folder, archive]


def is_replaced() -> bool:
    """Whether another program stands where this one was started from: what starts now is not what runs here."""
    if not archive:
        return False
    try:
        seen = os.stat(archive)
    except OSError:
        return True
    stamp = (seen.st_ino, seen.st_size, seen.st_mtime_ns)
    if stamp not in _digests:
        _digests.clear()
        _digests[stamp] = _digest_of(archive)
    return not os.path.basename(home()).startswith(_digests[stamp][:16] or "?")


_digests: dict[tuple[int, int, int], str] = {}  # of the archive, as it was seen last


def _digest_of(path: str) -> str:
    """What build.py said of an archive; empty for what is none."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as file:
            text = file.read("build.txt").decode()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return ""
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line).get("digest", "")


def main() -> int:
    """Run the command line of this process; returns the exit code."""
    if sys.argv[1:] in (["version"], ["--version"], ["-V"]):
        from murder import __version__

        print(f"murder {__version__}")
        return 0
    from murder.admin.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
