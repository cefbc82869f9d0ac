"""What a stream has brought, in parts of which a commit takes one or some, and in pieces behind which it may end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from murder.roles.mupdate.commits.waiting import MAX_COMMIT_COST, ROW_COST, cost_of
from murder.roles.mupdate.database.change import Change, PutEntry

PIECE_COST: Final = 8 * ROW_COST


@dataclass(frozen=True, slots=True)
class Part:
    """`octets`: of access lists; `cost`: as `waiting` counts."""

    pieces: Sequence[Sequence[Change]]
    changes: int
    octets: int
    cost: int


def parts_of(changes: Sequence[Change]) -> list[Part]:
    """In order, each what one commit may cost, or one change; at least one part."""
    parts: list[Part] = []
    begin = cost = octets = 0
    ends: list[int] = []  # of its pieces
    piece_cost = 0
    for at, change in enumerate(changes):
        raw_acl = change.entry.raw_acl if isinstance(change, PutEntry) else b""
        more = cost_of(raw_acl)
        if at > begin and cost + more > MAX_COMMIT_COST:
            parts.append(Part(list(_pieces(changes, begin, [*ends, at])), at - begin, octets, cost))
            begin, cost, octets, ends, piece_cost = at, 0, 0, [], 0
        elif piece_cost + more > PIECE_COST and piece_cost:
            ends.append(at)
            piece_cost = 0
        cost += more
        octets += len(raw_acl)
        piece_cost += more
    count = len(changes)
    last = list(_pieces(changes, begin, [*ends, count]))
    return [*parts, Part(last, count - begin, octets, cost + ROW_COST)]


def _pieces(
    changes: Sequence[Change], begin: int, ends: Sequence[int]
) -> Iterator[Sequence[Change]]:
    for end in ends:
        yield changes[begin:end]
        begin = end
