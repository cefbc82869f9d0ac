"""What a client missed since a mod-sequence: VANISHED (EARLIER) and FETCH (RFC 7162 §3.2.5, §3.2.6)."""

from murder.model.message import MAX_UID, Changes, ModSeq, portions
from murder.model.seqset import Ranges, SeqSet, compress, expand, holds, merge
from murder.net.turns import aside_if
from murder.roles.backend.changes.looking import each_changed
from murder.roles.backend.changes.updates import View
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.message_sets import BATCH, batches
from murder.roles.backend.imap.untagged import format_flag_updates
from murder.wire.imap.seqset import format_ranges


async def tell_missed(
    dialogue: BackendImap, since: ModSeq, among: Ranges | None, floor: int = 0
) -> None:
    """Tell all changes of the selected mailbox, of these UIDs only where they are given, and no removals up to `floor`."""
    view = dialogue.now
    changes = await view.mailbox.changes(since)
    await tell_vanished(dialogue, changes, among, floor=floor)
    forms, manner = dialogue.forms, dialogue.manner
    async for messages in each_changed(changes, view.flags_of):
        for some in portions(messages):
            changed = [
                (seq, message)
                for message in some
                if message.modseq <= changes.highest_modseq  # what is newer is told with its like
                and (among is None or holds(among, message.uid))
                and (seq := view.seq_of(message.uid)) is not None
            ]
            dialogue.send(format_flag_updates(changed, forms, view.recent, manner, with_uid=True))
            await dialogue.flush()


async def tell_vanished(
    dialogue: BackendImap,
    changes: Changes,
    among: Ranges | None,
    *,
    floor: int = 0,
) -> None:
    """`* VANISHED (EARLIER) …`, where anything has, above `floor`. Without those that the client still counts (one may go
    just while it selects the mailbox): they are told when it may stop that (RFC 7162 §3.2.10)."""
    view = dialogue.now
    if changes.complete:
        uids: list[int] = []
        for batch in batches(changes.vanished):
            uids += [
                uid
                for uid in batch
                if (among is None or holds(among, uid)) and view.seq_of(uid) is None
            ]
            await dialogue.flush()
        gone = await aside_if(len(uids) > BATCH, compress, uids)
    else:
        gone = await aside_if(view.exists > BATCH, missing_from, view, among)
    octets = await aside_if(len(gone) > BATCH, _format_vanished, gone, floor)
    if octets:
        dialogue.send(octets)


def _format_vanished(gone: Ranges, floor: int) -> bytes:
    vanished = tuple((max(low, floor + 1), high) for low, high in gone if high > floor)
    return b"* VANISHED (EARLIER) %s\r\n" % format_ranges(vanished) if vanished else b""


async def known_up_to(view: View, seq_match: tuple[SeqSet, SeqSet] | None) -> int:
    """The UID up to which the client knows all removals: the last of the pairs of number and UID that it remembers to
    hold, before one that does not (RFC 7162 §3.2.5.2)."""
    if seq_match is None:
        return 0
    is_much = max(view.exists, *(len(numbers.ranges) for numbers in seq_match)) > BATCH
    return await aside_if(is_much, _known_up_to, view, seq_match)


def _known_up_to(view: View, seq_match: tuple[SeqSet, SeqSet]) -> int:
    floor = 0
    numbers, uids = (expand(given.resolved(MAX_UID)) for given in seq_match)
    for number, uid in zip(numbers, uids, strict=False):
        if number > view.exists or view.uid_of(number) != uid:
            break
        floor = uid
    return floor


def missing_from(view: View, among: Ranges | None) -> Ranges:
    """All UIDs that once were and are not, where the store no longer knows since when."""
    everything = among if among is not None else ((1, view.uids[-1]),) if view.uids else ()
    missing: list[tuple[int, int]] = []
    for low, high in everything:
        at = low
        for uid in view.between(low, high):
            if uid > at:
                missing.append((at, uid - 1))
            at = uid + 1
        if at <= high:
            missing.append((at, high))
    return merge(missing)
