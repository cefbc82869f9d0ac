"""Which engine the masters of the MUPDATE tests and of those beside a real Cyrus have: `build.py test --engine etcd` (an
option of pytest's, tests/conftest.py) puts all of them on one member of etcd, each below a prefix of its own.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from plugins.list_etcd.settings import Settings
from tests.kit.programs.etcd import Cluster

EMBEDDED: Final = "embedded"
ENGINE: Final = os.environ.get("MURDER_TEST_ENGINE", EMBEDDED)
AT: Final = "MURDER_TEST_ETCD"  # where it is, for processes that a test starts
TIMEOUT_S: Final = 10.0


def is_shared() -> bool:
    return ENGINE != EMBEDDED


def etcd_settings(folder: Path) -> Settings:
    """Of the master whose list is in this folder; the same when it is started again."""
    prefix = f"{folder.resolve()}/"
    return Settings((_endpoint(),), prefix=prefix, timeout_s=TIMEOUT_S)


def _endpoint() -> str:
    if AT not in os.environ:
        home = Path(tempfile.mkdtemp(prefix="murder-test-etcd-"))
        cluster = Cluster(home, 1).start()
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        atexit.register(cluster.members[0].kill)
        os.environ[AT] = cluster.endpoints[0]
    return os.environ[AT]
