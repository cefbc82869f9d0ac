"""Plugins that say where new mailboxes go."""

from typing import Final

from murder.api.contract.decide import PLACEMENT_CHECKS
from murder.api.kinds.kind import Kind

TEMPLATE: Final = '''
from collections.abc import Sequence
from dataclasses import dataclass, field

from murder.api import BackendLoad, NewMailbox, hookimpl
from murder.model.entry import Location


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.@MODULE@] of murder.toml; a key that is not here is refused at the start."""

    server: str = field(
        default="be1.example.org", metadata={"doc": "The backend for users of the house."}
    )  # 1. Your own keys.


@hookimpl
def choose_backend(
    settings: Settings, mailbox: NewMailbox, candidates: Sequence[BackendLoad]
) -> Location | None:
    """Where a new mailbox goes, or None to let the next plugin of `use` decide."""
    # 2. mailbox.name, .owner (None: shared), .user (who asks), .parent (an entry, or None) say what is to be placed.
    if mailbox.owner is None:
        return None
    # 3. Answer one of the candidates' locations, never a backend that is not reachable.
    for load in candidates:
        if load.location.server == settings.server and load.reachable:
            return load.location
    return None
'''
PLACEMENT: Final = Kind(
    "placement",
    "choose_backend",
    "Placement: on which backend a new mailbox is made.",
    PLACEMENT_CHECKS,
    TEMPLATE,
)
