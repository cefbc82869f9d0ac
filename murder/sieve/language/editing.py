"""Header fields added and taken out: RFC 5293."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import (
    Argument,
    Call,
    Extension,
    Result,
    Suspended,
    Tag,
    Takes,
    Word,
)
from murder.sieve.check.templates import Text
from murder.sieve.language.arguments import MATCH_TAGS
from murder.sieve.language.fields import check_index, texts_of
from murder.sieve.language.mailboxes import matched
from murder.sieve.problem import RunProblem
from murder.sieve.run.compose import format_field
from murder.sieve.run.machine import Machine
from murder.sieve.run.message import Field

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node

NEVER_PROTECTED: Final = frozenset({"subject"})  # RFC 5293 §6
_NAME: Final = re.compile(r"[!-9;-~]{1,100}\Z")


def check_field_name(value: Text, node: "Node") -> None:
    """Raises Wrong."""
    if isinstance(value, str) and not _NAME.match(value):
        raise Wrong(node.at, f"{node.name} command: specified field name '{value[:80]}' is invalid")


def has_field_value(text: str) -> bool:
    """Whether it can stand in a header: whatever it is, but NUL."""
    return "\0" not in text


def _check_add(checker: "Checker", call: Call, node: "Node") -> None:
    name, value = call.arguments
    check_field_name(name, node)
    if isinstance(value, str) and not has_field_value(value):
        raise Wrong(node.at, f"addheader command: specified value '{value[:80]!r}' is invalid")
    if isinstance(value, str) and len(value.encode()) > checker.limits.header_octets:
        raise Wrong(node.at, "addheader command: specified header value is too large")


def _add(machine: Machine, call: Call) -> Result:
    name, value = machine.text(call.arguments[0]), machine.text(call.arguments[1])
    if not _NAME.match(name):
        raise RunProblem(f"addheader action: specified field name '{name[:80]}' is invalid")
    if not has_field_value(value):
        raise RunProblem("addheader action: specified field value is invalid")
    if len(value.encode("utf-8", "surrogateescape")) > machine.limits.header_octets:
        raise RunProblem(f"addheader action: specified header value for '{name}' is too large")
    if name.lower() in machine.policy.not_added_fields - NEVER_PROTECTED:
        return None
    machine.check_editable()
    message = machine.message
    whole = format_field(name, value, message.line_end)
    field = Field(name.lower(), whole, whole.partition(b":")[2])
    fields = [*message.fields, field] if "last" in call.tags else [field, *message.fields]
    machine.made(len(whole))
    machine.edit(message.edited(fields))
    return None


def _check_delete(checker: "Checker", call: Call, node: "Node") -> None:
    check_field_name(call.arguments[0], node)
    check_index(call, node)


def _delete(machine: Machine, call: Call) -> Suspended:
    """RFC 5293 §5: `:index` counts before values are compared."""
    name = machine.text(call.arguments[0])
    if not _NAME.match(name):
        raise RunProblem(f"deleteheader action: specified field name '{name[:80]}' is invalid")
    name = name.lower()
    if name in machine.policy.protected_fields - NEVER_PROTECTED:
        machine.note(f"the field {name} is protected and was not deleted")
        return
    machine.check_editable()
    gone = yield from _chosen(machine, call, machine.message.named(name))
    if gone:
        kept = [field for field in machine.message.fields if id(field) not in gone]
        machine.edit(machine.message.edited(kept))


def _chosen(machine: Machine, call: Call, fields: Sequence[Field]) -> Suspended:
    index = call.tags.get("index")
    if index is not None:
        if not 0 < index <= len(fields):
            return set()
        fields = (fields[-index] if "last" in call.tags else fields[index - 1],)
    if call.arguments[1] is None:
        return {id(field) for field in fields}
    gone = set()
    for field in fields:
        text = yield from texts_of(machine, (field,))
        if (yield from matched(machine, call, text)):
            gone.add(id(field))
    return gone


_FIELD: Final = Argument("field-name", Takes.STRING)

EDITHEADER: Final = Extension(
    "editheader",
    words=(
        Word(
            "addheader",
            (_FIELD, Argument("value", Takes.STRING)),
            (Tag("last"),),
            check=_check_add,
            run=_add,
        ),
        Word(
            "deleteheader",
            (_FIELD, Argument("value patterns", Takes.STRINGS, optional=True)),
            (*MATCH_TAGS, Tag("index", Takes.NUMBER), Tag("last")),
            check=_check_delete,
            run=_delete,
        ),
    ),
)
