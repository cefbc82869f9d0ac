"""Control structures and what tests are put together with: RFC 5228 §3, §5.2, §5.3, §5.6, §5.8, §5.10."""

from typing import TYPE_CHECKING, Final

from murder.sieve.check.checker import Wrong
from murder.sieve.check.emit import Label
from murder.sieve.check.spec import Argument, Call, Takes, Tests, Word

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.check.emit import Emitter
    from murder.sieve.grammar.tree import Node


def _check_require(checker: "Checker", call: Call, node: "Node") -> None:
    for name in call.arguments[0]:
        if not isinstance(name, str):
            raise Wrong(node.at, "require takes constant strings")
        try:
            checker.require(name)
        except ValueError as error:
            checker.source.report(node.at, f"require command: {error}")


def _emit_nothing(emitter: "Emitter", call: Call) -> None:
    pass


def _emit_if(emitter: "Emitter", call: Call) -> None:
    """`if` with the `elsif` and `else` behind it: the last may have no test."""
    end = Label()
    for branch in (call, *emitter.branches):
        behind = Label()
        if branch.tests:
            emitter.unless(branch.tests[0], behind)
        emitter.commands(branch.block)
        emitter.go(end)
        emitter.place(behind)
    emitter.place(end)


def _emit_stop(emitter: "Emitter", call: Call) -> None:
    emitter.stop(call)


WORDS: Final = (
    Word(
        "require",
        (Argument("capabilities", Takes.STRINGS),),
        check=_check_require,
        emit=_emit_nothing,
    ),
    Word("if", tests=Tests.ONE, block=True, emit=_emit_if),
    Word("elsif", tests=Tests.ONE, block=True, emit=_emit_nothing),
    Word("else", block=True, emit=_emit_nothing),
    Word("stop", emit=_emit_stop),
    Word("not", tests=Tests.ONE, is_test=True, emit=_emit_nothing),
    Word("allof", tests=Tests.LIST, is_test=True, emit=_emit_nothing),
    Word("anyof", tests=Tests.LIST, is_test=True, emit=_emit_nothing),
    Word("true", is_test=True, emit=_emit_nothing),
    Word("false", is_test=True, emit=_emit_nothing),
)
