"""What others have changed in a mailbox is asked for some at a time: a session that has not read for long holds four octets
of each message, not the message."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from murder.api.store import FlagChange, Mailbox, MailboxStore, NewMessage
from murder.kit import pages
from murder.model.message import Changes, Flagged, Message, ModSeq, Uid
from murder.model.name import inbox_of
from murder.roles.backend.changes import looking, updates
from murder.roles.backend.changes.looking import OwnChanges, each_changed, flags_of
from murder.roles.backend.changes.updates import Happened, View
from tests.kit.peer import Peer
from tests.rooms.backend.server import running_backend, spool_store

COUNT, SOME = 95, 10
KEYWORD = frozenset({"x"})


class Asked:
    """A mailbox that notes how many messages it has given at once."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.given: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mailbox, name)

    async def messages(self, uids: Sequence[Uid] | None = None) -> Sequence[Message]:
        messages = await self._mailbox.messages(uids)
        self.given.append(len(messages))
        return messages

    async def flagged(self, uids: Sequence[Uid]) -> Sequence[Flagged]:
        flagged = await self._mailbox.flagged(uids)  # type: ignore[attr-defined] # a power
        self.given.append(len(flagged))
        return list(flagged)

    async def changes(self, since: ModSeq) -> Changes:
        changes = await self._mailbox.changes(since)
        self.given.append(len(changes.changed))
        return changes


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE", SOME)
    for module in (looking, updates):
        monkeypatch.setattr(module, "PART", SOME)
    monkeypatch.setattr(updates, "MOST_FLAGS", SOME)


@asynccontextmanager
async def mailboxes(
    tmp_path: Path, count: int = COUNT
) -> AsyncIterator[tuple[Asked, Mailbox, MailboxStore]]:
    store = spool_store(tmp_path)
    await store.start()
    await store.create(inbox_of("ana"), "default")
    opened, other = [await store.open(inbox_of("ana"), "ana") for _ in range(2)]
    incoming = store.incoming()
    await incoming.write(b"Subject: x\r\n\r\nmail\r\n")
    await other.append([NewMessage(incoming)] * count)
    await incoming.close()
    yield Asked(opened), other, store
    opened.close()
    other.close()
    await store.stop()


async def test_much_is_told_by_uid_and_a_little_as_messages(tmp_path: Path) -> None:
    async with mailboxes(tmp_path) as (mailbox, other, _):
        before = (await other.status()).highest_modseq
        uids = list(await other.uids())
        await other.change_flags(uids[: SOME - 1], FlagChange.ADD, KEYWORD)
        few = await mailbox.changes(before)
        assert [message.uid for message in few.changed] == uids[: SOME - 1] and not few.many
        await other.change_flags(uids[::-1], FlagChange.ADD, frozenset({"y"}))
        gone = await other.expunge(uids[5:30])
        much = await mailbox.changes(before)
        assert not much.changed and list(much.many) == uids[:5] + uids[30:]
        assert list(much.vanished) == list(gone)
        read = partial(flags_of, mailbox)
        told = [message async for some in each_changed(much, read) for message in some]
        assert [message.uid for message in told] == list(much.many)
        assert max(mailbox.given) <= SOME


async def test_a_session_collects_what_others_change_a_part_at_a_time(tmp_path: Path) -> None:
    async with mailboxes(tmp_path) as (mailbox, other, _):
        view = View(mailbox, read_only=False)
        await view.load()
        await view.poll()
        mailbox.given.clear()
        happened: list[Happened] = []
        view.on_happened = happened.append
        uids = list(await other.uids())
        for word in ("x", "y"):
            await other.change_flags(uids, FlagChange.ADD, frozenset({word}))
            await view.poll()
        assert max(mailbox.given) <= SOME
        assert [len(it.changed) for it in happened] == 2 * [*[SOME] * 9, 5]
        assert len(view._changed) <= SOME and len(view._later) <= COUNT + SOME
        told: dict[Uid, frozenset[str]] = {}
        while view.has_more_flags:
            for _, flagged in view.take_flags():
                told[flagged.uid] = flagged.flags
            await view.look_at_more()
        assert list(told) == uids
        assert set(told.values()) == {frozenset({"x", "y"})}
        assert max(mailbox.given) <= SOME


class ChangedMeanwhile(Asked):
    """Somebody else changes the first message, then the last one, once the first are asked for."""

    def __init__(self, mailbox: Mailbox, other: Mailbox) -> None:
        super().__init__(mailbox)
        self._other, self.is_armed = other, False

    async def flagged(self, uids: Sequence[Uid]) -> Sequence[Flagged]:
        messages = await super().flagged(uids)
        if self.is_armed:
            self.is_armed = False
            for uid in (1, COUNT):
                await self._other.change_flags([Uid(uid)], FlagChange.ADD, frozenset({"late"}))
        return messages


