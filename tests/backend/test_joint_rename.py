"""RENAME of a hierarchy on three backends: killed at every step of each, refused, crossing; all of it or nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from murder.api.store import MailboxStore, NewMessage
from murder.backend.changes.events import Events
from murder.backend.hierarchy.announce import Announcer
from murder.backend.hierarchy.intent import Stage
from murder.backend.hierarchy.mailboxes import Mailboxes
from murder.backend.reconcile.master import Comparer
from murder.backend.renames import part
from murder.backend.renames.coordinator import Wish, moves_below
from murder.backend.renames.keeper import Renames
from murder.backend.renames.peer import Peer
from murder.backend.shared import Backend
from murder.config import BackendConfig
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.acl import Acl, format_acl, parse_acl
from murder.model.entry import Location
from murder.model.name import MailboxName, Namespace, moved
from murder.mupdate.change import PutNote
from murder.mupdate.client import MasterClient
from murder.mupdate.ledger import Ledger
from murder.mupdate.mboxlist import MailboxList
from murder.net.frames import FrameChannel
from murder.wire.carry import JSON, Frame
from murder.wire.rename_words import Prepare, format_answer
from tests.backend.server import maildir_store, memory_store, spool_store
from tests.mupdate.nodes import Server, run

OLD, NEW = MailboxName(b"user.ana"), MailboxName(b"user.bea")
HOMES: Final = {
    "be1.test": (b"user.ana", b"user.ana.a"),
    "be2.test": (b"user.ana.b", b"user.ana.b.c"),
    "be3.test": (b"user.ana.a.d",),
}
ALL: Final = [MailboxName(name) for names in HOMES.values() for name in names]
ACL: Final = format_acl(Acl({"ana": frozenset("lrswipkxtea"), "carl": frozenset("lr")}))
MOST_STEPS: Final = 40


class KilledError(BaseException):
    """The process dies here."""


@dataclass
class Node:
    """A backend without its listeners. `reborn` is the same disk in a new process."""

    name: str
    folder: Path
    store: MailboxStore
    master: Server
    others: dict[str, "Node"]
    is_dead: bool = False
    on_step: Callable[[str], None] = lambda _: None
    list: MailboxList = field(init=False)

    def __post_init__(self) -> None:
        self.list = MailboxList.open(self.folder / "list")
        self.ledger = Ledger(self.list)
        self.client = MasterClient(self.master.target)
        location = Location(self.name, "default")
        events = Events()
        self.announcer = Announcer(
            self.ledger, self.store, self.client, location, events, process="dead"
        )
        self.comparer = Comparer(self.ledger, self.announcer, self.announcer, self.client, events)
        self.backend = cast(
            Backend,
            SimpleNamespace(
                announcer=self.announcer,
                mailboxes=Mailboxes(self.list, self.store, Namespace()),
                server_name=self.name,
                config=BackendConfig(max_mailboxes_per_user=20),
            ),
        )
        self.renew()
        self.others[self.name] = self

    def renew(self) -> None:
        """As one that has not looked yet."""
        self.renames = Near(self)
        for one in (self.announcer, self.renames.coordinator, self.renames.parts):
            one.step = self._step

    def _step(self, step: str) -> None:
        if self.is_dead:
            raise KilledError
        try:
            self.on_step(step)
        except KilledError:
            self.is_dead = True
            raise

    async def close(self) -> None:
        await self.renames.stop()
        await self.comparer.close()
        await self.client.close()
        await self.ledger.close()
        self.list.close()

    async def reborn(self) -> "Node":
        await self.close()
        node = Node(self.name, self.folder, self.store, self.master, self.others)
        settled = await node.announcer.repair(lambda process: process != "dead")
        node.comparer.owe(name for one in settled for name in one.names)
        return node

    async def fill(self) -> None:
        for name in map(MailboxName, HOMES[self.name]):
            await self.announcer.create(name, ACL)
            await self.ledger.commit([PutNote(f"quota:{name.decode()}", b"")])
            mailbox = await self.store.open(name, "ana")
            incoming = self.store.incoming()
            await incoming.write(b"Subject: %b\r\n\r\nx\r\n" % name)
            await mailbox.append([NewMessage(incoming)])
            mailbox.close()
        await self.comparer.compare()

    async def rename(self, old: MailboxName = OLD, new: MailboxName = NEW) -> tuple[str, ...]:
        coordinator = self.renames.coordinator
        servers = await coordinator.servers_below(old)
        moves = moves_below(self.backend, old, new)
        return await coordinator.rename(Wish(old, new, moves, servers, "ana"))

    def names(self) -> set[MailboxName]:
        return {entry.name for entry in self.list.walk()}


class Near(Renames):
    """Its peers are in this process; what they say goes by octets all the same."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.backend, cast(Any, None), node.client, keeps_all=False)
        self._node = node

    async def _open(self, server: str) -> Peer:
        if self._node.others[server].is_dead:
            raise UpstreamFailure(UpstreamKind.CONNECT, server, "nobody listens")
        channel = cast(FrameChannel, Wire(self._node.others, self._node.name, server))
        return Peer(channel, server)


