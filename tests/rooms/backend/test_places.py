"""Whether the mail of users and of shared mailboxes is where it was: asked before the store is started."""

from pathlib import Path

import pytest

from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.backend.hierarchy.intent import Intent, Operation, format_intent
from murder.roles.backend.reconcile import store
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.change import PutEntry, PutIntent
from murder.roles.mupdate.database.mboxlist import MailboxList

USERS = tuple(b"user.u%d" % number for number in range(5))


DELETED = tuple(b"DELETED.user.u%d.6B0D7FC7" % number for number in range(5))


class Places:
    """Notes which mailboxes are asked for."""

    def __init__(self) -> None:
        self.needed: list[bytes] = []

    def need_place(self, name: MailboxName) -> None:
        self.needed.append(name)


@pytest.mark.parametrize(
    ("names", "needed"),
    [
        ((b"a", b"b", b"c", b"user.x"), [b"a", b"user.x"]),
        ((*USERS, b"zoo"), [b"user.u0", b"zoo"]),
        ((*USERS, b"x.example!zoo"), [b"user.u0", b"x.example!zoo"]),
        (USERS, [b"user.u0"]),
        ((*DELETED, b"a", *USERS), [b"a", b"user.u0"]),
        (DELETED, []),
        ((), []),
    ],
)
async def test_both_kinds_are_looked_at_however_many_there_are_of_one(
    names: tuple[bytes, ...], needed: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "AT_ONCE", 2)
    mailbox_list = MailboxList.open(tmp_path)
    ledger = Ledger(mailbox_list)
    rows = [MailboxEntry(MailboxName(name), EntryState.ACTIVE, b"be!p", b"") for name in names]
    await ledger.commit(map(PutEntry, rows))
    places = Places()
    store.need_places(places, mailbox_list)
    assert places.needed == needed
    await ledger.close()
    mailbox_list.close()


INBOX, SUB = MailboxName(b"user.u0"), MailboxName(b"user.u0.sub")
BEGUN: dict[str, tuple[Intent, list[bytes]]] = {
    "another is made": (Intent(Operation.CREATE, ((SUB, SUB),), "dead"), [b"user.u0"]),
    "its rights change": (Intent(Operation.SET_ACL, ((INBOX, INBOX),), "dead"), [b"user.u0"]),
    "it moves": (Intent(Operation.MOVE, ((INBOX, INBOX),), "move:a1"), [b"user.u0"]),
    "it is deleted": (Intent(Operation.DELETE, ((INBOX, INBOX),), "dead"), []),
}


@pytest.mark.parametrize("begun", BEGUN)
async def test_of_a_tree_in_which_something_was_begun_all_else_is_there(
    begun: str, tmp_path: Path
) -> None:
    """Where each tree was busy as this server died, nothing was looked at, and each mailbox made anew, empty."""
    intent, needed = BEGUN[begun]
    mailbox_list = MailboxList.open(tmp_path)
    ledger = Ledger(mailbox_list)
    row = MailboxEntry(INBOX, EntryState.ACTIVE, b"be!p", b"")
    marks = [PutIntent(tree, format_intent(intent)) for tree in intent.trees]
    await ledger.commit([PutEntry(row), *marks])
    places = Places()
    store.need_places(places, mailbox_list)
    assert places.needed == needed
    await ledger.close()
    mailbox_list.close()
