"""CREATE, DELETE, RENAME, SETACL against a real master: killed at every step, refused, with the master away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from murder.api.store import MailboxStore, NewMessage
from murder.errors import Code, Refusal, UpstreamFailure
from murder.model.acl import Acl, format_acl, parse_acl
from murder.model.entry import EntryState, Location, MailboxEntry
from murder.model.name import MailboxName, is_deleted
from murder.roles.backend.changes.events import Events
from murder.roles.backend.hierarchy import announce
from murder.roles.backend.hierarchy.announce import Announcer
from murder.roles.backend.hierarchy.intent import Intent, Operation
from murder.roles.backend.reconcile.master import Comparer, Comparison
from murder.roles.backend.reconcile.quarantine import RestingNames, parse_resting, resting_name
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.remote.client import MasterClient
from tests.kit.waiting import until_soon
from tests.rooms.backend.server import memory_store
from tests.rooms.mupdate.nodes import Server

ANA, BOB = MailboxName(b"user.ana"), MailboxName(b"user.bob")
CHILD, MOVED = MailboxName(b"user.ana.a"), MailboxName(b"user.ana.z")
BELOW, MOVED_BELOW = MailboxName(b"user.ana.a.b"), MailboxName(b"user.ana.z.b")
OTHER = MailboxName(b"user.ana.new")
ACL = format_acl(Acl({"ana": frozenset("lrswipkxtea")}))


class KilledError(BaseException):
    """The process dies here."""


class Node:
    """A backend's list, store and announcer. `reborn` is the same disk in a new process."""

    def __init__(self, folder: Path, store: MailboxStore, master: Server, name: str) -> None:
        self.folder, self.store, self.server = folder, store, master
        self.name = name
        self.list = MailboxList.open(folder)
        self.ledger = Ledger(self.list)
        self.client = MasterClient(master.target)
        location = Location(name, "default")
        events = Events()
        self.announcer = Announcer(
            self.ledger, store, self.client, location, events, process="dead"
        )
        silent = Announcer(self.ledger, store, None, location, Events(), process="dead")
        self.comparer = Comparer(self.ledger, self.announcer, silent, self.client, events)
        self.settled: list[Intent] = []

    async def close(self) -> None:
        await self.announcer.left.close()
        await self.client.close()
        await self.ledger.close()
        self.list.close()

    async def reborn(self) -> "Node":
        await self.close()
        node = Node(self.folder, self.store, self.server, self.name)
        node.settled = await node.announcer.repair(lambda process: process != "dead")
        return node

    async def fill(self) -> None:
        for name in (ANA, CHILD, BELOW):
            await self.announcer.create(name, ACL)
        mailbox = await self.store.open(BELOW, "ana")
        incoming = self.store.incoming()
        await incoming.write(b"hello")
        await mailbox.append([NewMessage(incoming)])
        await self.comparer.compare()

    async def check_agreement(self) -> None:
        """List, store and master tell of the same mailboxes, and nothing is half done."""
        rows = {entry.name: entry for entry in self.list.walk()}
        assert not self.list.intents()
        assert all(entry.is_active for entry in rows.values())
        assert set(rows) == {mailbox.name for mailbox in await self.store.mailboxes()}
        theirs = {entry.name: entry for entry in await self.client.list_server(self.name)}
        ours = {name: entry for name, entry in rows.items() if not is_deleted(name)}
        assert set(theirs) == set(ours)
        for name, entry in theirs.items():
            assert entry.is_active
            assert (entry.raw_location, entry.raw_acl) == (
                ours[name].raw_location,
                ours[name].raw_acl,
            )

    async def mail_in(self, name: MailboxName) -> int:
        return (await (await self.store.open(name, "ana")).status()).messages


@asynccontextmanager
async def murder(folder: Path) -> AsyncIterator[tuple[Server, Node]]:
    master = Server(folder / "master")
    await master.start()
    node = Node(folder / "be1", memory_store(), master, "be1.test")
    try:
        await node.fill()
        yield master, node
    finally:
        if node.list is not None:
            await node.close()
        await master.stop()


async def create(node: Node) -> None:
    await node.announcer.create(OTHER, ACL)


async def split(node: Node) -> None:
    """INBOX renamed, as the backend does it: here the mail of BELOW goes to a new mailbox."""

    async def fill() -> None:
        source, target = await node.store.open(BELOW, "ana"), await node.store.open(OTHER, "ana")
        await source.move(await source.uids(), target)

    await node.announcer.create(OTHER, ACL, fill=fill)


async def delete(node: Node) -> None:
    await node.announcer.delete([BELOW, CHILD])


