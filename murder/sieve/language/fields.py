"""Which header fields a test looks at: by name, and, with `index` (RFC 5260 §6), one of them.

Which header that is, of the message or of one of its parts, `mime` says (RFC 5703 §4).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Call, Extension, Suspended, Tag, Takes
from murder.sieve.check.templates import Text
from murder.sieve.match.kinds import COUNT
from murder.sieve.questions import LongWork
from murder.sieve.run.machine import Machine
from murder.sieve.run.message import Field

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node


NAMES_A_STEP: Final = 4  # and fields
LARGE_STEPS: Final = 1000  # of work that is done at once; and octets of a text
LARGE_OCTETS: Final = 16 * 1024
MAX_COUNTED: Final = 10_000  # fields, with those that are named twice


def field_tags() -> tuple[Tag, ...]:
    """Of words that look at fields."""
    return (Tag("index", Takes.NUMBER, needs="index"), Tag("last", needs="index"))


def check_index(call: Call, node: "Node") -> None:
    """Raises Wrong."""
    if "last" in call.tags and "index" not in call.tags:
        raise Wrong(
            node.at, f"the :last tag for the {node.name} {call.word.kind} needs :index, too"
        )
    if call.tags.get("index") == 0:
        raise Wrong(node.at, f"the :index tag for the {node.name} {call.word.kind} counts from 1")


def _check(checker: "Checker", call: Call, node: "Node") -> None:
    check_index(call, node)


INDEX: Final = Extension("index", checks=dict.fromkeys(("header", "address", "date"), _check))


def fields_of(machine: Machine, call: Call, names: tuple[Text, ...]) -> Sequence[Field]:
    """In the order of the names, and in the message's; `:index` counts in this order, as Pigeonhole has it. One that is
    named twice counts twice, where it is counted."""
    fields: list[Field] = []
    texts = machine.texts(names)
    if len(texts) == 1:
        fields += machine.message.named(texts[0].lower())
    else:
        counts = "index" in call.tags or (call.matching is not None and call.matching.kind is COUNT)
        seen: set[str] = set()
        for name in map(str.lower, texts):
            if name not in seen or (counts and len(fields) < MAX_COUNTED):
                fields += machine.message.named(name)
            seen.add(name)
    machine.charge((len(texts) + len(fields)) // NAMES_A_STEP)
    return chosen(fields, call)


def aside(is_large: bool, work: Callable[[], Any]) -> Suspended:
    """What is `work`'s, which is done in a thread where it `is_large`: others have their turn meanwhile."""
    if is_large:
        return (yield LongWork(work))
    return work()


def texts_of(machine: Machine, fields: Sequence[Field]) -> Suspended:
    """What they say, decoded."""
    steps = sum(field.steps for field in fields)
    machine.charge(steps)
    return (yield from aside(steps > LARGE_STEPS, lambda: [field.text for field in fields]))


def chosen(fields: Sequence[Field], call: Call) -> Sequence[Field]:
    """With `:index`, the one that is counted from the first, or with `:last` from the last."""
    index = call.tags.get("index")
    if index is None:
        return fields
    if not 0 < index <= len(fields):
        return ()
    return (fields[-index] if "last" in call.tags else fields[index - 1],)
