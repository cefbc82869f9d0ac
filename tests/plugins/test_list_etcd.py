"""A log on etcd, with members of Debian's package: the contract of its kind, and what only etcd can do to it."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from murder.api.contract.check import Check
from murder.api.contract.list_log import LIST_CHECKS, epoch_of
from murder.api.list_log import BEGINNING, Position, Record, TooLarge, Whole
from murder.errors import Refusal, UpstreamFailure, UpstreamKind
from plugins.list_etcd.log import EtcdLog
from plugins.list_etcd.settings import Settings
from tests.kit.ports import free_port
from tests.kit.process import run_murder
from tests.kit.programs.etcd import Cluster, cluster
from tests.kit.waiting import LIMIT_S, until
from tests.kit.wires import Mode, Wires

Make = Callable[[], EtcdLog]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("etcd"), 1) as found:
        yield found


@pytest.fixture
def make(members: Cluster, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Logs below a prefix of the test's own."""
    made: list[EtcdLog] = []

    def make_one(timeout_s: float = 10.0) -> EtcdLog:
        prefix = f"/{request.node.name}/"
        made.append(EtcdLog(Settings(members.endpoints, prefix=prefix, timeout_s=timeout_s)))
        return made[-1]

    yield make_one
    for log in made:
        log.close()


