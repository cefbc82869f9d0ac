"""A mailbox's numbers: one row of its root, which every change of the mailbox changes."""

import sqlite3
from typing import Final, cast

from murder.api.store import Numbers
from murder.errors import Code, Refusal
from murder.kit.root import Root
from murder.model.name import MailboxName

_COLUMNS: Final = (
    "uid_validity, uid_next, highest_modseq, recent_from, messages, {}, deleted, octets"
)
# As others than the owner see it, and as the owner does
NUMBERS: Final = (_COLUMNS.format("-1"), _COLUMNS.format("unseen"))
_BY_ID: Final = f"SELECT {NUMBERS[True]} FROM mailbox WHERE id=?"
_BY_NAME: Final = tuple(
    f"SELECT {columns} FROM mailbox WHERE id=? AND name=?" for columns in NUMBERS
)


def read_numbers(root: Root, box_id: int) -> Numbers:
    """As the owner sees the mailbox, whatever it is called by now. Raises Refusal."""
    row: Numbers | None = root.reader.one(_BY_ID, (box_id,))
    if row is None:
        raise Refusal(Code.NONEXISTENT, "This mailbox has been deleted")
    return row


def numbers_now(root: Root, box_id: int, name: MailboxName, is_own: bool) -> Numbers | None:
    """See murder.api.store.TellsAtOnce."""
    if root.is_closed:
        return None
    try:  # without the cursor of `Reader`: this is asked before every command
        row = sqlite3.Connection.execute(root.reader, _BY_NAME[is_own], (box_id, name)).fetchone()
    except sqlite3.Error:  # whoever asks in the ordinary way is told what is wrong
        return None
    return cast(Numbers | None, row)