async def rename(node: Node) -> None:
    await node.announcer.rename([(CHILD, MOVED), (BELOW, MOVED_BELOW)])


async def set_acl(node: Node) -> None:
    await node.announcer.set_acl(ANA, lambda acl: acl.changed("bob", frozenset("lr")))


OPERATIONS: dict[str, Callable[[Node], Awaitable[None]]] = {
    "split": split,
    "create": create,
    "delete": delete,
    "rename": rename,
    "setacl": set_acl,
}
MOST_STEPS = 8


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("step", range(MOST_STEPS))
@pytest.mark.parametrize("whole", [True, False], ids=["worker-0", "another-worker"])
async def test_a_kill_at_any_step_is_mended_at_the_next_start(
    operation: str, step: int, whole: bool, tmp_path: Path
) -> None:
    async with murder(tmp_path) as (_, node):
        steps = 0

        def die(_: str) -> None:
            nonlocal steps
            if steps == step:
                raise KilledError
            steps += 1

        node.announcer.step = die
        try:
            await OPERATIONS[operation](node)
        except KilledError:
            pass
        else:
            return  # it has fewer steps
        reborn = await node.reborn()
        if whole:
            await reborn.comparer.compare()
        else:
            reborn.comparer.owe(name for one in reborn.settled for name in one.names)
            paying = reborn.comparer._paying
            if paying is not None:
                await paying
        await reborn.check_agreement()
        if operation == "split":
            split_off = reborn.list.find(OTHER) is not None
            assert await reborn.mail_in(OTHER if split_off else BELOW) == 1
        if operation == "rename":
            names = {entry.name for entry in reborn.list.walk()}
            assert (BELOW in names) != (MOVED_BELOW in names)
            assert await reborn.mail_in(BELOW if BELOW in names else MOVED_BELOW) == 1
        await reborn.close()
        node.list = MailboxList.open(node.folder)
        node.ledger = Ledger(node.list)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("step", ["begin", "intended", "reserved", "stored", "moved"])
async def test_a_master_that_goes_away_leaves_everything_as_it_was(
    operation: str, step: str, tmp_path: Path
) -> None:
    async with murder(tmp_path) as (master, node):
        before = [(entry.name, entry.raw_acl) for entry in node.list.walk()]
        stopped = False
        lost = asyncio.Event()

        def leave(at: str) -> None:
            nonlocal stopped
            if at == step and not stopped:
                stopped = True
                master.listener.stop_accepting()
                master.listener.abort()
                lost.set()

        node.announcer.step = leave
        if step == "begin":
            leave("begin")
        try:
            await OPERATIONS[operation](node)
        except (UpstreamFailure, Refusal):
            assert stopped
            assert [(entry.name, entry.raw_acl) for entry in node.list.walk()] == before
        node.announcer.step = lambda _: None
        if stopped:
            await master.stop()
            await master.start()
        await node.comparer.compare()
        await node.check_agreement()
        if node.list.find(BELOW) is not None:
            split_off = operation == "split" and node.list.find(OTHER) is not None
            assert await node.mail_in(OTHER if split_off else BELOW) == 1


async def test_a_name_that_another_backend_has_is_refused(tmp_path: Path) -> None:
    async with murder(tmp_path) as (master, node):
        other = Node(tmp_path / "be2", memory_store(), master, "be2.test")
        with pytest.raises(Refusal) as refused:
            await other.announcer.create(ANA, ACL)
        assert refused.value.code is Code.ALREADY_EXISTS
        assert other.list.count() == 0
        assert not await other.store.mailboxes()
        await other.check_agreement()
        await node.check_agreement()
        await other.close()


async def test_operations_in_one_tree_wait_for_each_other(tmp_path: Path) -> None:
    async with murder(tmp_path) as (_, node):
        names = [MailboxName(b"user.ana.n%d" % number) for number in range(20)]
        await asyncio.gather(*(node.announcer.create(name, ACL) for name in names))
        await asyncio.gather(
            node.announcer.rename([(CHILD, MOVED), (BELOW, MOVED_BELOW)]),
            node.announcer.delete(names[:10]),
            node.announcer.set_acl(ANA, lambda acl: acl.changed("bob", frozenset("l"))),
        )
        await node.check_agreement()
        assert node.list.count() == 13


