"""One murder for all that looks at the page of its nodes."""

from collections.abc import Iterator

import pytest

from tests.kit.demo import Demo, running_demo


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", "4", "--no-tls-required") as running:
        yield running
