"""Tags that many words have: match types, comparators, address parts (RFC 5228 §2.7); what their values say."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from murder.sieve.check.spec import (
    ADDRESS_PART,
    COMPARATOR,
    MATCHING,
    Argument,
    Call,
    Result,
    Suspended,
    Tag,
    Takes,
)
from murder.sieve.check.templates import Text
from murder.sieve.match.kinds import CONTAINS, IS, MATCHES, Over
from murder.sieve.match.matching import LONG, Matching
from murder.sieve.problem import RunProblem
from murder.sieve.questions import InList, LongWork
from murder.sieve.run.machine import Machine

_URN: Final = "urn:ietf:params:sieve:"
_BOOK: Final = "addrbook:"
DEFAULT_BOOK: Final = ":addrbook:default"  # is always there, if with nobody in it
PATTERN_STEPS: Final = 500  # to compile a regular expression
PREPARATION_STEPS: Final = 8  # to make a key ready that is known only in the run
KEYS_A_STEP: Final = 4  # that are only compared
CHARACTERS_A_STEP: Final = 256  # compared

KEYS: Final = Argument("key list", Takes.STRINGS)
MATCH_TAGS: Final = (
    Tag(COMPARATOR[1:], Takes.STRING, COMPARATOR),
    *(Tag(kind.name, group=MATCHING, value=kind) for kind in (IS, CONTAINS, MATCHES)),
)
PART_TAGS: Final = tuple(Tag(name, group=ADDRESS_PART) for name in ("localpart", "domain", "all"))


def match(machine: Machine, call: Call, values: Sequence[str]) -> Result:
    """Whether one of the values has one of the word's keys, which are its last argument."""
    matching = call.matching
    assert matching is not None
    keys = call.arguments[-1]
    keys = keys if isinstance(keys, tuple) else (keys,)
    return match_keys(machine, matching, keys, values)


def match_keys(
    machine: Machine, matching: Matching, keys: tuple[Text, ...], values: Sequence[str]
) -> Result:
    """Of a test's keys and the values it looks at, by its match type."""
    if matching.kind.over is Over.LISTS:
        return _match_lists(machine, machine.texts(keys), values)
    if matching.kind.over is Over.COUNT:
        values = [str(len(values))]
    if matching.tests is None:
        if len(keys) > 1 and matching.kind is not IS:
            return _match_many(machine, matching, machine.texts(keys), values)
        prepared = _prepared(machine, matching, machine.texts(keys))
        if prepared is None:
            return False
        matching = prepared
    return _match_prepared(machine, matching, values)


def _prepared(machine: Machine, matching: Matching, keys: Sequence[str]) -> Matching | None:
    """With keys that are known only now; None, and a note, where one is none."""
    machine.charge(len(keys) // KEYS_A_STEP + PREPARATION_STEPS)
    try:
        prepared = matching.prepared(keys)
    except ValueError as error:
        kind = matching.kind.name
        machine.note(f"line {machine.line}: invalid key for the :{kind} match type: {error}")
        return None
    machine.charge(prepared.patterns * PATTERN_STEPS + prepared.weight // 8)
    return prepared


def _match_many(
    machine: Machine, matching: Matching, keys: Sequence[str], values: Sequence[str]
) -> Suspended:
    """Keys are made ready one by one: each may be an expression to be compiled."""
    each: list[Matching] = []
    patterns = 0
    for key in keys:
        prepared = _prepared(machine, matching, (key,))
        if prepared is None:
            return False
        each.append(prepared)
        patterns += prepared.patterns
        if patterns > machine.limits.patterns:
            machine.note(f"line {machine.line}: more than {machine.limits.patterns} patterns")
            return False
        yield None
    result = _match_prepared(machine, matching.together(each), values)
    if isinstance(result, bool) or result is None:
        return result
    return (yield from result)


def _match_prepared(machine: Machine, matching: Matching, values: Sequence[str]) -> Result:
    work = matching.work(values)
    machine.spent += work // CHARACTERS_A_STEP
    if work > LONG:
        return _match_long(machine, matching, values)
    result = matching.first(values)
    if isinstance(result, list):
        machine.set_matched(result)
        return True
    return result


def _match_long(machine: Machine, matching: Matching, values: Sequence[str]) -> Suspended:
    machine.charge(0)
    result = yield LongWork(lambda: matching.first(values))
    if isinstance(result, list):
        machine.set_matched(result)
        return True
    return bool(result)


def list_name(name: str) -> str:
    """As it is compared with others (RFC 6134 §2.5, §2.6): `:addrbook:default` is short for
    `urn:ietf:params:sieve:addrbook:default`, percent-encoded or in other case. Other address books' case counts."""
    rest = ""
    if name.startswith(":"):
        rest = name[1:]
    elif name[: len(_URN)].lower() == _URN:
        rest = name[len(_URN) :]
    if rest[: len(_BOOK)].lower() != _BOOK:
        return f":{rest}" if rest else name
    book = unquote(rest[len(_BOOK) :])
    return DEFAULT_BOOK if book.lower() == "default" else f":{_BOOK}{book}"


def no_list(name: str) -> RunProblem:
    """RFC 6134 §2.2, §2.3: what cannot be looked at, now or ever, is an error of the run."""
    return RunProblem(f"there is no list '{name[:120]}' here")


def _match_lists(machine: Machine, names: Sequence[str], values: Sequence[str]) -> Suspended:
    """RFC 6134 §2.2: what in the list is this value is a match value."""
    for value in values:
        for name in map(list_name, names):
            member = yield InList(name, value)
            if member is None and name != DEFAULT_BOOK:
                raise no_list(name)
            if member:
                machine.set_matched([member])
                return True
    return False
