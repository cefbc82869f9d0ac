"""What the log has of a list whose file cannot be written."""

import itertools
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from murder.errors import Refusal
from murder.roles.mupdate.database import settling
from murder.roles.mupdate.database.change import Change
from tests.rooms.mupdate.database.test_journal import opened, put, write


@contextmanager
def no_growth(file: Path) -> Iterator[None]:
    """No file becomes larger than this one is."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_the_last_that_the_log_says_of_a_disk_that_comes_and_goes_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it has few lines of it."""
    monkeypatch.setattr(settling, "SETTLE_S", 3600)
    mailboxes = opened(tmp_path / "list")
    names = itertools.count()

    def many() -> list[Change]:
        return [put(f"user.n{next(names):06}", 1) for _ in range(2000)]

    write(mailboxes, *many())
    with capture_logs() as logged:
        for _ in range(3):
            with no_growth(tmp_path / "list" / "data.mdb"), pytest.raises(Refusal):
                for _ in range(100):
                    write(mailboxes, *many())
            said = [line["event"] for line in logged if "written" in line["event"]]
            assert said[-1] == "list.not_written"
            write(mailboxes, *many())
    assert len(said) <= 3
    mailboxes.close()
