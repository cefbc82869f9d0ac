"""A script as it is written: commands with their arguments, tests and blocks, each with its offset in the text."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tag:
    """`:name`, in lower case."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Number:
    """`at` is its place in the text."""

    value: int
    at: int


@dataclass(frozen=True, slots=True)
class String:
    """Quoted or multi-line, its escapes gone; `at` is its place in the text."""

    value: str
    at: int


@dataclass(frozen=True, slots=True)
class StringList:
    """In brackets."""

    strings: tuple[String, ...]
    at: int


Argument = Tag | Number | String | StringList


@dataclass(slots=True)
class Node:
    """A command or a test. `tests_listed`: they were in parentheses. `block` is None where there are no braces."""

    name: str  # in lower case
    at: int
    arguments: list[Argument] = field(default_factory=list)
    tests: "list[Node]" = field(default_factory=list)
    tests_listed: bool = False
    block: "list[Node] | None" = None


def describe(argument: Argument) -> str:
    """What kind of thing it is, for messages."""
    match argument:
        case Tag():
            return "a tag"
        case Number():
            return "a number"
        case String():
            return "a string"
        case StringList():
            return "a string list"
