"""Who did what, from where, by which way: a line for each act that changes what others have, apart from the log."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from murder.trail.lines import Trail, folder_of

KIND: Final = "audit"  # of the files
NODE: Final = "node"  # in place of a role: of what concerns the whole node
MAX_ARGUMENTS: Final = 1000  # octets of a command that are shown


class AuditLog:
    """Written to by one process of a node, under the name of a role; without a trail nothing is."""

    def __init__(self, trail: Trail | None) -> None:
        self._trail = trail

    def note(self, act: str, facts: Mapping[str, object]) -> None:
        """`facts`: `user` is who did it. None of them is a secret."""
        if self._trail is not None:
            self._trail.write(act, facts)

    def keep(self, octets: int) -> None:
        """So much from now on; 0: nothing."""
        if self._trail is not None:
            self._trail.keep(octets)


def audit_trail(data: Path, role: str, worker: int, keep_octets: int) -> Trail:
    """In a node's data folder."""
    trail = Trail(folder_of(data), KIND, role, worker, chained=True)
    trail.keep(keep_octets)
    return trail


def audit_log(data: Path, role: str, worker: int, keep_octets: int) -> AuditLog:
    """Of a worker: each has a file of its own."""
    return AuditLog(audit_trail(data, role, worker, keep_octets))


NOBODYS: Final = AuditLog(None)
