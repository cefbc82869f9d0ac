"""What many who watch one mailbox are told of one change is read and formatted once for all of them."""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murder.api.store import FlagChange, Mailbox, NewMessage
from murder.kit import mailbox as kit_mailbox
from murder.kit import pages
from murder.model.message import Flagged, ModSeq, SeqNum, Uid
from murder.model.name import inbox_of
from murder.roles.backend.changes import changecache, looking, updates
from murder.roles.backend.changes.changecache import ChangeCaches
from murder.roles.backend.changes.events import Events
from murder.roles.backend.changes.looking import Interest
from murder.roles.backend.changes.tracker import Tracker
from murder.roles.backend.changes.updates import View
from murder.roles.backend.imap import untagged
from murder.roles.backend.imap.flags import FlagForms
from murder.roles.backend.imap.untagged import (
    Manner,
    format_flag_updates,
    format_numbers,
    format_shared,
)
from tests.rooms.backend.server import spool_store

COUNT, SOME = 95, 10
ANY = frozenset({"\\Seen", "\\*"})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE", SOME)
    for module in (looking, updates):
        monkeypatch.setattr(module, "PART", SOME)
    monkeypatch.setattr(updates, "MOST_FLAGS", SOME)
    monkeypatch.setattr(untagged, "MANY_LINES", 2)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages have been read, each time."""
    read: list[int] = []

    def counting(name: str) -> None:
        real = getattr(kit_mailbox, name)

        def made(rows: Any) -> Any:
            result = real(rows)
            read.append(len(result) if isinstance(result, list) else 1)
            return result

        monkeypatch.setattr(kit_mailbox, name, made)

    counting("to_flagged")
    counting("to_message")
    return read


class Watched:
    """A mailbox that several watch, and another session that changes it."""

    def __init__(self, store: Any, tracker: Tracker, views: Sequence[View], other: Mailbox) -> None:
        self.store, self.tracker, self.views, self.other = store, tracker, views, other
        self.forms = [FlagForms(ANY) for _ in views]

    async def told(self, at: int) -> list[bytes]:
        """All that one of them is told, part by part."""
        view, forms = self.views[at], self.forms[at]
        await view.poll()
        said = [format_shared(view.take(removals=True).changed, forms, view, Manner())]
        while view.has_more_flags:
            await view.look_at_more()
            said.append(format_shared(view.take_flags(), forms, view, Manner()))
        view.settle()
        return said


@asynccontextmanager
async def watched(folder: Path, readers: Sequence[str]) -> AsyncIterator[Watched]:
    store = spool_store(folder)
    await store.start()
    await store.create(inbox_of("ana"), "default")
    other = await store.open(inbox_of("ana"), "ana")
    incoming = store.incoming()
    await incoming.write(b"Subject: x\r\n\r\nmail\r\n")
    await other.append([NewMessage(incoming)] * COUNT)
    await incoming.close()
    await other.claim_recent()
    tracker, views = Tracker(Events()), []
    for reader in readers:
        view = View(await store.open(inbox_of("ana"), reader), read_only=False)
        await view.load()
        tracker.enter(view, reader)
        views.append(view)
    yield Watched(store, tracker, views, other)
    for view in views:
        tracker.leave(view)
        view.mailbox.close()
    other.close()
    await store.stop()


@pytest.mark.parametrize("count", [2, 8])
async def test_what_has_changed_is_read_and_formatted_once_for_all(
    tmp_path: Path, rows: list[int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    formatted: list[int] = []

    def noting(messages: Sequence[tuple[SeqNum, Flagged]], *rest: Any) -> bytes:
        formatted.append(len(messages))
        return format_flag_updates(messages, *rest)

    monkeypatch.setattr(untagged, "format_flag_updates", noting)
    async with watched(tmp_path, ["ana"] * count) as here:
        for change in (FlagChange.ADD, FlagChange.REMOVE):
            await here.other.change_flags(
                await here.other.uids(), change, frozenset({"k", "\\Flagged"})
            )
            rows.clear()
            formatted.clear()
            said = [await here.told(at) for at in range(count)]
            assert sum(rows) <= COUNT + SOME  # the first page of changes, then each once
            assert sum(formatted) == COUNT
            assert all(one == said[0] for one in said)
            assert b"".join(said[0]).count(b" FETCH ") == COUNT


async def test_what_has_changed_since_is_told_as_it_is_then(tmp_path: Path) -> None:
    async with watched(tmp_path, ["ana"] * 3) as here:
        uids = await here.other.uids()
        await here.other.change_flags(uids, FlagChange.ADD, frozenset({"\\Flagged"}))
        first = b"".join(await here.told(0))
        await here.other.change_flags(uids[50:51], FlagChange.ADD, frozenset({"\\Seen"}))
        assert b"* 51 FETCH (FLAGS (\\Flagged))" in first
        for at in range(3):
            said = b"".join(await here.told(at))
            assert b"* 51 FETCH (FLAGS (\\Flagged \\Seen))" in said
            assert said.count(b" FETCH ") == (1 if at == 0 else COUNT)
        await here.other.expunge(uids[:90])
        await here.other.change_flags(uids[90:], FlagChange.ADD, frozenset({"\\Draft"}))
        for at in range(3):
            said = b"".join(await here.told(at))
            assert said.count(b"\\Draft") == 5 and b"* 1 FETCH" in said


async def test_each_is_told_what_is_recent_for_them_and_of_keywords_first(tmp_path: Path) -> None:
    async with watched(tmp_path, ["ana"] * 3) as here:
        here.views[1].recent = {Uid(3)}
        here.forms[2].keywords.add("k")
        await here.other.change_flags(await here.other.uids(), FlagChange.ADD, frozenset({"k"}))
        plain, recent, knows = [b"".join(await here.told(at)) for at in range(3)]
        assert plain.startswith(b"* FLAGS (") and recent.startswith(b"* FLAGS (")
        assert knows.startswith(b"* 1 FETCH ")
        assert b"* 3 FETCH (FLAGS (k \\Recent))" in recent or b"\\Recent k" in recent
        assert b"Recent" not in plain and b"Recent" not in knows


async def test_another_readers_flags_are_not_told(tmp_path: Path) -> None:
    async with watched(tmp_path, ["ana", "ana", "bob", "bob"]) as here:
        await here.other.change_flags(
            await here.other.uids(), FlagChange.ADD, frozenset({"\\Seen"})
        )
        said = [b"".join(await here.told(at)) for at in range(4)]
        assert [one.count(b"\\Seen") for one in said] == [COUNT, COUNT, 0, 0]


async def test_what_is_kept_is_bounded_and_goes_with_those_who_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = ChangeCaches()
    first, second = caches.enter("a", "ana"), caches.enter("b", "ana")
    assert caches.enter("a", "ana") is first and caches.enter("b", "ana") is second
    monkeypatch.setattr(changecache, "MOST_KEPT", 100)
    assert caches.take(first, 60) and caches.take(second, 50)
    assert (first.size, second.size, caches.size) == (0, 50, 50)  # the one used before gave way
    assert not caches.take(first, 101)
    assert caches.size == 50
    caches.leave(second)  # nobody else has it in common with the one that is left
    assert caches.size == second.size == 0
    monkeypatch.setattr(changecache, "MOST_KEPT", 30)
    async with watched(tmp_path, ["ana"] * 3) as here:  # the room is too small for all of it
        uids = await here.other.uids()
        await here.other.change_flags(uids, FlagChange.ADD, frozenset({"\\Flagged"}))
        for at in range(3):
            assert b"".join(await here.told(at)).count(b"\\Flagged") == COUNT
            kept = here.views[at].cache
            assert kept is not None and kept.size <= 30


# What one of them has enabled, and is interested in
MANNERS = (
    Manner(),
    Manner(),
    Manner(condstore=True),
    Manner(condstore=True, qresync=True),
    Manner(uid_only=True),
    Manner(uid_with_flags=True, imap4rev2=True),
)
STEPS = st.one_of(
    st.tuples(
        st.sampled_from(["add", "remove", "replace"]),
        st.integers(0, COUNT),
        st.integers(1, COUNT),
        st.sets(st.sampled_from(["\\Flagged", "\\Seen", "k", *(f"w{n}" for n in range(40))])),
    ),
    st.tuples(st.just("expunge"), st.integers(0, COUNT), st.integers(1, 30)),
    st.tuples(st.just("append"), st.integers(1, 15)),
    st.tuples(st.just("look"), st.lists(st.integers(0, len(MANNERS) - 1), max_size=4)),
    st.tuples(st.just("leave")),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
)


class Pair:
    """The same client twice: one that shares what is read, and one that reads all itself."""

    def __init__(self, shared: View, alone: View, manner: Manner) -> None:
        self.manner = manner
        self.each = [
            (view, FlagForms(ANY, tells_recent=not manner.imap4rev2)) for view in (shared, alone)
        ]

    async def look(self) -> None:
        said = [await everything(view, forms, self.manner) for view, forms in self.each]
        assert said[0] == said[1]
        (shared, _), (alone, _) = self.each
        assert shared.uids == alone.uids and shared.settled == alone.settled


async def everything(view: View, forms: FlagForms, manner: Manner) -> bytes:
    await view.poll()
    updates = view.take(removals=True)
    said = [format_numbers(updates, manner), format_shared(updates.changed, forms, view, manner)]
    while view.has_more_flags:
        await view.look_at_more()
        said.append(format_shared(view.take_flags(), forms, view, manner))
        view.settle()
    return b"".join(said)


async def play(folder: Path, steps: Sequence[Any]) -> None:
    async with watched(folder, ["ana"] * 2) as here:
        store, tracker, other = here.store, here.tracker, here.other
        pairs = []
        for at, manner in enumerate(MANNERS):
            views = [View(await store.open(inbox_of("ana"), "ana"), True) for _ in range(2)]
            for view in views:
                await view.load()
                view.interest = Interest(flags=at != 1)
            tracker.enter(views[0], "ana")
            pairs.append(Pair(views[0], views[1], manner))
        guests = list(here.views)
        for step in [*steps, ("look", range(len(MANNERS)))]:
            uids = await other.uids()
            match step:
                case ("expunge", begin, count):
                    await other.expunge(uids[begin : begin + count])
                case ("append", count):
                    incoming = store.incoming()
                    await incoming.write(b"Subject: y\r\n\r\nmore\r\n")
                    await other.append([NewMessage(incoming)] * count)
                    await incoming.close()
                case ("look", which):
                    for at in which:
                        await pairs[at].look()
                case ("leave",) if guests:
                    tracker.leave(guests.pop())
                case ("cancel", turns) if guests:
                    looking_ = asyncio.ensure_future(guests[-1].poll())
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    looking_.cancel()
                    await asyncio.gather(looking_, return_exceptions=True)
                case (change, begin, count, flags):
                    how = FlagChange[change.upper()]
                    await other.change_flags(uids[begin : begin + count], how, frozenset(flags))
        for pair in pairs:
            (shared, _), (alone, _) = pair.each
            tracker.leave(shared)
            for view in (shared, alone):
                view.mailbox.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=12))
def test_who_shares_hears_the_same_octets_as_who_reads_alone(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(changecache, "MOST_KEPT", 150)  # of two of these changes
        asyncio.run(play(Path(folder), steps))


async def test_what_changes_while_it_is_read_is_not_kept_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another, just before or just behind what is read."""
    async with watched(tmp_path, ["ana"] * 3) as here:
        uids = await here.other.uids()
        real, flags = looking.flags_of, iter(["a", "b", "c", "d"])

        async def crossed(mailbox: Mailbox, some: Sequence[Uid]) -> Any:
            for _ in range(2):
                if (flag := next(flags, None)) is not None:
                    await here.other.change_flags(uids[::3], FlagChange.ADD, frozenset({flag}))
                read = await real(mailbox, some)
            return read

        await here.other.change_flags(uids, FlagChange.ADD, frozenset({"\\Flagged"}))
        monkeypatch.setattr(changecache, "flags_of", crossed)
        last: list[dict[bytes, bytes]] = []
        for at in range(3):
            told: dict[bytes, bytes] = {}
            while not told or here.views[at].modseq < (await here.other.status()).highest_modseq:
                said = b"".join(await here.told(at))
                told |= dict(re.findall(rb"\* (\d+) FETCH \(FLAGS \((.*)\)\)", said))
            last.append(told)
        assert last[0] == last[1] == last[2] and len(last[0]) == COUNT
        assert last[0][b"1"] == b"\\Flagged a b c d" and last[0][b"2"] == b"\\Flagged"


