"""A few faults of the long run (`tests.ha.history`)."""

from pathlib import Path
from typing import Final

from tests.ha.history import run

SEED: Final = 7


def test_every_answer_can_be_explained(tmp_path: Path) -> None:
    assert run(tmp_path, faults=4, count=2, seed=SEED) == []
