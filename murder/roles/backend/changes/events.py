"""What happens in a backend's process, and who hears of it: whoever publishes knows nobody who listens.

Published here: `News` (a hierarchy, rights, subscriptions or annotations have changed), `MailboxChanged`,
`MasterMayDiffer`, `MailQueued` and `ScriptsQueued`. A listener is called at once, in the order of subscription, and must
not fail.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from murder.model.name import MailboxName

Event = TypeVar("Event")


@dataclass(frozen=True, slots=True)
class MailboxChanged:
    """Something was changed in a mailbox through this process's store."""

    mailbox_id: str


@dataclass(frozen=True, slots=True)
class MasterMayDiffer:
    """The master may have these names wrong (an operation was undone): they are to be compared, as soon as it is there."""

    names: tuple[MailboxName, ...]


@dataclass(frozen=True, slots=True)
class MailQueued:
    """Mail of a script waits to be sent."""


@dataclass(frozen=True, slots=True)
class ScriptsQueued:
    """Something that a client did by IMAP waits for the scripts that see it."""


class Events:
    """See the module. One a process and backend."""

    def __init__(self) -> None:
        self._listeners: dict[type, list[Callable[[Any], None]]] = {}

    def subscribe(self, kind: type[Event], listener: Callable[[Event], None]) -> None:
        """Called with every such event from now on."""
        self._listeners.setdefault(kind, []).append(listener)

    def publish(self, event: object) -> None:
        """Listeners are called here and now, in the order in which they came."""
        for listener in self._listeners.get(type(event), ()):
            listener(event)