async def test_who_leaves_or_is_cancelled_while_it_reads_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(tmp_path, ["ana"] * 4) as here:
        begun, may_go_on = asyncio.Event(), asyncio.Event()
        real = looking.flags_of

        async def held_up(mailbox: Mailbox, some: Sequence[Uid]) -> Any:
            begun.set()
            await may_go_on.wait()
            return await real(mailbox, some)

        monkeypatch.setattr(changecache, "flags_of", held_up)
        uids = await here.other.uids()
        await here.other.change_flags(uids, FlagChange.ADD, frozenset({"\\Flagged"}))
        looks = [asyncio.ensure_future(here.told(at)) for at in range(3)]
        await begun.wait()
        looks[0].cancel()  # it reads
        here.tracker.leave(here.views[1])  # it waits
        await asyncio.gather(looks[0], return_exceptions=True)
        may_go_on.set()
        for look in looks[1:]:
            assert b"".join(await look).count(b"\\Flagged") == COUNT
        assert b"".join(await here.told(3)).count(b"\\Flagged") == COUNT


async def test_what_was_read_before_a_change_is_not_kept_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has read and not got it yet; another asks behind the change."""
    async with watched(tmp_path, ["ana"] * 2) as here:
        has_read, may_go_on = asyncio.Event(), asyncio.Event()
        real = looking.flags_of

        async def slow(mailbox: Mailbox, some: Sequence[Uid]) -> Any:
            read = await real(mailbox, some)
            has_read.set()
            await may_go_on.wait()
            return read

        monkeypatch.setattr(changecache, "flags_of", slow)
        uids = (await here.other.uids())[:SOME]
        first, second = [view.flags_of(uids) for view in here.views]
        before = asyncio.ensure_future(first)
        await has_read.wait()
        await here.other.change_flags(uids, FlagChange.ADD, frozenset({"\\Flagged"}))
        behind = asyncio.ensure_future(second)
        await asyncio.sleep(0)  # it has asked for the numbers, and waits
        may_go_on.set()
        assert not any(message.flags for message in await before)
        assert all(message.flags for message in await behind)


async def test_nothing_newer_than_the_numbers_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another session's numbers may be of a moment before: a store may read through several connections."""
    async with watched(tmp_path, ["ana"] * 2) as here:
        view, cache = here.views[0], here.views[0].cache
        assert cache is not None
        uids, box = (await here.other.uids())[:SOME], view.mailbox
        before = box.numbers()  # type: ignore[attr-defined] # a power
        await here.other.change_flags(uids, FlagChange.ADD, frozenset({"\\Flagged"}))
        monkeypatch.setattr(changecache, "at_once", lambda mailbox: lambda: before)
        assert len(await cache.flagged(box, uids)) == SOME
        assert len((await cache.changes(box, view.modseq)).many) == SOME
        assert cache.size == 0


def test_responses_are_taken_for_exactly_the_same_messages() -> None:
    caches = ChangeCaches()
    cache = caches.enter("a", "ana")
    caches.enter("a", "ana")
    told = [(SeqNum(n), Flagged(Uid(n), frozenset(), ModSeq(9))) for n in (1, 2, 4)]
    other = [told[0], (SeqNum(3), Flagged(Uid(3), frozenset(), ModSeq(9))), told[2]]
    key = (False, False, False, 3, told[0], told[2])
    block = changecache.Block(told, frozenset(), b"* 1 FETCH ...")
    cache.keep_block(key, block)
    assert cache.block(key, list(told)) is block
    assert cache.block(key, other) is None
