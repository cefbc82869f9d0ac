"""What is renamed, deleted and made anew while the tree moves arrives under the names of the end."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from murder.errors import Code, Refusal
from murder.model.carried import CarriedIdentity, Portrait
from murder.model.message import ModSeq, Uid, UidValidity
from murder.model.name import MailboxName, inbox_of
from murder.model.seqset import compress
from murder.net.frames import FrameChannel
from murder.roles.backend.moves.arriving import Arriving
from murder.roles.backend.moves.batches import Taken, digest
from murder.roles.backend.moves.journal import CYRUS, FROM_BACKUP, Move, Side, State
from murder.roles.backend.moves.outgoing import Outgoing, Pace
from murder.wire.nodes.carry_answers import Held, Stored
from murder.wire.nodes.carry_words import Begin, Complete, Hold, Prepare, Rows, format_request
from tests.kit.peer import Peer
from tests.kit.waiting import turns, until_soon
from tests.rooms.backend.server import Running, running_backend, spool_store

ROOT = inbox_of("zoe")
A, B, C = (MailboxName(ROOT + b"." + part) for part in (b"a", b"b", b"c"))
ANA = inbox_of("ana")
BELOW_A, BELOW_B = (MailboxName(ANA + b"." + part) for part in (b"a", b"b"))
CHANGES: dict[str, dict[MailboxName, str]] = {
    "one takes the place of another": {B: "ida"},
    "the names are swapped": {A: "idb", B: "ida"},
    "all go on": {A: "new", B: "ida", C: "idb"},
    "one is made anew": {A: "ida", B: "new"},
}


def hold(name: MailboxName, mailbox_id: str) -> Hold:
    identity = CarriedIdentity(mailbox_id, UidValidity(7))
    return Hold(name, Portrait(identity, Uid(1), ModSeq(1)))


async def begun(one: Running) -> Arriving:
    """The same move, by a new connection of its source."""
    arriving = Arriving(one.backend, one.mover.journal, cast(FrameChannel, None), "be2.test")
    await arriving._begin(Begin("b1", ROOT, ""))
    return arriving


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("is_again", [True, False])
async def test_a_name_that_another_had_when_it_came_is_taken(
    is_again: bool, change: str, tmp_path: Path
) -> None:
    """Else the move would have failed, and each time that it was tried again."""
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        arriving = await begun(one)
        for name, mailbox_id in ((ROOT, "root"), (A, "ida"), (B, "idb")):
            await arriving._hold(hold(name, mailbox_id))
        if is_again:
            arriving = await begun(one)
        wanted = CHANGES[change]
        for name, mailbox_id in wanted.items():
            await arriving._hold(hold(name, mailbox_id))
        here = {box.name: box.mailbox_id for box in await one.backend.store.mailboxes()}
        assert here.items() >= {ROOT: "root", **wanted}.items()
        assert len(set(here.values())) == len(here)


class Target:
    """What it is asked to hold, and has under which name, as a murder backend has it."""

    server = "be2.test"

    def __init__(self) -> None:
        self.holds: list[tuple[MailboxName, str]] = []
        self.here: dict[MailboxName, str] = {}
        self.lost: list[str] = []  # by their ids: had to make room
        self.messages: dict[str, dict[Uid, set[str]]] = {}  # by mailbox id: flags
        self._batches: deque[tuple[Rows, list[bytes]]] = deque()

    async def hold(self, request: Hold) -> Any:
        name, mailbox_id = request.name, request.identity.mailbox_id
        self.holds.append((name, mailbox_id))
        self.here = {was: other for was, other in self.here.items() if other != mailbox_id}
        if name in self.here:
            self.lost.append(self.here[name])
            self.messages.pop(self.here[name], None)
        self.here[name] = mailbox_id
        there = self.messages.setdefault(mailbox_id, {})
        return Held(ModSeq(0), compress(there), None)

    async def send_rows(self, rows: Rows) -> None:
        self._batches.append((rows, []))

    async def send_octets(self, octets: bytes | memoryview) -> None:
        self._batches[-1][1].append(bytes(octets))

    async def stored(self) -> Stored:
        rows, octets = self._batches.popleft()
        pending = iter(octets)
        came = [(row, memoryview(next(pending)) if has else None) for row, has in rows.rows]
        there = self.messages[self.here[rows.name]]
        there.update((row.uid, set(row.flags)) for row, _ in came)
        return Stored(digest(came))

    def flags_of(self, mailbox_id: str) -> list[set[str]]:
        """Of each message."""
        return list(self.messages.get(mailbox_id, {}).values())

    async def do(self, request: object) -> None:
        pass


@asynccontextmanager
async def copied(folder: Path) -> AsyncIterator[tuple[Peer, Outgoing, Target]]:
    """Ana's INBOX, `a` and `b` have been copied; she is logged in."""
    target = Target()
    async with running_backend(folder, lambda: spool_store(folder)) as one:
        peer = await Peer.at(*one.address)
        await peer.until(b"* OK")
        await peer.ok("LOGIN ana secret")
        for name in ("a", "b"):
            await peer.ok(f"CREATE INBOX/{name}")
        move = Move("a1", Side.OUT, ANA, "be2.test", state=State.COPYING)
        outgoing = Outgoing(one.backend, one.mover.journal, move, cast(Any, target), Pace(0))
        await outgoing.copy()
        target.holds.clear()
        yield peer, outgoing, target
        await peer.close()


