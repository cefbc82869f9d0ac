"""A master, three replicas (one of a replica) and a dictionary, through random commands, disconnects and restarts; the same
with three masters on one log.

After quiescence all lists are equal, every acknowledged change is there, and nothing active was ever taken by another.
"""

import asyncio
import contextlib
import itertools
import shutil
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from murder.errors import UpstreamFailure
from murder.model.entry import EntryState
from plugins.list_etcd.settings import Settings
from tests.kit.programs.etcd import Cluster, cluster
from tests.kit.waiting import until_soon
from tests.rooms.mupdate.nodes import Follower, Raw, Server
from tests.rooms.mupdate.several import MemoryLog, Sharing

NAMES = st.sampled_from(
    ["user.foo", "user.foo.bar", "user.foo-bar", "user.foo!x", "x.org!user.a", "a"]
)
SERVERS = st.sampled_from(["be1.test", "be2.test"])
ACLS = st.sampled_from(["", "ana\tlrs\t", "anyone\tl\t-ana\tl\t", 'odd "acl" \u00e4'])
PATIENCE_S = 20.0

Row = tuple[EntryState, str, str]


class Answers(asyncio.Protocol):
    """All that a server says until it is gone."""

    def __init__(self) -> None:
        self.octets = b""
        self.over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.octets += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()


def at_rest(server: Server) -> threading.Lock:
    """What is held so that nothing goes from the journal into the list's file."""
    return server.mailboxes._environment._settling._settling