@dataclass
class Wire:
    others: dict[str, Node]
    asker: str
    server: str
    answer: bytes = b""

    async def send(self, words: dict[str, object]) -> None:
        frame = Frame(JSON, json.dumps(words).encode())
        node = self.others[self.server]
        try:
            answer = await node.renames.parts._answered(frame, self.asker)
            node._step("answering")
        except KilledError:
            raise UpstreamFailure(UpstreamKind.LOST, self.server, "it has died") from None
        self.answer = json.dumps(format_answer(answer)).encode()

    async def receive(self) -> Frame:
        return Frame(JSON, self.answer)

    def close(self) -> None:
        pass


Nodes = dict[str, Node]
STORES: Final[dict[str, Callable[[Path], MailboxStore]]] = {
    "memory": lambda _: memory_store(),
    "spool": spool_store,
    "maildir": maildir_store,
}


@asynccontextmanager
async def three(
    folder: Path, store: str = "memory", only_names: Sequence[str] = tuple(HOMES)
) -> AsyncIterator[tuple[Server, Nodes]]:
    folder.mkdir(exist_ok=True)
    master = Server(folder / "master")
    await master.start()
    nodes: Nodes = {}
    try:
        for name in only_names:
            home = folder / name
            home.mkdir()
            made = STORES[store](home)
            await made.start()
            await Node(name, home, made, master, nodes).fill()
        yield master, nodes
    finally:
        for node in list(nodes.values()):
            await node.close()
            await node.store.stop()
        await master.stop()


async def settle(nodes: Nodes) -> None:
    """As if every node had just looked, until nothing is open; then all compare their lists."""
    for _ in range(10):
        for node in nodes.values():
            node.renew()
            await node.renames.look()
        if not any(node.list.intents() for node in nodes.values()):
            break
    for node in nodes.values():
        await node.comparer.compare()
    assert not any(node.list.intents() for node in nodes.values())


async def check(nodes: Nodes, wanted: bool | None) -> bool:
    """Everything has the new name, or the old one, at list, store and master. Returns which."""
    is_new = NEW in nodes["be1.test"].names()
    assert wanted in (None, is_new)
    for server, node in nodes.items():
        there = {MailboxName(name) for name in HOMES[server]}
        if is_new:
            there = {moved(name, OLD, NEW) for name in there}
        assert node.names() == there, server
        assert {one.name for one in await node.store.mailboxes()} == there, server
        rows = {row.name: row for row in await node.client.list_server(server)}
        assert set(rows) == there, server
        owner, former = ("bea", "ana") if is_new else ("ana", "bea")
        for name in there:
            found, row = node.list.find(name), rows[name]
            assert found is not None and found.is_active and row.is_active
            assert (found.raw_acl, found.raw_location) == (row.raw_acl, row.raw_location)
            acl = parse_acl(row.raw_acl).entries
            assert owner in acl and former not in acl and "carl" in acl
            mailbox = await node.store.open(name, "ana")
            assert (await mailbox.status()).messages == 1
            mailbox.close()
    return is_new


def scene(play: Callable[[], Any]) -> None:
    run(play())


def test_all_of_it_is_renamed(tmp_path: Path) -> None:
    async def play() -> None:
        async with three(tmp_path) as (_, nodes):
            steps: list[str] = []
            nodes["be1.test"].on_step = steps.append
            assert await nodes["be1.test"].rename() == ()
            await check(nodes, True)
            assert not any(node.list.intents() for node in nodes.values())
            assert steps.index("decided") < steps.index("moved")

    scene(play)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("victim", HOMES)
