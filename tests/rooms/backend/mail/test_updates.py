"""A view alone: what it tells, and what it never tells."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import ClassVar, cast

from murder.api.store import Mailbox, MailboxStore, NewMessage
from murder.model.flag import MAX_KEYWORDS_OF_MESSAGE, FlagChange
from murder.model.message import MANY_FLAGS, MAX_UID, Changes, ModSeq, Uid
from murder.model.name import MailboxName
from murder.roles.backend.changes.looking import LOOKS
from murder.roles.backend.changes.updates import A_FEW, MOST_FLAGS, View
from tests.kit.waiting import until_soon
from tests.rooms.backend.server import memory_store

INBOX, OTHER = MailboxName(b"user.ana"), MailboxName(b"user.bob")
PATIENCE_S = 30.0


async def add(store: MailboxStore, mailbox: Mailbox) -> Uid:
    incoming = store.incoming()
    await incoming.write(b"mail")
    return (await mailbox.append([NewMessage(incoming)]))[0]


@asynccontextmanager
async def looking(
    name: MailboxName = INBOX,
) -> AsyncIterator[tuple[MailboxStore, Mailbox, View]]:
    """A store with three messages in a mailbox, the mailbox, and another session's view of it."""
    store = memory_store()
    await store.create(name, "default")
    mailbox = await store.open(name, "ana")
    for _ in range(3):
        await add(store, mailbox)
    view = View(await store.open(name, "ana"), read_only=False)
    await view.load()
    yield store, mailbox, view


async def test_a_message_that_comes_and_goes_unseen_is_never_told() -> None:
    async with looking() as (store, mailbox, view):
        fresh = await add(store, mailbox)
        await view.poll()
        await mailbox.expunge([fresh, Uid(1)])
        await view.poll()
        updates = view.take(removals=True)
        assert list(updates.expunged) == [1]
        assert list(updates.vanished) == [1]
        assert updates.exists is None
        assert list(view.uids) == [2, 3]


async def test_numbers_stay_while_removals_must_not_be_told() -> None:
    async with looking() as (store, mailbox, view):
        await mailbox.expunge([Uid(1)])
        await add(store, mailbox)
        await view.poll()
        updates = view.take(removals=False)
        assert not updates.expunged
        assert updates.exists == 4
        assert view.seq_of(2) == 2
        updates = view.take(removals=True)
        assert list(updates.expunged) == [1]
        assert updates.exists is None
        assert view.seq_of(2) == 1


async def test_many_removals_are_told_one_by_one_as_they_hold() -> None:
    async with looking() as (store, mailbox, view):
        for _ in range(200):
            await add(store, mailbox)
        await view.poll()
        view.take(removals=True)
        await mailbox.expunge([Uid(uid) for uid in range(1, 200, 2)])
        await view.poll()
        updates = view.take(removals=True)
        assert list(updates.expunged) == list(range(1, 101))
        assert list(view.uids) == [*range(2, 201, 2), 201, 202, 203]


async def test_what_the_client_did_itself_is_not_told_again() -> None:
    async with looking() as (_, mailbox, view):
        stored = await view.mailbox.change_flags([Uid(2)], FlagChange.ADD, frozenset({"\\Seen"}))
        view.mark_reported(stored.messages)
        await mailbox.change_flags([Uid(3)], FlagChange.ADD, frozenset({"\\Seen"}))
        await view.poll()
        assert [seq for seq, _ in view.take(removals=True).changed] == [3]


async def test_recent_counts_only_what_the_client_knows_of() -> None:
    """Others append and expunge while this session looks on: claimed, but never told, is not counted."""

    async with looking() as (store, mailbox, view):
        for _ in range(50):
            first = await add(store, mailbox)
            await view.poll()
            await mailbox.expunge([first])
            second = await add(store, mailbox)
            await view.poll()
            updates = view.take(removals=True)
            assert updates.exists is not None and updates.recent is not None
            assert updates.recent <= updates.exists == len(view.uids)
            await mailbox.expunge([second])
            await view.poll()
            view.take(removals=True)
        assert view.recent == set(view.uids) == {1, 2, 3}
        assert await view.recent_up_to(MAX_UID) == 3


