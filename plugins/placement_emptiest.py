"""Placement: a new mailbox goes to the backend that has the most room.

`measure = "mailboxes"` counts each backend's mailboxes against its weight; `"octets"` takes the one with the most free
disk for its weight, where all of them tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from murder.api import BackendLoad, NewMailbox, hookimpl
from murder.model.entry import Location


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.placement_emptiest]."""

    measure: Literal["mailboxes", "octets"] = field(
        default="mailboxes",
        metadata={
            "doc": "What makes a backend full: its `mailboxes`, or the `octets` on its disk."
        },
    )


@hookimpl
def choose_backend(
    settings: Settings, mailbox: NewMailbox, candidates: Sequence[BackendLoad]
) -> Location | None:
    """The emptiest backend that is reachable; ties go to the first by name, so that the choice can be foretold."""
    able = [load for load in candidates if load.reachable and load.weight > 0]
    if not able:
        return None
    by_octets = settings.measure == "octets" and all(load.free_octets is not None for load in able)

    def fullness(load: BackendLoad) -> tuple[float, str]:
        full = -(load.free_octets or 0) * load.weight if by_octets else load.mailboxes / load.weight
        return full, str(load.location)

    return min(able, key=fullness).location