async def test_one_name_is_made_once(tmp_path: Path) -> None:
    async with murder(tmp_path) as (_, node):
        outcomes = await asyncio.gather(
            *(node.announcer.create(OTHER, ACL) for _ in range(5)), return_exceptions=True
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
        assert len(refused) == 4
        await node.check_agreement()


async def test_what_the_master_misses_is_activated(tmp_path: Path) -> None:
    async with murder(tmp_path) as (_, node):
        await node.client.delete(CHILD)
        done = await node.comparer.compare()
        assert done == Comparison(activated=[CHILD])
        await node.check_agreement()


async def test_what_only_the_master_has_is_deleted_there(tmp_path: Path) -> None:
    async with murder(tmp_path) as (_, node):
        await node.client.activate(OTHER, b"be1.test!default", ACL)
        done = await node.comparer.compare()
        assert done == Comparison(removed=[OTHER])
        await node.check_agreement()


async def test_a_new_list_never_empties_the_master(tmp_path: Path) -> None:
    async with murder(tmp_path) as (master, node):
        empty = Node(tmp_path / "be1-again", memory_store(), master, "be1.test")
        done = await empty.comparer.compare()
        assert sorted(done.refused) == [ANA, CHILD, BELOW]
        await node.check_agreement()
        await empty.close()


async def test_a_fault_of_its_own_is_not_called_the_masters(tmp_path: Path) -> None:
    """A list that cannot be written, as on a full disk: the master is there."""

    async with murder(tmp_path) as (_, node):
        comparer, commit = node.comparer, node.ledger.commit

        async def refuse(_: object) -> None:
            raise Refusal(Code.UNAVAILABLE, "The mailbox list cannot be written")

        node.ledger.commit = refuse  # type: ignore[method-assign, assignment]
        keep = comparer.keep(ping_interval_s=0.01, retry_min_s=0.01, retry_max_s=0.01)
        with capture_logs() as logged:
            task = asyncio.ensure_future(keep)
            await until_soon(lambda: comparer.problem, "it fails", every_s=0.01)
            assert comparer.problem == "The mailbox list cannot be written"
            node.ledger.commit = commit  # type: ignore[method-assign]
            await until_soon(lambda: not comparer.problem, "it goes on", every_s=0.01)
            task.cancel()
            await asyncio.wait([task])
        assert [one["event"] for one in logged] == ["resync.failed", "resync.resumed"]


async def test_no_room_is_made_for_a_name_that_is_somebody_elses(tmp_path: Path) -> None:
    """What a move was bringing under it was removed, for a RENAME over several backends that the master refused."""
    async with murder(tmp_path) as (_, node):
        await node.client.activate(MOVED, b"be2.test!default", ACL)
        room: list[MailboxName] = []

        async def make_room_for(name: MailboxName, _: str) -> None:
            room.append(name)

        node.announcer.make_room_for = make_room_for
        moves = ((CHILD, MOVED), (BELOW, MOVED_BELOW))
        intent = Intent(Operation.JOINT, moves, "dead", "", "r1", ("be1.test",), (CHILD, MOVED))
        with pytest.raises(Refusal) as refused:
            await node.announcer.prepare_rename(intent)
        assert refused.value.code is Code.ALREADY_EXISTS and room == []
        await node.client.delete(MOVED)
        await node.announcer.prepare_rename(intent)
        assert room == [MOVED, MOVED_BELOW]


@pytest.mark.parametrize("refuses", ["delete", "activate"])
async def test_a_no_of_the_masters_is_told_of_its_mailbox_and_the_others_are_compared(
    tmp_path: Path, refuses: str
) -> None:
    """It ended each comparison, and was called a fault of this server's own."""
    async with murder(tmp_path) as (_, node):
        await node.client.delete(BELOW)
        await node.client.activate(BELOW, b"be2.test!default", ACL)
        await node.comparer.compare()
        (resting,) = node.comparer.quarantined()
        await node.client.delete(BELOW)
        if refuses == "delete":  # it has been told of what rests
            await node.client.activate(resting.kept_as, b"be1.test!default", ACL)
        else:  # it names this server again
            await node.client.activate(BELOW, b"be1.test!default", ACL)
        await node.client.delete(CHILD)

        real = getattr(node.client, refuses)

        async def refuse(name: bytes, *more: bytes) -> None:
            if name in (BELOW, resting.kept_as):
                raise Refusal(Code.CANNOT, "not now")
            await real(name, *more)

        setattr(node.client, refuses, refuse)
        with capture_logs() as logged:
            done = await node.comparer.compare()
        assert done.activated == [CHILD]
        told = [one["mailbox"] for one in logged if one["event"] == "resync.refused"]
        assert len(told) == 1


async def test_what_is_active_elsewhere_is_quarantined_not_deleted(tmp_path: Path) -> None:
    async with murder(tmp_path) as (_, node):
        await node.client.delete(BELOW)
        await node.client.activate(BELOW, b"be2.test!default", ACL)
        done = await node.comparer.compare()
        assert done.quarantined == [BELOW]
        assert node.list.find(BELOW) is None
        kept = [entry.name for entry in node.list.walk() if is_deleted(entry.name)]
        assert len(kept) == 1
        assert await node.mail_in(kept[0]) == 1
        assert (await node.client.find(BELOW)).server == "be2.test"  # type: ignore[union-attr]
        assert not await node.comparer.compare()
        # whoever gives themselves the rights to read it tells no master; one that has been told forgets
        await node.announcer.set_acl(kept[0], lambda acl: acl)
        assert await node.client.find(kept[0]) is None
        await node.client.activate(kept[0], b"be1.test!default", ACL)
        await node.comparer.compare()
        assert await node.client.find(kept[0]) is None and node.list.find(kept[0]) is not None


async def test_what_was_quarantined_comes_back_when_the_master_names_this_server(
    tmp_path: Path,
) -> None:
    async with murder(tmp_path) as (_, node):
        await node.client.delete(BELOW)
        await node.client.activate(BELOW, b"be2.test!default", ACL)
        await node.comparer.compare()
        (resting,) = node.comparer.quarantined()
        assert (resting.name, await node.mail_in(resting.kept_as)) == (BELOW, 1)
        # while the other has it, whoever asks here changes nothing
        assert node.comparer.owe_quarantined(BELOW)
        assert not await node.comparer.compare_names([BELOW])
        # named here again: back, with its mail and its rights, whatever the master was told
        await node.client.delete(BELOW)
        await node.client.activate(BELOW, b"be1.test!other", b"anyone\tl\t")
        done = await node.comparer.compare()
        assert done == Comparison(returned=[BELOW])
        assert await node.mail_in(BELOW) == 1
        assert not node.comparer.quarantined()
        assert not node.comparer.owe_quarantined(BELOW)
        await node.check_agreement()
        assert not await node.comparer.compare()


async def test_the_last_that_was_put_aside_comes_back_and_the_others_stay(tmp_path: Path) -> None:
    async with murder(tmp_path) as (_, node):
        older = resting_name(BELOW, 0x1000)
        await node.comparer._quarantine.create(older, ACL)
        for server in (b"be2.test!default", b"be1.test!default"):
            await node.client.delete(BELOW)
            await node.client.activate(BELOW, server, ACL)
            done = await node.comparer.compare_names([BELOW])
        assert done == Comparison(returned=[BELOW])
        assert await node.mail_in(BELOW) == 1
        assert node.list.find(older) is not None


async def test_names_in_quarantine_are_read_once_for_each_state_of_the_list(tmp_path: Path) -> None:
    async with murder(tmp_path) as (_, node):
        for number in range(20):
            await node.comparer._quarantine.create(
                resting_name(MailboxName(b"user.u%d" % number), 0x1000), ACL
            )
        walks: list[bytes] = []
        walk = node.list.walk

        def counted(prefix: bytes = b"", after: bytes | None = None) -> Iterator[MailboxEntry]:
            walks.append(prefix)
            return walk(prefix, after)

        node.list.walk = counted  # type: ignore[method-assign] # to count
        names = RestingNames(node.list)
        asked = [MailboxName(b"user.u%d" % number) for number in range(40)]
        assert [name in names for name in asked] == [True] * 20 + [False] * 20
        assert len(walks) == 1
        assert MailboxName(b"x.org!user.u1") not in names
        await node.comparer._quarantine.delete([resting_name(asked[0], 0x1000)])
        assert asked[0] not in names and asked[1] in names
        assert len(walks) == 3


def test_a_name_in_quarantine_is_read_as_it_is_written() -> None:
    for name in (b"user.ana", b"x.org!user.ana.a^b", b"shared.quarantine.1f.a"):
        entry = MailboxEntry(
            resting_name(MailboxName(name), 0x6553F100), EntryState.ACTIVE, b"be1!a"
        )
        resting = parse_resting(entry)
        assert resting is not None and (resting.name, resting.at) == (name, 0x6553F100)
    for other in (b"user.ana", b"DELETED.user.ana.6553F100", b"DELETED.quarantine.zz.a"):
        assert parse_resting(MailboxEntry(MailboxName(other), EntryState.ACTIVE, b"be1!a")) is None


async def test_a_changed_acl_reaches_the_master(tmp_path: Path) -> None:
    async with murder(tmp_path) as (_, node):
        await set_acl(node)
        found = await node.client.find(ANA)
        assert found is not None
        assert parse_acl(found.raw_acl).entries["bob"] == frozenset("lr")


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("finishes", [True, False])
async def test_a_lock_whose_holder_was_cancelled_is_free_again(
    tmp_path: Path, turns: int, finishes: bool
) -> None:
    """An abort cancels a move while its lock is on the way to the disk, and lets everybody in."""
    first = Intent(Operation.MOVE, ((ANA, ANA),), "move:1")
    second = Intent(Operation.MOVE, ((ANA, ANA),), "move:2")

    async with murder(tmp_path) as (_, node):
        holding = asyncio.create_task(node.announcer.hold(first))
        for _ in range(turns):
            await asyncio.sleep(0)
        was_held = holding.done()
        holding.cancel()
        await asyncio.wait([holding])
        if finishes or was_held:
            await node.announcer.finish(first, [])
        await node.announcer.hold(second)
        await node.announcer.finish(second, [])
        await node.check_agreement()


async def test_a_rename_of_what_the_store_lacks_leaves_no_lock(tmp_path: Path) -> None:
    """Undoing it failed, and nothing in the tree could be changed, or move, until a restart."""
    async with murder(tmp_path) as (_, node):
        await node.store.delete(BELOW)
        with pytest.raises(Refusal):
            await rename(node)
        assert not node.list.intents()
        assert {entry.name for entry in node.list.walk() if entry.is_active} == {ANA, CHILD, BELOW}
        await node.announcer.rename([(CHILD, MOVED)])


async def rename_that_fails(
    node: Node, fails: Callable[..., Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store does, behind the first of two mailboxes."""

    def step(name: str) -> None:
        if name == "moved":
            monkeypatch.setattr(node.store, "rename", fails)
            monkeypatch.setattr(node.store, "open", fails)

    node.announcer.step = step
    with pytest.raises(Refusal):
        await rename(node)


async def test_a_rename_in_a_store_that_fails_is_undone_when_that_can_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be looked for was taken as what is not there: one half had the new name, and no lock."""
    failure = Refusal(Code.UNAVAILABLE, "The disk of this server cannot be used now")
    monkeypatch.setattr(announce, "UNDO_WAIT_S", 0.01)
    monkeypatch.setattr(announce, "UNDO_PAUSE_S", 0.001)

    async def fails(*_: object) -> None:
        raise failure

    async with murder(tmp_path) as (_, node):
        await rename_that_fails(node, fails, monkeypatch)
        assert node.list.intents()
        away = await node.reborn()  # which serves all others
        assert away.settled == [] and away.list.intents()
        monkeypatch.undo()
        reborn = await away.reborn()
        await reborn.comparer.compare()
        assert {entry.name for entry in reborn.list.walk()} == {ANA, CHILD, BELOW}
        assert await reborn.mail_in(BELOW) == 1
        await reborn.check_agreement()
        await reborn.close()
        node.list = MailboxList.open(node.folder)
        node.ledger = Ledger(node.list)


async def test_a_rename_in_a_store_that_fails_for_a_moment_is_undone_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its trees were locked until the next start."""
    monkeypatch.setattr(announce, "UNDO_PAUSE_S", 0.001)
    failures = 0

    async def fails(*_: object) -> None:
        nonlocal failures
        failures += 1
        if failures == 3:
            monkeypatch.undo()
        raise Refusal(Code.UNAVAILABLE, "The disk of this server cannot be used now")

    async with murder(tmp_path) as (_, node):
        await rename_that_fails(node, fails, monkeypatch)
        await node.check_agreement()
        assert {entry.name for entry in node.list.walk()} == {ANA, CHILD, BELOW}


async def test_who_waits_behind_others_waits_no_longer_than_who_is_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the tree does not end: nobody waits for that as many times as others wait, too."""
    async with murder(tmp_path) as (_, node):
        held, may_end = asyncio.Event(), asyncio.Event()

        async def hold(name: MailboxName, _: str) -> None:
            held.set()
            await may_end.wait()

        node.announcer.make_room_for = hold
        first = asyncio.create_task(node.announcer.create(OTHER, ACL))
        await held.wait()
        monkeypatch.setattr(announce, "LOCK_WAIT_S", 0.05)
        outcomes = await asyncio.gather(
            *(node.announcer.set_acl(CHILD, lambda acl: acl) for _ in range(3)),
            return_exceptions=True,
        )
        assert [outcome.code for outcome in outcomes if isinstance(outcome, Refusal)] == [
            Code.IN_USE
        ] * 3
        may_end.set()
        await first
        await node.announcer.set_acl(CHILD, lambda acl: acl)
        await node.check_agreement()
