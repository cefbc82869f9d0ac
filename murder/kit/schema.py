"""The database of one root: its tables, its format version, and how a row becomes a Message.

`user_version` is the format: a newer one is refused with a sentence, an older one is migrated here. Dates are Unix
seconds with the zone in minutes beside them; `\\Seen` of readers other than the owner is in `seen`.
"""

import functools
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from murder.api.disk import disk_error
from murder.errors import Code, Refusal
from murder.model.message import Flagged, Message, ModSeq, Uid

T = TypeVar("T")

FORMAT: Final = 6
FILE_MODE: Final = 0o600
BUSY_MS: Final = 30_000  # a writer waits for another worker's commit; far above any
# readers wait only for recovery after a crash, and block their event loop
READ_BUSY_MS: Final = 1_000
CACHE_KIB: Final = 512  # of each connection; there are two for each open root

SEEN, DELETED = "\\Seen", "\\Deleted"
BITS: Final = {SEEN: 1, "\\Answered": 2, "\\Flagged": 4, DELETED: 8, "\\Draft": 16}
SEEN_BIT, DELETED_BIT = BITS[SEEN], BITS[DELETED]

# as `message`, and: when it was expunged, by which mod-sequence, who may still read it, who had seen it
GONE: Final = """CREATE TABLE gone (
    mailbox INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    keywords TEXT NOT NULL,
    internal_date INTEGER NOT NULL,
    zone INTEGER NOT NULL,
    save_date INTEGER NOT NULL,
    size INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    email_id TEXT NOT NULL,
    body INTEGER NOT NULL,
    at INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    holders INTEGER NOT NULL,
    seen_by TEXT NOT NULL,
    PRIMARY KEY (mailbox, uid)
) STRICT, WITHOUT ROWID"""
# `kept`: may come back, and counts in `meta`; `gone_held` is small, the others are as many as may come back
RETAINED: Final = (
    "ALTER TABLE gone ADD COLUMN kept INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX gone_kept ON gone (kept, at)",
    "CREATE INDEX gone_held ON gone (mailbox, removed) WHERE holders<>0",
    "INSERT INTO meta VALUES ('kept_messages',0), ('kept_octets',0)",
    "CREATE TRIGGER gone_comes AFTER INSERT ON gone WHEN new.kept BEGIN "
    "UPDATE meta SET value=value+1 WHERE key='kept_messages'; "
    "UPDATE meta SET value=value+new.size WHERE key='kept_octets'; END",
    "CREATE TRIGGER gone_goes AFTER DELETE ON gone WHEN old.kept BEGIN "
    "UPDATE meta SET value=value-1 WHERE key='kept_messages'; "
    "UPDATE meta SET value=value-old.size WHERE key='kept_octets'; END",
    "CREATE TRIGGER gone_comes_back AFTER UPDATE OF kept ON gone WHEN old.kept AND NOT new.kept BEGIN "
    "UPDATE meta SET value=value-1 WHERE key='kept_messages'; "
    "UPDATE meta SET value=value-old.size WHERE key='kept_octets'; END",
)
# RFC822.SIZE where it is not the octets' number; UNSEEN_SIZE where that is to be found out
TOLD: Final = "CREATE TABLE told (body INTEGER PRIMARY KEY, size INTEGER NOT NULL) STRICT"
TABLES: Final = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE mailbox (
    id INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,
    mailbox_id TEXT NOT NULL UNIQUE,
    uid_validity INTEGER NOT NULL,
    uid_next INTEGER NOT NULL DEFAULT 1,
    highest_modseq INTEGER NOT NULL DEFAULT 1,
    recent_from INTEGER NOT NULL DEFAULT 1,
    messages INTEGER NOT NULL DEFAULT 0,
    unseen INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    octets INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE message (
    mailbox INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    keywords TEXT NOT NULL,
    internal_date INTEGER NOT NULL,
    zone INTEGER NOT NULL,
    save_date INTEGER NOT NULL,
    size INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    email_id TEXT NOT NULL,
    body INTEGER NOT NULL,
    PRIMARY KEY (mailbox, uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_modseq ON message (mailbox, modseq);
CREATE TABLE body (
    id INTEGER PRIMARY KEY,
    copies INTEGER NOT NULL,
    file TEXT,
    octets BLOB,
    summary BLOB
) STRICT;
CREATE INDEX body_file ON body (file) WHERE file IS NOT NULL;
CREATE TABLE expunged (
    mailbox INTEGER NOT NULL, modseq INTEGER NOT NULL, uid INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq, uid)
) STRICT, WITHOUT ROWID;
CREATE TABLE seen (
    mailbox INTEGER NOT NULL, reader TEXT NOT NULL, uid INTEGER NOT NULL,
    PRIMARY KEY (mailbox, reader, uid)
) STRICT, WITHOUT ROWID;
CREATE TABLE keyword (
    mailbox INTEGER NOT NULL, folded TEXT NOT NULL, spelled TEXT NOT NULL,
    PRIMARY KEY (mailbox, folded)
) STRICT, WITHOUT ROWID;
CREATE TABLE subscription (name BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE garbage (file TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE intent (id TEXT PRIMARY KEY, what TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE known_uids (
    mailbox INTEGER PRIMARY KEY, modseq INTEGER NOT NULL, uids BLOB NOT NULL
) STRICT;
{GONE};
{TOLD};
"""

# format → what makes the next one of it, in one transaction
MIGRATIONS: Final[Mapping[int, str | tuple[str, ...]]] = {
    1: "CREATE INDEX body_file ON body (file) WHERE file IS NOT NULL",  # recovery looks for files
    2: "CREATE TABLE known_uids "
    "(mailbox INTEGER PRIMARY KEY, modseq INTEGER NOT NULL, uids BLOB NOT NULL) STRICT",
    3: GONE,
    4: TOLD,
    5: RETAINED,
}

MESSAGE_COLUMNS: Final = (
    "uid, flags, keywords, internal_date, zone, save_date, size, modseq, email_id, body"
)


def _raise_told(error: sqlite3.DatabaseError, file: Path) -> NoReturn:
    """As the disk's; a bug of ours as it is."""
    is_ours = isinstance(error, sqlite3.OperationalError)
    if is_ours and error.sqlite_errorcode == sqlite3.SQLITE_ERROR:
        raise error
    raise disk_error(error, file) from error


class _Guarded(sqlite3.Cursor):
    """A cursor whose failures are told as the disk's: readers meet damaged pages, full disks, a lack of files."""

    file = Path()

    def execute(self, sql: str, parameters: Any = (), /) -> "_Guarded":
        try:
            super().execute(sql, parameters)
        except sqlite3.DatabaseError as error:
            _raise_told(error, self.file)
        return self

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except sqlite3.DatabaseError as error:
            raise disk_error(error, self.file) from error

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except sqlite3.DatabaseError as error:
            raise disk_error(error, self.file) from error


class Reader(sqlite3.Connection):
    """A connection for reading. `one` and `all` are for what is asked before every command: in one step."""

    file = Path()

    def execute(self, sql: str, parameters: Any = (), /) -> _Guarded:
        cursor = self.cursor(_Guarded)
        cursor.file = self.file
        return cursor.execute(sql, parameters)

    def one(self, sql: str, parameters: Any = (), /) -> Any:
        """The first row, or None."""
        try:
            return sqlite3.Connection.execute(self, sql, parameters).fetchone()
        except sqlite3.DatabaseError as error:
            _raise_told(error, self.file)

    def all(self, sql: str, parameters: Any = (), /) -> list[Any]:
        """All rows."""
        try:
            return sqlite3.Connection.execute(self, sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            _raise_told(error, self.file)


Read = Callable[[Reader, str, tuple[Any, ...]], T]


def open_reader(file: Path) -> Reader:
    """For the event loop: see `_Guarded`."""
    connection = sqlite3.connect(
        file, isolation_level=None, check_same_thread=False, cached_statements=256, factory=Reader
    )
    connection.file = file
    connection.execute(f"PRAGMA busy_timeout={READ_BUSY_MS}")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    return connection


def connect(file: Path, *, for_writing: bool) -> sqlite3.Connection:
    """Open a root's database, making its tables first if there are none. Raises Refusal for a format it cannot read."""
    if for_writing:
        # SQLite's own files take its mode
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, FILE_MODE))
    connection = sqlite3.connect(
        file, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS if for_writing else READ_BUSY_MS}")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    if for_writing:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _make_tables(connection, file)
    return connection


def _make_tables(connection: sqlite3.Connection, file: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > FORMAT:
        raise Refusal(
            Code.UNAVAILABLE,
            f"{file} has format {version}; this murder knows formats up to {FORMAT}: run the newer one",
        )
    if version == FORMAT:
        return
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()  # another worker was faster
    steps = (
        [MIGRATIONS[number] for number in range(version, FORMAT)] if version else [TABLES, RETAINED]
    )
    for step in steps:
        for statement in step.split(";") if isinstance(step, str) else step:
            if statement.strip():
                connection.execute(statement)
    if steps:
        connection.execute(f"PRAGMA user_version={FORMAT}")
    connection.execute("COMMIT")


def to_bits(flags: Iterable[str]) -> int:
    """System flags as a row has them; keywords are left out."""
    return sum(BITS[flag] for flag in flags if flag in BITS)


def to_keywords(flags: Iterable[str]) -> list[str]:
    """What is no system flag, in order."""
    return sorted(flag for flag in flags if flag not in BITS)


def to_flags(bits: int, keywords: str) -> frozenset[str]:
    """Both, as clients know them."""
    if len(keywords) > SHORT_KEYWORDS:  # a message may have a thousand of them
        return _to_flags(bits, keywords)
    return _to_flags_remembered(bits, keywords)


def _to_flags(bits: int, keywords: str) -> frozenset[str]:
    named = [flag for flag, bit in BITS.items() if bits & bit]
    return frozenset(named + keywords.split() if keywords else named)


def to_flagged(rows: Iterable[tuple[Any, ...]]) -> list[Flagged]:
    """From UID, bits, keywords, mod-sequence: flat, for there may be a million."""
    known: dict[tuple[int, str], frozenset[str]] = {}
    flagged: list[Flagged] = []
    for uid, bits, words, modseq in rows:
        flags = known.get((bits, words))
        if flags is None:
            flags = known[bits, words] = to_flags(bits, words)
        flagged.append(_new(Flagged, (uid, flags, modseq)))
    return flagged


_new: Final = tuple.__new__  # what a named tuple's own constructor calls, with a step more
SHORT_KEYWORDS: Final = 100  # octets
_to_flags_remembered: Final = functools.lru_cache(maxsize=4096)(_to_flags)


def to_seconds(date: datetime) -> tuple[int, int]:
    """Unix seconds, and the zone in minutes."""
    offset = date.utcoffset() or timedelta()
    return int(date.timestamp()), int(offset.total_seconds() // 60)


def to_date(seconds: int, zone: int) -> datetime:
    """From Unix seconds and the zone in minutes."""
    return datetime.fromtimestamp(seconds, timezone(timedelta(minutes=zone)) if zone else UTC)


def to_message(row: tuple[Any, ...]) -> Message:
    """From MESSAGE_COLUMNS."""
    uid, bits, keywords, date, zone, saved, size, modseq, email_id, _ = row
    is_short = len(keywords) <= SHORT_KEYWORDS
    return Message(
        Uid(uid),
        _to_flags_remembered(bits, keywords) if is_short else _to_flags(bits, keywords),
        to_date(date, zone) if zone else datetime.fromtimestamp(date, UTC),
        size,
        ModSeq(modseq),
        datetime.fromtimestamp(saved, UTC),
        email_id,
    )