async def told_by(view: View) -> list[Flagged]:
    told: list[Flagged] = []
    while view.has_more_flags:
        told += [flagged for _, flagged in view.take_flags()]
        await view.look_at_more()
    return told


@pytest.mark.parametrize("moment", ["looked", "told"])
async def test_a_client_that_hears_of_a_mod_sequence_knows_all_before_it(
    tmp_path: Path, moment: str
) -> None:
    """Else one that loses its connection just then never asks for the first one's flags."""
    async with mailboxes(tmp_path) as (asked, other, _):
        mailbox = ChangedMeanwhile(asked, other)
        view = View(mailbox, read_only=False)
        await view.load()
        await view.poll()
        uids = list(await other.uids())
        await other.change_flags(uids, FlagChange.ADD, frozenset({"x"}))
        mailbox.is_armed = moment == "looked"
        await view.poll()
        mailbox.is_armed = moment == "told"
        told = await told_by(view)
        assert not mailbox.is_armed
        highest = max(flagged.modseq for flagged in told)
        assert highest <= view.modseq
        await view.poll()
        late = await told_by(view)
        assert [flagged.uid for flagged in late] == [1, COUNT]
        assert all("late" in flagged.flags for flagged in late)
        await view.poll()
        assert not view.has_pending


async def test_what_comes_in_thousands_is_told_as_what_comes_alone(tmp_path: Path) -> None:
    async with mailboxes(tmp_path, 3) as (mailbox, other, store):
        view = View(mailbox, read_only=False)
        await view.load()
        await view.poll()
        incoming = store.incoming()
        await incoming.write(b"Subject: x\r\n\r\nmail\r\n")
        await other.append([NewMessage(incoming)] * COUNT)
        await other.expunge([Uid(2), Uid(50)])
        await view.poll()
        told = view.take(removals=True)
        assert (told.vanished, told.exists) == ([2], COUNT + 1)
        assert list(told.arrived) == [uid for uid in range(4, COUNT + 4) if uid != 50]
        assert view.recent == {1, 3, *told.arrived}
        await incoming.close()


async def test_searches_that_are_kept_up_to_date_look_at_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as running:
        kept, other = [await Peer.at(*running.address) for _ in range(2)]
        for peer in (kept, other):
            await peer.line()
            await peer.ok("LOGIN ana secret")
        mailbox = await running.backend.store.open(inbox_of("ana"), "ana")
        incoming = running.backend.store.incoming()
        await incoming.write(b"Subject: x\r\n\r\nmail\r\n")
        await mailbox.append([NewMessage(incoming)] * COUNT)
        for peer in (kept, other):
            await peer.ok("SELECT INBOX")
        await kept.ok("UID SEARCH RETURN (ALL UPDATE) FLAGGED")
        view_of = type(mailbox).messages

        async def messages(self: Any, uids: Any = None) -> Any:
            asked.append(len(uids))
            return await view_of(self, uids)

        monkeypatch.setattr(type(mailbox), "messages", messages)
        monkeypatch.setattr("murder.roles.backend.imap.search.context.MANY", 2 * SOME)
        monkeypatch.setattr("murder.roles.backend.imap.search.context.PART", SOME)
        await other.ok("STORE 1:* +FLAGS.SILENT (\\Flagged)")
        asked.clear()
        said = [line for line in await kept.ok("NOOP") if b"ADDTO" in line]
        assert max(asked) <= SOME
        assert len(said) == 5
        assert b"ADDTO (0 81:95)" in said[-1]
        mailbox.close()


def test_what_a_session_has_made_itself_is_known_by_change_and_message() -> None:
    def flagged(uid: int, modseq: int) -> Flagged:
        return Flagged(Uid(uid), KEYWORD, ModSeq(modseq))

    own = OwnChanges()
    assert not own
    for uid in (3, 5, 9, 4, 3, 9, 1):
        own.note(flagged(uid, 7))
    own.note(flagged(5, 8))
    assert own and list(own._uids[7]) == [1, 3, 4, 5, 9]
    assert own.has(flagged(4, 7)) and own.has(flagged(5, 8))
    assert not own.has(flagged(2, 7)) and not own.has(flagged(4, 8)) and not own.has(flagged(4, 9))
    own.forget(ModSeq(7))
    assert own.has(flagged(5, 8)) and not own.has(flagged(4, 7))
    own.clear()
    assert not own
