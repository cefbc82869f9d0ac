"""Whether what clients saw of one name can have happened in one order: a checker of linearizability (Wing and Gong).

An operation took effect at one moment between its invocation and its answer. One whose answer was lost did so at any moment
since, or never.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

State = str | None  # the server at which the name is active


class Verb(Enum):
    ACTIVATE = "activate"
    DELETE = "delete"
    READ = "read"


class Outcome(Enum):
    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Operation:
    """`server` is the asking one; of a READ that came through, the one it was told of."""

    verb: Verb
    name: str
    server: State
    outcome: Outcome
    invoked: float
    answered: float

    @property
    def end(self) -> float:
        return math.inf if self.outcome is Outcome.UNKNOWN else self.answered


def after(state: State, operation: Operation) -> tuple[bool, State]:
    """Whether it can have been answered so in this state, and the state behind it."""
    own = operation.server
    match operation.verb:
        case Verb.READ:
            return state == own or operation.outcome is Outcome.UNKNOWN, state
        case Verb.ACTIVATE:
            may, then = state in (None, own), own
        case Verb.DELETE:
            may, then = state == own, None
    if operation.outcome is Outcome.UNKNOWN:
        return True, then if may else state
    return may is (operation.outcome is Outcome.OK), then if may else state


def is_linear(operations: Sequence[Operation], state: State = None) -> bool:
    """Whether there is such an order, of all that were answered and of any of the others."""
    reads = {Verb.READ}
    told = [
        one for one in operations if one.outcome is not Outcome.UNKNOWN or one.verb not in reads
    ]
    order = sorted(told, key=lambda one: one.invoked)
    must = sum(1 << i for i, one in enumerate(order) if one.end < math.inf)
    seen: set[tuple[int, State]] = set()
    open_ = [(0, state)]
    while open_:
        done, found = open_.pop()
        if done & must == must:
            return True
        if (done, found) in seen:
            continue
        seen.add((done, found))
        left = [i for i in range(len(order)) if not done >> i & 1]
        soonest = min(order[i].end for i in left)
        for i in left:
            if order[i].invoked > soonest:
                break
            possible, then = after(found, order[i])
            if possible:
                open_.append((done | 1 << i, then))
    return False
