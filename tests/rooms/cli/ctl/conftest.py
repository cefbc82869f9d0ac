"""A murder for a file of tests, and what operators ask it with; a file that wants another one has its own `demo`."""

from collections.abc import Iterator

import pytest

from tests.kit.demo import Demo, running_demo
from tests.rooms.cli.ctl.test_ctl_mailboxes import Ctl


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", "4", "--no-tls-required") as running:
        yield running


@pytest.fixture(scope="module")
def ctl(demo: Demo) -> Ctl:
    return Ctl(demo)
