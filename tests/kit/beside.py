"""Several processes of pytest beside each other (pytest-xdist, `-n`): which tests stay together, which begin first.

A file is done by one process, so that what its fixtures start, starts once. So is a folder in `TOGETHER`. What takes long
begins first, or one process would still be at it when the others have nothing left.
"""

import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

LEAST: Final = 2  # tests wait for programs, most of the time
# What has fixed addresses
TOGETHER: Final = ("tests/cyrus",)
# What takes longer than others, about how many seconds; a test of what is not here takes a twentieth of one
SECONDS: Final = {
    "tests/cyrus": 300,
    "tests/faults/test_joint_rename.py": 150,
    "tests/test_build.py": 110,
    "tests/faults/moves/test_moves.py": 100,
    "tests/faults/test_storm.py": 60,
    "tests/faults/test_disk.py": 50,
    "tests/install/test_debian.py": 50,
    "tests/rooms/unified/test_processes.py": 50,
    "tests/rooms/unified/test_ha.py": 50,
    "tests/rooms/web/test_browser.py": 45,
    "tests/rooms/node/test_workers.py": 40,
    "tests/stress/test_stress.py": 40,
    "tests/faults/test_kill_backend.py": 40,
    "tests/faults/test_rolling_restart.py": 40,
    "tests/upgrade/test_rolling.py": 40,
    "tests/rooms/cli/ctl/test_ctl_import.py": 40,
    "tests/rooms/cli/ctl/test_ctl_backup.py": 40,
    "tests/clients/test_dovecot_backend.py": 35,
    "tests/ha/test_moving.py": 30,
    "tests/ha/test_masters.py": 30,
    "tests/rooms/wire/test_foreign_octets.py": 30,
    "tests/faults/test_kill.py": 30,
    "tests/faults/test_filter_storm.py": 30,
    "tests/install/test_three_hosts.py": 30,
    "tests/rooms/cli/ctl/test_ctl_nodes.py": 25,
    "tests/rooms/cli/ctl/test_ctl_mailboxes.py": 25,
    "tests/rooms/node/test_service_plugin.py": 20,
    "tests/rooms/backend/test_two_workers.py": 20,
    "tests/test_shape.py": 15,
}
FEW_S: Final = 0.05


def processes() -> int:
    """How many."""
    return max(LEAST, len(os.sched_getaffinity(0)))


def unit_of(test: str) -> str:
    """What one process does from beginning to end: the file of a test, or its folder."""
    file = test.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(f"{folder}/")), file)


def longest_first(tests: Sequence[str]) -> list[str]:
    """Units in the order in which they begin."""
    taken = dict.fromkeys(map(unit_of, tests), 0.0)
    for test in tests:
        taken[unit_of(test)] += FEW_S
    return sorted(taken, key=lambda unit: -SECONDS.get(unit, taken[unit]))


def once(folder: Path, name: str, make: Callable[[], object]) -> None:
    """Make what all processes of a run use, in the first that needs it; the others wait. `folder` is the run's."""
    made = folder / f"{name}.made"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make()
            made.touch()
