"""What a store says without waiting (`murder.api.store.TellsAtOnce`, `CountsAtOnce`), checked from outside."""

from collections.abc import Awaitable, Callable

from murder.api.contract.check import Broken, expect, hold
from murder.api.contract.mail import ANNA, OTHER, SMALL, Make, deliver, opened
from murder.api.store import CountsAtOnce, FlagChange, TellsAtOnce

FLAGGED = "\\Flagged"


async def tells_at_once(make: Make) -> None:
    """numbers() are others after each change, and None of a mailbox that is not there by its name."""
    store, (inbox,) = await opened(make, ANNA)
    if not isinstance(inbox, TellsAtOnce):
        return
    known = [inbox.numbers()]
    uids = await deliver(store, inbox, SMALL, SMALL)
    changes: dict[str, Callable[[], Awaitable[object]]] = {
        "messages": inbox.status,
        "flags": lambda: inbox.change_flags(uids[:1], FlagChange.ADD, frozenset({FLAGGED})),
        "recent": inbox.claim_recent,
        "an expunged message": lambda: inbox.expunge(uids[:1]),
    }
    for what, change in changes.items():
        await change()
        status = await inbox.status()
        numbers = inbox.numbers()
        if numbers is None:
            raise Broken(f"no numbers after {what}")
        hold(numbers not in known, f"others after {what}")
        expect(inbox.numbers(), numbers, f"where nothing has changed since {what}")
        expect((numbers[1], *numbers[4:6]), (status.uid_next, status.messages, status.unseen), what)
        known.append(numbers)
    inbox.close()
    expect(inbox.numbers(), known[-1], "of a mailbox that has been closed")
    await store.rename(ANNA, OTHER)
    expect(inbox.numbers(), None, "of a mailbox that is called otherwise now")


async def counts_at_once(make: Make) -> None:
    """numbers_of() tells what an open mailbox does, also later, and None of what is not there."""
    store, (inbox,) = await opened(make, ANNA)
    if not isinstance(store, CountsAtOnce) or not isinstance(inbox, TellsAtOnce):
        return
    for reader in ("anna", "bert"):
        theirs = await store.open(ANNA, reader)
        standing = store.numbers_of(ANNA, reader)
        if standing is None or not isinstance(theirs, TellsAtOnce):
            raise Broken("no numbers of a mailbox that is there")
        mailbox_id, numbers, tell = standing
        expect((mailbox_id, numbers), (inbox.mailbox_id, theirs.numbers()), "id and numbers")
        await deliver(store, inbox, SMALL)
        expect(tell(), theirs.numbers(), "numbers after a message has come")
        theirs.close()
    expect(store.numbers_of(OTHER, "anna"), None, "of a mailbox that is not there")
