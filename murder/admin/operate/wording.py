"""Numbers, sizes and times as people read and write them; and what came over a wire, fit to be shown."""

import re
from typing import Final

from murder.errors import BadSyntax

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])")


def plain(text: str) -> str:
    """What came over a wire, without what would steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def count(number: int, singular: str, many: str = "") -> str:
    """`1 mailbox`, `2 mailboxes`."""
    return f"{number} {singular if number == 1 else many or singular + 's'}"


def octets(number: float) -> str:
    """A size for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError("not reached")


def parse_span(text: str) -> float:
    """So many seconds, minutes, hours or days (90s, 30m, 12h, 7d), in seconds. Raises BadSyntax."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise BadSyntax(f"{text[:20]!r}: say 90s, 30m, 12h or 7d")
    return float(int(match[1]) * UNITS[match[2]])


def seconds(number: float) -> str:
    """A duration for people."""
    if number < 1:
        return f"{1000 * number:.0f} ms"
    if number < 60:
        return f"{number:.1f} s"
    minutes, rest = divmod(int(number), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02d} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
