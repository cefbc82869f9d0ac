"""What every folder of tests uses: where the project is, and the word for a test that cannot run here."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent
IN_CI = os.environ.get("CI") == "true"


def cannot_run(reason: str) -> NoReturn:
    """Skip the test on a developer's machine; in CI, where everything is to be installed, fail it."""
    if IN_CI:
        pytest.fail(f"{reason}; in CI every test must run")
    pytest.skip(reason)
