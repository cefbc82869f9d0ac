"""The list goes from one engine to another and back while its master serves: nothing is lost, numbers go on, no client sees
anything deleted; and whatever step a crash comes at, the list is at one place afterwards."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from murder.api.list_log import ListLog
from murder.errors import Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.commits.moving import Movable, Moved
from murder.roles.mupdate.database.change import PutEntry
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.transfer import check
from murder.roles.mupdate.remote.link import greets, open_link
from murder.roles.mupdate.serving.pulse import MOST_STILL_S, Pulse
from murder.roles.mupdate.serving.stream import Hub
from plugins.list_etcd.log import EtcdLog
from plugins.list_etcd.settings import Settings
from tests.kit.programs.etcd import Cluster, cluster
from tests.kit.waiting import turns, until_soon
from tests.rooms.mupdate.nodes import JOURNAL_BYTES, Follower, Raw, Server


class Dies(BaseException):
    """As kill -9: nobody catches it."""


class Frail:
    """A log that fails before, or after, the nth call of a method: with its answer lost, or the process with it."""

    def __init__(self, log: EtcdLog, method: str, after: bool, error: type[BaseException]) -> None:
        self._log = log
        self._method = method
        self._after = after
        self._error = error
        self.has_failed = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._log, name)
        if name != self._method:
            return found

        def frail(*arguments: Any) -> Any:
            if not self._after and not self.has_failed:
                self.has_failed = True
                raise self._fault()
            result = found(*arguments)
            if not self.has_failed:
                self.has_failed = True
                raise self._fault()
            return result

        return frail

    def _fault(self) -> BaseException:
        if self._error is UpstreamFailure:
            return UpstreamFailure(UpstreamKind.TIMEOUT, "etcd", "no answer")
        return self._error()


class Master(Server):
    """A master whose list can go."""

    wrap: Callable[[EtcdLog], ListLog] = staticmethod(lambda log: log)

    def __init__(self, folder: Path, log: Settings, engine: str = "embedded") -> None:
        super().__init__(folder)
        self.log = log
        self.engine = engine
        self.movable: Movable

    def open(self) -> None:
        self.mailboxes = MailboxList.open(self.folder, journal_bytes=JOURNAL_BYTES)
        self.hub = Hub(self.mailboxes, self.config.max_stream_backlog_bytes)
        self.movable = Movable(self.mailboxes, self.engine, lambda _: self.wrap(EtcdLog(self.log)))
        self.ledger = Ledger(self.mailboxes, self.hub.committed, inline=True, engine=self.movable)

    async def move(self, to: str) -> Moved:
        assert self.ledger is not None
        said = [stage async for stage in self.movable.move(to, self.ledger)]
        assert isinstance(said[-1], Moved)
        return said[-1]

    async def fill(self, count: int, start: int = 0) -> None:
        assert self.ledger is not None
        rows = [row(f"user.u{number}") for number in range(start, start + count)]
        await self.ledger.commit([PutEntry(one) for one in rows])

    def names(self) -> set[bytes]:
        return {entry.name for entry in self.mailboxes.walk()}


def row(name: str) -> MailboxEntry:
    return MailboxEntry(MailboxName(name.encode()), EntryState.ACTIVE, b"be1!p", b"anna\tlrs\t")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("etcd"), 1) as found:
        yield found


@pytest.fixture
def log(etcd: Cluster, tmp_path: Path) -> Settings:
    return Settings(etcd.endpoints, prefix=f"/{tmp_path.name}/", timeout_s=10)


async def test_it_goes_to_etcd_and_back_under_load_and_everybody_goes_on(
    tmp_path: Path, log: Settings
) -> None:
    one = Master(tmp_path / "one", log)
    await one.start()
    await one.fill(3000)
    replica = Follower(tmp_path / "replica", one.target)
    await replica.follow()
    await replica.replica.until_synchronised(20)
    cyrus = await Raw.connect(one.port)  # follows as a Cyrus frontend does
    cyrus.send(b"U UPDATE\r\n")
    heard = await cyrus.until(b"U OK")
    epoch, told, stop = one.mailboxes.epoch, set[bytes](), asyncio.Event()

    async def write() -> None:
        peer = await Raw.connect(one.port)
        number = 0
        while not stop.is_set():
            name = b"user.w%d" % number
            number += 1
            answer = (await peer.ask(b't ACTIVATE "%b" "be1!p" ""' % name))[-1]
            assert answer.startswith(b"t OK"), answer
            if number % 3:
                told.add(name)
            else:
                assert (await peer.ask(b't DELETE "%b"' % name))[-1].startswith(b"t OK")
        await peer.close()

    writing = asyncio.ensure_future(write())
    moved = await one.move("etcd")
    assert moved.rows >= 3000 and moved.waited_s < 10 and one.movable.is_shared
    other = Master(tmp_path / "other", log, "etcd")
    await other.start()
    assert other.ledger is not None
    told_before = set(told)
    await other.ledger.catch_up()
    await other.fill(5, 9000)  # another master's change reaches the first one's followers
    assert told_before <= other.names()
    for _ in range(3):
        await turns(50)
    late = await Raw.connect(other.port)
    back = await one.move("embedded")
    assert back.waited_s < 10 and not one.movable.is_shared
    stop.set()
    await writing
    assert one.mailboxes.epoch == epoch
    assert told <= one.names() and b"user.u9001" in one.names()
    assert not list(check(one.mailboxes))
    await replica.replica.ping(20)
    assert {entry.name for entry in replica.mailboxes.walk()} == one.names()
    for command in (b'x ACTIVATE "user.late" "be1!p" ""', b'x FIND "user.u1"', b"x LIST"):
        assert (await late.ask(command))[-1].startswith(b'x NO "[UNAVAILABLE]'), command
    cyrus.send(b"N NOOP\r\n")
    heard += await cyrus.until(b"N OK")
    deleted = [line for line in heard if b" DELETE " in line]
    assert all(b"user.w" in line for line in deleted)  # those that were deleted
    for master in (one, other):
        await master.stop()
    await replica.unfollow()


async def test_who_follows_a_retired_master_is_told_so_and_goes_on_where_the_list_is(
    tmp_path: Path, log: Settings
) -> None:
    one, other = Master(tmp_path / "one", log), Master(tmp_path / "other", log, "etcd")
    await one.start()
    await one.fill(50)
    await one.move("etcd")
    await other.start()
    assert other.ledger is not None
    await other.ledger.catch_up()
    target = replace(other.target, others=(("127.0.0.1", one.port),))
    replica = Follower(tmp_path / "replica", target)
    await replica.follow()
    await replica.replica.until_synchronised(20)
    cyrus, quiet = await Raw.connect(other.port), await Raw.connect(other.port)
    cyrus.send(b"U UPDATE\r\n")
    await cyrus.until(b"U OK")
    before = replica.mailboxes.last_seq()

    await one.move("embedded")

    heard = await cyrus.until(b"* BYE")
    assert b'BYE "[UNAVAILABLE] the mailbox list has left etcd' in heard[-1], heard
    assert not any(b" DELETE " in line for line in heard)
    assert await cyrus.line() == b""  # it has ended
    for command in (b"U UPDATE", b"F FOLLOW", b"L LIST", b'D DELETE "user.u1"', b"N NOOP"):
        answer = await quiet.ask(command)
        assert len(answer) == 1 and b' NO "[UNAVAILABLE]' in answer[0], answer
    with pytest.raises((UpstreamFailure, OSError)):  # it greets nobody
        await open_link(other.target)
    assert not await greets(other.target, 20)  # nobody goes back there
    await one.fill(3, 9000)
    await until_soon(lambda: replica.mailboxes.last_seq() >= before + 3)
    assert replica.mailboxes.last_seq() == before + 3  # nothing came twice, nothing went
    assert {entry.name for entry in replica.mailboxes.walk()} == one.names()

    await one.move("etcd")
    while not await greets(other.target, 20):  # it is a master again
        await turns()
    assert (await quiet.ask(b'F FIND "user.u9000"'))[-1].startswith(b"F OK")
    await replica.unfollow()
    for master in (one, other):
        await master.stop()


async def test_a_master_that_got_others_while_it_ran_answers_for_nothing_after_it_stood_still(
    tmp_path: Path, log: Settings
) -> None:
    now = 0.0
    one = Master(tmp_path / "one", log)
    await one.start()
    one.service.pulse = Pulse(lambda: now)
    peer, alone = await Raw.connect(one.port), await Raw.connect(one.port)
    now += 10 * MOST_STILL_S
    assert (await alone.ask(b't ACTIVATE "user.a" "be1!p" ""'))[-1].startswith(b"t OK")
    await one.move("etcd")
    assert (await peer.ask(b't ACTIVATE "user.b" "be1!p" ""'))[-1].startswith(b"t OK")
    now += 10 * MOST_STILL_S
    peer.send(b't ACTIVATE "user.c" "be1!p" ""\r\n')
    with contextlib.suppress(ConnectionResetError):
        assert await peer.line() == b""
    assert one.names() == {b"user.a", b"user.b"}
    await one.stop()


async def died(master: Master) -> None:
    """Its process is gone: only its file is left."""
    master.listener.stop_accepting()
    master.listener.abort()
    master.hub.close()
    with contextlib.suppress(Exception):
        master.movable.close()
    master.mailboxes.close()


def at(error: type[BaseException], *way: str) -> list[Any]:
    return [
        pytest.param(
            step.split()[1], step.startswith("after"), error, id=f"{error.__name__} {step}"
        )
        for step in way
    ]


LAST = ("before take_over", "after take_over")
HOME = ("before hand_over", "after hand_over")


@pytest.mark.parametrize(
    ("step", "after", "error"),
    [
        *at(Dies, "after prepare", "after put", "after stored", *LAST),
        *at(UpstreamFailure, "after put", *LAST),
    ],
)
async def test_a_crash_or_a_lost_answer_on_the_way_in_loses_nothing(
    tmp_path: Path, log: Settings, step: str, after: bool, error: type[BaseException]
) -> None:
    one = Master(tmp_path / "one", log)
    await one.start()
    await one.fill(300)
    one.wrap = lambda found: Frail(found, step, after, error)
    with pytest.raises((error, Refusal)):
        await one.move("etcd")
    if error is UpstreamFailure:
        await one.fill(5, 5000)  # it goes on at once, wherever the list is
    await died(one)
    await goes_on(one, {5000, 5004} if error is UpstreamFailure else set())


@pytest.mark.parametrize(
    ("step", "after", "error"),
    [*at(Dies, "after stored", *HOME), *at(UpstreamFailure, *HOME)],
)
async def test_a_crash_or_a_lost_answer_on_the_way_back_loses_nothing(
    tmp_path: Path, log: Settings, step: str, after: bool, error: type[BaseException]
) -> None:
    one = Master(tmp_path / "one", log)
    await one.start()
    await one.fill(300)
    one.wrap = lambda found: Frail(found, step, after, error)
    if step != "hand_over":  # which the way in does as well
        one.wrap = lambda found: found
    await one.move("etcd")
    if step != "hand_over":
        one.wrap = lambda found: Frail(found, step, after, error)
        one.movable._records = one.wrap(one.movable._records)  # type: ignore[arg-type]
    with pytest.raises((error, Refusal)):
        await one.move("embedded")
    if error is UpstreamFailure:
        await one.fill(5, 5000)
    await died(one)
    await goes_on(one, {5000, 5004} if error is UpstreamFailure else set())


async def goes_on(one: Master, numbers: set[int]) -> None:
    """A start finds the list where it is, and it is nowhere else; then it can be moved after all."""
    again = Master(one.folder, one.log)
    await again.start()
    assert again.ledger is not None
    await again.fill(1, 7000)
    assert {b"user.u%d" % number for number in (0, 299, 7000, *numbers)} <= again.names()
    assert not list(check(again.mailboxes))
    where = again.movable.kind
    other = Master(one.folder.parent / "other", one.log, "etcd")
    if where == "etcd":
        await other.start()
        assert other.ledger is not None
        await other.ledger.catch_up()
        assert other.names() == again.names()
    else:
        await again.move("etcd")
        await other.start()
        assert other.ledger is not None
        await other.ledger.catch_up()
        assert other.mailboxes.mark() == again.mailboxes.mark()
        await again.move("embedded")
        with pytest.raises(Refusal, match="has left etcd"):
            await other.ledger.catch_up()
    await again.fill(1, 8000)
    await other.stop()
    await again.stop()


async def test_a_move_that_was_given_up_is_not_done_late(tmp_path: Path, log: Settings) -> None:
    """Steps that were sent before, and come to etcd after it has been asked where the list is."""
    late = EtcdLog(log)
    one = Master(tmp_path / "one", log)
    await one.start()
    await one.fill(10)
    position, epoch = one.mailboxes.position(), one.mailboxes.epoch
    late.prepare("t1")
    late.put("t1", [(b"k", b"x")])
    assert not late.settle("t1")
    with pytest.raises(Refusal, match="given up"):
        late.put("t1", [(b"k", b"y")])
    with pytest.raises(Refusal, match="given up"):
        late.take_over("t1", epoch, position, {})
    await one.move("etcd")
    with pytest.raises(Refusal, match="already"):
        late.prepare("t2")
    assert not late.hand_over("t3", epoch, position._replace(mark=b"another1"))
    assert late.settle("t3")
    late.close()
    await one.stop()


async def test_who_stops_listening_gives_it_up(tmp_path: Path, log: Settings) -> None:
    one = Master(tmp_path / "one", log)
    await one.start()
    await one.fill(2500)
    assert one.ledger is not None
    stages = one.movable.move("etcd", one.ledger)
    await anext(stages)
    with pytest.raises(Refusal, match="being moved to another engine"):
        await anext(one.movable.move("etcd", one.ledger))
    await stages.aclose()
    assert one.movable.kind == "embedded"
    await one.fill(1, 9000)
    await one.move("etcd")
    with pytest.raises(Refusal, match="by etcd already"):
        await one.move("etcd")
    await one.stop()


class NeverTaken:
    """A log to which a list was to go, and has not gone."""

    def __init__(self) -> None:
        self.is_closed = False

    def __getattr__(self, name: str) -> Any:  # what else a log has is not asked for
        return lambda *_: None

    def settle(self, token: str) -> bool:
        return False

    def close(self) -> None:
        self.is_closed = True


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_without_a_thread_to_close_a_log_in_the_list_goes_on_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change that was to settle it failed, and the log stayed open for ever."""

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    mailboxes = MailboxList.open(tmp_path)
    mailboxes.keep_by("embedded>etcd token")
    log = NeverTaken()
    movable = Movable(mailboxes, "embedded", lambda _: cast(ListLog, log))
    assert movable.is_shared
    assert not movable.take_up()
    assert log.is_closed and movable.kind == "embedded" and not movable.is_shared
    mailboxes.close()


class NeverClosed(NeverTaken):
    """As it does, but fails to close."""

    def close(self) -> None:
        raise OSError("nobody is there to close for")


@pytest.mark.parametrize("has_threads", [True, False])
async def test_a_log_that_cannot_be_closed_fails_no_change(
    has_threads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did where it was closed at once, and each further change was taken for one that others have to agree to."""
    if not has_threads:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    mailboxes = MailboxList.open(tmp_path)
    mailboxes.keep_by("embedded>etcd token")
    movable = Movable(mailboxes, "embedded", lambda _: cast(ListLog, NeverClosed()))
    with capture_logs() as logs:
        assert not movable.take_up()
        assert movable.kind == "embedded" and not movable.is_shared
        failed = [("plugin.failed", "close")]
        await until_soon(
            lambda: [(line["event"], line["hook"]) for line in logs if "hook" in line] == failed,
            "it is said",
            every_s=0.02,
        )
    mailboxes.close()
