"""Variables: RFC 5229. The modifiers of the regex draft and of RFC 5435 stand here, too."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Argument, Call, Extension, Result, Tag, Takes, Word
from murder.sieve.check.templates import Reference
from murder.sieve.language.arguments import KEYS, MATCH_TAGS, match
from murder.sieve.match.comparators import fold_ascii
from murder.sieve.run.machine import OCTETS_A_STEP, Machine, cut

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node

_NAME: Final = re.compile(r"(?:([A-Za-z_][A-Za-z0-9_]*)\.)?([A-Za-z_][A-Za-z0-9_]*)\Z")
_WILDCARD: Final = re.compile(r"[\\*?]")
_LAST_CODES: Final = re.compile(r"%[C-F][0-9A-F](?:%[89AB][0-9A-F]){0,3}\Z")
_SPECIAL: Final = re.compile(r"[.*+?^$|()\[\]{}\\]")
UNRESERVED: Final = "-._~"  # RFC 3986 §2.3, beside letters and digits


def _upper(text: str) -> str:
    if text.isascii():
        return text.upper()
    return text.encode("utf-8", "surrogatepass").upper().decode("utf-8", "surrogatepass")


def _encode_url(text: str) -> str:
    return quote(text.encode("utf-8", "surrogateescape"), safe=UNRESERVED)


# modifier -> its precedence (RFC 5229 §4.1: highest first, one of each), and what it does
MODIFIERS: Final[Mapping[str, tuple[int, Callable[[str], str]]]] = {
    "lower": (40, fold_ascii),  # letters of ASCII, as Pigeonhole and Cyrus have it
    "upper": (40, _upper),
    "lowerfirst": (30, lambda text: fold_ascii(text[:1]) + text[1:]),
    "upperfirst": (30, lambda text: _upper(text[:1]) + text[1:]),
    "quotewildcard": (20, lambda text: _WILDCARD.sub(r"\\\g<0>", text)),
    "quoteregex": (20, lambda text: _SPECIAL.sub(r"\\\g<0>", text)),
    "encodeurl": (15, _encode_url),
    "length": (10, lambda text: str(len(text))),
}
QUOTED_A_STEP: Final = 2  # characters, where each may be quoted
_NEEDS: Final = {"quoteregex": "regex", "encodeurl": "enotify"}
MODIFIER_TAGS: Final = tuple(
    Tag(name, group=f"modifier {rank}", value=name, needs=_NEEDS.get(name, ""))
    for name, (rank, _) in MODIFIERS.items()
)


def check_name(checker: "Checker", value: object, node: "Node") -> Reference:
    """The variable of this name, to be written. Raises Wrong."""
    match_ = _NAME.match(value) if isinstance(value, str) else None
    if match_ is None:
        raise Wrong(
            node.at, f"invalid variable name '{str(value)[:60]}' for the {node.name} command"
        )
    namespace, name = (match_[1] or "").lower(), match_[2].lower()
    if namespace and not (namespace == "global" and "include" in checker.required):
        raise Wrong(
            node.at, f"unknown variable namespace '{namespace}', or one that is not writable"
        )
    if len(name) > checker.limits.name_octets:
        most = checker.limits.name_octets
        raise Wrong(node.at, f"variable name '{name[:20]}...' is too long (max {most})")
    if not namespace:
        checker.set_here.add(name)
    return Reference(name, namespace)


def modifiers_of(call: Call) -> tuple[str, ...]:
    """Those that are given, in the order in which they work."""
    given = [value for key, value in call.tags.items() if key.startswith("modifier ")]
    return tuple(sorted(given, key=lambda name: -MODIFIERS[name][0]))


def modified(machine: Machine, text: str, modifiers: tuple[str, ...]) -> str:
    """The modifiers in the order that RFC 5229 §4.1 gives them; each is charged for."""
    for name in modifiers:
        text = MODIFIERS[name][1](text)
        machine.charge(len(text) // (QUOTED_A_STEP if name in _CUTS else OCTETS_A_STEP))
        if name in _CUTS:
            text = _CUTS[name](text, machine.limits.value_octets)
    return text


def _not_cut_in_two(text: str, octets: int) -> str:
    """Cut where it would be cut, but not between a backslash and what it quotes."""
    short = cut(text, octets)
    if short != text and (len(short) - len(short.rstrip("\\"))) % 2:
        return short[:-1]
    return short


def _not_cut_encoded(text: str, octets: int) -> str:
    """Cut where it would be cut, but not within `%E2%82%AC`."""
    if len(text) <= octets:
        return text
    end = octets
    while end > 2 and "%" in text[end - 2 : end]:
        end -= 1
    kept = text[:end]
    match_ = _LAST_CODES.search(kept)
    if match_ is None:
        return kept
    try:
        bytes.fromhex(match_[0].replace("%", "")).decode()
    except UnicodeDecodeError:
        return kept[: match_.start()]
    return kept


_CUTS: Final[Mapping[str, Callable[[str, int], str]]] = {
    "quotewildcard": _not_cut_in_two,
    "quoteregex": _not_cut_in_two,
    "encodeurl": _not_cut_encoded,
}


def _check_set(checker: "Checker", call: Call, node: "Node") -> None:
    call.data = (check_name(checker, call.arguments[0], node), modifiers_of(call))


def _set(machine: Machine, call: Call) -> Result:
    reference, modifiers = call.data
    text = machine.text(call.arguments[1])
    if modifiers:
        text = modified(machine, cut(text, machine.limits.value_octets), modifiers)
    machine.set_variable(reference, text)
    return None


def _string(machine: Machine, call: Call) -> Result:
    """With `:count`, empty texts do not count (RFC 5229 §5)."""
    values = machine.texts(call.arguments[0])
    assert call.matching is not None
    if call.matching.kind.name == "count":
        values = tuple(value for value in values if value)
    return match(machine, call, values)


VARIABLES: Final = Extension(
    "variables",
    words=(
        Word(
            "set",
            (Argument("name", Takes.STRING), Argument("value", Takes.STRING)),
            MODIFIER_TAGS,
            check=_check_set,
            run=_set,
        ),
        Word(
            "string",
            (Argument("source", Takes.STRINGS), KEYS),
            MATCH_TAGS,
            is_test=True,
            run=_string,
        ),
    ),
)
