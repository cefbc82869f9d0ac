"""`partial-range` of FETCH, SEARCH and SORT (RFC 9394 §3.1), shared by their grammars."""

import re
from typing import Final

from murder.model.message import MAX_UID
from murder.wire.token import Scanner

# partial-range-first = nz-number ":" nz-number; partial-range-last = MINUS nz-number ":" MINUS nz-number
_RANGE: Final = re.compile(rb"(-?)([1-9][0-9]{0,9}):(-?)([1-9][0-9]{0,9})")


def parse_partial(scanner: Scanner) -> tuple[int, int]:
    """First and last position, the one nearer to its end first; negative ones count from the end of the results."""
    match = _RANGE.match(scanner.octets, scanner.at)
    if match is None or match.group(1) != match.group(3):
        raise scanner.bad("a range like 1:100 or -1:-100")
    first, last = sorted((int(match.group(2)), int(match.group(4))))
    if last > MAX_UID:
        raise scanner.bad(f"numbers up to {MAX_UID}")
    scanner.at = match.end()
    return (-first, -last) if match.group(1) else (first, last)


def format_partial(partial: tuple[int, int]) -> bytes:
    """`1:500`, as it was asked for (RFC 9394)."""
    return b"%d:%d" % partial