class _Hurried:
    """A mailbox in which others are quicker: something happens just before UIDs are claimed."""

    def __init__(self, mailbox: Mailbox, before: Callable[[], Awaitable[None]]) -> None:
        self._mailbox = mailbox
        self._before = before

    def __getattr__(self, name: str) -> object:
        return getattr(self._mailbox, name)

    async def claim_recent(self) -> Collection[Uid]:
        await self._before()
        return await self._mailbox.claim_recent()


async def test_what_is_claimed_before_it_is_seen_is_counted_when_it_is_told() -> None:
    async with looking() as (store, mailbox, view):
        late: list[Uid] = []

        async def before() -> None:
            late.append(await add(store, mailbox))

        view.mailbox = cast(Mailbox, _Hurried(view.mailbox, before))
        await add(store, mailbox)
        await view.poll()
        updates = view.take(removals=True)
        assert (updates.exists, updates.recent) == (4, 4)
        await mailbox.expunge(late)
        await view.poll()
        assert not view.take(removals=True)
        assert await view.recent_up_to(MAX_UID) == len(view.recent) == 4


class _Behind:
    """A mailbox that another worker changes between the looks at its counters and at its rows."""

    def __init__(self, mailbox: Mailbox, says: ModSeq) -> None:
        self._mailbox = mailbox
        self.says: ModSeq | None = says

    def __getattr__(self, name: str) -> object:
        return getattr(self._mailbox, name)

    async def changes(self, since: ModSeq) -> Changes:
        found = await self._mailbox.changes(since)
        return found if self.says is None else replace(found, highest_modseq=self.says)


async def test_what_is_newer_than_the_store_says_is_told_once() -> None:
    async with looking() as (store, mailbox, view):
        behind = _Behind(view.mailbox, view.modseq)
        view.mailbox = cast(Mailbox, behind)
        fresh = await add(store, mailbox)
        await mailbox.change_flags([Uid(2)], FlagChange.ADD, frozenset({"\\Seen"}))
        own = await view.mailbox.change_flags([Uid(3)], FlagChange.ADD, frozenset({"\\Seen"}))
        view.mark_reported(own.messages)
        await view.poll()
        updates = view.take(removals=True)
        assert (list(updates.arrived), updates.changed) == ([fresh], [])
        await view.poll()
        assert not view.take(removals=True)
        behind.says = None
        await view.poll()
        assert [seq for seq, _ in view.take(removals=True).changed] == [2]
        await view.poll()
        assert not view.take(removals=True)
        await mailbox.change_flags([fresh], FlagChange.ADD, frozenset({"\\Flagged"}))
        await view.poll()
        assert [seq for seq, _ in view.take(removals=True).changed] == [4]


async def test_what_goes_while_a_session_begins_is_not_recent_there() -> None:
    async with looking() as (store, mailbox, _):
        fresh = await add(store, mailbox)

        async def uids() -> Sequence[Uid]:
            await mailbox.expunge([fresh])
            return await mailbox.uids()

        opened = await store.open(INBOX, "ana")
        opened.uids = uids  # type: ignore[method-assign] # others are quicker
        view = View(opened, read_only=False)
        await view.load()
        assert (view.exists, await view.recent_up_to(MAX_UID)) == (3, 0)


async def test_removals_by_the_client_of_what_it_was_never_told_are_not_kept() -> None:
    async with looking() as (store, mailbox, view):
        fresh = await add(store, mailbox)
        await view.poll()
        await view.removed(await view.mailbox.expunge([fresh]))
        await view.poll()
        assert not view.take(removals=True)
        assert not view.has_pending
        assert not view._mine


