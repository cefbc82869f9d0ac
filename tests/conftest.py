"""What every folder of tests uses: the archive, built once, and the word for a test that cannot run here."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent
IN_CI = os.environ.get("CI") == "true"


@pytest.fixture(scope="session")
def archive() -> Path:
    """dist/murder.pyz, made from the sources as they are now; from then on tests/demo.py runs it."""
    done = subprocess.run(
        [sys.executable, ROOT / "build.py"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    os.environ["MURDER_ARCHIVE"] = str(ROOT / "dist" / "murder.pyz")
    return ROOT / "dist" / "murder.pyz"


def cannot_run(reason: str) -> NoReturn:
    """Skip the test on a developer's machine; in CI, where everything is to be installed, fail it."""
    if IN_CI:
        pytest.fail(f"{reason}; in CI every test must run")
    pytest.skip(reason)