class Murder(RuleBasedStateMachine):
    """The nodes live on one loop, which runs only inside a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="murder-state-"))
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.model: dict[str, Row] = {}
        self.history: dict[bytes, set[str]] = {}
        self.masters = self.make_masters()
        self.master = self.masters[0]
        self.backup: tuple[Path, dict[str, Row]] | None = None
        self.number = 0
        self.peer: Raw | None = None
        self.do(self.begin())

    def make_masters(self) -> list[Server]:
        return [Server(self.folder / "master")]

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(PATIENCE_S):
                return await work

        return self.runner.run(bounded())

    async def begin(self) -> None:
        for master in self.masters:
            await master.start()
        self.replicas = [Follower(self.folder / f"r{i}", self.master.target) for i in range(2)]
        for replica in self.replicas:
            await replica.follow()
        await self.replicas[0].start(replica_of=self.replicas[0].replica)
        self.replicas.append(Follower(self.folder / "r2", self.replicas[0].target))
        await self.replicas[2].follow()

    async def say(self, command: str) -> bool:
        if self.peer is None:
            self.peer = await Raw.connect(self.master.port)
        octets = command.encode()
        answer = (await self.peer.ask(b"t " + octets))[-1]
        assert answer.startswith((b"t OK", b"t NO")), answer
        return answer.startswith(b"t OK")

    # Commands

    @rule(name=NAMES, server=SERVERS)
    def reserve(self, name: str, server: str) -> None:
        before = self.model.get(name)
        if self.do(self.say(f'RESERVE "{name}" "{server}!p"')):
            assert before is None or before[1] == server
            if before is None or before[0] is not EntryState.ACTIVE:  # which stays in service
                self.model[name] = (EntryState.RESERVED, server, "")
        else:
            assert before is not None and before[1] != server

    @rule(name=NAMES, server=SERVERS, acl=ACLS)
    def activate(self, name: str, server: str, acl: str) -> None:
        before = self.model.get(name)
        octets = acl.encode()
        if self.do(self.say(f'ACTIVATE "{name}" "{server}!p" {{{len(octets)}+}}\r\n{acl}')):
            assert before is None or before[0] is EntryState.RESERVED or before[1] == server
            self.model[name] = (EntryState.ACTIVE, server, acl)
        else:
            assert before is not None and before[0] is EntryState.ACTIVE and before[1] != server

    @rule(name=NAMES, server=SERVERS, acl=ACLS)
    def force(self, name: str, server: str, acl: str) -> None:
        octets = acl.encode()

        async def as_admin() -> list[bytes]:
            admin = await Raw.connect(self.master.port, "admin")
            command = f'F FORCE "{name}" "{server}!p" {{{len(octets)}+}}\r\n{acl}'
            answer = await admin.ask(command.encode())
            await admin.close()
            return answer

        assert self.do(as_admin()) == [b'F OK "done"']
        self.model[name] = (EntryState.ACTIVE, server, acl)

    @rule(name=NAMES, server=SERVERS)
    def deactivate(self, name: str, server: str) -> None:
        before = self.model.get(name)
        if self.do(self.say(f'DEACTIVATE "{name}" "{server}!p"')):
            assert before is not None and before[0] is EntryState.ACTIVE and before[1] == server
            self.model[name] = (EntryState.RESERVED, server, "")

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if self.do(self.say(f'DELETE "{name}"')):
            del self.model[name]

    # What goes wrong

    @rule(which=st.integers(0, 2))
    def cut_off_a_replica(self, which: int) -> None:
        stream = self.replicas[which].replica._stream
        if stream is not None:
            stream._link.abort()
            self.do(asyncio.sleep(0))

    @rule()
    def cut_off_the_client(self) -> None:
        if self.peer is not None:
            self.do(self.peer.close())
            self.peer = None

    @rule(which=st.integers(1, 2))
    def restart_a_replica(self, which: int) -> None:
        self.do(self.replicas[which].unfollow())
        self.do(self.replicas[which].follow())

    @rule()
    def restart_the_master(self) -> None:
        self.peer = None
        self.do(self.master.stop())
        self.do(self.master.start())

    @rule(
        burst=st.lists(st.tuples(NAMES, SERVERS, ACLS), min_size=1, max_size=8),
        turns=st.integers(0, 12),
    )
    def crash_the_master(self, burst: list[tuple[str, str, str]], turns: int) -> None:
        """Its disk as kill -9 leaves it, while commands are on their way: what was answered is there, the others are
        there in order, or not at all."""
        outcomes = self.do(self.crash_amid(burst, turns))
        self.do(self.present())
        found, model = self.rows(self.master), dict(self.model)
        possible = []
        for number, (name, server, acl) in enumerate([("", "", ""), *burst]):
            before = model.get(name)
            is_free = before is None or before[0] is EntryState.RESERVED or before[1] == server
            if number and is_free:
                model[name] = (EntryState.ACTIVE, server, acl)
            if 0 < number <= len(outcomes):
                assert outcomes[number - 1] == is_free
            if number >= len(outcomes):
                possible.append(dict(model))
        assert found in possible
        self.model = found

    async def crash_amid(self, burst: list[tuple[str, str, str]], turns: int) -> list[bool]:
        raw = await Raw.connect(self.master.port)
        answers = Answers()
        raw.writer.transport.set_protocol(answers)
        for name, server, acl in burst:
            octets = acl.encode()
            line = f'b ACTIVATE "{name}" "{server}!p" {{{len(octets)}+}}\r\n'
            raw.send(line.encode() + octets + b"\r\n")
        for _ in range(turns):
            await asyncio.sleep(0)
        self.peer = None
        await self.crash(self.master)
        await answers.over.wait()
        await self.master.start()
        return [answer.startswith(b"b OK") for answer in answers.octets.split(b"\r\n")[:-1]]

    async def crash(self, server: Server) -> None:
        """Stop it, and put back its files as they are now, with nothing written in between."""
        ledger = server.ledger
        assert ledger is not None
        # the copy is made file by file: not amid a commit
        await until_soon(lambda: not ledger._committing)
        copy = self.folder / "crashed"
        with contextlib.nullcontext() if isinstance(server, Follower) else at_rest(server):
            shutil.copytree(server.folder, copy)
        if isinstance(server, Follower):
            await server.unfollow()
        else:
            server.listener.abort()
            await server.stop()
        shutil.rmtree(server.folder)
        shutil.move(copy, server.folder)

    @rule(which=st.integers(1, 2))
    def crash_a_replica(self, which: int) -> None:
        self.do(self.crash(self.replicas[which]))
        self.do(self.replicas[which].follow())

    @precondition(lambda self: self.backup is None)
    @rule()
    def back_the_master_up(self) -> None:
        self.number += 1
        folder = self.folder / f"backup{self.number}"
        self.master.mailboxes.compact_to(folder)
        self.backup = (folder, dict(self.model))

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore_the_master(self) -> None:
        assert self.backup is not None
        folder, model = self.backup
        self.backup = None
        self.peer = None
        self.do(self.master.stop())
        shutil.rmtree(self.master.folder)
        shutil.move(folder, self.master.folder)
        self.do(self.master.start())
        self.model = self.restored(model)

    def restored(self, model: dict[str, Row]) -> dict[str, Row]:
        """What the list is after its master has been put back to that."""
        return model

    # What must hold

    async def present(self) -> None:
        """Where several masters share a log, what one has acknowledged comes to the others a moment later."""
        assert self.master.ledger is not None
        await self.master.ledger.catch_up()

    def rows(self, server: Server) -> dict[str, Row]:
        return {
            entry.name.decode(): (entry.state, entry.server, entry.raw_acl.decode())
            for entry in server.mailboxes.walk()
        }

    @invariant()
    def the_master_has_every_acknowledged_change_and_no_other(self) -> None:
        self.do(self.present())
        assert self.rows(self.master) == self.model

    @rule()
    def quiesce(self) -> None:
        async def quiet() -> None:
            for replica in self.replicas:  # the first before the one that follows it
                while True:
                    await replica.replica.until_synchronised(PATIENCE_S)
                    try:
                        await replica.replica.ping(PATIENCE_S)
                        break
                    except UpstreamFailure:  # it had not yet noticed that its connection has gone
                        await asyncio.sleep(0)

        self.do(quiet())
        for replica in self.replicas:
            assert self.rows(replica) == self.model
            assert replica.mailboxes.count_by_server() == self.master.mailboxes.count_by_server()

    def teardown(self) -> None:
        try:
            self.quiesce()
        finally:
            self.do(self.end())
            self.runner.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    async def end(self) -> None:
        if self.peer is not None:
            await self.peer.close()
        for replica in (self.replicas[2], self.replicas[1]):
            await replica.unfollow()
        self.replicas[0].listener.stop_accepting()
        self.replicas[0].listener.abort()
        await self.replicas[0].unfollow()
        for master in self.masters:
            await master.stop()


TestMurder = Murder.TestCase
TestMurder.settings = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class MurderOfSeveral(Murder):
    """Three masters share a log, and any of them is asked. A master that is restored or crashes finds the rest there."""

    def make_masters(self) -> list[Server]:
        self.log = MemoryLog(lose=0)
        return [Sharing(self.folder / f"master{i}", self.log) for i in range(3)]

    @rule(which=st.integers(0, 2))
    def go_to_another_master(self, which: int) -> None:
        if self.peer is not None:
            self.do(self.peer.close())
            self.peer = None
        self.master = self.masters[which]

    def restored(self, model: dict[str, Row]) -> dict[str, Row]:
        return self.model

    @rule()
    def all_masters_have_one_history(self) -> None:
        async def present() -> None:
            for master in self.masters:
                assert master.ledger is not None
                await master.ledger.catch_up()

        self.do(present())
        assert len({master.mailboxes.mark() for master in self.masters}) == 1
        for master in self.masters:
            assert self.rows(master) == self.model
            assert master.mailboxes.count_by_server() == self.master.mailboxes.count_by_server()


TestMurderOfSeveral = MurderOfSeveral.TestCase
TestMurderOfSeveral.settings = TestMurder.settings


class MurderOnEtcd(MurderOfSeveral):
    """The same on a member of etcd."""

    member: Cluster
    examples = itertools.count(1)

    def make_masters(self) -> list[Server]:
        prefix = f"/example{next(self.examples)}/"
        where = Settings(self.member.endpoints, prefix=prefix, timeout_s=PATIENCE_S / 2)
        return [Sharing(self.folder / f"master{i}", where) for i in range(3)]


def test_murder_on_etcd(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as MurderOnEtcd.member:
        run_state_machine_as_test(
            MurderOnEtcd,
            settings=settings(TestMurder.settings, max_examples=4, stateful_step_count=20),
        )
