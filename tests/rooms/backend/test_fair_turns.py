"""Work over many messages, mailboxes, recipients lets all others have their turns: counted, for some and twice as many."""

import asyncio
from array import array
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from murder.api.store import Mailbox, NewMessage
from murder.model.message import Message, SeqNum, Uid
from murder.model.name import MailboxName
from murder.net import turns
from murder.net.turns import Turn
from murder.roles.backend import pop3
from murder.roles.backend.changes.looking import PART
from murder.roles.backend.changes.updates import FEW, View
from murder.roles.backend.delivery.addressee import Addressee
from murder.roles.backend.delivery.arrival import BEGUN_AT_ONCE, Arrival
from murder.roles.backend.imap.flags import KEPT_FORM_OCTETS, KEPT_FORMS, FlagForms
from murder.roles.backend.imap.mail import append
from murder.roles.backend.imap.mail import qresync as missed
from murder.roles.backend.imap.mailboxes import list as listing
from murder.roles.backend.imap.message_sets import BATCH
from murder.roles.backend.imap.untagged import Manner
from murder.roles.backend.pop3 import BackendPop3
from murder.roles.backend.records.quota import Quotas
from murder.roles.backend.shared import Backend
from murder.serve.lmtp import LmtpDialogue
from murder.trail.figures import Figures
from murder.wire.imap.mailboxes.list import Return
from murder.wire.token import Scanner
from tests.kit.peer import Peer
from tests.kit.steps import Turns
from tests.rooms.backend.mail.test_updates import INBOX, add, looking
from tests.rooms.backend.server import memory_store, running_backend


class Asking:
    """What `tell_missed` wants of a dialogue."""

    def __init__(self, view: View) -> None:
        self.now, self.forms, self.manner = view, FlagForms(frozenset()), Manner(qresync=True)
        self.sent: list[bytes] = []
        self.flushed = 0

    def send(self, octets: bytes) -> None:
        self.sent.append(octets)

    async def flush(self) -> None:
        self.flushed += 1


@pytest.mark.parametrize("batches", [2, 4])
async def test_what_a_client_has_missed_is_told_a_batch_at_a_time(batches: int) -> None:
    store = memory_store()
    await store.create(INBOX, "default")
    mailbox = await store.open(INBOX, "ana")
    start = (await mailbox.status()).highest_modseq
    incoming = store.incoming()
    await incoming.write(b"mail")
    uids = await mailbox.append([NewMessage(incoming)] * (2 * batches * BATCH))
    await mailbox.expunge(uids[::2])
    view = View(mailbox, read_only=False)
    await view.load()
    asking = Asking(view)
    await missed.tell_missed(cast(Any, asking), start, None)
    # for those that are gone, and those that are there
    assert asking.flushed == batches + batches * BATCH // PART
    told = b"".join(asking.sent)
    assert told.startswith(b"* VANISHED (EARLIER) 1,3,5,")
    assert told.count(b" FETCH (UID ") == batches * BATCH


async def test_many_removals_are_cut_out_in_one_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    async with looking() as (store, mailbox, view):
        for _ in range(2 * FEW):
            await add(store, mailbox)
        await view.poll()
        view.take(removals=True)
        looked_up: list[int] = []
        real = View.seq_of

        def counting(view: View, uid: int) -> SeqNum | None:
            looked_up.append(uid)
            return real(view, uid)

        monkeypatch.setattr(View, "seq_of", counting)
        gone = [Uid(uid) for uid in view.uids[1:-1]]
        await view.removed([*gone, Uid(10_000)])
        await mailbox.expunge(gone)
        await view.poll()
        updates = view.take(removals=True)
        assert not looked_up
        assert list(updates.expunged) == [2] * len(gone)
        assert list(updates.vanished) == gone
        assert list(view.uids) == [1, 2 * FEW + 3]
        assert not view._mine
        assert not view.has_pending


class Delivering:
    """What an `Arrival` wants of its dialogue; no mailbox can be opened before all others have had a turn."""

    message_id = "id"
    mail_log = SimpleNamespace(info=lambda *_: None, is_full=False)
    service = SimpleNamespace(figures=Figures(), spans=None)
    envelope = SimpleNamespace(path=b"")
    connection = SimpleNamespace(cid="1")
    peer_address = ""
    session_told = ""
    log = None

    def __init__(self) -> None:
        self.backend = SimpleNamespace(
            scripts=SimpleNamespace(active=self._active),
            site=SimpleNamespace(before=(), after=(), named={}),
            store=SimpleNamespace(incoming=self._incoming, open=self._open),
            duplicates=None,
            filters=(),
            quotas=SimpleNamespace(root_of=lambda _: None),
        )
        self.begun = 0
        self.begun_before: list[int] = []

    async def _active(self, user: str) -> None:
        return None

    def _incoming(self) -> Any:
        async def close() -> None:
            pass

        return SimpleNamespace(close=close, size=1, octets=lambda: memoryview(b"x"))

    def trace(self) -> bytes:
        return b""

    async def _open(self, name: MailboxName, owner: str) -> Any:
        self.begun += 1
        await asyncio.sleep(0)

        async def append(messages: Sequence[NewMessage]) -> list[Uid]:
            await asyncio.sleep(0)
            return [Uid(1)]

        return SimpleNamespace(append=append, close=lambda: None, mailbox_id="id")

    def handled(self, recipient: str) -> tuple[object, ...]:
        return ()


