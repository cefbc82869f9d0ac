"""Tests of header fields as most scripts have them, made ready when the script is compiled: names and keys that depend on
no variable, letters of ASCII in whatever case, no index, no parts of the message.

They say what `tests` says, in a tenth of the time. Where a message has more than is looked at in a moment, `tests` does it.
"""

from collections.abc import Sequence
from typing import Final

from murder.sieve.check.spec import ADDRESS_PART, COMPARATOR, MATCHING, Call, Result, Run
from murder.sieve.match.kinds import IS, Over
from murder.sieve.match.matching import Matching
from murder.sieve.run.machine import Machine
from murder.sieve.run.message import Message

MAX_NAMES: Final = 32
MAX_FIELDS: Final = 8
MAX_WEIGHT: Final = 32  # of the keys: with as many fields as large as they may be, a millisecond
MAX_OCTETS: Final = 1000  # of a field
STEPS: Final = 4  # of a key for a field: see `arguments.CHARACTERS_A_STEP`
_PARTS: Final = frozenset({"all", "localpart", "domain"})  # what no policy has a say in

Pair = tuple[str, str]  # a value as it is compared, and as it is
Pairs = Sequence[Pair] | None  # None: more than is looked at here


def ready_header(call: Call) -> Run | None:
    """Of a `header` test; None where it is not of this kind."""
    names = _names_of(call, {MATCHING, COMPARATOR})
    return _ready(call, Values(names)) if names else None


def ready_address(call: Call) -> Run | None:
    """Of an `address` test; None where it is not of this kind."""
    names = _names_of(call, {MATCHING, COMPARATOR, ADDRESS_PART})
    part = call.tags.get(ADDRESS_PART, "all")
    return _ready(call, Values(names, part)) if names and part in _PARTS else None


def ready_exists(call: Call) -> Run | None:
    """Of an `exists` test; None where it is not of this kind."""
    names = _names_of(call, frozenset())
    if not names:
        return None

    def run(machine: Machine, call: Call) -> Result:
        named = machine.message.named
        for name in names:  # a generator would take as long as all of this
            if not named(name):
                return False
        return True

    return run


def _names_of(call: Call, allowed: frozenset[str] | set[str]) -> tuple[str, ...]:
    """In lower case, each once; none where they are not known, or a tag says more than is done here."""
    names = call.arguments[0]
    if len(names) > MAX_NAMES or not call.tags.keys() <= allowed:
        return ()
    known = dict.fromkeys(name.lower() for name in names if isinstance(name, str))
    return tuple(known) if all(isinstance(name, str) for name in names) else ()


class Values:
    """What a test looks at: fields of these names, or with `part` that part of the addresses in them."""

    __slots__ = ("_names", "_part", "key")

    def __init__(self, names: tuple[str, ...], part: str = "") -> None:
        self._names, self._part = names, part
        self.key = f"{part}:{' '.join(names)}"  # of a message's `known`

    def of(self, message: Message) -> Pairs:
        """Kept with the message for the next test."""
        values = message.known[self.key] = self._of(message)
        return values

    def _of(self, message: Message) -> Pairs:
        fields = [field for name in self._names for field in message.named(name)]
        if len(fields) > MAX_FIELDS or any(len(field.raw_value) > MAX_OCTETS for field in fields):
            return None
        if not self._part:
            return [field.pair for field in fields]
        return [pair for field in fields for pair in field.parts(self._part)]


def _ready(call: Call, values: Values) -> Run | None:
    matching, general = call.matching, call.word.run
    if matching is None or general is None or not _is_plain(matching):
        return None
    if matching.kind is IS and matching.equal is not None:
        return _is_one_of(matching.equal, values, general)
    return _has_one_of(matching, values, general)


def _is_plain(matching: Matching) -> bool:
    known = matching.tests is not None and matching.kind.over is Over.EACH
    return known and matching.comparator.is_ascii and matching.weight <= MAX_WEIGHT


def _is_one_of(keys: frozenset[str], values: Values, general: Run) -> Run:
    key, of = values.key, values.of

    def run(machine: Machine, call: Call) -> Result:
        known = machine.message.known
        pairs = known[key] if key in known else of(machine.message)
        if pairs is None:
            return general(machine, call)
        machine.spent += STEPS * len(pairs)
        for folded, _ in pairs:
            if folded in keys:
                return True
        return False

    return run


def _has_one_of(matching: Matching, values: Values, general: Run) -> Run:
    tests, steps = matching.tests or (), STEPS * max(1, matching.weight)

    key, of = values.key, values.of

    def run(machine: Machine, call: Call) -> Result:
        known = machine.message.known
        pairs = known[key] if key in known else of(machine.message)
        if pairs is None:
            return general(machine, call)
        machine.spent += steps * len(pairs)
        for folded, whole in pairs:
            for test in tests:
                if result := test(folded, whole):
                    if isinstance(result, list):
                        machine.set_matched(result)
                    return True
        return False

    return run