@pytest.mark.parametrize("check", LIST_CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_to_the_contract(check: Check, make: Make) -> None:
    await check(make)


@pytest.mark.filterwarnings("error")
def test_who_asks_a_log_that_is_closed_is_told_so(make: Make) -> None:
    log = make()
    epoch = epoch_of(log)
    log.close()
    for _ in range(2):
        with pytest.raises(UpstreamFailure, match="closed"):
            log.is_last(epoch, BEGINNING)
    with pytest.raises(UpstreamFailure, match="closed"):
        log.members()


@pytest.mark.filterwarnings("error")
def test_who_waits_for_an_answer_when_the_log_is_closed_waits_no_longer(tmp_path: Path) -> None:
    """With a member that has taken the question, and is silent."""
    with cluster(tmp_path, 1) as alone, ThreadPoolExecutor() as threads:
        log = EtcdLog(Settings(alone.endpoints, prefix="/closed/", timeout_s=60))
        epoch = epoch_of(log)
        alone.members[0].freeze()
        waiting = threads.submit(log.is_last, epoch, BEGINNING)
        until(waiting.running, "it asks")
        log.close()
        with pytest.raises(UpstreamFailure, match="closed"):
            waiting.result(LIMIT_S)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A member as it comes, with a small quota."""
    flags = ("--max-txn-ops", "128", "--max-request-bytes", "1572864")
    quota = ("--quota-backend-bytes", str(16 << 20))
    with cluster(tmp_path_factory.mktemp("small"), 1, (*flags, *quota)) as found:
        yield found


def filled(after: Position, count: int, octets: int = 10) -> Record:
    """A commit of so many rows."""
    seq = after.seq
    changes = []
    for _ in range(count):
        seq += 1
        changes.append((b"n%d" % seq, seq.to_bytes(8, "big") + bytes(octets)))
    return Record(after, changes, Position(seq, b"%08d" % seq))


def test_a_member_that_takes_little_is_given_little(small: Cluster) -> None:
    log = EtcdLog(Settings(small.endpoints, prefix="/little/"))
    epoch = epoch_of(log)
    with pytest.raises(TooLarge):
        log.append(epoch, filled(BEGINNING, 500))
    assert log.most_changes < 128
    first = filled(BEGINNING, log.most_changes)
    assert log.append(epoch, first)
    with pytest.raises(TooLarge):
        log.append(epoch, filled(first.position, 4, 300_000))
    with pytest.raises(Refusal, match="max-request-bytes"):
        log.append(epoch, filled(first.position, 1, 2_000_000))
    assert log.is_last(epoch, first.position)
    log.close()


def test_of_rows_that_become_long_fewer_are_asked_for(small: Cluster) -> None:
    """A page of as many as there were short ones would be longer than any message that is read."""
    log = EtcdLog(Settings(small.endpoints, prefix="/long/", max_message_bytes=400_000))
    epoch = epoch_of(log)
    at = BEGINNING
    for count, octets in ((100, 10), (6, 100_000)):
        for one in [1] * count if octets > 10 else [count]:
            record = filled(at, one, octets)
            assert log.append(epoch, record)
            at = record.position
    pages = log._pages(b"/long/row/", b"/long/row0", 0)
    rows = [len(pair.value) for page in pages for pair in page]
    assert len(rows) == 106 and rows.count(100_008) == 6
    log.close()


def test_a_member_that_is_full_says_so_and_takes_more_when_there_is_room(small: Cluster) -> None:
    log = EtcdLog(Settings(small.endpoints, prefix="/full/"))
    epoch = epoch_of(log)
    at = BEGINNING
    with pytest.raises(Refusal, match="no room left"):
        for _ in range(100):
            record = filled(at, 1, 500_000)
            assert log.append(epoch, record)
            at = record.position
    assert log.is_last(epoch, at)  # also where the last one filled it
    assert "NOSPACE" in log.members()[0].problem
    small.ctl("del", "--prefix", "/full/row/")
    small.ctl("del", "--prefix", "/full/log/")
    revision = small.ctl("endpoint", "status", "-w", "json").split('"revision":')[1]
    small.ctl("compact", revision.split(",")[0])
    small.ctl("defrag")
    small.ctl("alarm", "disarm")
    assert log.append(epoch, filled(at, 1))
    log.close()


def test_what_was_pruned_is_told_as_the_whole_list(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.list_etcd.log.KEEP_CHANGES", 10)
    monkeypatch.setattr("plugins.list_etcd.log.PRUNE_EVERY", 4)
    log = make()
    epoch = epoch_of(log)
    records = [filled(BEGINNING, 1)]
    for _ in range(30):
        assert log.append(epoch, records[-1])
        records.append(filled(records[-1].position, 1))
    last = records[-2].position
    whole = log.since(epoch, records[2].position)
    assert isinstance(whole, Whole) and not whole.is_put_back
    assert (whole.position, whole.epoch) == (last, epoch)
    assert sum(len(page) for page in whole.rows) == 30
    kept = [record.position.seq for record in whole.records]
    assert kept == list(range(kept[0], 31)) and 10 <= len(kept) < 20
    followed = log.since(epoch, records[25].position)
    assert not isinstance(followed, Whole)
    assert [record.position.seq for record in followed] == [27, 28, 29, 30]


def test_a_list_is_taken_over_with_its_place_in_history(make: Make) -> None:
    log, position = make(), Position(5000, b"12345678")
    pages = (
        [(b"k%05d" % n, n.to_bytes(8, "big") + b"x") for n in range(i, i + 1500)] for i in (0, 1500)
    )
    log.prepare("t")
    for page in pages:
        log.put("t", page)
    log.put("t", [(b"k00000", None), (b"k00001", None), (b"k00000", bytes(8) + b"y")])
    log.take_over("t", "0123456789abcdef", position, {"n": b"1"})
    with pytest.raises(Refusal, match="already"):
        log.prepare("u")
    assert sum(map(len, log.stored())) == 2999
    assert log.is_last("0123456789abcdef", position)
    whole = log.since("", BEGINNING)
    assert isinstance(whole, Whole)
    assert sum(len(page) for page in whole.rows) == 2999
    assert (whole.notes, whole.position) == ({"n": b"1"}, position)
    record = filled(position, 1)
    assert log.append("0123456789abcdef", record)
    followed = log.since("0123456789abcdef", position)
    assert not isinstance(followed, Whole) and list(followed) == [record]


def test_another_list_is_not_taken_for_this_one(make: Make) -> None:
    log = make()
    epoch = epoch_of(log)
    assert log.append(epoch, filled(BEGINNING, 1))
    with pytest.raises(Refusal, match="another history"):
        log.since("fedcba9876543210", Position(3, b"12345678"))


def test_an_empty_etcd_does_not_empty_a_master(make: Make) -> None:
    with pytest.raises(Refusal, match="it is not given up"):
        make().since("fedcba9876543210", Position(3, b"12345678"))


def test_nobody_there_is_told_in_time_and_then_at_once() -> None:
    log = EtcdLog(Settings((f"http://127.0.0.1:{free_port()}",), timeout_s=0.5))
    with pytest.raises(UpstreamFailure) as first:
        log.is_last("x", BEGINNING)
    assert first.value.kind is UpstreamKind.CONNECT
    for _ in range(1000):  # each of them in half a second would take minutes
        with pytest.raises(UpstreamFailure) as failure:
            log.is_last("x", BEGINNING)
    assert failure.value.kind is UpstreamKind.DOWN
    log.close()


def test_users_and_certificates(tmp_path: Path) -> None:
    """As the manual sets it up: client certificates, a user who may write below the prefix only."""
    run_murder("ca", "init", "--dir", tmp_path / "ca")
    words = ("--role", "mupdate", "--dir", tmp_path / "ca", "--address", "127.0.0.1")
    run_murder("ca", "issue", "m1.test", *words, "--out", tmp_path)
    ca, certificate, key = (
        tmp_path / "ca" / "ca.pem",
        tmp_path / "m1.test.pem",
        tmp_path / "m1.test.key",
    )
    tls = ("--cert-file", str(certificate), "--key-file", str(key))
    asking = ("--client-cert-auth", "--trusted-ca-file", str(ca))
    members = Cluster(tmp_path / "etcd", 1, (*tls, *asking), scheme="https")
    members.identify = ("--cacert", str(ca), "--cert", str(certificate), "--key", str(key))
    with members:
        for command in (
            "user add root:secret",
            "user add murder:hush",
            "role add murder",
            "role grant-permission murder --prefix=true readwrite /murder/",
            "user grant-role murder murder",
            "user grant-role root root",
            "auth enable",
        ):
            members.ctl(*command.split())

        def log(**more: Any) -> EtcdLog:
            return EtcdLog(Settings(members.endpoints, ca=ca, timeout_s=1.0, **more))

        known = {"certificate": certificate, "key": key, "user": "murder", "password": "hush"}
        one = log(**known)
        epoch = epoch_of(one)
        assert one.append(epoch, filled(BEGINNING, 3))
        one.close()
        refused = [
            (log(certificate=certificate, key=key), "permission denied"),
            (log(**{**known, "password": "wrong"}), "authentication failed|etcd refuses"),
            (log(**known, prefix="/other/"), "permission denied|does not let"),
            (log(user="murder", password="hush"), "etcd"),
        ]
        for other, text in refused:
            with pytest.raises((Refusal, UpstreamFailure), match=text):
                other.is_last(epoch, BEGINNING)
            other.close()


def watching(log: EtcdLog, watch: Any) -> None:
    """It watches by `watch(original, endpoint, request)` from here on."""
    cluster = log._there()
    original = cluster.watch
    cluster.watch = lambda endpoint, request: watch(original, endpoint, request)  # type: ignore[method-assign]


def test_a_watch_that_etcd_refuses_because_it_has_compacted_begins_anew(
    make: Make, members: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compaction comes between the look at the head and the watch from there: etcd refuses the watch."""
    monkeypatch.setattr("plugins.list_etcd.log.PULSE_ANSWER_S", 30.0)  # etcdctl takes its time
    writer, late = make(), make()
    epoch = epoch_of(writer)
    records = [filled(BEGINNING, 1)]
    news = threading.Event()
    turns: list[int] = []

    def write_and_compact() -> None:
        for _ in range(5):
            assert writer.append(epoch, records[-1])
            records.append(filled(records[-1].position, 1))
        revision = members.ctl("endpoint", "status", "-w", "json").split('"revision":')[1]
        members.ctl("compact", revision.split(",")[0])
        news.clear()

    @asynccontextmanager
    async def watch(original: Any, endpoint: Any, request: Any) -> AsyncIterator[Any]:
        turns.append(request.create_request.start_revision)
        if len(turns) == 1:
            await asyncio.to_thread(write_and_compact)
        async with original(endpoint, request) as stream:
            yield stream

    refusals: list[str] = []
    listen = late._listen

    async def listening(stream: Any) -> None:
        try:
            await listen(stream)
        except ConnectionResetError as refusal:
            refusals.append(str(refusal))
            raise

    late._listen = listening  # type: ignore[method-assign]
    watching(late, watch)
    late.listen(news.set)
    until(lambda: len(turns) > 1 and news.is_set(), "the watch begins anew, and says so")
    assert "compacted" in refusals[0]
    followed = late.since(epoch, BEGINNING)
    assert not isinstance(followed, Whole)
    assert [one.position.seq for one in followed] == [1, 2, 3, 4, 5]
    last = records[-2].position
    assert writer.append(epoch, records[-1])
    until(lambda: [one.after for one in late.heard(epoch, last)] == [last], "what comes is heard")


def test_a_member_that_takes_no_watch_is_left_for_another(make: Make) -> None:
    log = make()
    tried: list[Any] = []

    @asynccontextmanager
    async def watch(original: Any, endpoint: Any, request: Any) -> AsyncIterator[Any]:
        tried.append(request)
        if len(tried) == 1:
            await asyncio.Event().wait()
        async with original(endpoint, request) as stream:
            yield stream

    watching(log, watch)
    log.listen(lambda: None)
    epoch = epoch_of(log)
    until(lambda: len(tried) > 1, "another try")
    first = filled(BEGINNING, 1)
    assert log.append(epoch, first)
    until(lambda: list(log.heard(epoch, BEGINNING)) == [first], "what comes is heard")


SETTINGS = b"\0\0\0\4\0\0\0\0\0"
HOSTILE = {
    "says nothing": b"",
    "says what is no HTTP/2": b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100,
    "greets and says nothing": SETTINGS,
    "allows no streams": b"\0\0\6\4\0\0\0\0\0" + b"\0\3\0\0\0\0",
    "takes no octets": b"\0\0\6\4\0\0\0\0\0" + b"\0\4\0\0\0\0",
    "goes away": SETTINGS + b"\0\0\x08\7\0\0\0\0\0" + bytes(8),
}


def test_what_a_member_has_done_whose_answer_does_not_come_another_one_tells(
    members: Cluster,
) -> None:
    """The change is asked for at both, and done once."""
    with Wires() as wires:
        wire = wires.to(members.members[0].client_port)
        endpoints = (f"http://127.0.0.1:{wire.port}", *members.endpoints)
        log = EtcdLog(Settings(endpoints, prefix="/deaf/", timeout_s=20))
        epoch = epoch_of(log)
        first = filled(BEGINNING, 2)
        wires.set(wire, Mode.DEAF)
        assert log.append(epoch, first)
        assert not log.append(epoch, filled(BEGINNING, 3))
        second = filled(first.position, 1)
        assert log.append(epoch, second)
        wires.set(wire, Mode.OPEN)
        found = log.since(epoch, BEGINNING)
        assert not isinstance(found, Whole)
        assert [one.position for one in found] == [first.position, second.position]
        log.close()


class Hostile:
    """An endpoint that is none: says the same to everybody, and holds the line."""

    def __init__(self, said: bytes) -> None:
        self._said = said
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._held: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                self._held.append(peer)
                peer.sendall(self._said)

    def close(self) -> None:
        for one in (self._socket, *self._held):
            one.close()


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_endpoint_that_is_no_etcd_holds_nothing_up(
    members: Cluster, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another is asked, the watch is there, and an operator is told which one it is."""
    monkeypatch.setattr("plugins.list_etcd.client.SILENCE_S", 0.1)
    hostile = Hostile(HOSTILE[kind])
    prefix = f"/hostile{list(HOSTILE).index(kind)}/"
    log = EtcdLog(Settings((hostile.url, *members.endpoints), prefix=prefix, timeout_s=10))
    try:
        epoch = epoch_of(log)
        log.listen(lambda: None)
        first = filled(BEGINNING, 1)
        assert log.append(epoch, first)
        if "no HTTP/2" in kind:  # it fails at once
            bad, good = log.members()
            assert bad.problem and not good.problem
        after = first.position
        second = filled(after, 1)
        assert log.append(epoch, second)
        until(lambda: log.is_last(epoch, second.position), "etcd is asked")
    finally:
        log.close()
        hostile.close()


def test_a_step_of_a_move_that_comes_twice_is_done_once(members: Cluster) -> None:
    """What was asked for at a member that is slow does not undo what came after it."""
    with Wires() as wires:
        wire = wires.to(members.members[0].client_port)
        endpoints = (f"http://127.0.0.1:{wire.port}", *members.endpoints)
        log = EtcdLog(Settings(endpoints, prefix="/twice/", timeout_s=20))
        wires.set(wire, Mode.HOLD)  # it comes to etcd late
        log.prepare("t1")
        log.put("t1", [(b"k", b"old")])
        log.put("t1", [(b"k", b"new"), (b"l", b"x")])
        wires.set(wire, Mode.OPEN)
        log.put("t1", [(b"m", b"y")])
        assert [dict(page) for page in log.stored()] == [{b"k": b"new", b"l": b"x", b"m": b"y"}]
        log.take_over("t1", "e1", BEGINNING, {})
        assert log.is_last("e1", BEGINNING)
        log.close()
