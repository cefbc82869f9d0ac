"""What is kept in etcd, and how. All keys begin with the prefix.

head           epoch:number:mark      where the history stands, as `murder ctl` shows it. Every commit is guarded by it
row/KEY        a row of the list      by collation key, as a list's own file has it
log/NUMBER     a commit               as the message Commit, for the last `KEEP_CHANGES` changes
note/KEY       a small fact
formerly/EPOCH the epoch after it     when etcd was put back from an older copy, a new history began
moving         token number           a list is being brought here or away; its steps are guarded by it
left           token epoch:number:mark  the list was brought away, and one master keeps it alone; then there is no head
"""

from typing import Final

from murder.api.list_log import Position, Record
from plugins.list_etcd.etcd_pb2 import Change, Commit, Note

KEEP_CHANGES: Final = 100_000  # a master that was away for longer takes the whole list
MAX_DIGITS: Final = 19  # of a number; longer ones are none
PRUNE_EVERY: Final = 1024  # changes


class Keys:
    """Names of keys below a prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix.encode()
        self.head = self.prefix + b"head"
        self.rows = self.prefix + b"row/"
        self.log = self.prefix + b"log/"
        self.notes = self.prefix + b"note/"
        self.formerly = self.prefix + b"formerly/"
        self.moving = self.prefix + b"moving"
        self.left = self.prefix + b"left"

    def row(self, key: bytes) -> bytes:
        """Of the list's row with this collation key."""
        return self.rows + key

    def commit(self, seq: int) -> bytes:
        """Sixteen digits, so that commits stand in the order of their numbers."""
        return self.log + b"%016x" % seq

    def note(self, key: str) -> bytes:
        return self.notes + key.encode()

    def epoch(self, epoch: str) -> bytes:
        """Where the history went on that had this epoch."""
        return self.formerly + epoch.encode()


def behind(prefix: bytes) -> bytes:
    """The first key behind all that begin with this; the prefix ends with `/`."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def format_head(epoch: str, position: Position) -> bytes:
    """`epoch:number:mark`, the mark in hexadecimal digits."""
    return f"{epoch}:{position.seq}:{position.mark.hex()}".encode()


def parse_head(octets: bytes) -> tuple[str, Position]:
    """Raises ValueError for what is no head."""
    epoch, number, mark = octets.decode("ascii").split(":")
    if len(number) > MAX_DIGITS:
        raise ValueError("a number that no list has come to")
    return epoch, Position(int(number), bytes.fromhex(mark))


def format_record(record: Record) -> bytes:
    """The message Commit; `parse_record` is the reverse."""
    commit = Commit(
        after_seq=record.after.seq,
        after_mark=record.after.mark,
        seq=record.position.seq,
        mark=record.position.mark,
        changes=[Change(key=key, row=row) for key, row in record.changes],
        notes=[Note(key=key, octets=octets) for key, octets in record.notes.items()],
    )
    octets: bytes = commit.SerializeToString()
    return octets


def parse_record(octets: bytes) -> Record:
    """Raises ValueError (`google.protobuf.message.DecodeError`) for what is no commit."""
    commit = Commit.FromString(octets)
    return Record(
        Position(commit.after_seq, commit.after_mark),
        [(change.key, change.row if change.HasField("row") else None) for change in commit.changes],
        Position(commit.seq, commit.mark),
        {note.key: note.octets for note in commit.notes},
    )
