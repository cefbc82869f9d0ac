"""What a rename, or a deletion of a whole hierarchy, makes of rows of the list, and what clients are told of it."""

from collections.abc import Iterator, Sequence

from murder.model.acl import Rights, format_acl, parse_acl
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import (
    MailboxName,
    exists_already,
    is_deleted,
    is_inbox,
    no_such_mailbox,
    owner_of,
)
from murder.roles.backend.changes.news import Kind, News
from murder.roles.mupdate.database.change import Change, PutEntry
from murder.roles.mupdate.database.transaction import ListTransaction

Moves = Sequence[tuple[MailboxName, MailboxName]]
"""Old and new names; twice the same for what is removed."""


class Taken:
    """The first step of a rename: its new names, reserved. `rows` have no access lists, which may be long, and go over with
    their mailboxes."""

    def __init__(self, moves: Moves) -> None:
        self._moves = moves
        self.rows: list[MailboxEntry] = []

    def begin(self, transaction: ListTransaction) -> list[Change]:
        """Raises Refusal where one is not there, or its new name is taken."""
        self.rows.clear()
        for old, new in self._moves:
            entry = transaction.find(old)
            if entry is None or not entry.is_active:
                raise no_such_mailbox(old)
            if old == new:
                continue
            if transaction.find(new) is not None:
                raise exists_already(new)
            self.rows.append(MailboxEntry(new, EntryState.RESERVED, entry.raw_location))
        return [PutEntry(entry) for entry in self.rows]


def news_of_rename(moves: Moves) -> Iterator[News]:
    """To clients a mailbox that is put to rest under DELETED is deleted, one that comes back is new."""
    kind = Kind.RENAMED
    for old, new in moves:
        if old == new or is_deleted(new):
            if not is_deleted(old):
                yield News(Kind.DELETED, old)
        elif is_deleted(old):
            yield News(Kind.CREATED, new)
        else:
            yield News(kind, new, old)
            kind = Kind.RENAMED_BELOW


def change_of_owner(old: MailboxName, new: MailboxName) -> "ChangeOfOwner":
    """Where a whole user is renamed, their name in the access lists too."""
    if is_inbox(old) and is_inbox(new):
        return ChangeOfOwner(owner_of(old) or "", owner_of(new) or "")
    return ChangeOfOwner("", "")


class ChangeOfOwner:
    """Gives one identifier's rights to another."""

    def __init__(self, old: str, new: str) -> None:
        self._old = old
        self._new = new

    @property
    def owners(self) -> tuple[str, str] | None:
        """The old one and the new one, where there are two."""
        return (self._old, self._new) if self._old != self._new else None

    def __call__(self, raw_acl: bytes) -> bytes:
        """The access list of a mailbox that goes over; the very same where nothing of it changes."""
        if self._old == self._new:
            return raw_acl
        acl = parse_acl(raw_acl)
        rights: Rights | None = acl.entries.get(self._old)
        if rights is None:
            return raw_acl
        return format_acl(acl.changed(self._old, frozenset()).changed(self._new, rights))
