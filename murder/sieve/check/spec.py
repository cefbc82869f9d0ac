"""What commands, tests and extensions are, as values: the rows of the tables that scripts are checked against.

An extension is one `Extension`: words it brings, tags it adds to words of others, match types, comparators.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from murder.sieve.questions import Answer, Question

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.check.emit import Emitter
    from murder.sieve.grammar.tree import Node
    from murder.sieve.match.kinds import Kind as MatchKind
    from murder.sieve.match.matching import Matching
    from murder.sieve.run.machine import Machine

Suspended = Generator[Question | None, Answer, Any]  # yields a question, or None to hand back
Result = bool | None | Suspended


class Takes(Enum):
    """What an argument is."""

    STRING = "a string"
    STRINGS = "a string list"
    NUMBER = "a number"


class Tests(Enum):
    """Which tests a word has behind its arguments."""

    NONE = 0
    ONE = 1
    LIST = 2


@dataclass(frozen=True, slots=True)
class Argument:
    """A positional one. `name` is told where it is wrong."""

    name: str
    takes: Takes
    optional: bool = False  # left out in front, where there are fewer arguments than places


@dataclass(slots=True)
class Call:
    """A command or test of a script, checked. Values: `str`, `int`, a Template, or a tuple of the first and last.

    `data` is what the word's own check made of it, for its run; `needs` the extensions that an `ihave` has to bring before
    it runs."""

    word: "Word"
    at: int
    line: int
    column: int
    arguments: tuple[Any, ...] = ()
    tags: dict[str, Any] = field(default_factory=dict)
    tests: "tuple[Call, ...]" = ()
    block: "tuple[Call, ...]" = ()
    matching: "Matching | None" = None
    data: Any = None
    constant: bool | None = None  # of a test whose outcome is known
    run: "Run | None" = None  # the word's, or one that was made ready for this call
    needs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.run = self.run or self.word.run


def _no_check(checker: "Checker", call: Call, node: "Node") -> None:
    pass


@dataclass(frozen=True, slots=True)
class Tag:
    """`:name`, with what it takes behind it, if anything. Of one `group` a word has one. `check` gets the values that were
    given and reports what is wrong with them. `needs`: only where this was required, too."""

    name: str
    takes: Takes | None = None
    group: str = ""
    value: object = None  # what stands in `Call.tags[group]`, where it takes nothing; else the name
    needs: str = ""


Check = Callable[["Checker", Call, "Node"], None]
Run = Callable[["Machine", Call], Result]
Emit = Callable[["Emitter", Call], None]
Ready = Callable[[Call], Run | None]


@dataclass(frozen=True, slots=True)
class Word:
    """A command or a test. `run` of a test says whether it holds; `emit` stands in its place for control structures.
    `ready` may make a quicker `run` for a call that has been checked."""

    name: str
    arguments: tuple[Argument, ...] = ()
    tags: tuple[Tag, ...] = ()
    tests: Tests = Tests.NONE
    block: bool = False
    is_test: bool = False
    check: Check = _no_check
    run: Run | None = None
    emit: Emit | None = None
    ready: Ready | None = None

    @property
    def kind(self) -> str:
        return "test" if self.is_test else "command"


@dataclass(frozen=True, slots=True)
class Extension:
    """What a `require` brings. `tags`: names of words to the tags they get, where they are. `implies` is required with it,
    `excludes` cannot be."""

    name: str
    words: tuple[Word, ...] = ()
    tags: Mapping[str, tuple[Tag, ...]] = field(default_factory=dict)
    checks: Mapping[str, Check] = field(default_factory=dict)  # more to check of others' words
    matches: "tuple[MatchKind, ...]" = ()
    implies: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # to be required, too, by the script itself


# The words that have match types, comparators and address parts: extensions add to these.
MATCHING: Final = ":match"
COMPARATOR: Final = ":comparator"
ADDRESS_PART: Final = ":part"


def where_enabled(run: Run, needs: frozenset[str]) -> Run:
    """The same, but an error of the run where an `ihave` of these has not been evaluated yet (RFC 5463 §4)."""

    def run_enabled(machine: "Machine", call: Call) -> Result:
        machine.check_enabled(needs)
        return run(machine, call)

    return run_enabled
