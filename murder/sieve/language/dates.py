"""Dates: RFC 5260 §4, §5."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Final

from murder.mime.field import unfold
from murder.mime.header import parse_date
from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Argument, Call, Extension, Result, Tag, Takes, Word
from murder.sieve.language.arguments import KEYS, MATCH_TAGS, match
from murder.sieve.language.fields import chosen, field_tags
from murder.sieve.problem import RunProblem
from murder.sieve.run.machine import Machine
from murder.sieve.run.words import format_date, format_zone

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node

# time-zone = ( "+" / "-" ) 4DIGIT
_ZONE: Final = re.compile(r"([+-])([0-9]{2})([0-5][0-9])\Z")
MAX_DATE: Final = 1000  # octets of a field, where one begins
_JULIAN: Final = 678_576  # days between 17 November 1858, which is 0, and the proleptic year 1


def _iso(moment: datetime) -> str:
    """RFC 5260 §4.2: nothing is added to UTC as `Z`, not as `+00:00`."""
    zone = format_zone(moment) if moment.utcoffset() else ""
    return f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}{f'{zone[:3]}:{zone[3:]}' if zone else 'Z'}"


PARTS: Final[Mapping[str, Callable[[datetime], str]]] = {
    "year": lambda moment: f"{moment.year:04}",
    "month": lambda moment: f"{moment:%m}",
    "day": lambda moment: f"{moment:%d}",
    "date": lambda moment: f"{moment.year:04}-{moment:%m-%d}",
    "julian": lambda moment: str(moment.toordinal() - _JULIAN),
    "hour": lambda moment: f"{moment:%H}",
    "minute": lambda moment: f"{moment:%M}",
    "second": lambda moment: f"{moment:%S}",
    "time": lambda moment: f"{moment:%H:%M:%S}",
    "iso8601": _iso,
    "std11": format_date,
    "zone": format_zone,
    "weekday": lambda moment: str((moment.weekday() + 1) % 7),
}


def parse_zone(text: str) -> timezone | None:
    """None for what is none."""
    match_ = _ZONE.match(text)
    if match_ is None or int(match_[2]) > 23:
        return None
    shift = timedelta(hours=int(match_[2]), minutes=int(match_[3]))
    return timezone(-shift if match_[1] == "-" else shift)


def _check(checker: "Checker", call: Call, node: "Node") -> None:
    part = call.arguments[-2]
    if isinstance(part, str) and part.lower() not in PARTS:
        raise Wrong(node.at, f"the {node.name} test knows no date part '{part[:40]}'")
    zone = call.tags.get("zone")
    if isinstance(zone, str) and zone != "originalzone" and parse_zone(zone) is None:
        raise Wrong(node.at, f"specified :zone argument '{zone[:40]}' is not a valid timezone")


def _zone(machine: Machine, call: Call) -> tzinfo | None:
    """The zone that is asked for; None: as the date has it."""
    if call.tags.get("zone") is None:
        return machine.circumstances.now.tzinfo or UTC
    if call.tags["zone"] == "originalzone":
        return None
    text = machine.text(call.tags["zone"])
    zone = parse_zone(text)
    if zone is None:
        raise RunProblem(f"specified :zone argument '{text[:40]}' is not a valid timezone")
    return zone


def _values(machine: Machine, call: Call, moments: list[datetime]) -> list[str]:
    part = PARTS.get(machine.text(call.arguments[-2]).lower())
    if part is None:
        return []
    zone = _zone(machine, call)
    values = []
    for moment in moments:
        try:
            values.append(part(moment if zone is None else moment.astimezone(zone)))
        except (OverflowError, ValueError):
            continue  # at the end of all times
    return values


def _date(machine: Machine, call: Call) -> Result:
    """The date of a field is its whole, or what stands behind its last semicolon (RFC 5260 §4). Where nothing says which of
    several fields, it is the first; Pigeonhole takes any."""
    name = machine.text(call.arguments[0]).lower()
    moments = []
    for field in chosen(machine.message.named(name), call)[:1]:
        behind = field.raw_value.rpartition(b";")[2][:MAX_DATE]
        moment = parse_date(unfold(behind))
        if moment is not None:
            moments.append(moment)
    return match(machine, call, _values(machine, call, moments))


def _currentdate(machine: Machine, call: Call) -> Result:
    return match(machine, call, _values(machine, call, [machine.circumstances.now]))


_ZONE_TAG: Final = Tag("zone", Takes.STRING, group="zone")
_PART: Final = Argument("date part", Takes.STRING)

DATE: Final = Extension(
    "date",
    words=(
        Word(
            "date",
            (Argument("header name", Takes.STRING), _PART, KEYS),
            (*MATCH_TAGS, *field_tags(), _ZONE_TAG, Tag("originalzone", group="zone")),
            is_test=True,
            check=_check,
            run=_date,
        ),
        Word(
            "currentdate",
            (_PART, KEYS),
            (*MATCH_TAGS, _ZONE_TAG),
            is_test=True,
            check=_check,
            run=_currentdate,
        ),
    ),
)
