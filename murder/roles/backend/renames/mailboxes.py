"""What is done to each mailbox of a hierarchy, once it is decided: in the store at once, in the list by the changes that are
returned. All of it may be done twice, and again after a crash. Raises what the store raises."""

from murder.api.store import MailboxStore
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName, inbox_of, is_below, is_inbox, moved, owner_of
from murder.roles.backend.records.annotations import moved_with, removed_with
from murder.roles.mupdate.database.change import Change, PutEntry, RemoveEntry
from murder.roles.mupdate.database.mboxlist import MailboxList


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
    owners: tuple[str, str] | None,
) -> list[Change]:
    """To the row that is prepared for it; `owners` are the old and the new one of a user who is renamed."""
    row = mailboxes.find(new)
    if row is None or row.is_active:
        return []
    await store.rename(old, new)
    active = MailboxEntry(new, EntryState.ACTIVE, row.raw_location, row.raw_acl)
    return [RemoveEntry(old), PutEntry(active), *moved_with(mailboxes, [(old, new)], owners)]


async def move_subscriptions(store: MailboxStore, owners: tuple[str, str]) -> None:
    """With a user who is renamed; those that they have to what is elsewhere, too."""
    before, after = owners
    old, new = inbox_of(before), inbox_of(after)
    for name in await store.subscriptions(before):
        renamed = moved(name, old, new) if is_below(name, old) else name
        await store.subscribe(after, renamed, True)
        await store.subscribe(before, name, False)
