"""What a store adds once (`murder.api.store.AppendsOnce`), checked from outside."""

import asyncio

from murder.api.contract.check import expect
from murder.api.contract.mail import ANNA, SMALL, Make, opened
from murder.api.store import AppendsOnce, NewMessage, Once


async def appends_once(make: Make) -> None:
    """append_once() adds nothing where one who has died had added it already, only once, and adds it for all others."""
    store, (inbox,) = await opened(make, ANNA)
    if not isinstance(store, AppendsOnce):
        return
    power: AppendsOnce = store
    dead: set[str] = set()

    async def is_added(key: bytes, by: str) -> bool:
        incoming = store.incoming()
        await incoming.write(SMALL)
        try:
            once = Once(key, by, lambda process, _: process in dead)
            uid = await power.append_once(inbox, NewMessage(incoming), once)
        finally:
            await incoming.close()
        return uid is not None and uid in await inbox.uids()

    expect(await is_added(b"one", "first"), True, "a copy that is new")
    expect(await is_added(b"one", "first"), True, "another one of who lives")
    expect(await is_added(b"one", "second"), True, "another one of who lives beside them")
    dead.add("first")
    expect(await is_added(b"one", "third"), True, "another one where the mark is of who lives")
    dead.add("third")
    expect(await is_added(b"two", "second"), True, "a copy of another key")
    expect(await is_added(b"one", "second"), False, "the next try of what a dead one has added")
    expect(await is_added(b"one", "second"), True, "another one behind it")
    dead.add("second")
    both = await asyncio.gather(is_added(b"one", "fourth"), is_added(b"one", "fourth"))
    expect(
        sorted(both), [False, True], "the next try, and another message that is the same, at once"
    )
    expect((await inbox.status()).messages, 7, "messages in the end")
