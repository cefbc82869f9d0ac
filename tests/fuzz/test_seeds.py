"""Every seed through its target, as it is and repeated to the size that a peer may send."""

import pytest

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS, long


def test_every_target_has_seeds() -> None:
    assert SEEDS.keys() == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_find_nothing(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)
        TARGETS[name](long(seed, 8192))
