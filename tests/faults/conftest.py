"""On a disk: what is tested here is what a node still has when it has died."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import memory


@pytest.fixture(scope="module", autouse=True)
def _on_disk() -> Iterator[None]:
    with memory.on_disk():
        yield


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="murder-test-", ignore_cleanup_errors=True) as name:
        yield Path(name)
