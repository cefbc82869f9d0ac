"""What a disk that fails means to a client, and to the operator: for every store that keeps its mail in files.

A full disk, a read-only one, too many open files, a failing or a damaged one become refusals (IMAP `NO`, LMTP 4xx): the
connection lives on, reading goes on where it can, and the next attempt may succeed. Each kind is logged once a minute.
"""

import errno
import logging
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from murder.errors import Code, Refusal

LOG_EVERY_S: Final = 60.0
FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
TOO_MANY_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
PRIMARY: Final = 0xFF  # SQLite's extended codes carry the primary one in their low octet


@dataclass(frozen=True, slots=True)
class _Trouble:
    code: Code
    told: str  # to the client
    advice: str  # to the operator


_FULL: Final = _Trouble(
    Code.OVER_QUOTA, "The disk of this server is full", "make room; no restart is needed"
)
_READ_ONLY: Final = _Trouble(
    Code.UNAVAILABLE,
    "The disk of this server is read-only now",
    "remount it writable; no restart is needed",
)
_TOO_MANY: Final = _Trouble(
    Code.UNAVAILABLE,
    "This server has too many files open, try again later",
    "raise the limit of open files (LimitNOFILE= in the unit)",
)
_DAMAGED: Final = _Trouble(
    Code.UNAVAILABLE,
    "The mail of this mailbox is damaged; its administrator has been told",
    "run `murder ctl store check`, then `murder ctl store repair`",
)
_MESSAGE: Final = _Trouble(
    Code.UNAVAILABLE, "A message is damaged; its administrator has been told", _DAMAGED.advice
)
_BUSY: Final = _Trouble(
    Code.UNAVAILABLE, "The mail of this mailbox is busy, try again later", "look who holds the file"
)
_FAILING: Final = _Trouble(
    Code.UNAVAILABLE, "The disk of this server cannot be used now", "see to the disk"
)
_GONE: Final = _Trouble(
    Code.UNAVAILABLE,
    "The mail of this server cannot be reached now",
    "see whether its file system is mounted there (no restart is needed); a folder from a backup is put back while the node "
    "is stopped",
)
_told_at: dict[tuple[_Trouble, Path], float] = {}
MAX_TOLD: Final = 1000


def _trouble_of(error: BaseException) -> _Trouble | None:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
            return _FULL
        return _OF_SQLITE.get(code & PRIMARY)
    if isinstance(error, OSError):
        if error.errno in FULL_DISK:
            return _FULL
        if error.errno in TOO_MANY_FILES:
            return _TOO_MANY
        return _OF_ERRNO.get(error.errno or 0)
    return None


_OF_SQLITE: Final = {
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _FAILING,  # too many open files, among others: `disk_error` looks
    sqlite3.SQLITE_IOERR: _FAILING,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
_OF_ERRNO: Final = {
    errno.EROFS: _READ_ONLY,
    errno.EIO: _FAILING,
    errno.EACCES: _FAILING,
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.ESTALE), _GONE),
}


def disk_error(error: BaseException, file: Path) -> BaseException:
    """The error to raise in place of `error`, which working on `file` has raised: a Refusal where it is the disk's
    state (a DamagedError where waiting does not help), else an OSError that names the file. Logs."""
    if isinstance(error, Refusal):
        return error
    trouble = _trouble_of(error)
    if trouble is _FAILING and _is_out_of_files():
        trouble = _TOO_MANY
    if trouble is None:
        failure = OSError(f"{file}: {error}")
        failure.__cause__ = error
        return failure
    _log(trouble, file, error)
    kind = DamagedError if trouble is _DAMAGED else Refusal
    return kind(trouble.code, trouble.told)


class DamagedError(Refusal):
    """What a store keeps is not what it was when it was stored: another attempt finds it no better."""


class DamagedMessageError(DamagedError):
    """Likewise, the octets of one message; the others of its mailbox are told."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(_MESSAGE.code, _MESSAGE.told)
        _log(_MESSAGE, path, ValueError(problem))


def _is_out_of_files() -> bool:
    """SQLite does not tell why it cannot open a file."""
    try:
        with open("/dev/null", "rb"):
            return False
    except OSError as error:
        return error.errno in TOO_MANY_FILES


def _log(trouble: _Trouble, file: Path, error: BaseException) -> None:
    now = time.monotonic()
    # a disk is full for all at once
    key = (trouble, file if trouble in (_DAMAGED, _MESSAGE) else Path())
    last = _told_at.get(key)
    if last is not None and now - last < LOG_EVERY_S:
        return
    if len(_told_at) >= MAX_TOLD:
        _told_at.clear()
    _told_at[key] = now
    logging.getLogger("store").error("%s: %s (%s): %s", file, trouble.told, error, trouble.advice)