async def ids_of(outgoing: Outgoing) -> dict[MailboxName, str]:
    """What the source has of the tree."""
    names = {entry.name for entry in outgoing._rows()}
    boxes = await outgoing._backend.store.mailboxes()
    return {box.name: box.mailbox_id for box in boxes if box.name in names}


async def next_round(outgoing: Outgoing) -> None:
    await outgoing._round([entry.name for entry in outgoing._rows()])


async def test_another_that_has_the_name_now_is_carried_from_its_beginning(tmp_path: Path) -> None:
    """What the target has of the one that had the name before is nothing of this one."""
    async with copied(tmp_path) as (peer, outgoing, target):
        ids = await ids_of(outgoing)
        await peer.ok("DELETE INBOX/b")
        await peer.ok("RENAME INBOX/a INBOX/b")
        await next_round(outgoing)
        assert target.holds == [(BELOW_B, ids[BELOW_A])]


@pytest.mark.parametrize(
    "rounds",
    [
        (("RENAME INBOX/a INBOX/c",), ("RENAME INBOX/c INBOX/a",)),
        (("DELETE INBOX/a", "RENAME INBOX/b INBOX/a"), ("RENAME INBOX/a INBOX/b",)),
    ],
)
async def test_a_mailbox_that_has_its_former_name_again_is_moved_to_it(
    rounds: tuple[tuple[str, ...], ...], tmp_path: Path
) -> None:
    """The target had it under the name between, and the move failed as nothing was found there."""
    async with copied(tmp_path) as (peer, outgoing, target):
        for commands in rounds:
            for command in commands:
                await peer.ok(command)
            await next_round(outgoing)
            ours = await ids_of(outgoing)
            assert {name: target.here.get(name) for name in ours} == ours


ORDERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "its old name is made anew": (("RENAME INBOX/a INBOX/c", "CREATE INBOX/a"), ("a",)),
    "all go one further": (
        ("RENAME INBOX/b INBOX/c", "RENAME INBOX/a INBOX/b", "CREATE INBOX/a"),
        ("a", "b"),
    ),
    "all go one back": (("DELETE INBOX/a", "RENAME INBOX/b INBOX/a", "CREATE INBOX/b"), ("b",)),
}


@pytest.mark.parametrize("order", ORDERS)
async def test_what_has_another_name_is_not_copied_anew(order: str, tmp_path: Path) -> None:
    """The target renames it, before another of its old name comes: else that would take its place, and its mail would go
    over a second time. The names that are gone from there are new mailboxes."""
    commands, stay = ORDERS[order]
    async with copied(tmp_path) as (peer, outgoing, target):
        had = set(target.here.values())
        for command in commands:
            await peer.ok(command)
        ours = await ids_of(outgoing)
        await next_round(outgoing)
        assert target.here.items() >= ours.items()
        assert set(target.lost) <= had - set(ours.values())
        assert len(target.holds) == len(stay) + 1


