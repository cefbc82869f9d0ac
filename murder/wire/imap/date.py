"""Dates on the wire: `date` of SEARCH and `date-time` of APPEND and INTERNALDATE (RFC 3501 §9)."""

import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Final

from murder.wire.token import Scanner

_MONTHS: Final = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_MONTH_NUMBER: Final = {name.lower(): at for at, name in enumerate(_MONTHS, start=1)}

# date = date-text / DQUOTE date-text DQUOTE; date-text = date-day "-" date-month "-" date-year
_DATE: Final = re.compile(rb'("?)([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})\1(?![0-9"])')
# date-time = DQUOTE date-day-fixed "-" date-month "-" date-year SP time SP zone DQUOTE
_DATE_TIME: Final = re.compile(
    rb'"([ 0-9]?[0-9])-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"'
)


def parse_date(scanner: Scanner) -> date:
    """A day, with or without quotes."""
    match = _DATE.match(scanner.octets, scanner.at)
    month = match and _MONTH_NUMBER.get(match.group(3).lower())
    if match is None or not month:
        raise scanner.bad("a date like 1-Feb-1994")
    try:
        day = date(int(match.group(4)), month, int(match.group(2)))
    except ValueError:
        raise scanner.bad("a day of the calendar") from None
    scanner.at = match.end()
    return day


def parse_date_time(scanner: Scanner) -> datetime:
    """An aware datetime in the zone given; one that has no equivalent in UTC is refused too."""
    match = _DATE_TIME.match(scanner.octets, scanner.at)
    month = match and _MONTH_NUMBER.get(match.group(2).lower())
    if match is None or not month:
        raise scanner.bad('a date like " 1-Feb-1994 12:00:00 +0000"')
    day, _, year, hour, minute, second, sign, zone_hours, zone_minutes = match.groups()
    offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
    try:
        zone = timezone(-offset if sign == b"-" else offset)
        # 60 is a leap second; datetime has none
        moment = datetime(
            int(year), month, int(day), int(hour), int(minute), min(int(second), 59), tzinfo=zone
        )
        moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise scanner.bad("a time of the calendar") from None
    scanner.at = match.end()
    return moment


def format_date_time(moment: datetime) -> bytes:
    """`" 7-Feb-1994 21:52:25 -0800"`, in the zone of the datetime; one without a zone counts as UTC."""
    zone = b"+0000" if moment.tzinfo is UTC else _format_zone(moment.utcoffset() or timedelta())
    return b'"%2d-%s-%04d %02d:%02d:%02d %s"' % (
        moment.day,
        _MONTHS[moment.month - 1],
        moment.year,
        moment.hour,
        moment.minute,
        moment.second,
        zone,
    )


def _format_zone(offset: timedelta) -> bytes:
    minutes = round(offset.total_seconds() / 60)
    sign = b"-" if minutes < 0 else b"+"
    return b"%s%02d%02d" % (sign, *divmod(abs(minutes), 60))
