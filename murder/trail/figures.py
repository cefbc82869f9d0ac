"""How often things happened in this process, and how long they took: figures for a monitoring system.

No lock and no object is made for a figure that is there already. A process that begins anew begins at nothing: the series
of a monitoring system carry the worker's number.
"""

from bisect import bisect_left
from collections.abc import Mapping
from time import perf_counter
from typing import Final

# Upper ends of the classes of a duration, in seconds; beyond the last there is one more
CLASSES_S: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)

Labels = tuple[str, ...]


class Figures:
    """`numbers` by name and the values of its labels; `times` likewise, with a number for each class and the sum."""

    __slots__ = ("numbers", "times")

    def __init__(self) -> None:
        self.numbers: dict[str, dict[Labels, int]] = {name: {} for name in NAMES}
        self.times: dict[str, dict[Labels, Durations]] = {name: {} for name in NAMES}

    def add(self, name: str, *labels: str) -> None:
        """Once more."""
        counts = self.numbers[name]
        counts[labels] = counts.get(labels, 0) + 1

    def more(self, name: str, count: int, *labels: str) -> None:
        """So many times more."""
        counts = self.numbers[name]
        counts[labels] = counts.get(labels, 0) + count

    def took(self, name: str, seconds: float, *labels: str) -> None:
        """Once more, and so long."""
        self.durations(name, *labels).note(seconds)

    def durations(self, name: str, *labels: str) -> "Durations":
        """For who keeps them, and counts in fewer steps."""
        by_labels = self.times[name]
        durations = by_labels.get(labels)
        if durations is None:
            durations = by_labels[labels] = Durations()
        return durations

    def count_login(self, attempt: tuple[str, float] | None, protocol: str, outcome: str) -> None:
        """Of an attempt: by what mechanism, and since when (`time.perf_counter`); None where there is no such mechanism. In
        one step: this is the way of every session."""
        now = perf_counter()
        mechanism, began = attempt or ("", now)
        labels = protocol, mechanism, outcome
        took = self.times["logins"].get(labels) or self.durations("logins", *labels)
        took.classes[bisect_left(CLASSES_S, now - began)] += 1
        took.sum_s += now - began

    def shown(self) -> dict[str, object]:
        """As JSON has it: rows of name, labels, value or classes and sum."""
        numbers = [
            [name, list(labels), value]
            for name, by_labels in self.numbers.items()
            for labels, value in by_labels.items()
        ]
        times = [
            [name, list(labels), list(durations.classes), durations.sum_s]
            for name, by_labels in self.times.items()
            for labels, durations in by_labels.items()
        ]
        return {"numbers": numbers, "times": times}


class Durations:
    """How many were in each class, and all together."""

    __slots__ = ("classes", "sum_s")

    def __init__(self) -> None:
        self.classes = [0] * (len(CLASSES_S) + 1)
        self.sum_s = 0.0

    def note(self, seconds: float) -> None:
        """One more that took so long."""
        self.classes[bisect_left(CLASSES_S, seconds)] += 1
        self.sum_s += seconds


NAMES: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "logins": (
        ("protocol", "mechanism", "result"),
        "Logins, by what became of them, and how long from the attempt to the decision.",
    ),
    "commands": (("protocol", "command"), "Commands that this role carried out, and how long."),
    "messages": (("outcome",), "Recipients of messages by LMTP: delivered, relayed, refused."),
    "spans": (("result",), "Spans of traces: sent, or dropped as the collector was away or slow."),
    "store_commits": (("flushed",), "Commits of a store, and how long; flushed: to the disk."),
    "loop_lag": (
        (),
        "How late a process's event loop comes to what was due, asked four times a second.",
    ),
    "relays": (
        ("backend",),
        "Commands that a backend has answered through this frontend, those of one write as one.",
    ),
    "upstream_connects": (
        ("backend",),
        "Connections to a backend that were opened, and how long until there was one (with TLS).",
    ),
    "upstream_failures": (("backend", "kind"), "Connections or commands that a backend failed."),
}
"""What is counted: the names of the labels, and what it means."""

ALSO_COUNTED: Final = frozenset({"logins"})
"""Of what takes time: told as numbers, too, for rules and dashboards that know it as that."""
