"""What is known when a run begins, and what it comes to, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from murder.sieve.actions import Action
from murder.sieve.problem import Problem
from murder.sieve.run.message import Message


@dataclass(frozen=True, slots=True)
class Envelope:
    """How the message came (RFC 5228 §5.4). `sender` is empty for a bounce, None where there is no envelope (imapsieve).
    `auth`: as whom its sender logged in (RFC 4954); `original`: the recipient that the sender wrote (ORCPT)."""

    sender: str | None = None
    recipient: str | None = None
    auth: str = ""
    original: str = ""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """`now` has the zone that is local. `user` owns the scripts, `host` is this server's name, for what a script sends.
    `environment`: items by their name (RFC 5183 §4.1, RFC 6785 §4); "name", "version" and "date" need not be in it.
    `flags`: what the message has already (imapsieve); None where it has none yet. `may_reply`: whether vacation and reject
    make sense (not in imapsieve)."""

    now: datetime
    user: str = ""
    host: str = "localhost"
    environment: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)  # vnd.dovecot.environment
    flags: tuple[str, ...] | None = None
    may_reply: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One command or test that was run, for a trace. `outcome` of a test: whether it held; of a command: what it did."""

    script: int
    include: str
    line: int
    word: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A run-time error (RFC 5228 §2.10.6). The message is kept, and nothing else is done."""

    script: int
    include: str
    problem: Problem

    def __str__(self) -> str:
        where = f"{self.include}: " if self.include else ""
        return f"{where}{self.problem}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be done, in order, never nothing. `messages`: versions of the message, 0 is the one that came; an action's
    `version` counts in it. Their `pieces` are for who copies them: each may be as large as the one that came, and there may
    be dozens. `original` has that one's fields. `key` is the same when the same message comes again. `notes`: texts
    for the log."""

    actions: tuple[Action, ...]
    messages: tuple[Message, ...] = field(repr=False)
    original: Message | None = field(default=None, repr=False)
    failure: Failure | None = None
    steps: int = 0
    trace: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Made each time: most messages need none."""
        return self.original.key() if self.original is not None else ""
