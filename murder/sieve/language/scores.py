"""What filters before us said of a message: RFC 5235. Where they wrote it is the site's policy."""

from decimal import Decimal, InvalidOperation
from typing import Final

from murder.sieve.check.spec import Argument, Call, Extension, Result, Tag, Takes, Word
from murder.sieve.language.arguments import MATCH_TAGS, match
from murder.sieve.limits import Scale
from murder.sieve.match.regex import compile_regex
from murder.sieve.run.machine import Machine

MAX_FIELD: Final = 1000  # characters of a verdict


def _found(machine: Machine, name: str, pattern: str) -> str | None:
    """The score in a field: all of it, or the first group of a pattern."""
    for field in machine.message.named(name.lower()):
        text = field.beginning(4 * MAX_FIELD)[:MAX_FIELD]
        if not pattern:
            return text.strip()
        groups = compile_regex(pattern, False).groups(text)
        if groups is not None:
            return (groups[1] if len(groups) > 1 else groups[0]) or ""
    return None


def _number(text: str | None) -> Decimal | None:
    try:
        number = Decimal((text or "").strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _maximum(machine: Machine, scale: Scale) -> Decimal | None:
    name, colon, pattern = scale.maximum.partition(":")
    if not colon:
        return _number(scale.maximum)
    return _number(_found(machine, name.strip(), pattern.strip()))


def share_of(machine: Machine, scale: Scale) -> Decimal | None:
    """How much of the worst the message is, 0 to 1; None where nobody said."""
    if not scale.name:
        return None
    text = _found(machine, scale.name, scale.pattern)
    if text is None:
        return None
    if scale.kind == "text":
        for verdict, word in sorted(scale.texts.items(), reverse=True):
            if word.lower() == text.lower():
                return Decimal(verdict)
        return None
    score = Decimal(len(text)) if scale.kind == "strlen" else _number(text)
    maximum = _maximum(machine, scale)
    if score is None or maximum is None or maximum <= 0:
        return None
    try:
        share = score / maximum
    except ArithmeticError:  # of a number with millions of digits
        return None
    return min(max(share, Decimal(0)), Decimal(1))


def _spamtest(machine: Machine, call: Call) -> Result:
    """0: not tested; 1 to 10, or with `:percent` 0 to 100 (RFC 5235 §2)."""
    scale = machine.policy.spam
    share = share_of(machine, scale)
    if scale.kind == "text" and share is not None:
        share = (share - 1) / 9 if share > 1 else Decimal(0)
    if "percent" in call.tags:
        values = ["0"] if share is None else [str(int(share * 100))]
        if share is None and call.matching is not None and call.matching.kind.name == "count":
            values = []
    else:
        values = ["0" if share is None else str(1 + int(share * 9))]
    return match(machine, call, values)


def _virustest(machine: Machine, call: Call) -> Result:
    """0: not tested; 1 clean to 5 certainly a virus (RFC 5235 §3)."""
    scale = machine.policy.virus
    share = share_of(machine, scale)
    if share is None:
        return match(machine, call, ["0"])
    if scale.kind == "text":
        return match(machine, call, [str(int(share))])
    return match(machine, call, [str(1 + int(share * 4))])


_VALUE: Final = Argument("value", Takes.STRING)
_SPAM: Final = Word(
    "spamtest",
    (_VALUE,),
    (*MATCH_TAGS, Tag("percent", needs="spamtestplus")),
    is_test=True,
    run=_spamtest,
)
SPAMTEST: Final = Extension("spamtest", words=(_SPAM,))
SPAMTESTPLUS: Final = Extension("spamtestplus", words=(_SPAM,))
VIRUSTEST: Final = Extension(
    "virustest", words=(Word("virustest", (_VALUE,), MATCH_TAGS, is_test=True, run=_virustest),)
)