async def test_rows_are_those_of_the_mailbox_whose_octets_go_over(tmp_path: Path) -> None:
    """Another has its name from the second page on: its flags were those of the first one's messages at the target, for
    good, and its messages came with the octets of others."""
    async with copied(tmp_path) as (peer, outgoing, target):
        ids = await ids_of(outgoing)
        for _ in range(3):
            await peer.ok(b"APPEND INBOX/a (old) {3+}\r\na:b")
        rows = outgoing._store.rows
        pages: list[int] = []

        async def renamed_behind_the_first_page(
            name: MailboxName, since: ModSeq, after: Uid, most: int
        ) -> Any:
            page = await rows(name, since, after, 2)
            if name == BELOW_A and not pages:
                await peer.ok("RENAME INBOX/a INBOX/c")
                await peer.ok("CREATE INBOX/a")
                for _ in range(3):
                    await peer.ok(b"APPEND INBOX/a (new) {3+}\r\nc:d")
            pages.append(len(page))
            return page

        cast(Any, outgoing._store).rows = renamed_behind_the_first_page
        await next_round(outgoing)
        cast(Any, outgoing._store).rows = rows
        assert pages[0] == 2
        assert all("new" not in flags for flags in target.flags_of(ids[BELOW_A]))
        await next_round(outgoing)
        ours = await ids_of(outgoing)
        assert target.here.items() >= ours.items()
        assert target.flags_of(ours[BELOW_A]) == [{"new"}] * 3
        assert target.flags_of(ids[BELOW_A]) == [{"old"}] * 3


MINE = b"mine\r\n\r\nkept\r\n"


@asynccontextmanager
async def made_here(folder: Path, *, was_here: bool) -> AsyncIterator[tuple[Running, Arriving]]:
    """`a` has come with its user's other mailboxes (back, where it `was_here`), and was deleted at the source; its user, who
    still reaches this server, has another one now, with a message."""
    async with running_backend(folder, lambda: spool_store(folder)) as one:
        if was_here:
            left = Move("l1", Side.OUT, ROOT, "be2.test", state=State.DONE, names=(ROOT, A))
            await one.mover.journal.save(left)
        arriving = await begun(one)
        for name, mailbox_id in ((ROOT, "root"), (A, "ida")):
            await arriving._hold(hold(name, mailbox_id))
        peer = await Peer.at(*one.address)
        await peer.until(b"* OK")
        await peer.ok("LOGIN zoe secret")
        await peer.ok("CREATE INBOX/a")
        await peer.ok(b"APPEND INBOX/a {%d+}\r\n%b" % (len(MINE), MINE))
        yield one, arriving
        await peer.ok("SELECT INBOX/a")
        assert MINE in b"".join(await peer.ok("FETCH 1 BODY.PEEK[]"))
        await peer.close()


each = pytest.mark.parametrize("was_here", [True, False])


@each
async def test_what_its_user_made_here_meanwhile_is_none_of_what_has_come(
    tmp_path: Path, was_here: bool
) -> None:
    """The end of the move removed it, with its mail, as deleted at the source; the list went on to show it. Of one that had
    never been here, CREATE heard ALREADYEXISTS until that end."""
    async with made_here(tmp_path, was_here=was_here) as (_, arriving):
        await arriving._prepare(Prepare([(ROOT, b"zoe\tlrswipkxtecda\t")], {}, []))
        await arriving._commit("b1")


@each
async def test_nor_is_it_taken_for_that_by_what_comes_late(tmp_path: Path, was_here: bool) -> None:
    """Its messages, its numbers, its new name, the same move again, and the end of one that is given up."""
    async with made_here(tmp_path, was_here=was_here) as (one, arriving):
        portrait = Portrait(CarriedIdentity("ida", UidValidity(7)), Uid(9), ModSeq(9))
        with pytest.raises(Refusal, match="meanwhile"):
            await arriving._keep(A, Taken([]))
        with pytest.raises(Refusal, match="meanwhile"):
            await arriving._answer(format_request(Complete(A, portrait)))
        with pytest.raises(Refusal, match="meanwhile"):
            await arriving._prepare(Prepare([(ROOT, b""), (A, b"")], {}, []))
        for source in (arriving, await begun(one)):
            with pytest.raises(Refusal, match="meanwhile"):
                await source._hold(hold(A, "other"))
            await source._hold(hold(C, "ida"))
        await arriving._abort("b1")
        here = {box.name: box.mailbox_id for box in await one.backend.store.mailboxes()}
        assert here[A] not in ("ida", "other") and C not in here


