"""Several masters as their clients and replicas see them: one dies, stands still or is cut off, and another is asked."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from murder.api.list_log import Position, Record, Whole
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.roles.mupdate.remote.client import MasterClient
from murder.roles.mupdate.remote.link import Target, open_link
from murder.roles.mupdate.remote.masters import Masters
from murder.roles.mupdate.serving.pulse import MOST_STILL_S, Pulse
from murder.roles.mupdate.serving.writes import AWAY
from tests.kit.waiting import until_soon
from tests.rooms.mupdate.nodes import Follower, Raw
from tests.rooms.mupdate.several import MemoryLog, Sharing

BE1 = b"be1.test!p"


class CutOff(MemoryLog):
    """The log as one master sees it, who may be cut off from it."""

    def __init__(self, log: MemoryLog) -> None:
        self.__dict__ = log.__dict__  # the same log
        self._here = log
        self.cut: set[int] = set()

    def of(self, number: int) -> "_Way":
        return _Way(self, number)


class _Way(MemoryLog):
    def __init__(self, log: CutOff, number: int) -> None:
        self.__dict__.update(log.__dict__)  # the same records, and a number of its own
        self._cut, self._number = log.cut, number

    def _check(self) -> None:
        if self._number in self._cut:
            raise UpstreamFailure(UpstreamKind.TIMEOUT, "log.test", "no answer")

    def append(self, epoch: str, record: Record) -> bool:
        self._check()
        return super().append(epoch, record)

    def is_last(self, epoch: str, position: Position) -> bool:
        self._check()
        return super().is_last(epoch, position)

    def since(self, epoch: str, after: Position) -> Sequence[Record] | Whole:
        self._check()
        return super().since(epoch, after)


class Way:
    """The way to a master, which may stand still: the kernel takes what comes, and nobody answers."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._moves = asyncio.Event()
        self._moves.set()
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def freeze(self) -> None:
        self._moves.clear()

    def thaw(self) -> None:
        self._moves.set()

    def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._moves.wait()
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._one_way(source, sink))
            self._tasks.add(task)

    async def _one_way(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._moves.wait()
                sink.write(data)
        sink.close()


def target_of(ports: Sequence[int], caller: str = "") -> Target:
    first, *others = (("127.0.0.1", port) for port in ports)
    return Target(*first, None, "murder", "secret", 5.0, 5.0, tuple(others), 0.5, caller)


@contextlib.asynccontextmanager
async def masters_in(folder: Path, count: int = 2) -> AsyncIterator[tuple[list[Sharing], CutOff]]:
    log = CutOff(MemoryLog())
    masters = [Sharing(folder / f"m{i}", log.of(i)) for i in range(count)]
    for master in masters:
        await master.start()
    try:
        yield masters, log
    finally:
        for master in masters:  # a test takes out what it has stopped
            await master.stop()


def test_nodes_spread_themselves_and_prefer_their_own_master() -> None:
    def first(caller: str) -> str:
        return (
            Masters(Target("m1", 3905, others=(("m2", 3905), ("m3", 3905)), caller=caller))
            ._in_order()[0]
            .host
        )

    assert {first(f"fe{number}.example.org") for number in range(30)} == {"m1", "m2", "m3"}
    assert [first(name) for name in ("m1", "m2", "m3")] == ["m1", "m2", "m3"]


async def test_a_command_whose_master_dies_is_done_at_the_next(tmp_path: Path) -> None:
    async with masters_in(tmp_path) as (masters, _):
        client = MasterClient(target_of([master.port for master in masters]))
        await client.activate(b"user.a", BE1, b"")
        assert client._link is not None
        used = next(one for one in masters if str(one.port) in client._link.target.name)
        other = next(one for one in masters if one is not used)
        await used.stop()
        masters.remove(used)
        await client.activate(b"user.b", BE1, b"")
        assert other.mailboxes.find(b"user.a") is not None
        assert other.mailboxes.find(b"user.b") is not None
        await client.close()


async def test_a_master_that_stands_still_is_left(tmp_path: Path) -> None:
    async with masters_in(tmp_path) as (masters, _):
        ways = [Way(master.port) for master in masters]
        for way in ways:
            await way.open()
        client = MasterClient(target_of([way.port for way in ways]))
        await client.activate(b"user.a", BE1, b"")
        assert client._link is not None
        used = next(one for one in ways if str(one.port) in client._link.target.name)
        used.freeze()
        await asyncio.gather(*(client.activate(b"user.b%d" % i, BE1, b"") for i in range(20)))
        assert client.connections == 2
        assert str(used.port) not in client._link.target.name
        assert await client.find(b"user.b19") is not None
        await client.close()
        for way in ways:
            way.close()


async def test_a_master_that_is_cut_off_from_the_others_is_left(tmp_path: Path) -> None:
    async with masters_in(tmp_path) as (masters, log):
        client = MasterClient(target_of([master.port for master in masters]))
        follower = Follower(tmp_path / "r", target_of([master.port for master in masters]))
        await follower.follow()
        await follower.replica.until_synchronised(10)
        await client.activate(b"user.a", BE1, b"")
        log.cut.add(0)
        await client.activate(b"user.b", BE1, b"")
        await until_soon(lambda: follower.mailboxes.find(b"user.b") is not None)
        log.cut.add(1)
        with pytest.raises(Refusal) as refused:
            await client.activate(b"user.c", BE1, b"")
        assert refused.value.code is Code.UNAVAILABLE
        with pytest.raises(UpstreamFailure):
            await follower.replica.ping(5)
        assert await client.find(b"user.a") is not None  # what it knows goes on being told
        log.cut.clear()
        await client.activate(b"user.c", BE1, b"")
        await follower.replica.ping(5)
        assert follower.mailboxes.find(b"user.c") is not None
        await follower.unfollow()
        await client.close()


async def test_a_replica_goes_over_and_whoever_asks_for_the_present_waits(tmp_path: Path) -> None:
    async with masters_in(tmp_path) as (masters, _):
        ports = [master.port for master in masters]
        follower = Follower(tmp_path / "r", target_of(ports))
        await follower.follow()
        await follower.replica.until_synchronised(10)
        epoch = follower.mailboxes.epoch
        followed = next(one for one in masters if one.service.hub.lag())
        other = next(one for one in masters if one is not followed)
        peer = await Raw.connect(other.port)
        await peer.ask(b't ACTIVATE "user.a" "be1.test!p" ""')
        await followed.stop()
        masters.remove(followed)
        await follower.replica.ping(10)
        assert follower.mailboxes.find(b"user.a") is not None
        assert follower.mailboxes.epoch == epoch
        await follower.unfollow()


async def test_it_goes_back_to_the_preferred_master(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("murder.roles.mupdate.remote.masters.RETURN_S", 0.0)
    async with masters_in(tmp_path) as (masters, _):
        client = MasterClient(target_of([master.port for master in masters]))
        preferred = client._masters._in_order()[0]
        home = next(one for one in masters if one.port == preferred.port)
        await home.stop()
        masters.remove(home)
        await client.activate(b"user.a", BE1, b"")
        assert client._link is not None and client._link.target.name != preferred.name
        await home.start()
        masters.append(home)

        async def asked() -> bool:
            await client.ping()
            return client._link is not None and client._link.target.name == preferred.name

        while not await asked():
            pass
        assert await client.find(b"user.a") is not None
        await client.close()


class Clock:
    """The time, which a test moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_what_came_before_a_standstill_is_not_done_after_it(tmp_path: Path) -> None:
    async with masters_in(tmp_path, 1) as ((master,), _):
        clock = Clock()
        peer = await Raw.connect(master.port)
        assert await peer.ask(b'a ACTIVATE "user.a" "be1.test!p" ""') == [b'a OK "done"']
        master.service.pulse = Pulse(clock)
        late = await Raw.connect(master.port)
        clock.now += MOST_STILL_S + 0.1  # as if stopped here; what comes now has been in the kernel
        with contextlib.suppress(OSError, EOFError, AssertionError):
            assert not await late.ask(b'b ACTIVATE "user.b" "be1.test!p" ""')
        await until_soon(lambda: not master.service.dialogues)
        assert master.mailboxes.find(b"user.b") is None
        link = await open_link(master.target)  # and who comes now is served
        link.abort()


async def test_what_was_decided_late_is_refused(tmp_path: Path) -> None:
    async with masters_in(tmp_path, 1) as ((master,), _):
        clock = Clock()
        master.service.pulse = Pulse(clock)
        peer = await Raw.connect(master.port)

        def stopped(epoch: str, after: Position) -> Sequence[Record]:
            clock.now += MOST_STILL_S + 0.1
            return ()

        assert isinstance(master.log, MemoryLog)
        master.log.heard = stopped  # type: ignore[method-assign]
        assert await peer.ask(b'a ACTIVATE "user.a" "be1.test!p" ""') == [f'a NO "{AWAY}"'.encode()]
        assert master.mailboxes.find(b"user.a") is None


def test_targets_of_one_master_are_as_patient_as_before() -> None:
    alone = Target("m1", 3905)
    assert Masters(alone).patience_s == alone.command_timeout_s
    assert Masters(replace(alone, others=(("m2", 3905),))).patience_s == alone.failover_s


async def test_all_that_was_answered_together_is_asked_again(tmp_path: Path) -> None:
    """Refusals of many commands come in one read: who sees theirs after the master was left goes on, too."""
    async with masters_in(tmp_path) as (masters, log):
        client = MasterClient(target_of([master.port for master in masters]))
        await client.activate(b"user.a", BE1, b"")
        assert client._link is not None
        (used,) = [i for i, one in enumerate(masters) if str(one.port) in client._link.target.name]
        log.cut.add(used)
        await asyncio.gather(*(client.activate(b"user.b%d" % i, BE1, b"") for i in range(50)))
        assert masters[1 - used].mailboxes.find(b"user.b49") is not None
        assert client.connections == 2
        await client.close()
