"""A few faults of the long run (`tests.ha.history`)."""

import time
from pathlib import Path

from tests.ha.history import run


def test_every_answer_can_be_explained(tmp_path: Path) -> None:
    assert run(tmp_path, faults=4, count=2, seed=time.time_ns() % 10**6) == []
