"""Generated scripts come out as Pigeonhole's `sieve-test` has it; `python -m tests.sieve.oracle` compares more of them."""

import pytest

from tests.kit.demo import wanted
from tests.sieve.oracle import PROGRAM, differences

SCRIPTS = 100


def test_scripts_come_out_as_pigeonhole_has_it() -> None:
    if reason := wanted(PROGRAM):
        pytest.skip(reason)
    assert differences(SCRIPTS) == []
