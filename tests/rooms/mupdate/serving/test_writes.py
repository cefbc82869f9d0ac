"""What one connection changes, on its way to the ledger: what each change costs before the commit."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

from murder.config import MupdateConfig
from murder.roles.mupdate.commits.bounds import bounds_of
from murder.roles.mupdate.commits.proposal import Peer
from murder.roles.mupdate.serving.writes import Counters, Writes
from murder.wire.mupdate import Command, Verb
from tests.kit.steps import lines_run

TOGETHER = 16


class Queue:
    """Of a ledger, what writes ask of it before they are handed over."""

    is_shared = False

    def __init__(self) -> None:
        self.works: list[Callable[..., object]] = []

    def propose(self, works: Sequence[Callable[..., object]], *_: object) -> None:
        self.works += works


def test_each_change_that_comes_takes_few_lines() -> None:
    """Lines that Python runs for an ACTIVATE, those of what is generated included: with a frozen dataclass for the row, and
    a look at all bounds for each, these were 51."""
    queue = Queue()
    writes = Writes(
        cast(Any, SimpleNamespace(peer=Peer("be1", claimed=frozenset({"be1"})))),
        cast(Any, queue),
        bounds_of(MupdateConfig()),
        Counters(),
    )
    commands = [
        Command(b"A", Verb.ACTIVATE, (b"user.u%d" % at, b"be1!p", b"u%d\tlrs\t" % at))
        for at in range(TOGETHER)
    ]
    writes.add_all(commands[:1])  # what is looked up once
    lines = lines_run(writes.add_all, commands)
    writes.submit()
    assert len(queue.works) == TOGETHER + 1
    assert lines <= 44 * TOGETHER, lines / TOGETHER
