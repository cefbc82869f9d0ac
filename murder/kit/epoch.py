"""How far a store has come, in the file `epoch` beside its roots: an older copy of it has a smaller number.

`NUMBER RENEWED`: RENEWED is the number at which the store was last found to be an older copy. Each root keeps the one up
to which its mailboxes have had new UIDVALIDITYs, and gets them when it is next opened.
"""

import asyncio
import secrets
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from murder.api.disk import disk_error
from murder.durable import replace_file
from murder.errors import Code, Refusal
from murder.kit.expunged import hold_no_more
from murder.kit.rows import FROZEN, WAS, next_uid_validity
from murder.kit.schema import FILE_MODE

FILE: Final = "epoch"


@dataclass(frozen=True, slots=True)
class Epoch:
    number: int = 0
    renewed: int = 0


def read_epoch(folder: Path) -> Epoch:
    """Raises Refusal where the file is no such file."""
    path = folder / FILE
    try:
        words = path.read_text(encoding="ascii").split()
        number, renewed = (int(word) for word in words)
    except FileNotFoundError:
        return Epoch()
    except OSError as error:
        raise disk_error(error, path) from error
    except ValueError:
        raise Refusal(Code.UNAVAILABLE, f"{path} holds no two numbers: remove it") from None
    return Epoch(number, renewed)


def write_epoch(folder: Path, epoch: Epoch) -> None:
    """Durable, whole or not at all."""
    path = folder / FILE
    try:
        replace_file(path, b"%d %d\n" % (epoch.number, epoch.renewed), FILE_MODE)
    except OSError as error:
        raise disk_error(error, path) from error


class EpochStore:
    """What a store does for `murder.api.store.KeepsEpoch`, but for `renew`: the file stands in `epoch_folder`."""

    epoch_folder: Path

    async def epoch(self) -> int:
        """See murder.api.store.KeepsEpoch."""
        return read_epoch(self.epoch_folder).number

    async def set_epoch(self, number: int) -> None:
        """See murder.api.store.KeepsEpoch."""
        renewed = read_epoch(self.epoch_folder).renewed
        await asyncio.to_thread(write_epoch, self.epoch_folder, Epoch(number, renewed))


def is_renewed(db: sqlite3.Connection, renewed: int) -> bool:
    """Whether the root's mailboxes have had new UIDVALIDITYs for that number."""
    row = db.execute("SELECT value FROM meta WHERE key='renewed'").fetchone()
    return (row[0] if row else 0) >= renewed


def renew_rows(db: sqlite3.Connection, renewed: int) -> list[int]:
    """As `renew_boxes`, once for a number."""
    if is_renewed(db, renewed):
        return []
    boxes = renew_boxes(db)
    db.execute("INSERT OR REPLACE INTO meta VALUES ('renewed',?)", (renewed,))
    return boxes


def renew_boxes(db: sqlite3.Connection) -> list[int]:
    """Give each mailbox a UIDVALIDITY that was never told before, and with it another id (RFC 8474 §4: one id is never
    two mailboxes); their row numbers. In the caller's transaction."""
    boxes = db.execute("SELECT id, mailbox_id FROM mailbox").fetchall()
    now = int(time.time())
    for box_id, old in boxes:
        fresh, validity = secrets.token_hex(10), next_uid_validity(db, now)
        db.execute(
            "UPDATE mailbox SET uid_validity=?, mailbox_id=? WHERE id=?", (validity, fresh, box_id)
        )
        db.execute("UPDATE meta SET key=? WHERE key=?", (FROZEN + fresh, FROZEN + old))
        # what a crash has left unfinished in another root names it so
        db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (WAS + old, box_id))
        hold_no_more(db, box_id)
    return [box_id for box_id, _ in boxes]
