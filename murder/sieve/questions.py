"""What a script asks of the world, as values: a run stops at one and goes on with its answer.

Nothing here knows how it is answered. `World` is for whoever can answer at once (a test, a thread); who awaits answers
matches on the question itself. Every answer is asked for once in a run: the same question has the same answer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from murder.sieve.problem import RunProblem


@dataclass(frozen=True, slots=True)
class MailboxExists:
    """Whether the mailbox of this name is there and the script's owner may put mail into it (RFC 5490 §3.1). -> bool"""

    mailbox: str


@dataclass(frozen=True, slots=True)
class MailboxIdExists:
    """As MailboxExists, of a MAILBOXID (RFC 9042 §4). -> bool"""

    mailbox_id: str


@dataclass(frozen=True, slots=True)
class SpecialUseExists:
    """Whether `mailbox` has all these special uses (`\\\\Junk`); with None, whether for each a mailbox has it (RFC 8579
    §3). -> bool"""

    mailbox: str | None
    uses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """An annotation of a mailbox, or of the server where it is None (RFC 5490 §3.2, §4). -> str | None"""

    mailbox: str | None
    name: str


@dataclass(frozen=True, slots=True)
class InList:
    """A value, as it stands in an external list (RFC 6134): "" where it does not, None where there is no such list.
    -> str | None"""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ListIsKnown:
    """Whether there is an external list of this name (RFC 6134 §2.7). -> bool"""

    name: str


@dataclass(frozen=True, slots=True)
class ListMembers:
    """The addresses in an external list (RFC 6134 §2.3), None where there is no such list. -> tuple[str, ...] | None"""

    name: str


@dataclass(frozen=True, slots=True)
class ScriptNamed:
    """The octets of a script that another one includes (RFC 6609), None where there is none. `is_global`: the site's,
    else the owner's. -> bytes | None"""

    name: str
    is_global: bool


@dataclass(frozen=True, slots=True)
class SeenBefore:
    """Whether `Remember` of this handle was noted within this time (RFC 7352). `renew`: if it was, note now that it came
    again (`:last`). -> bool"""

    handle: str
    period_s: int
    renew: bool


@dataclass(frozen=True, slots=True)
class OwnAddresses:
    """All addresses at which the script's owner gets mail, the first is what they send from. -> tuple[str, ...]"""


@dataclass(frozen=True, slots=True, eq=False)
class RunProgram:
    """What a program of the site says to these octets (vnd.dovecot.filter, vnd.dovecot.execute: `kind`). Each time anew.
    -> bytes | memoryview; None, where it is not there or failed"""

    kind: str
    program: str
    arguments: tuple[str, ...]
    octets: bytes | memoryview = field(repr=False)
    script: int = 0  # which of those that run for the message asks, from 0


@dataclass(frozen=True, slots=True, eq=False)
class LongWork:
    """Not of the world: work that holds its caller for longer than a turn of an event loop, and is bounded. A server runs
    `compute` in a thread; it touches nothing but its own values. -> what it returns, or a RunProblem in its place"""

    work: Callable[[], Any]

    def compute(self) -> Any:
        """What goes wrong in it is the script's, and no answer of the server's."""
        try:
            return self.work()
        except RunProblem as problem:
            return problem


@dataclass(frozen=True, slots=True, eq=False)
class LargeWork(LongWork):
    """The same, of which something large is made: a version of the message, that is there until all is done. A server has
    few runs make such at a time."""


Question = (
    MailboxExists
    | MailboxIdExists
    | SpecialUseExists
    | Metadata
    | InList
    | ListIsKnown
    | ListMembers
    | ScriptNamed
    | SeenBefore
    | OwnAddresses
    | LongWork
    | RunProgram
)
Answer = Any  # of the type that the question tells


class World(Protocol):
    """Who answers questions at once."""

    def answer(self, question: Question) -> Answer:
        """The answer, of the type that the question's docstring tells."""
        ...
