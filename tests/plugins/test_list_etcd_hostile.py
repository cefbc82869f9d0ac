"""An etcd in wrong hands, or none at all: its frames are those of no gRPC, its rows those of no list. Masters say so, take
nothing of it, and go on."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
from grpclib.exceptions import StreamTerminatedError

from murder.api.list_log import BEGINNING, Position, Record, Whole
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.name import collation_key
from murder.roles.mupdate.commits.engine import Ordered
from murder.roles.mupdate.commits.foreign import checked_record, checked_whole
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.record import HEAD
from plugins.list_etcd.client import RANGE, Cluster
from plugins.list_etcd.etcd_pb2 import KeyValue, RangeRequest, RangeResponse, ResponseHeader
from plugins.list_etcd.log import EtcdLog
from plugins.list_etcd.settings import Settings
from tests.rooms.mupdate.several import MemoryLog

Answer = Callable[[socket.socket, h2.connection.H2Connection, int], None]


def framed(octets: bytes, length: int | None = None, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(octets) if length is None else length) + octets


def saying(body: bytes) -> Answer:
    """Good HTTP/2 with this in it."""

    def answer(peer: socket.socket, http: h2.connection.H2Connection, stream: int) -> None:
        http.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc+proto")])
        http.send_data(stream, body)
        http.send_headers(stream, [("grpc-status", "0")], end_stream=True)
        peer.sendall(http.data_to_send())

    return answer


def rubbish(octets: bytes) -> Answer:
    def answer(peer: socket.socket, http: h2.connection.H2Connection, stream: int) -> None:
        peer.sendall(octets)

    return answer


@contextmanager
def member(answer: Answer) -> Iterator[str]:
    """One that answers every request so."""
    listening = socket.create_server(("127.0.0.1", 0))

    def meet(peer: socket.socket) -> None:
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        http.initiate_connection()
        with peer:
            peer.sendall(http.data_to_send())
            while octets := peer.recv(65536):
                for event in http.receive_data(octets):
                    if isinstance(event, h2.events.StreamEnded):
                        answer(peer, http, event.stream_id)
                peer.sendall(http.data_to_send())

    def serve() -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=_quietly, args=(meet, peer), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def _quietly(meet: Callable[[socket.socket], None], peer: socket.socket) -> None:
    try:
        meet(peer)
    except (OSError, h2.exceptions.ProtocolError):
        pass


def ranged(value: bytes) -> bytes:
    found = RangeResponse(
        header=ResponseHeader(revision=1), kvs=[KeyValue(key=b"/murder/head", value=value)], count=1
    )
    octets: bytes = found.SerializeToString()
    return framed(octets)


@pytest.mark.parametrize(
    "answer",
    [
        saying(framed(b"\xff\xff\xff")),
        saying(framed(b"x", flag=1)),
        saying(framed(b"x", length=2**32 - 1)),
        saying(b""),
        saying(b"\0\0"),
        rubbish(b"\0\0\xff\xff" * 100),
        rubbish(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ],
    ids=["protobuf", "compressed", "short", "empty", "cut", "frames", "http1"],
)
def test_what_is_no_grpc_is_a_member_that_does_not_answer(answer: Answer) -> None:
    with member(answer) as url:
        log = EtcdLog(Settings((url,), timeout_s=0.5))
        try:
            for _ in range(2):
                with pytest.raises(UpstreamFailure):
                    log.is_last("0123456789abcdef", BEGINNING)
            thread = log._thread
            assert thread is not None and thread.is_alive()  # and goes on trying
        finally:
            log.close()


def endless(taken: list[int]) -> Answer:
    """A message of 4 GiB, as long as anybody reads it."""

    def answer(peer: socket.socket, http: h2.connection.H2Connection, stream: int) -> None:
        http.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc+proto")])
        http.send_data(stream, framed(b"", length=2**32 - 1))
        while True:
            room = min(http.local_flow_control_window(stream), http.max_outbound_frame_size)
            if room:
                http.send_data(stream, bytes(room))
                taken.append(room)
                peer.sendall(http.data_to_send())
            elif octets := peer.recv(65536):
                http.receive_data(octets)
            else:
                return

    return answer


def test_a_message_without_end_is_not_read() -> None:
    taken: list[int] = []
    with member(endless(taken)) as url:
        log = EtcdLog(Settings((url,), timeout_s=5.0))
        try:
            with pytest.raises(UpstreamFailure, match="max_message_bytes") as failure:
                log.is_last("0123456789abcdef", BEGINNING)
            assert failure.value.kind is UpstreamKind.PROTOCOL
            assert sum(taken) < 16 << 20  # no more than what may be on its way
        finally:
            log.close()


@pytest.mark.parametrize("reads", [True, False])
async def test_pings_without_end_end_the_connection(reads: bool) -> None:
    """Each is answered, and the answers are kept for who does not read them."""
    ping = b"\0\0\x08\x06\0\0\0\0\0" + b"murder.."

    def answer(peer: socket.socket, http: h2.connection.H2Connection, stream: int) -> None:
        while True:
            peer.sendall(ping * 1000)
            if reads:
                peer.recv(1 << 20)

    with member(answer) as url:
        cluster = Cluster(Settings((url,)))
        with pytest.raises(StreamTerminatedError, match="frames that belong to no answer"):
            await cluster.ask(cluster.endpoint, RANGE, RangeRequest(key=b"x"), 30.0)
        cluster.close()


@pytest.mark.parametrize(
    "head",
    [b"", b"x", b"a:b:c", b"e:1" + b"0" * 5000 + b":00", b"e:" + b"9" * 20 + b":00", b"\xff"],
)
def test_what_is_no_head_is_refused(head: bytes) -> None:
    with member(saying(ranged(head))) as url:
        log = EtcdLog(Settings((url,), prefix="/murder/", timeout_s=5))
        try:
            with pytest.raises(Refusal) as refused:
                log.since("", BEGINNING)
        finally:
            log.close()
    assert refused.value.text == "What etcd has at /murder/head is no mailbox list's"


# --- rows that are none

MARK = b"12345678"
KEY = collation_key(b"user.ana")
ROW = HEAD.pack(1, 1, 4) + b"be1!ana\tlr\t"


def record(key: bytes = KEY, row: bytes | None = ROW, seq: int = 1, mark: bytes = MARK) -> Record:
    return Record(BEGINNING, [(key, row)], Position(seq, mark))


BAD = [
    record(key=b""),
    record(key=b"a" * 600),
    record(key=b"user.ana"),  # a name, no key
    record(key=b"\xff"),
    record(row=b""),
    record(row=ROW[:5]),
    record(row=HEAD.pack(1, 1, 60_000) + b"be1!"),
    record(row=HEAD.pack(1, 1, 4) + bytes(5 << 20)),
    record(seq=0),
    record(seq=3),
    record(seq=2**64 - 1),
    record(mark=b""),
    Record(BEGINNING, [], Position(1, MARK), {"x" * 600: b""}),
]


@pytest.mark.parametrize("bad", BAD)
def test_a_commit_that_cannot_be_is_refused(bad: Record) -> None:
    assert checked_record(record()) == record()
    with pytest.raises(Refusal) as refused:
        checked_record(bad)
    assert refused.value.code is Code.CANNOT


OTHER = collation_key(b"user.bob")


@pytest.mark.parametrize(
    ("rows", "epoch"),
    [
        ([(OTHER, ROW), (KEY, ROW)], "0123456789abcdef"),
        ([(KEY, ROW), (KEY, ROW)], "0123456789abcdef"),
        ([(KEY, b"")], "0123456789abcdef"),
        ([(KEY, HEAD.pack(9, 1, 4) + b"be1!")], "0123456789abcdef"),
        ([(KEY, ROW)], "../x"),
        ([(KEY, ROW)], ""),
    ],
)
def test_a_whole_list_that_cannot_be_is_refused(
    rows: list[tuple[bytes, bytes]], epoch: str, tmp_path: Path
) -> None:
    mailboxes = MailboxList.open(tmp_path)
    with pytest.raises(Refusal) as refused:
        mailboxes.take_whole(
            checked_whole(Whole(epoch, Position(1, MARK), iter([rows]), iter(()), {}))
        )
    assert refused.value.code is Code.CANNOT
    assert mailboxes.count() == 0
    mailboxes.close()


@pytest.mark.parametrize("bad", [record(row=b""), record(seq=3)])
async def test_a_master_refuses_what_others_have_written_and_goes_on(
    bad: Record, tmp_path: Path
) -> None:
    log = MemoryLog()
    mailboxes = MailboxList.open(tmp_path)
    ledger = Ledger(mailboxes, engine=Ordered(mailboxes, log))
    await ledger.catch_up()
    log.records.append(bad)
    for _ in range(2):
        with pytest.raises(Refusal):
            await ledger.catch_up()
    log.records.pop()
    await ledger.catch_up()
    await ledger.close()
    mailboxes.close()


def test_without_a_thread_of_its_own_a_log_is_away_until_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with member(rubbish(b"")) as endpoint:
        log = EtcdLog(Settings(endpoints=(endpoint,), timeout_s=0.5))
        with monkeypatch.context() as short:
            short.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(UpstreamFailure, match="thread"):
                log.members()
        log.listen(lambda: None)
        assert log._thread is not None and log._thread.is_alive()
        log.close()
