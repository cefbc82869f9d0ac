"""A real Cyrus Murder on loopback for the tests in this folder.

It needs root (ports 24, 110, 143; /etc/hosts) and Debian packages, which `.ci/run` installs. Without them these tests are
skipped with that reason on a developer's machine, and fail in CI.
"""

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

LAB = Path(__file__).parent / "lab.sh"
ROOT = Path(os.environ.get("LAB_ROOT", "/tmp/murder-cyrus-lab"))
IS_CI = os.environ.get("CI") == "true"


@dataclass(frozen=True)
class Lab:
    """The lab's addresses, and its script."""

    master: tuple[str, int] = ("127.0.0.10", 3905)
    backends: tuple[str, str] = ("127.0.0.11", "127.0.0.12")
    frontend: str = "127.0.0.20"
    user: str = "murder"
    password: str = "secret"

    def run(self, *words: str, **environment: str) -> str:
        """Run `lab.sh WORDS`; its output. Fails the test if it fails."""
        done = subprocess.run(
            ["bash", str(LAB), *words],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "no answer" not in said, said[-4000:]
        return said


def missing() -> str:
    """Why the lab cannot run here; "" if it can."""
    if os.geteuid() != 0:
        return "the Cyrus lab needs root"
    if not (ROOT / "pkg/usr/lib/cyrus/bin/mupdate").exists() and not IS_CI:
        return f"the Cyrus lab is not installed: run {LAB} install as root"
    return ""


@pytest.fixture(scope="session")
def lab_ready() -> Iterator[Lab]:
    """The lab, configured and stopped; ours alone, for its addresses are fixed."""
    reason = missing()
    if reason and IS_CI:
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    lab, path = Lab(), Path(f"{ROOT}.lock")
    with path.open("w") as opened:
        # another run of these tests may be going on
        fcntl.flock(inherited(path) or opened, fcntl.LOCK_EX)
        lab.run("setup")
        yield lab


def inherited(path: Path) -> int | None:
    """The descriptor of this file that this process was started with: `flock FILE COMMAND` holds the lock by it, and a
    second one would wait for that for ever."""
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            # Python's own are not inheritable
            if entry.readlink() == path.resolve() and os.get_inheritable(int(entry.name)):
                return int(entry.name)
    return None


@pytest.fixture
def cyrus(lab_ready: Lab) -> Iterator[Lab]:
    """A whole Cyrus murder of its own, fresh: master, two backends, a frontend, user1..user20."""
    lab_ready.run("reset")
    lab_ready.run("up")
    yield lab_ready
    lab_ready.run("stop")


@pytest.fixture
def cyrus_parts(lab_ready: Lab) -> Iterator[Lab]:
    """The lab, wiped and stopped: the test starts what it wants (with LAB_MUPDATE for another master)."""
    lab_ready.run("reset")
    yield lab_ready
    lab_ready.run("stop")