@pytest.mark.parametrize("groups", [4, 8])
async def test_a_message_for_many_recipients_is_begun_for_some_at_a_time(groups: int) -> None:
    dialogue = Delivering()
    addressees = [Addressee(INBOX, "ana", b"ana")] * (groups * BEGUN_AT_ONCE)

    async def others() -> None:
        while True:
            dialogue.begun_before.append(dialogue.begun)
            await asyncio.sleep(0)

    looking = asyncio.create_task(others())
    arrival = Arrival(cast(LmtpDialogue, dialogue), cast(Backend, dialogue.backend), addressees)
    said: list[bytes] = []
    await arrival.finish(said.append)
    answers = b"".join(said)
    looking.cancel()
    assert answers == b"250 2.1.5 <id> saved\r\n" * len(addressees)
    seen = dialogue.begun_before
    assert max(b - a for a, b in pairwise(seen)) <= BEGUN_AT_ONCE


@pytest.mark.parametrize("count", [30, 60])
async def test_a_message_that_finds_no_room_is_refused_to_some_at_a_time(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a line in the mail log."""
    turn = counted(monkeypatch, turns)
    refused: list[bytes] = []

    def no_room() -> Any:
        raise OSError("no room")

    dialogue = SimpleNamespace(
        reply_for=lambda _: b"452 x\r\n", note_refused=lambda path, _: refused.append(path)
    )
    backend = SimpleNamespace(store=SimpleNamespace(incoming=no_room))
    arrival = Arrival(
        cast(Any, dialogue), cast(Any, backend), [Addressee(INBOX, "ana", b"ana")] * count
    )
    said: list[bytes] = []
    await arrival.finish(said.append)
    answers = b"".join(said)
    assert answers == b"452 x\r\n" * count and len(refused) == count
    assert count // 3 - 1 <= turn.rests <= count


@pytest.mark.parametrize("count", [10, 20])
async def test_counting_what_a_quota_root_holds_rests(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = memory_store()
    names = [MailboxName(b"user.ana.%d" % number) for number in range(count)]
    for name in names:
        await store.create(name, "default")
    turn = counted(monkeypatch, turns)
    rows = [SimpleNamespace(name=name, is_active=True) for name in names]
    quotas = object.__new__(Quotas)
    quotas._list = cast(
        Any,
        SimpleNamespace(find=lambda _: None, heads_below=lambda _: rows, note=lambda _: None),
    )
    quotas._store, quotas._counted = store, {}
    assert (await quotas._count(INBOX)).mailboxes == count
    assert 2 * count // 3 <= turn.rests <= count  # once for the names, once for what is in them


class Drop(BackendPop3):
    """A maildrop without a connection."""

    def __init__(self) -> None:
        self._uids, self._sizes, self._deleted, self._uid_validity = (
            array("I"),
            array("Q"),
            set(),
            7,
        )
        self.sent: list[bytes] = []
        self.flushed = 0

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    async def flush(self) -> None:
        self.flushed += 1


@pytest.mark.parametrize("batches", [2, 4])
async def test_a_large_maildrop_is_read_and_told_a_batch_at_a_time(
    batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = memory_store()
    await store.create(INBOX, "default")
    mailbox = await store.open(INBOX, "ana")
    incoming = store.incoming()
    await incoming.write(b"mail")
    count = batches * pop3.BATCH
    await mailbox.append([NewMessage(incoming)] * count)
    asked: list[int] = []
    real = mailbox.messages

    async def counting(uids: Sequence[Uid]) -> Sequence[Message]:
        asked.append(len(uids))
        return await real(uids)

    mailbox.messages = counting  # type: ignore[method-assign, assignment]
    drop = Drop()
    await drop._read(mailbox)
    assert asked == [pop3.BATCH] * batches
    drop._may_delete = True
    drop.TABLE[b"DELE"].run(drop, b"2")
    for command, line in ((b"LIST", b"3 4"), (b"UIDL", b"3 7.3")):
        drop.sent, drop.flushed = [], 0
        telling = drop.TABLE[command].run(drop, b"")
        assert telling is not None
        await telling
        lines = b"".join(drop.sent).split(b"\r\n")
        assert lines[1].startswith(b"1 ")
        assert lines[2] == line
        assert lines[-2:] == [b".", b""]
        assert len(lines) == count + 2
        assert drop.flushed == batches
    drop.sent = []
    with monkeypatch.context() as patched:
        patched.setattr(drop, "_sizes", NeverWalked("Q", drop._sizes))
        for command in (b"STAT", b"RSET", b"STAT"):
            drop.TABLE[command].run(drop, b"")
    left, all_of_it = (count - 1, 4 * (count - 1)), (count, 4 * count)
    assert drop.sent == [b"+OK %d %d\r\n" % left, b"+OK\r\n", b"+OK %d %d\r\n" % all_of_it]


class NeverWalked(array):  # type: ignore[type-arg]
    """STAT may be said thousands of times, of as many messages: nobody goes over all of them for it."""

    def __iter__(self) -> Any:
        raise AssertionError("all messages are gone over")


@pytest.mark.parametrize("pieces", [30, 60])
@pytest.mark.parametrize("head", [b"a: b\r\n\r\n", b""])
async def test_top_looks_at_a_message_a_piece_at_a_time(
    head: bytes, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of line ends alone, or one whose header has no end."""
    turn = counted(monkeypatch, pop3)
    filling = b"\r\n" if head else b"ab"
    octets = memoryview(head + filling * (pieces * pop3.COUNTED_OCTETS // 2))
    assert await pop3._end_of_top(octets, 10**9) == len(octets)
    assert pieces // 3 - 1 <= turn.rests <= pieces


async def test_top_ends_where_its_lines_end() -> None:
    lines = [b"%d%b\r\n" % (number, b"x" * (number % 90)) for number in range(2000)]
    octets = memoryview(b"a: b\r\n\r\n" + b"".join(lines))
    for wanted in (0, 1, 2, 340, 341, 342, 343, 1999, 2000, 2001):
        end = await pop3._end_of_top(octets, wanted)
        assert octets[:end] == b"a: b\r\n\r\n" + b"".join(lines[:wanted]), wanted


def counted(monkeypatch: pytest.MonkeyPatch, module: Any) -> Turn:
    """The turn that code of this module has; it is over at each third look."""
    ticks = iter(range(1_000_000))
    turn = Turn(share_s=2, clock=lambda: next(ticks))
    monkeypatch.setattr(module, "Turn", lambda: turn)
    return turn


@pytest.mark.parametrize("count", [30, 60])
async def test_a_command_of_many_messages_or_parts_rests(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = counted(monkeypatch, append)

    async def check_room(*_: object) -> None:
        pass

    dialogue = SimpleNamespace(
        service=SimpleNamespace(limits=SimpleNamespace(max_message_bytes=1000)),
        backend=SimpleNamespace(quotas=SimpleNamespace(check_room=check_room)),
    )
    appending = append._Append(cast(Any, dialogue), Scanner(b""), None)
    mailbox = cast(Mailbox, SimpleNamespace(name=INBOX))
    for _ in range(count):
        await appending._count(1, 1, mailbox)
    assert count // 3 <= turn.rests <= count // 2


@pytest.mark.parametrize("count", [30, 60])
async def test_what_is_told_beside_the_rows_of_a_list_rests(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Beside(listing._Answer):
        def __init__(self) -> None:
            self.request = cast(Any, SimpleNamespace(returns=frozenset({Return.STATUS})))
            self._dialogue = cast(Any, SimpleNamespace(shown=lambda name: name))

        async def _beside(self, external: bytes, name: MailboxName) -> list[bytes]:
            return [external]

    turn = counted(monkeypatch, listing)
    names = [MailboxName(b"user.ana.%d" % number) for number in range(count)]
    rows = [SimpleNamespace(exists=True, name=name, external=bytes(name)) for name in names]
    told = await Beside().beside(cast(Any, rows))
    assert told == {bytes(name): [bytes(name)] for name in names}
    assert count // 3 <= turn.rests <= count // 2


MOST_LINES = 12_000  # of a turn: it was seven for each message


async def test_thousands_of_removals_are_told_without_holding_the_loop(tmp_path: Path) -> None:
    async with running_backend(tmp_path) as running:
        peer, other = await Peer.at(*running.address), await Peer.at(*running.address)
        for one in (peer, other):
            await one.until(b"* OK")
            await one.ok("LOGIN ana secret")
        for _ in range(4):
            await peer.ok("APPEND INBOX" + " {3+}\r\na:b" * 1500)
        await peer.ok("SELECT INBOX")
        await peer.ok("STORE 1:* +FLAGS.SILENT (\\Deleted)")
        await other.ok("EXAMINE INBOX")
        async with Turns() as turns:
            assert len(await peer.ok("EXPUNGE")) == 6001  # and RECENT
            assert len(await other.ok("NOOP")) == 6000
        assert turns.longest < MOST_LINES
        await peer.close()
        await other.close()


def test_a_session_keeps_no_long_forms_of_flags() -> None:
    """Five hundred sets of a thousand keywords each would be 50 MB, for each session."""
    forms = FlagForms(frozenset())
    many = frozenset(f"keyword{number}" for number in range(1000))
    assert forms.form(many) == forms.form(many)
    for number in range(2000):
        forms.form(frozenset({"a", f"b{number}"}))
    assert many not in forms.formed and len(forms.formed) <= KEPT_FORMS
    assert sum(map(len, forms.formed.values())) <= KEPT_FORMS * KEPT_FORM_OCTETS
