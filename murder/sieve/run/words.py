"""Dates (RFC 5322 §3.3) and flags as texts, as others write them."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


SYSTEM_FLAGS: Final = {
    flag.lower(): flag for flag in ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")
}


def canonical_flags(flags: Iterable[str]) -> tuple[str, ...]:
    """System flags as IMAP writes them: a script may write `\\seen`."""
    return tuple(SYSTEM_FLAGS.get(flag.lower(), flag) for flag in flags)


def format_zone(moment: datetime) -> str:
    """`+0100`"""
    minutes = int((moment.utcoffset() or timedelta()).total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"


def format_date(moment: datetime) -> str:
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    date = f"{day}, {moment.day:02} {month} {moment.year:04}"
    return f"{date} {moment:%H:%M:%S} {format_zone(moment)}"