async def test_the_flags_of_many_messages_are_told_a_part_at_a_time() -> None:
    async with looking() as (store, mailbox, view):
        for _ in range(2 * MOST_FLAGS):
            await add(store, mailbox)
        await view.poll()
        view.take(removals=True)
        everything = [Uid(uid) for uid in view.uids]
        await mailbox.change_flags(everything, FlagChange.ADD, frozenset({"\\Seen"}))
        await view.poll()
        before = view.settled
        parts = [view.take(removals=True).changed]
        # a client that resynchronises must not count the rest as told
        assert view.settled == before
        # of the others the UIDs are kept
        assert len(view._changed) + len(parts[0]) <= 2 * MOST_FLAGS
        while view.has_more_flags:
            await view.look_at_more()
            parts.append(view.take_flags())
            assert parts[-1]  # nothing is waited for in vain
        view.settle()
        assert [len(part) for part in parts] == [MOST_FLAGS, MOST_FLAGS, 3]
        assert [message.uid for part in parts for _, message in part] == everything
        assert view.settled == view.modseq > before


async def test_what_has_changed_again_before_it_is_told_is_told_once_as_it_is_then() -> None:
    async with looking() as (store, mailbox, view):
        for _ in range(MOST_FLAGS):
            await add(store, mailbox)
        await view.poll()
        view.take(removals=True)
        everything = [Uid(uid) for uid in view.uids]
        await mailbox.change_flags(everything, FlagChange.ADD, frozenset({"\\Seen"}))
        await view.poll()
        assert len(view.take(removals=True).changed) == MOST_FLAGS
        last, gone = everything[-1], everything[-2]
        await mailbox.change_flags([last], FlagChange.ADD, frozenset({"\\Flagged"}))
        await mailbox.expunge([gone])
        await view.look_at_more()
        told = view.take_flags()
        assert [(message.uid, message.flags) for _, message in told] == [
            (everything[-3], frozenset({"\\Seen"}))
        ]
        assert not view.has_more_flags
        await view.poll()
        updates = view.take(removals=True)
        assert list(updates.vanished) == [gone]
        [(_, message)] = updates.changed
        assert (message.uid, message.flags) == (last, frozenset({"\\Seen", "\\Flagged"}))


class _Waiting:
    """A mailbox whose changes are read when `go_on` is set; `at_it` are those who have asked."""

    go_on = asyncio.Event()
    at_it: ClassVar[list[int]] = [0, 0]  # now, and at most

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.name = mailbox.name

    async def changes(self, since: ModSeq) -> Changes:
        self.at_it[0] += 1
        self.at_it[1] = max(self.at_it)
        await self.go_on.wait()
        self.at_it[0] -= 1
        return await self._mailbox.changes(since)


async def test_few_sessions_look_at_a_large_mailbox_at_a_time() -> None:
    async with looking() as (store, mailbox, _):
        for _ in range(A_FEW):
            await add(store, mailbox)
        _Waiting.go_on, _Waiting.at_it = asyncio.Event(), [0, 0]
        looks = []
        for _ in range(3 * LOOKS):
            view = View(await store.open(INBOX, "ana"), read_only=True)
            await view.load()
            view.mailbox, view.tell_numbers = cast(Mailbox, _Waiting(view.mailbox)), None
            looks.append(asyncio.create_task(view.poll()))
        await until_soon(lambda: _Waiting.at_it[0] == LOOKS)
        async with looking(OTHER) as (others, inbox, view):  # another's mail
            for _ in range(A_FEW):
                await add(others, inbox)
            await view.load()
            await add(others, inbox)
            view.tell_numbers = None
            async with asyncio.timeout(PATIENCE_S):  # it waits for none of them
                await view.poll()
            assert view.take(removals=True).exists == A_FEW + 4
        assert _Waiting.at_it[0] == LOOKS
        _Waiting.go_on.set()
        await asyncio.gather(*looks)
        assert _Waiting.at_it == [0, LOOKS]


async def test_flags_of_many_keywords_are_told_a_part_at_a_time() -> None:
    async with looking() as (store, mailbox, view):
        keywords = {f"k{number}" for number in range(MAX_KEYWORDS_OF_MESSAGE)}
        for _ in range(2 * MANY_FLAGS // MAX_KEYWORDS_OF_MESSAGE):
            await add(store, mailbox)
        await view.poll()
        view.take(removals=True)
        everything = [Uid(uid) for uid in view.uids]
        await mailbox.change_flags(everything, FlagChange.ADD, frozenset(keywords))
        await view.poll()
        part = view.take(removals=True).changed
        assert sum(len(message.flags) for _, message in part) <= MANY_FLAGS
        assert view.has_more_flags
