"""External lists (RFC 6134), what a run knows of where it is (RFC 5183), and which extensions there are (RFC 5463)."""

from typing import TYPE_CHECKING, Final

from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Argument, Call, Extension, Result, Suspended, Tag, Takes, Word
from murder.sieve.language.arguments import DEFAULT_BOOK, KEYS, MATCH_TAGS, list_name, match
from murder.sieve.match.kinds import LIST
from murder.sieve.problem import RunProblem
from murder.sieve.questions import ListIsKnown
from murder.sieve.run.machine import Machine

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node

NAME: Final = "murder"
# RFC 5463 §4: they change what strings mean that stand before
_CHANGES_TEXTS: Final = frozenset({"variables", "encoded-character"})
VERSION: Final = "1.0"  # of this interpreter, for `environment "version"`


def _valid_ext_list(machine: Machine, call: Call) -> Suspended:
    for name in map(list_name, machine.texts(call.arguments[0])):
        if not (yield ListIsKnown(name)) and name != DEFAULT_BOOK:
            return False
    return True


def _environment(machine: Machine, call: Call) -> Result:
    """What is not known does not match anything (RFC 5183 §4)."""
    name = machine.text(call.arguments[0]).lower()
    value = machine.circumstances.environment.get(name)
    if value is None:
        value = {"name": NAME, "version": VERSION, "location": "MDA", "phase": "during"}.get(name)
    if value is None and name == "host":
        value = machine.circumstances.host
    return False if value is None else match(machine, call, [value])


def _check_ihave(checker: "Checker", call: Call, node: "Node") -> None:
    """Known before the run: what is there can be used from here on, as if it were required."""
    names = call.arguments[0]
    if not all(isinstance(name, str) for name in names):
        raise Wrong(node.at, "ihave takes constant strings")
    call.constant = all(
        name in checker.required or (checker.knows(name) and name not in _CHANGES_TEXTS)
        for name in names
    )
    if not call.constant:
        return
    for name in names:
        try:
            checker.require(name, by_ihave=True)
        except ValueError as error:
            checker.source.report(node.at, f"ihave test: {error}")
    call.data = checker.brought_by(names)


def _ihave(machine: Machine, call: Call) -> Result:
    if call.constant:
        machine.frame.enabled.update(call.data)
    return bool(call.constant)


def _error(machine: Machine, call: Call) -> Result:
    raise RunProblem(machine.text(call.arguments[0]))


EXTLISTS: Final = Extension(
    "extlists",
    words=(
        Word(
            "valid_ext_list",
            (Argument("list names", Takes.STRINGS),),
            is_test=True,
            run=_valid_ext_list,
        ),
    ),
    tags={"redirect": (Tag("list"),)},
    matches=(LIST,),
)
ENVIRONMENT: Final = Extension(
    "environment",
    words=(
        Word(
            "environment",
            (Argument("name", Takes.STRING), KEYS),
            MATCH_TAGS,
            is_test=True,
            run=_environment,
        ),
    ),
)
IHAVE: Final = Extension(
    "ihave",
    words=(
        Word(
            "ihave",
            (Argument("capabilities", Takes.STRINGS),),
            is_test=True,
            check=_check_ihave,
            run=_ihave,
        ),
        Word("error", (Argument("message", Takes.STRING),), run=_error),
    ),
)
