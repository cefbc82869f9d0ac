"""What is done to each mailbox of a hierarchy, once it is decided: in the store at once, in the list by the changes that are
returned. All of it may be done twice, and again after a crash. Raises what the store raises."""

from collections.abc import AsyncGenerator, Callable
from typing import Final

from murder.api.store import MailboxStore
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName, inbox_of, is_below, is_inbox, moved, owner_of
from murder.net.turns import Turn, in_turns
from murder.roles.backend.hierarchy.intent import Intent
from murder.roles.backend.records.annotations import moved_with, removed_with
from murder.roles.backend.renames.rows import ChangeOfOwner, Moves, change_of_owner
from murder.roles.mupdate.database.change import Change, PutEntry, RemoveEntry
from murder.roles.mupdate.database.mboxlist import MailboxList

MOST_MOVES: Final = 1000  # mailboxes that one commit renames, or with
MOST_ACL_OCTETS: Final = 1 << 19  # of access lists, about: 10 with 1,000 identifiers each,
# where it is one and the same list: then they share pages of the index
MANY_ACL_OCTETS: Final = 4 * MOST_ACL_OCTETS


async def remove_mailbox(
    store: MailboxStore, mailboxes: MailboxList, name: MailboxName
) -> list[Change]:
    """With its owner's subscriptions, where it is an INBOX: whoever is called so next has not subscribed to anything."""
    if mailboxes.find(name) is None:
        return []
    await store.delete(name)
    if is_inbox(name):
        owner = owner_of(name) or ""
        for subscribed in await store.subscriptions(owner):
            await store.subscribe(owner, subscribed, False)
    return [RemoveEntry(name), *removed_with(mailboxes, [name])]


async def move_mailbox(
    store: MailboxStore,
    mailboxes: MailboxList,
    old: MailboxName,
    new: MailboxName,
    change: ChangeOfOwner,
) -> list[Change]:
    """To the row that is prepared for it, with its access list; `change`: where a user is renamed."""
    row, before = mailboxes.find(new), mailboxes.find(old)
    if row is None or row.is_active:
        return []
    await store.rename(old, new)
    raw_acl = row.raw_acl if before is None else change(before.raw_acl)
    active = MailboxEntry(new, EntryState.ACTIVE, row.raw_location, raw_acl)
    return [RemoveEntry(old), PutEntry(active), *moved_with(mailboxes, [(old, new)], change.owners)]


async def is_much(mailboxes: MailboxList, moves: Moves) -> bool:
    """Whether it is more than one commit should hold."""
    if len(moves) > MOST_MOVES:
        return True
    octets = 0
    async for old, _ in in_turns(moves):
        row = mailboxes.find(old)
        octets += 0 if row is None else len(row.raw_acl)
        if octets > MOST_ACL_OCTETS:
            return True
    return False


async def carried_out(
    store: MailboxStore, mailboxes: MailboxList, intent: Intent, step: Callable[[str], None]
) -> AsyncGenerator[list[Change], None]:
    """All of a hierarchy, some at a time: what is to be committed before the next ones, which no commit holds together with
    these, as access lists may be long."""
    turn = Turn()
    change = change_of_owner(*(intent.root or intent.moves[0]))
    changes: list[Change] = []
    moves = octets = different = 0
    last_acl = b""
    for old, new in intent.moves:
        moves += 1
        if old == new:
            changes += await remove_mailbox(store, mailboxes, old)
            step("removed")
        else:
            moved_over = await move_mailbox(store, mailboxes, old, new, change)
            for changed in moved_over:
                if type(changed) is PutEntry:
                    octets += len(changed.entry.raw_acl)
                    if changed.entry.raw_acl != last_acl:
                        last_acl = changed.entry.raw_acl
                        different += len(last_acl)
            changes += moved_over
            step("moved")
        if different >= MOST_ACL_OCTETS or octets >= MANY_ACL_OCTETS or moves >= MOST_MOVES:
            yield changes
            changes, moves, octets, different, last_acl = [], 0, 0, 0, b""
        if turn.is_over:
            await turn.rest()
    if change.owners is not None and intent.root in intent.moves:
        await move_subscriptions(store, change.owners)
        step("subscribed")
    if changes:
        yield changes


async def move_subscriptions(store: MailboxStore, owners: tuple[str, str]) -> None:
    """With a user who is renamed; those that they have to what is elsewhere, too."""
    before, after = owners
    old, new = inbox_of(before), inbox_of(after)
    for name in await store.subscriptions(before):
        renamed = moved(name, old, new) if is_below(name, old) else name
        await store.subscribe(after, renamed, True)
        await store.subscribe(before, name, False)
