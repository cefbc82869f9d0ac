"""Which messages a command means, in this session's numbering."""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from murder.api.store import FindsByFlag, Mailbox
from murder.model.message import Uid
from murder.model.pieces import slices
from murder.model.seqset import Ranges, SeqSet, indexes_of_seqnums, indexes_of_uids
from murder.net.turns import Turn, aside_if
from murder.roles.backend.changes.powers import FINDS_BY_FLAG
from murder.roles.backend.imap.dialogue import BackendImap

Number = TypeVar("Number", bound=int)

BATCH: Final = 1000  # messages looked at in one go; about a millisecond
ASIDE_RANGES: Final = 1000  # of a set: to look for them is a millisecond or two


async def uids_of(dialogue: BackendImap, sequence: SeqSet, by_uid: bool) -> Sequence[Uid]:
    """The UIDs meant, ascending; UIDs that do not exist are left out. Raises BadSyntax for a sequence number that no message
    has."""
    known = dialogue.now.uids
    if sequence.is_saved:
        sequence = SeqSet(dialogue.saved_result())
        by_uid = True
    is_much = len(sequence.ranges) > ASIDE_RANGES
    return await aside_if(is_much, _uids_of, sequence, by_uid, known)


async def ranges_of(sequence: SeqSet, largest: int) -> Ranges:
    """As `SeqSet.resolved`."""
    return await aside_if(len(sequence.ranges) > ASIDE_RANGES, sequence.resolved, largest)


def _uids_of(sequence: SeqSet, by_uid: bool, known: "array[int]") -> Sequence[Uid]:
    spans = (
        indexes_of_uids(sequence, known)  # type: ignore[arg-type] # an array of them
        if by_uid
        else indexes_of_seqnums(sequence, len(known))
    )
    uids = array("I")
    for span in spans:
        uids.extend(known[span.start : span.stop])
    return uids  # type: ignore[return-value] # an array of them


async def marked(
    mailbox: Mailbox,
    flag: str,
    among: Sequence[Uid],
    *,
    present: bool = True,
    most: int | None = None,
) -> Sequence[Uid]:
    """Those of these messages (ascending) that have a system flag, or lack it; by the store's own power, if it has it."""
    if (finding := FINDS_BY_FLAG.of(mailbox)) is not None:
        return await found_by_flag(finding, flag, among, present=present, most=most)
    chosen: list[Uid] = []
    for batch in batches(among):
        messages = await mailbox.messages(batch)
        chosen += [message.uid for message in messages if (flag in message.flags) == present]
        if most is not None and len(chosen) >= most:
            return chosen[:most]
    return chosen


async def found_by_flag(
    mailbox: FindsByFlag,
    flag: str,
    among: Sequence[Uid],
    *,
    present: bool = True,
    most: int | None = None,
) -> Sequence[Uid]:
    """As `marked`, of a store with that power."""
    turn, size = Turn(), len(among)
    kept = array("I")
    for batch in batches(await mailbox.find_by_flag(flag, present=present, most=most)):
        kept.extend(
            uid for uid in batch if (at := bisect_left(among, uid)) < size and among[at] == uid
        )
        if turn.is_over:
            await turn.rest()
    return kept  # type: ignore[return-value] # an array of them


def batches(uids: Sequence[Uid], size: int = BATCH) -> Iterator[Sequence[Uid]]:
    return slices(uids, size)


def window(numbers: Sequence[Number], partial: tuple[int, int]) -> Sequence[Number]:
    """The results from the first to the last position; negative ones count from the end (RFC 9394 §3.1)."""
    first, last = partial
    if first > 0:
        return numbers[first - 1 : last]
    length = len(numbers)
    return numbers[max(0, length + last) : max(0, length + first + 1)]
