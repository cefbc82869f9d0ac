"""Matching a name against a LIST pattern: `%` stops at the separator, `*` does not (RFC 3501 §6.3.8).

Knows octets of names only. Each wildcard takes the first place where what follows it fits, and never reconsiders (a later
fit gains nothing, as with any glob): linear in the name for each `*`, times a level's length where a `%` follows it.
"""

import re
from typing import Final

MAX_PATTERN_OCTETS: Final = 2000  # far above any name; a compiled pattern costs memory
WILDCARDS: Final = re.compile(rb"[%*]++")
_RUN: Final = re.compile(rb"[%*]++")


def simplified(pattern: bytes) -> bytes:
    """The same pattern with each run of wildcards as one: `*` if the run has one, else `%`."""
    return _RUN.sub(lambda run: b"*" if b"*" in run.group() else b"%", pattern)


def has_wildcards(pattern: bytes) -> bool:
    return b"%" in pattern or b"*" in pattern


def literal_head(pattern: bytes) -> bytes:
    """What stands before the first wildcard."""
    return re.split(rb"[%*]", pattern, maxsplit=1)[0]


def compile_pattern(pattern: bytes, separator: bytes) -> re.Pattern[bytes]:
    """A regular expression to be used with `fullmatch`."""
    stars = [_level(part, separator) for part in simplified(pattern).split(b"*")]
    if len(stars) == 1:
        return re.compile(_anchored(pattern, separator), re.DOTALL)
    middle = b"".join(b"(?>.*?%s)" % part for part in stars[1:-1])
    last = _anchored(simplified(pattern).split(b"*")[-1], separator)
    return re.compile(stars[0] + middle + b".*" + last, re.DOTALL)


def _level(part: bytes, separator: bytes) -> bytes:
    """A part without `*`, to be followed by anything."""
    head, *rest = part.split(b"%")
    span = b"[^%s]*?" % re.escape(separator)
    return re.escape(head) + b"".join(b"(?>%s%s)" % (span, re.escape(text)) for text in rest)


def _anchored(part: bytes, separator: bytes) -> bytes:
    """A part without `*`, up to the end of the name: the last `%` may have to stretch."""
    head, *rest = simplified(part).split(b"%")
    if not rest:
        return re.escape(head)
    span = b"[^%s]*" % re.escape(separator)
    inner = b"".join(b"(?>%s?%s)" % (span, re.escape(text)) for text in rest[:-1])
    return re.escape(head) + inner + span + re.escape(rest[-1])
