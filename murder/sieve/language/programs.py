"""A site's programs: vnd.dovecot.pipe, filter, execute, as Pigeonhole has them. They are offered only where a site has some.

A program is named, never a path: where it is and who may run it, says who runs it.
"""

from typing import TYPE_CHECKING, Final

from murder.sieve.actions import Pipe
from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Argument, Call, Extension, Result, Suspended, Tag, Takes, Word
from murder.sieve.language.include import is_script_name
from murder.sieve.language.variables import check_name
from murder.sieve.problem import RunProblem
from murder.sieve.questions import RunProgram
from murder.sieve.run.machine import Machine
from murder.sieve.run.message import Message, Octets

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node

MAX_NAME: Final = 128  # characters of a program's name
MAX_ARGUMENTS: Final = 32
MAX_ARGUMENT: Final = 1024  # octets of one
MAX_RUNS: Final = 8  # of programs that a script waits for


def problem_of_program(name: str) -> str | None:
    """None where it may be called: no path, no option."""
    if len(name) > MAX_NAME or not is_script_name(name) or name.startswith("-"):
        return f"invalid program name '{name[:80]}'"
    return None


def problem_of_argument(text: str) -> str | None:
    """None where it may be handed on."""
    if any(letter in "\r\n\0" for letter in text):
        return "an argument of a program has a line end"
    if len(text.encode("utf-8", "surrogateescape")) > MAX_ARGUMENT:
        return "an argument of a program is too long"
    return None


def _check(checker: "Checker", call: Call, node: "Node") -> None:
    name, arguments = call.arguments
    if isinstance(name, str) and (problem := problem_of_program(name)) is not None:
        raise Wrong(node.at, f"{node.name} {call.word.kind}: {problem}")
    if len(arguments or ()) > MAX_ARGUMENTS:
        raise Wrong(node.at, f"{node.name} {call.word.kind}: too many arguments for a program")
    for text in arguments or ():
        if isinstance(text, str) and (problem := problem_of_argument(text)) is not None:
            raise Wrong(node.at, f"{node.name} {call.word.kind}: {problem}")
    if "output" in call.tags:
        if "variables" not in checker.required:
            raise Wrong(node.at, "the :output tag requires that variables extension is active")
        call.data = check_name(checker, call.tags["output"], node)


def _program(machine: Machine, call: Call) -> tuple[str, tuple[str, ...]]:
    """Name and arguments. Raises RunProblem."""
    name = machine.text(call.arguments[0])
    if (problem := problem_of_program(name)) is not None:
        raise RunProblem(problem)
    arguments = machine.texts(call.arguments[1] or ())
    for text in arguments:
        if (problem := problem_of_argument(text)) is not None:
            raise RunProblem(problem)
    return name, arguments


def _pipe(machine: Machine, call: Call) -> Result:
    name, arguments = _program(machine, call)
    action = Pipe(name, arguments, "try" in call.tags, machine.version(), machine.place(call))
    machine.add(action, cancels_keep="copy" not in call.tags)
    return None


def _ask(machine: Machine, call: Call, octets: Octets) -> Suspended:
    """What the program says, None where it failed: for a command that is an error."""
    count = machine.state["programs"] = machine.state.get("programs", 0) + 1
    if count > MAX_RUNS:
        raise RunProblem(f"a script runs {MAX_RUNS} programs at most")
    name, arguments = _program(machine, call)
    machine.looked_at(len(octets))
    place = machine.place(call)
    output = yield RunProgram(call.word.name, name, arguments, octets, place.script)
    if output is None and not call.word.is_test:
        raise RunProblem(f"{call.word.name} command: the program '{name}' failed")
    return output


def _filter(machine: Machine, call: Call) -> Suspended:
    """Its output is the message, from here on."""
    octets = yield from _ask(machine, call, machine.message.octets)
    if octets is None:
        return False
    message = Message(octets)
    yield from machine.reading(message)
    machine.edit(message)
    return True


def _execute(machine: Machine, call: Call) -> Suspended:
    octets: Octets = b""
    if call.tags.get("source") == "pipe":
        octets = machine.message.octets
    elif "input" in call.tags:
        octets = machine.text(call.tags["input"]).encode("utf-8", "surrogateescape")
    said = yield from _ask(machine, call, octets)
    if said is None:
        return False
    if call.data is not None:
        most = machine.limits.value_octets
        machine.set_variable(call.data, bytes(said[:most]).decode("utf-8", "surrogateescape"))
    return True


_NAME: Final = Argument("program-name", Takes.STRING)


def _words(name: str, run: object, tags: tuple[Tag, ...] = ()) -> tuple[Word, Word]:
    """As a command and as a test."""
    places = (_NAME, Argument("arguments", Takes.STRINGS, optional=True))
    return (
        Word(name, places, tags, check=_check, run=run),  # type: ignore[arg-type] # a Run
        Word(name, places, tags, is_test=True, check=_check, run=run),  # type: ignore[arg-type] # a Run
    )


_EXECUTE_TAGS: Final = (
    Tag("input", Takes.STRING, group="source", value="input"),
    Tag("pipe", group="source"),
    Tag("output", Takes.STRING),
)
PIPE: Final = Extension(
    "vnd.dovecot.pipe", words=_words("pipe", _pipe, (Tag("copy", needs="copy"), Tag("try")))[:1]
)
FILTER: Final = Extension("vnd.dovecot.filter", words=_words("filter", _filter))
EXECUTE: Final = Extension("vnd.dovecot.execute", words=_words("execute", _execute, _EXECUTE_TAGS))
