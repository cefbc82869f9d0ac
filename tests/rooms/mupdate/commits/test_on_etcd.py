"""The commands of RFC 3656 with the list on etcd, in each run of all tests; `build.py test --engine etcd` runs the rest."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.kit.engine import is_shared
from tests.kit.programs.etcd import needs_etcd

FILE = "tests/rooms/mupdate/serving/test_master.py"


@pytest.mark.skipif(is_shared(), reason="this run is on etcd")
def test_a_master_on_etcd_does_what_one_alone_does() -> None:
    """Some seconds: which engine there is, is a process's own."""
    needs_etcd()
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--engine", "etcd", FILE]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:]