@pytest.mark.parametrize(
    "move",
    [
        Move("c1", Side.IN, ROOT, "be2.test", names=(ROOT, A), by=CYRUS),
        Move("c1", Side.IN, ROOT, FROM_BACKUP, names=(ROOT, A)),
        Move("c1", Side.IN, ROOT, "be2.test", names=(ROOT, A), state=State.PREPARED),
    ],
    ids=["Cyrus", "restore", "prepared"],
)
async def test_what_may_be_nowhere_else_makes_no_room(tmp_path: Path, move: Move) -> None:
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        await one.mover.journal.save(move)
        store = one.backend.store
        kept = await store.create(A, "default")
        with pytest.raises(Refusal) as refused:
            await one.backend.announcer.create(A, b"")
        assert refused.value.code is Code.ALREADY_EXISTS
        assert kept.mailbox_id in {box.mailbox_id for box in await store.mailboxes()}


async def test_a_batch_is_kept_before_room_is_made_or_not_at_all(tmp_path: Path) -> None:
    """Else its messages were among those of the one that has the name now."""
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        arriving = await begun(one)
        await arriving._hold(hold(ROOT, "root"))
        await arriving._hold(hold(A, "ida"))
        store, storing, goes_on = cast(Any, one.backend.store), asyncio.Event(), asyncio.Event()
        receive = store.receive

        async def wait(name: MailboxName, messages: Any) -> None:
            storing.set()
            await goes_on.wait()
            await receive(name, messages)

        store.receive = wait
        keeping = asyncio.create_task(arriving._keep(A, Taken([])))
        await storing.wait()
        creating = asyncio.create_task(one.backend.announcer.create(A, b""))
        await until_soon(lambda: one.backend.announcer.is_busy(A), "it is begun", every_s=0.01)
        await turns(20)
        assert (await store.open(A, "")).mailbox_id == "ida"
        goes_on.set()
        await keeping
        made = await creating
        assert made.mailbox_id != "ida" and (await store.open(A, "")).mailbox_id == made.mailbox_id


async def test_what_has_come_under_an_earlier_name_by_another_move_goes_first(
    tmp_path: Path,
) -> None:
    """That one failed, for the mailbox was renamed at its source; then it moved once more."""
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        await one.mover.stop()
        arriving = await begun(one)
        await arriving._hold(hold(ROOT, "root"))
        await arriving._hold(hold(A, "ida"))
        other = Arriving(one.backend, one.mover.journal, cast(FrameChannel, None), "be2.test")
        await other._begin(Begin("b2", B, ""))
        with pytest.raises(Refusal) as refused:
            await other._hold(hold(B, "ida"))
        assert refused.value.code is Code.IN_USE and "b1" in refused.value.text
        await arriving._abort("b1")
        await other._hold(hold(B, "ida"))


async def test_so_does_what_has_come_since_this_move_began(tmp_path: Path) -> None:
    """The store failed at its second name, and with it all that came for that owner in the same commit."""
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        await one.mover.stop()
        arriving = await begun(one)
        other = Arriving(one.backend, one.mover.journal, cast(FrameChannel, None), "be2.test")
        await other._begin(Begin("b2", B, ""))
        await arriving._hold(hold(ROOT, "root"))
        await arriving._hold(hold(A, "ida"))
        with pytest.raises(Refusal) as refused:
            await other._hold(hold(B, "ida"))
        assert refused.value.code is Code.IN_USE and "b1" in refused.value.text


async def test_what_other_moves_have_brought_is_looked_at_once_for_all_that_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each mailbox all of those were opened, in one turn of the loop: a drain became slower with each user in it."""
    others = [MailboxName(ROOT + b".%d" % number) for number in range(40)]
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        await one.mover.stop()
        arriving = await begun(one)
        for name in others:
            await arriving._hold(hold(name, f"id of {name!r}"))
        other = Arriving(one.backend, one.mover.journal, cast(FrameChannel, None), "be2.test")
        await other._begin(Begin("b2", BELOW_A, ""))
        store, opened = one.backend.store, list[MailboxName]()
        open_it = store.open

        async def counted(name: MailboxName, reader: str) -> Any:
            opened.append(name)
            return await open_it(name, reader)

        monkeypatch.setattr(store, "open", counted)
        await other._hold(hold(BELOW_A, "ida"))
        assert not set(opened) & set(others)
