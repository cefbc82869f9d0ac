"""What a `RowMailbox` needs of its store: where octets are, if not in rows, and how messages are copied."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from murder.api import NewMessage
from murder.model.message import Uid

M_contra = TypeVar("M_contra", contravariant=True)


class Copying(Protocol[M_contra]):
    """What copies between two mailboxes of one store: `murder.kit.transfer`."""

    async def copy(
        self, source: M_contra, uids: Sequence[Uid], target: M_contra, remove: bool
    ) -> Mapping[Uid, Uid]:
        """COPY or MOVE; source UID to new UID."""
        ...

    async def replace(
        self, source: M_contra, uids: Sequence[Uid], new: NewMessage, target: M_contra
    ) -> tuple[Uid, Sequence[Uid]] | None:
        """See murder.api.store.ReplacesMessages."""
        ...


class Bodies(Protocol):
    """Where the octets of one mailbox's messages are, if not in its root, and what goes along with a change of its rows."""

    def changing(self, db: sqlite3.Connection) -> AbstractContextManager[object]:
        """Is around each change, in its transaction; such changes are durable when they return."""
        ...

    def add(self, db: sqlite3.Connection, new: NewMessage) -> int:
        """Keep the octets; the new row of `body`."""
        ...

    def flags_changed(self, db: sqlite3.Connection, uid: int) -> None:
        """The row has its new flags."""
        ...

    def set_aside(self, db: sqlite3.Connection, body: int, *, is_kept: bool) -> None:
        """Its message has been expunged, and may still be read for a while, or is kept and may come back: nobody is to
        take it for a message."""
        ...

    def bring_back(self, db: sqlite3.Connection, body: int, bits: int, keywords: str) -> int:
        """The octets of one that was set aside are a message's again: as another body. Raises Refusal(EXPUNGE_ISSUED)
        where they are gone."""
        ...