async def test_a_kill_at_any_step_leaves_all_or_nothing(
    tmp_path: Path, victim: str, store: str
) -> None:
    async def play(step: int) -> str:
        async with three(tmp_path / str(step), store) as (_, nodes):
            seen: list[str] = []

            def die(at: str) -> None:
                seen.append(at)
                if len(seen) > step:
                    raise KilledError

            nodes[victim].on_step = die
            outcome: bool | None = None
            try:
                late = await nodes["be1.test"].rename()
                outcome = True  # the client has been told so
                assert set(late) <= {victim}
            except (Refusal, UpstreamFailure) as error:
                outcome = False
                assert victim in str(error) and victim != "be1.test"
            except KilledError:
                assert victim == "be1.test"
            if not nodes[victim].is_dead:
                return ""
            await nodes[victim].reborn()
            await settle(nodes)
            is_new = await check(nodes, outcome)
            return f"{seen[-1]} {'new' if is_new else 'old'}"

    outcomes = []
    for step in range(MOST_STEPS):
        outcome = await play(step)
        if not outcome:
            break
        outcomes.append(outcome)
    else:
        raise AssertionError("it has more steps")
    assert {one.rpartition(" ")[2] for one in outcomes} == {"old", "new"}
    assert len(outcomes) > 8, outcomes


@pytest.mark.parametrize("watched", HOMES)
def test_a_master_that_dies_at_any_step_leaves_all_or_nothing(tmp_path: Path, watched: str) -> None:
    async def play(step: int) -> bool:
        async with three(tmp_path / str(step)) as (master, nodes):
            seen: list[str] = []

            def kill_the_master(at: str) -> None:
                seen.append(at)
                if len(seen) == step + 1:
                    master.listener.stop_accepting()
                    master.listener.abort()

            nodes[watched].on_step = kill_the_master
            outcome = True
            try:
                await nodes["be1.test"].rename()
            except (Refusal, UpstreamFailure):
                outcome = False
            if len(seen) <= step:
                return False
            await master.stop()
            await master.start()
            await settle(nodes)
            await check(nodes, outcome)
            return True

    async def loop() -> None:
        for step in range(MOST_STEPS):
            if not await play(step):
                assert step > 8
                return
        raise AssertionError("it has more steps")

    run(loop())


@pytest.mark.parametrize(
    "step", ["prepare answered", "parts prepared", "decided", "commit answered"]
)
def test_the_root_and_a_part_may_die_together(tmp_path: Path, step: str) -> None:
    async def play() -> None:
        async with three(tmp_path) as (_, nodes):

            def die(at: str) -> None:
                if at == step:
                    nodes["be2.test"].is_dead = True
                    raise KilledError

            nodes["be1.test"].on_step = die
            with pytest.raises(KilledError):
                await nodes["be1.test"].rename()
            for name in ("be2.test", "be1.test"):
                await nodes[name].reborn()
            await settle(nodes)
            await check(nodes, step in ("decided", "commit answered"))

    scene(play)


@pytest.mark.parametrize("away", ["be2.test", "be3.test"])
def test_where_a_part_is_away_nothing_is_renamed_and_it_is_named(tmp_path: Path, away: str) -> None:
    async def play() -> None:
        async with three(tmp_path) as (_, nodes):
            nodes[away].is_dead = True
            with pytest.raises(
                Refusal, match=f"{away} has a part of it, and it cannot be reached"
            ) as no:
                await nodes["be1.test"].rename()
            assert no.value.code is Code.UNAVAILABLE
            nodes[away].is_dead = False
            assert not any(node.list.intents() for node in nodes.values())
            await check(nodes, False)
            await nodes["be1.test"].rename()
            await check(nodes, True)

    scene(play)


def test_a_new_name_that_exists_at_one_of_them_refuses_all(tmp_path: Path) -> None:
    async def play() -> None:
        async with three(tmp_path) as (_, nodes):
            taken = MailboxName(b"user.bea.b.c")
            await nodes["be2.test"].announcer.create(taken, ACL)
            with pytest.raises(Refusal, match=r"be2\.test: user\.bea\.b\.c exists already") as no:
                await nodes["be1.test"].rename()
            assert (no.value.code, no.value.names) == (Code.ALREADY_EXISTS, (taken,))
            await nodes["be2.test"].announcer.delete([taken])
            # the same name at another server: the master knows
            await nodes["be3.test"].announcer.create(taken, ACL)
            with pytest.raises(Refusal, match="The murder has this mailbox already") as no:
                await nodes["be1.test"].rename()
            await nodes["be3.test"].announcer.delete([taken])
            await check(nodes, False)
            assert not any(node.list.intents() for node in nodes.values())

    scene(play)


def test_a_limit_of_one_of_them_refuses_all(tmp_path: Path) -> None:
    async def play() -> None:
        async with three(tmp_path) as (_, nodes):
            nodes["be3.test"].backend.config = BackendConfig(max_mailboxes_per_user=0)
            with pytest.raises(Refusal, match=r"be3\.test: There may be 0 mailboxes") as no:
                await nodes["be1.test"].rename()
            assert no.value.code is Code.LIMIT
            await check(nodes, False)

    scene(play)


