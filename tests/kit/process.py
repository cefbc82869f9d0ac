"""Programs beside the test: started, waited for, ended with all that they started; and how murder itself is run."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from tests.kit.waiting import until

ROOT: Final = Path(__file__).parent.parent.parent
READY_S: Final = 120.0
END_S: Final = 120.0


def murder_command() -> list[str]:
    """How to run murder: the archive, where the fixture of that name has been asked for, else the checkout."""
    archive = os.environ.get("MURDER_ARCHIVE")
    return [sys.executable, archive] if archive else [sys.executable, "-m", "murder"]


def run_murder(
    *words: str | Path, said: str = "", code: int = 0, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """A command of murder, to its end, given `said` on its standard input. Fails where it ends with another code."""
    done = subprocess.run(
        [*murder_command(), *map(str, words)],
        input=said,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Where programs that run as somebody else may go. Not below pytest's own: each start of a pytest closes those again,
    the folder of all its runs too."""
    with tempfile.TemporaryDirectory(prefix="murder-test-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


class Program:
    """A program that runs beside the test in a process group of its own. What it says goes to `log`, and stays there.

    As a context manager it is started, and ended whatever has happened. It may be started again after it has ended.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self.command = list(map(str, command))
        self.log = log
        self.environment = {**os.environ, **(environment or {})}
        self.cwd = cwd
        self.process: subprocess.Popen[bytes] | None = None
        self._may_remain = False  # something of its group

    def start(self) -> Self:
        """Returns at once; `until_open` or `until_said` wait."""
        assert self.process is None or self.process.poll() is not None, "it runs already"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.cwd,
                env=self.environment,
                start_new_session=True,
            )
        self._may_remain = True
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- what it is and says

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def said(self) -> str:
        """All of its log."""
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_text(encoding="utf-8", errors="replace")
        return ""

    def tail(self) -> str:
        return self.said()[-4000:]

    def children(self) -> list[int]:
        """The processes that it has started itself, oldest first."""
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [int(word) for word in found.split()]

    # --- waiting for it

    def until_open(self, host: str, port: int, limit_s: float = READY_S) -> Self:
        """Until somebody accepts there. AssertionError, with the end of the log, where it dies or takes too long."""
        until_open(host, port, limit_s, self._still_lives, self.tail)
        return self

    def until_said(self, text: str, times: int = 1, limit_s: float = READY_S) -> Self:
        """Until its log has the text, so many times. AssertionError as above."""

        def is_there() -> bool:
            if self.said().count(text) >= times:
                return True
            self._still_lives()
            return False

        until(is_there, lambda: f"{text!r} in\n{self.tail()}", limit_s)
        return self

    def _still_lives(self) -> None:
        assert self.lives, self.tail()

    # --- its end

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, limit_s: float = END_S) -> int:
        """Ask it to end (SIGTERM), and wait; what it leaves behind is killed. Its exit code."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(limit_s)
        finally:
            self.kill()

    def kill(self) -> None:
        """It and all that it started, at once."""
        if self.process is not None and self._may_remain:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(END_S)
            self._may_remain = False


def serving(config: Path, *options: str, log: Path | None = None) -> Program:
    """`murder serve` with this configuration; its log is `log` beside it if not told otherwise."""
    command = [*murder_command(), "serve", *options, "--config", str(config)]
    return Program(command, log or config.parent / "log")


def until_open(
    host: str,
    port: int,
    limit_s: float = READY_S,
    check: Callable[[], None] = lambda: None,
    tail: Callable[[], str] = lambda: "",
) -> None:
    """Until somebody accepts there. `check` raises where nobody will; `tail` is for the report."""

    def accepts() -> bool:
        try:
            socket.create_connection((host, port), 1).close()
        except OSError:
            check()
            return False
        return True

    until(accepts, lambda: f"{host}:{port} accepts\n{tail()}", limit_s)


def descendants(pid: int) -> list[int]:
    """Children of a process, and theirs."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == pid:
            child = int(stat.parent.name)
            found += [child, *descendants(child)]
    return found
