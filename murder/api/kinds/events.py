"""Plugins that are told what happens."""

from typing import Final

from murder.api.contract.events import EVENTS_CHECKS
from murder.api.kinds.kind import Kind

TEMPLATE: Final = '''
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from murder.api import Event, hookimpl


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.@MODULE@] of murder.toml; a key that is not here is refused at the start."""

    file: str = field(
        default="@NAME@.counts", metadata={"doc": "Where the counts go, in [node] data."}
    )  # 1. Your own keys.


class @CLASS@:
    """Counts events. One object in each process."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.file = Path()

    def happened(self, event: Event) -> None:
        """Called for every event: note it and return at once, wait for nothing."""
        # 2. event.name (`murder log events`), event.level, event.facts: who, from where, which mailbox.
        self.counts[event.name] += 1


_LISTENER = @CLASS@()


@hookimpl
def make_event_listener(settings: Settings, data_dir: Path) -> @CLASS@:
    """Called once in each process, at the start."""
    _LISTENER.file = data_dir / settings.file
    return _LISTENER


@hookimpl
def role_stops(role: str, worker: int) -> None:
    """3. The end of this process: what has been noted is put away. `role_starts` may begin a task of your own."""
    with _LISTENER.file.with_suffix(f".{role}-{worker}").open("w") as file:
        file.writelines(f"{name} {count}\\n" for name, count in _LISTENER.counts.items())
'''
EVENTS: Final = Kind(
    "events",
    "make_event_listener",
    "Events: what happens in this node, noted.",
    EVENTS_CHECKS,
    TEMPLATE,
    makes=True,
    methods=("happened",),
)
