"""Generated scripts come out as Pigeonhole's `sieve-test` has it; more of them: `python -m tests.rooms.sieve.oracle`."""

import pytest

from tests.kit.demo import wanted
from tests.rooms.sieve.oracle import PROGRAM, differences

SCRIPTS = 100


def test_scripts_come_out_as_pigeonhole_has_it() -> None:
    if reason := wanted(PROGRAM):
        pytest.skip(reason)
    assert differences(SCRIPTS) == []
