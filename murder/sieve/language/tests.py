"""The tests of RFC 5228 §5 that look at the message: address, exists, header, size; envelope (an extension of it)."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import (
    ADDRESS_PART,
    Argument,
    Call,
    Extension,
    Result,
    Suspended,
    Tag,
    Takes,
    Word,
)
from murder.sieve.language.arguments import KEYS, MATCH_TAGS, PART_TAGS, match
from murder.sieve.language.fields import (
    LARGE_STEPS,
    NAMES_A_STEP,
    aside,
    chosen,
    field_tags,
    fields_of,
    texts_of,
)
from murder.sieve.language.mailboxes import matched
from murder.sieve.language.mime import aspect_of, fields_of_parts
from murder.sieve.language.plain import ready_address, ready_exists, ready_header
from murder.sieve.run.addresses import parse_envelope_path, part_of
from murder.sieve.run.machine import Machine
from murder.sieve.run.message import Field

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node

# Fields with addresses (RFC 5322 §3.6, RFC 5321, RFC 2076 and what mail programs write), as Pigeonhole 2.4 knows them
ADDRESS_FIELDS: Final = frozenset(
    "from to cc bcc sender resent-from resent-to resent-cc resent-bcc resent-sender resent-reply-to"
    " reply-to return-path delivered-to errors-to envelope-to envelope-from x-original-to"
    " mail-followup-to mail-reply-to list-post disposition-notification-to return-receipt-to"
    " original-recipient final-recipient original-from x-delivered-to x-envelope-to"
    " x-envelope-from apparently-to followup-to for-approval for-handling for-comment"
    " abuse-reports-to read-receipt-to registered-mail-reply-requested-by return-receipt-requested"
    " x-admin x-beenthere x-complaints-to x-confirm-reading-to x-original-from"
    " x-report-abuse-to content-from".split()  # the last one: RFC 5703 §4.2
)
ENVELOPE_PARTS: Final = frozenset({"from", "to", "auth", "orcpt"})
FEW_FIELDS: Final = 20  # read at once
_HEADERS: Final = Argument("header names", Takes.STRINGS)


def _check_address(checker: "Checker", call: Call, node: "Node") -> None:
    for name in call.arguments[0]:
        if isinstance(name, str) and name.lower() not in ADDRESS_FIELDS:
            raise Wrong(
                node.at, f"specified header '{name[:60]}' is not allowed for the address test"
            )


def _of_parts(machine: Machine, call: Call) -> Suspended:
    """A test of the headers of parts (RFC 5703 §4)."""
    names = machine.texts(call.arguments[0])
    fields = yield from fields_of_parts(machine, call, names)
    if call.word.name == "exists":
        return {field.name for field in fields} >= {name.lower() for name in names}
    if call.word.name == "address":
        return (yield from _many_addresses(machine, call, fields))
    values: list[str] = []
    by_name: dict[str, list[Field]] = {name.lower(): [] for name in names}
    for header_field in fields:
        by_name[header_field.name].append(header_field)
    ordered = [header_field for of_name in by_name.values() for header_field in of_name]
    for field in chosen(ordered, call):
        machine.charge(field.steps)
        is_large = field.steps > LARGE_STEPS
        values += yield from aside(is_large, partial(aspect_of, machine, call, field))
        yield None
    return (yield from matched(machine, call, values))


def _address(machine: Machine, call: Call) -> Result:
    if "mime" in call.tags:
        return _of_parts(machine, call)
    fields = fields_of(machine, call, call.arguments[0])
    if len(fields) > FEW_FIELDS or _address_steps(fields) > LARGE_STEPS:
        return _many_addresses(machine, call, fields)
    machine.charge(_address_steps(fields))
    return match(machine, call, _addresses(machine, call, fields))


def _many_addresses(machine: Machine, call: Call, fields: Sequence[Field]) -> Suspended:
    """A test of many fields, or large ones, read some at a time."""
    values: list[str] = []
    for at in range(0, len(fields), FEW_FIELDS):
        some = fields[at : at + FEW_FIELDS]
        steps = _address_steps(some)
        machine.charge(steps)
        values += yield from aside(steps > LARGE_STEPS, partial(_addresses, machine, call, some))
        yield None
    return (yield from matched(machine, call, values))


def _address_steps(fields: Sequence[Field]) -> int:
    return sum(4 + len(field.raw_value) // 8 for field in fields)


def _many_texts(machine: Machine, call: Call, fields: Sequence[Field]) -> Suspended:
    """The same, of whole fields."""
    values: list[str] = []
    for at in range(0, len(fields), FEW_FIELDS):
        values += yield from texts_of(machine, fields[at : at + FEW_FIELDS])
        yield None
    return (yield from matched(machine, call, values))


def _addresses(machine: Machine, call: Call, fields: Sequence[Field]) -> list[str]:
    part = call.tags.get(ADDRESS_PART, "all")
    separator = machine.policy.separator
    values: list[str] = []
    for field in fields:
        addresses = [address for address in field.addresses if address.is_valid]
        if part == "all" and not addresses:
            values.append(field.text)  # RFC 5228 §2.7.4: what is no address has no parts
        for address in addresses:
            value = part_of(address, part, separator)
            if value is not None:
                values.append(value)
    return values


def _header(machine: Machine, call: Call) -> Result:
    if "mime" in call.tags:
        return _of_parts(machine, call)
    fields = fields_of(machine, call, call.arguments[0])
    steps = sum(field.steps for field in fields)
    if len(fields) > FEW_FIELDS or steps > LARGE_STEPS:
        return _many_texts(machine, call, fields)
    machine.charge(steps)
    return match(machine, call, [field.text for field in fields])


def _exists(machine: Machine, call: Call) -> Result:
    if "mime" in call.tags:
        return _of_parts(machine, call)
    names = machine.texts(call.arguments[0])
    machine.charge(len(names) // NAMES_A_STEP)
    return all(machine.message.named(name.lower()) for name in names)


def _size(machine: Machine, call: Call) -> Result:
    size, limit = machine.message.size, call.arguments[0]
    return bool(size > limit) if call.tags["size"] == "over" else bool(size < limit)


def _check_size(checker: "Checker", call: Call, node: "Node") -> None:
    if "size" not in call.tags:
        raise Wrong(node.at, "the size test requires the :under or :over tag to be specified")


def _check_envelope(checker: "Checker", call: Call, node: "Node") -> None:
    for name in call.arguments[0]:
        if not isinstance(name, str):
            continue
        if name.lower() not in ENVELOPE_PARTS:
            raise Wrong(node.at, f"specified envelope part '{name[:60]}' is not supported")
        if name.lower() == "auth" and ADDRESS_PART in call.tags:
            raise Wrong(
                node.at, "the envelope part 'auth' is not an address and has no address parts"
            )


def _envelope(machine: Machine, call: Call) -> Result:
    """A null sender is an empty text, whatever part of it is asked for (RFC 5228 §5.4)."""
    names = [name.lower() for name in machine.texts(call.arguments[0])]
    known = {name: _of_envelope(machine, call, name) for name in ENVELOPE_PARTS.intersection(names)}
    values = [value for name in names if (value := known.get(name)) is not None]
    return match(machine, call, values)


def _of_envelope(machine: Machine, call: Call, name: str) -> str | None:
    """What the test looks at of a part; None where there is none of it."""
    envelope = machine.envelope
    value = {
        "from": envelope.sender,
        "to": envelope.recipient,
        "orcpt": envelope.original or None,
        "auth": envelope.auth or None,
    }[name]
    if value is None or name == "auth" or not value:
        return value
    address = parse_envelope_path(value)
    part = call.tags.get(ADDRESS_PART, "all")
    return None if address is None else part_of(address, part, machine.policy.separator)


WORDS: Final = (
    Word(
        "address",
        (Argument("header list", Takes.STRINGS), KEYS),
        (*MATCH_TAGS, *PART_TAGS, *field_tags()),
        is_test=True,
        check=_check_address,
        run=_address,
        ready=ready_address,
    ),
    Word(
        "header",
        (_HEADERS, KEYS),
        (*MATCH_TAGS, *field_tags()),
        is_test=True,
        run=_header,
        ready=ready_header,
    ),
    Word("exists", (_HEADERS,), is_test=True, run=_exists, ready=ready_exists),
    Word(
        "size",
        (Argument("limit", Takes.NUMBER),),
        (Tag("over", group="size"), Tag("under", group="size")),
        is_test=True,
        check=_check_size,
        run=_size,
    ),
)

SUBADDRESS: Final = Extension(
    "subaddress",
    tags={ADDRESS_PART: tuple(Tag(name, group=ADDRESS_PART) for name in ("user", "detail"))},
)
ENVELOPE: Final = Extension(
    "envelope",
    words=(
        Word(
            "envelope",
            (Argument("envelope list", Takes.STRINGS), KEYS),
            (*MATCH_TAGS, *PART_TAGS),
            is_test=True,
            check=_check_envelope,
            run=_envelope,
        ),
    ),
)
