"""Checked commands to flat instructions. Conditions are jumps, so that a run is always between two instructions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from murder.errors import Misuse
from murder.sieve.check.program import DO, GO, IF, RETURN, STOP, UNLESS, Instruction
from murder.sieve.check.spec import Call, Result, Word, where_enabled

if TYPE_CHECKING:
    from murder.sieve.run.machine import Machine


class Label:
    """A place in the program, known once it is `placed`."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = -1


class Emitter:
    """`branches`: what belongs to the `if` that is emitted."""

    __slots__ = ("_code", "branches", "loops")

    def __init__(self) -> None:
        self.branches: Sequence[Call] = ()
        self._code: list[tuple[int, Call | None, Label | None]] = []
        self.loops: list[tuple[str, Label, Call]] = []  # open ones: name, end, what leaves it

    def program(self, calls: Sequence[Call]) -> tuple[Instruction, ...]:
        """All instructions, with RETURN at the end; labels have become places."""
        self.commands(calls)
        self._code.append((RETURN, None, None))
        return tuple(
            (kind, call, -1 if label is None else label.at) for kind, call, label in self._code
        )

    def commands(self, calls: Sequence[Call]) -> None:
        """Each by its own way, an `if` with what belongs to it."""
        for number, call in enumerate(calls):
            if call.word.emit is None:
                self.do(call)
                continue
            if call.needs:
                self.do(_use_of(call))
            end = number + 1
            while end < len(calls) and calls[end].word.name in ("elsif", "else"):
                end += 1
            self.branches = calls[number + 1 : end]
            call.word.emit(self, call)

    def do(self, call: Call) -> None:
        self._code.append((DO, call, None))

    def go(self, to: Label) -> None:
        """Jump there, whatever was tested."""
        self._code.append((GO, None, to))

    def stop(self, call: Call) -> None:
        self._code.append((STOP, call, None))

    def leave(self, call: Call) -> None:
        """End this script, and go on behind its include."""
        self._code.append((RETURN, call, None))

    def place(self, label: Label) -> None:
        """The label stands here."""
        label.at = len(self._code)

    def unless(self, test: Call, to: Label) -> None:
        """Go on where the test holds, else to the label."""
        if test.word.emit is not None:
            self._condition(test, to, wanted=False)
        else:
            self._code.append((UNLESS, test, to))

    def when(self, test: Call, to: Label) -> None:
        """To the label where the test holds, else go on."""
        if test.word.emit is not None:
            self._condition(test, to, wanted=True)
        else:
            self._code.append((IF, test, to))

    def _condition(self, test: Call, to: Label, *, wanted: bool) -> None:
        """A test that is made of others: go to the label where its outcome is `wanted`."""
        jump, other = (self.when, self.unless) if wanted else (self.unless, self.when)
        match test.word.name:
            case "not":
                other(test.tests[0], to)
            case "true" | "false":
                if (test.word.name == "true") is wanted:
                    self.go(to)
            case "allof" | "anyof":
                if (test.word.name == "anyof") is wanted:
                    for inner in test.tests:
                        jump(inner, to)
                    return
                end = Label()
                for inner in test.tests[:-1]:
                    other(inner, end)
                jump(test.tests[-1], to)
                self.place(end)
            case _:
                raise Misuse(f"{test.word.name} is no condition")


def _nothing(machine: "Machine", call: Call) -> Result:
    return None


def _use_of(call: Call) -> Call:
    """To stand before a control structure: whether it may be used."""
    run = where_enabled(_nothing, call.needs)
    return Call(Word(call.word.name), call.at, call.line, call.column, run=run)