def test_two_that_cross_do_not_wait_for_ever_and_one_at_most_comes_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its root in a tree in which the other has a part."""
    monkeypatch.setattr(part, "WAIT_S", (0.1, 0.8))
    other, new = MailboxName(b"user.ana.b"), MailboxName(b"user.carl")

    async def play() -> None:
        async with three(tmp_path) as (_, nodes):
            far = MailboxName(b"user.ana.b.far")
            await nodes["be1.test"].announcer.create(far, ACL)
            outcomes = await asyncio.gather(
                nodes["be1.test"].rename(),
                nodes["be2.test"].rename(other, new),
                return_exceptions=True,
            )
            assert all(isinstance(one, tuple | Refusal) for one in outcomes)
            await settle(nodes)
            rows = set[bytes]()
            for server, node in nodes.items():
                there = {row.name for row in await node.client.list_server(server)}
                assert there == node.names() == {one.name for one in await node.store.mailboxes()}
                rows |= there
            first, second = (not isinstance(one, Refusal) for one in outcomes)
            assert (NEW in rows) == first and (new in rows) == second
            assert (MailboxName(b"user.carl.far") in rows) == second
            whole = {*ALL, far}
            if second:
                whole = {moved(one, other, new) if one.startswith(other) else one for one in whole}
            if first:
                whole = {moved(one, OLD, NEW) if one.startswith(OLD) else one for one in whole}
            assert rows == whole

    scene(play)


def test_what_is_prepared_keeps_others_out_until_it_is_over(tmp_path: Path) -> None:
    async def play() -> None:
        async with three(tmp_path) as (_, nodes):
            part_node = nodes["be2.test"]
            blocked: list[asyncio.Task[Any]] = []
            inside = MailboxName(b"user.ana.b.more")

            def create(at: str) -> None:
                if at == "part prepared":
                    blocked.append(asyncio.create_task(part_node.announcer.create(inside, ACL)))

            part_node.on_step = create
            await nodes["be1.test"].rename()
            (task,) = blocked
            await (
                task
            )  # it comes behind: a mailbox of the former user's, as where one server has all
            assert part_node.names() == {b"user.bea.b", b"user.bea.b.c", inside}

    scene(play)


def test_only_a_root_s_own_server_asks_for_it(tmp_path: Path) -> None:
    """Another one may have a stolen key: it renames, commits and aborts nothing of what it has no part in."""

    async def play() -> None:
        async with three(tmp_path) as (_, nodes):
            asked = Peer(cast(FrameChannel, Wire(nodes, "be3.test", "be2.test")), "be2.test")
            with pytest.raises(Refusal, match=r"user\.ana is not at be3\.test") as no:
                await asked.ask(Prepare("a1", OLD, NEW, "ana", True))
            assert no.value.code is Code.NO_PERMISSION
            await check(nodes, False)

    scene(play)


async def test_what_is_in_doubt_is_shown_and_can_be_ended_by_hand(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        async with three(tmp_path / stage.value) as (_, nodes):

            def die(at: str) -> None:
                if at == "parts prepared":
                    raise KilledError

            nodes["be1.test"].on_step = die
            with pytest.raises(KilledError):
                await nodes["be1.test"].rename()
            far = nodes["be2.test"]
            await far.renames.look()  # nobody answers
            (shown,) = far.renames.in_doubt()
            assert (shown["holder"], shown["claimant"]) == ("be1.test", "be2.test")
            assert (shown["name"], shown["target"]) == ("user.ana.b", "user.bea.b")
            with pytest.raises(Refusal):
                await far.renames.decide_by_hand("unknown", stage)
            await far.renames.decide_by_hand(str(shown["rename"]), stage)
            assert (MailboxName(b"user.bea.b") in far.names()) == (stage is Stage.COMMIT)
            assert far.renames.in_doubt() == [] and not far.list.intents()

    await play(Stage.COMMIT)
    await play(Stage.ABORT)


def test_a_part_that_cannot_be_told_is_shown_at_the_root_s_until_it_is_done(tmp_path: Path) -> None:
    async def play() -> None:
        async with three(tmp_path) as (_, nodes):

            def die(at: str) -> None:
                if at == "decided":
                    nodes["be3.test"].is_dead = True

            nodes["be1.test"].on_step = die
            assert await nodes["be1.test"].rename() == ("be3.test",)
            root = nodes["be1.test"]
            await root.renames.look()
            told = {(one["claimant"], one["command"]) for one in root.renames.in_doubt()}
            assert told == {("be2.test", "RENAMED"), ("be3.test", "RENAMED")}
            await nodes["be3.test"].reborn()
            await settle(nodes)
            assert root.renames.in_doubt() == []
            await check(nodes, True)

    scene(play)
