"""Commits and rows as a shared log has them, checked: others have written them, into a store that is not ours.

What is wrong is refused as a whole, with what and where, before the list is changed: a row that cannot be read would be met
by every listing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from murder.api.list_log import Record, Whole
from murder.errors import Code, Refusal
from murder.model.name import collation_key, name_of_key
from murder.roles.mupdate.database.record import (
    HEAD,
    HEAD_OCTETS,
    MAX_LOCATION_OCTETS,
    NUMBER,
    is_listable,
)
from murder.roles.mupdate.database.transaction import MARK_OCTETS

MAX_SEQ: Final = 2**63
MAX_ROW_OCTETS: Final = 4 << 20  # an access list has 256 KiB at most
MAX_NOTE_KEY: Final = 500  # octets; an LMDB key holds 511


def checked_record(record: Record) -> Record:
    """The same. Raises Refusal(CANNOT)."""
    if record.after == record.position and not record.changes and not record.notes:
        return record  # the anchor of a list that was taken over follows itself
    before, after = record.after.seq, record.position.seq
    if not 0 <= before < after < MAX_SEQ or after - before > max(1, len(record.changes)):
        raise _bad(f"commit {after}", f"it says that it follows {before}")
    if len(record.position.mark) != MARK_OCTETS:
        raise _bad(f"commit {after}", "its mark has another length")
    for key, row in record.changes:
        _check_key(key)
        if row is not None:
            _check_row(key, row)
    _check_notes(record.notes)
    return record


def checked_whole(whole: Whole) -> Whole:
    """The same; rows and commits are looked at as they come, and the iterators raise Refusal(CANNOT)."""
    seq, mark = whole.position
    if not 0 <= seq < MAX_SEQ or len(mark) != (MARK_OCTETS if seq else 0):
        raise _bad("the list", f"it stands at {seq}")
    if not 0 < len(whole.epoch) <= 64 or not whole.epoch.isalnum():
        raise _bad("the list", "its epoch is none")
    _check_notes(whole.notes)
    return replace(
        whole,
        rows=_rows(whole.rows, seq),
        records=map(checked_record, whole.records),
    )


def _rows(
    pages: Iterable[Sequence[tuple[bytes, bytes]]], most: int
) -> Iterator[Sequence[tuple[bytes, bytes]]]:
    last = b""
    for page in pages:
        for key, row in page:
            _check_key(key)
            _check_row(key, row)
            if key <= last or not 0 < NUMBER.unpack_from(row)[0] <= most:
                raise _bad(f"the row {key!r}", "it is out of order")
            last = key
        yield page


def _check_key(key: bytes) -> None:
    name = name_of_key(key)
    if not is_listable(name) or collation_key(name) != key:
        raise _bad(f"the row {key[:60]!r}", "that is no mailbox's name")


def _check_row(key: bytes, row: bytes) -> None:
    if HEAD_OCTETS <= len(row) <= MAX_ROW_OCTETS:
        _, _, length = HEAD.unpack_from(row)
        if length <= min(MAX_LOCATION_OCTETS, len(row) - HEAD_OCTETS):
            return
    raise _bad(f"the row {key!r}", f"its {len(row)} octets are none")


def _check_notes(notes: Mapping[str, bytes]) -> None:
    for key in notes:
        if not 0 < len(key.encode("utf-8", "surrogateescape")) <= MAX_NOTE_KEY:
            raise _bad("a note", "its key is none")


def _bad(what: str, why: str) -> Refusal:
    return Refusal(Code.CANNOT, f"What the shared log has as {what} cannot be taken: {why}")
