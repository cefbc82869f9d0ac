"""One murder for all real programs; each test has users of its own."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.kit.demo import Demo, running_demo

USERS = 60


@pytest.fixture(scope="session")
def demo(archive: Path) -> Iterator[Demo]:
    with running_demo("--users", str(USERS), "--no-tls-required") as running:
        yield running


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    return iter(count(1))


@pytest.fixture
def number(numbers: Iterator[int]) -> int:
    """A user that no other test touches."""
    taken = next(numbers)
    assert taken <= USERS, "give the demo more users"
    return taken


@pytest.fixture(params=["frontend", "backend"])
def kind(request: pytest.FixtureRequest) -> str:
    """Where the program connects to."""
    return str(request.param)
