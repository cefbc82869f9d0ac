"""All roots of a store checked, one after the other: `murder ctl store check|repair`."""

import fcntl
import os
import sqlite3
from pathlib import Path

from murder.errors import Code, Refusal
from murder.kit.check import LOST, Checked, check_root
from plugins.store_spool.salvage import salvage


def inspect_root(top: Path, folder: Path, own_area: Path, repair: bool) -> list[str]:
    """One root, in a thread. Raises Refusal where a running node is in the way of a repair."""

    def in_flight(name: str) -> bool:
        areas = (top / "incoming").iterdir()
        return any((area / folder.name / name).exists() for area in areas)

    checked = Checked(folder, top / LOST / folder.name, in_flight, repair)
    try:
        return check_root(checked)
    except Refusal as refusal:
        return [f"{checked.file}: {refusal.text}"]
    except sqlite3.DatabaseError as error:
        problem = f"{checked.file}: {' '.join(str(error).split())}"
    if not repair:
        return [f"{problem}: its pages are damaged; `repair` rebuilds it (stop the node first)"]
    if is_running(top, own_area):
        raise Refusal(
            Code.IN_USE, f"{checked.file} has damaged pages: stop the node, then repair it again"
        )
    return [problem, *salvage(checked.file), *check_root(checked)]


def is_running(top: Path, own_area: Path) -> bool:
    """Whether another process has this store open: each holds the lock of its own folder below `incoming`."""
    for area in (top / "incoming").iterdir():
        if area == own_area:
            continue
        try:
            lock = os.open(area / "lock", os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
    return False
