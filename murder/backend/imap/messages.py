"""Which messages a command means, in this session's numbering."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from murder.backend.imap.dialogue import BackendImap
from murder.model.message import Uid
from murder.model.seqset import SeqSet, indexes_of_seqnums, indexes_of_uids, pick

Number = TypeVar("Number", bound=int)

BATCH: Final = 1000  # messages looked at in one go; about a millisecond


def spans(dialogue: BackendImap, sequence: SeqSet, by_uid: bool) -> list[range]:
    """Index ranges into the view's UIDs. Raises BadSyntax for a sequence number that no message has."""
    view = dialogue.now
    if sequence.is_saved:
        sequence = dialogue.saved_result()
        by_uid = True
    if by_uid:
        return indexes_of_uids(sequence, view.uids)  # type: ignore[arg-type] # an array of them
    return indexes_of_seqnums(sequence, view.exists)


def uids_of(dialogue: BackendImap, sequence: SeqSet, by_uid: bool) -> list[Uid]:
    """The UIDs meant, ascending; UIDs that do not exist are left out."""
    found = spans(dialogue, sequence, by_uid)
    return pick(dialogue.now.uids, found)  # type: ignore[arg-type] # an array of them


def batches(uids: Sequence[Uid], size: int = BATCH) -> Iterator[Sequence[Uid]]:
    for start in range(0, len(uids), size):
        yield uids[start : start + size]


def window(numbers: Sequence[Number], partial: tuple[int, int]) -> Sequence[Number]:
    """The results from the first to the last position; negative ones count from the end (RFC 9394 §3.1)."""
    first, last = partial
    if first > 0:
        return numbers[first - 1 : last]
    length = len(numbers)
    return numbers[max(0, length + last) : max(0, length + first + 1)]
