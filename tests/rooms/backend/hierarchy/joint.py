"""Three backends in one process, without listeners, that have parts of one hierarchy; each can die at any step."""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from murder.api.store import MailboxStore, NewMessage
from murder.config import BackendConfig
from murder.errors import Refusal, UpstreamFailure, UpstreamKind
from murder.model.acl import Acl, format_acl, parse_acl
from murder.model.entry import Location
from murder.model.name import MailboxName, Namespace, moved
from murder.net.frames import FrameChannel
from murder.roles.backend.changes.events import Events
from murder.roles.backend.hierarchy.announce import Announcer
from murder.roles.backend.hierarchy.intent import _process_name
from murder.roles.backend.hierarchy.mailboxes import Mailboxes
from murder.roles.backend.reconcile.master import Comparer
from murder.roles.backend.renames.coordinator import Wish
from murder.roles.backend.renames.keeper import Renames
from murder.roles.backend.renames.peer import Peer
from murder.roles.backend.renames.tree import Tree
from murder.roles.backend.shared import Backend
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.change import PutNote
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.remote.client import MasterClient
from murder.wire.nodes.carry import JSON, Frame
from murder.wire.nodes.rename_words import Act, format_answer
from tests.rooms.backend.server import maildir_store, memory_store, spool_store
from tests.rooms.mupdate.nodes import Server

OLD, NEW = MailboxName(b"user.ana"), MailboxName(b"user.bea")
HOMES: Final = {
    "be1.test": (b"user.ana", b"user.ana.a"),
    "be2.test": (b"user.ana.b", b"user.ana.b.c"),
    "be3.test": (b"user.ana.a.d",),
}
ALL: Final = [MailboxName(name) for names in HOMES.values() for name in names]
SUBSCRIBED: Final = (OLD, MailboxName(b"user.ana.b"), MailboxName(b"shared.news"))
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
    lost: list[str] = field(default_factory=list)  # the ids of mailboxes that sessions lost
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
                config=BackendConfig(max_mailboxes_per_user=20, delete="immediate"),
                store=self.store,
                tracker=SimpleNamespace(mailbox_changed=self.lost.append),
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
        await self.announcer.left.close()
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
            await self.ledger.commit([PutNote(f"a/{name.decode()}", note_of("ana"))])
            mailbox = await self.store.open(name, "ana")
            incoming = self.store.incoming()
            await incoming.write(b"Subject: %b\r\n\r\nx\r\n" % name)
            await mailbox.append([NewMessage(incoming)])
            mailbox.close()
        if self.name == "be1.test":
            for name in SUBSCRIBED:
                await self.store.subscribe("ana", name, True)
        await self.comparer.compare()

    async def rename(self, old: MailboxName = OLD, new: MailboxName = NEW) -> tuple[str, ...]:
        return await self.change(Tree(Act.RENAME, old, new))

    async def change(self, tree: Tree, renames: Renames | None = None) -> tuple[str, ...]:
        coordinator = (renames or self.renames).coordinator
        servers = await coordinator.servers_below(tree)
        moves = await tree.moves_at(self.backend)
        return await coordinator.rename(Wish(tree, moves, servers, "ana"))

    def names(self) -> set[MailboxName]:
        return {entry.name for entry in self.list.walk()}


class Near(Renames):
    """Its peers are in this process; what they say goes by octets all the same."""

    def __init__(
        self, node: Node, backend: Backend | None = None, *, keeps_all: bool = False
    ) -> None:
        super().__init__(backend or node.backend, cast(Any, None), node.client, keeps_all=keeps_all)
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


def note_of(owner: str) -> bytes:
    """A mailbox's own annotations of its owner."""
    return json.dumps({owner: {"/specialuse": "\\Sent"}}).encode()


async def until_killed(
    nodes: Nodes, victim: str, step: int, change: Awaitable[tuple[str, ...]]
) -> tuple[list[str], bool | None]:
    """A change that be1.test is asked for, and a victim that dies behind so many of its steps. Those that it has begun; and
    whether the client has been told that it is done, None where nobody has told."""
    seen: list[str] = []

    def die(at: str) -> None:
        seen.append(at)
        if len(seen) > step:
            raise KilledError

    nodes[victim].on_step = die
    is_done: bool | None = None
    try:
        late = await change
        is_done = True
        assert set(late) <= {victim}
    except (Refusal, UpstreamFailure) as error:
        is_done = False
        assert victim in str(error) and victim != "be1.test"
    except KilledError:
        assert victim == "be1.test"
    return seen, is_done


async def outcomes_of(play: Callable[[int], Awaitable[str]]) -> list[str]:
    """Of a kill at every step; `play` says "" where there are no more."""
    outcomes: list[str] = []
    for step in range(MOST_STEPS):
        outcome = await play(step)
        if not outcome:
            return outcomes
        outcomes.append(outcome)
    raise AssertionError("it has more steps")


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
            assert node.list.note(f"a/{name.decode()}") == note_of(owner)
            mailbox = await node.store.open(name, "ana")
            assert (await mailbox.status()).messages == 1
            mailbox.close()
    store = nodes["be1.test"].store
    there = {moved(name, OLD, NEW) if is_new else name for name in SUBSCRIBED[:2]}
    assert set(await store.subscriptions(owner)) == {*there, SUBSCRIBED[2]}
    assert not await store.subscriptions(former)
    return is_new


def worker(node: Node, process: str, *, keeps_all: bool) -> Near:
    """Another process of the same backend."""
    facts = vars(node.backend)
    location = node.announcer.location
    announcer = Announcer(node.ledger, node.store, node.client, location, Events(), process=process)
    return Near(
        node,
        cast(Backend, SimpleNamespace(**{**facts, "announcer": announcer})),
        keeps_all=keeps_all,
    )


LIVING: Final = _process_name(os.getppid())
