"""What a listener to events is: told of all that the log of this process can say, as facts, whether the log shows it or not.

A plugin of this kind is made by the hook `make_event_listener`. The events and what they mean: `murder log events`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened. `name` is one of `murder log events`, as `login.failed`; `level` is `info`, `warning` or
    `error`. `facts` are the line's keys (`role`, `protocol`, `cid`, `peer`, `user`, `mailbox`, `backend`, …), with secrets
    masked; they are read only, and good for as long as they are held."""

    name: str
    level: str
    facts: Mapping[str, object]


class EventListener(Protocol):
    """One in each process of a node: every worker, and where there are several of a role, the one that supervises them."""

    def happened(self, event: Event) -> None:
        """Called where it happens, before the log's line is written, now and then in a thread: note it and return at once
        (count, or put it into a queue of your own). What is logged in here is told to nobody. A listener that raises is
        not called again until the node starts anew; the log says so."""
        ...
