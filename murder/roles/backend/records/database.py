"""A small database of this backend's own, beside its list: opened, with its format looked at."""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from murder.errors import Code, Refusal

FORMAT: Final = 1  # of each of them, as `user_version`; 0 in those of versions that wrote none, which is the same
MODE: Final = 0o600


def open_database(file: Path, busy_ms: int, statements: Sequence[str]) -> sqlite3.Connection:
    """Durable, for one writer; `statements` make what is not there. Raises OSError, sqlite3.Error, and Refusal where a newer
    murder has written it."""
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, MODE))
    database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        database.execute(f"PRAGMA busy_timeout={busy_ms}")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise Refusal(
                Code.UNAVAILABLE,
                f"{file} has format {version}; this murder knows formats up to {FORMAT}: run the newer one",
            )
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", *statements):
            database.execute(statement)
        if version < FORMAT:
            database.execute(f"PRAGMA user_version={FORMAT}")
    except BaseException:
        database.close()
        raise
    return database
