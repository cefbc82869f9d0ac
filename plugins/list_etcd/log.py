"""The log of several masters on etcd: appended to by guarded transactions, heard of by a watch, read by ranges.

The caller's thread blocks; the talking is done in an event loop in a thread of its own. A transaction is done only where
`head` is what the record says that it follows, octet for octet. Marks are random, so a head never comes back: a transaction
may be sent again and again, at most one is done, and one that fails says whether it was ours that was faster.
"""

import asyncio
import contextlib
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from murder.api.list_log import BEGINNING, HasLeft, Member, Position, Record, TooLarge, Whole
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from plugins.list_etcd.client import (
    FAILURES,
    MEMBERS,
    RANGE,
    STATUS,
    TXN,
    Denied,
    kind_of,
    shown,
)
from plugins.list_etcd.etcd_pb2 import (
    Event,
    KeyValue,
    MemberListRequest,
    RangeRequest,
    StatusRequest,
    TxnRequest,
    WatchCreateRequest,
    WatchRequest,
)
from plugins.list_etcd.layout import (
    KEEP_CHANGES,
    PRUNE_EVERY,
    behind,
    format_head,
    format_record,
    parse_head,
    parse_record,
)
from plugins.list_etcd.moves import Moves
from plugins.list_etcd.operations import absent, fetching, putting, removing, same
from plugins.list_etcd.settings import Endpoint, Settings
from plugins.list_etcd.talk import FEW_CHANGES, LONG_S, NO_ROOM

PULSE_S: Final = 1.0  # how often it is asked whether the watch has told all
PULSE_ANSWER_S: Final = 1.0
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 1.0
MOST_HEARD: Final = 1000  # records that wait for the caller, and
MOST_HEARD_OCTETS: Final = 32 << 20  # octets; beyond they are read when they are asked for
OWN_MARKS: Final = 64


class _Heard:
    """Commits that the watch has told of, until the caller takes them. Used by two threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: deque[tuple[Record, int]] = deque()
        self._octets = 0

    def forget(self) -> None:
        with self._lock:
            self._records.clear()
            self._octets = 0

    def add(self, record: Record, octets: int) -> None:
        with self._lock:
            if self._records and self._records[-1][0].position != record.after:
                self._records.clear()
                self._octets = 0
            self._records.append((record, octets))
            self._octets += octets
            while len(self._records) > MOST_HEARD or self._octets > MOST_HEARD_OCTETS:
                self._octets -= self._records.popleft()[1]

    def take(self, after: Position) -> list[Record]:
        with self._lock:
            records = self._records
            while records and records[0][0].position.seq <= after.seq:
                self._octets -= records.popleft()[1]
            if not records or records[0][0].after != after:
                return []
            taken = [record for record, _ in records]
            records.clear()
            self._octets = 0
            return taken


class EtcdLog(Moves):
    """See the module, and `murder.api.list_log.ListLog`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._closing = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._heard = _Heard()
        self._own: deque[bytes] = deque(maxlen=OWN_MARKS)

    # Appending

    @property
    def most_changes(self) -> int:
        return self._most_changes

    def append(self, epoch: str, record: Record) -> bool:
        """One transaction, guarded by the head. What etcd denies for its size raises TooLarge, and fewer changes come."""
        keys = self._keys
        last = format_head(epoch, record.position)
        rows = dict(record.changes)  # the last one of each key
        puts = [
            putting(keys.row(key), row) if row is not None else removing(keys.row(key))
            for key, row in rows.items()
        ]
        puts += [putting(keys.note(key), octets) for key, octets in record.notes.items()]
        puts.append(putting(keys.commit(record.position.seq), format_record(record)))
        puts.append(putting(keys.head, last))
        begin, end = record.after.seq // PRUNE_EVERY, record.position.seq // PRUNE_EVERY
        if begin != end and record.after.seq > KEEP_CHANGES:
            puts.append(removing(keys.log, keys.commit(record.after.seq - KEEP_CHANGES)))
        request = TxnRequest(
            compare=[same(keys.head, format_head(epoch, record.after))],
            success=puts,
            failure=[fetching(keys.head)],
        )
        self._own.append(record.position.mark)
        try:
            answer = self._call(TXN, request)
        except Denied as denied:
            if NO_ROOM in denied.text and self.is_last(epoch, record.position):
                return True  # the one that fills it is done, and denied all the same
            if denied.is_retry:
                raise UpstreamFailure(UpstreamKind.DOWN, "etcd", denied.text) from denied
            if "too many operations" in denied.text:
                self._most_changes = min(self._most_changes, FEW_CHANGES)
                raise TooLarge(denied.text) from denied
            if "too large" in denied.text or "larger than max" in denied.text:
                if len(rows) == 1:
                    text = f"etcd does not take a row of that size ({denied.text}); see --max-request-bytes"
                    raise Refusal(Code.LIMIT, text) from denied
                raise TooLarge(denied.text) from denied
            raise self._refusal(denied) from denied
        if answer.succeeded:
            return True
        kept = answer.responses[0].response_range.kvs
        return bool(kept) and kept[0].value == last  # an attempt whose answer was lost

    # Reading

    def is_last(self, epoch: str, position: Position) -> bool:
        """A linearizable read of the head."""
        answer = self._asked(RANGE, RangeRequest(key=self._keys.head))
        return bool(answer.kvs) and answer.kvs[0].value == format_head(epoch, position)

    def heard(self, epoch: str, after: Position) -> Sequence[Record]:
        """From what the watch has brought, without a question."""
        return self._heard.take(after)

    def since(self, epoch: str, after: Position) -> Iterable[Record] | Whole:
        """Asks for the commits that are missing; the whole list where those are forgotten, or the history is another."""
        epoch_now, last, revision = self._head(after)
        if epoch_now != epoch:
            return self._elsewhere(epoch, epoch_now, last, revision)
        if last == after:
            return ()
        first = self._commits_from(after.seq, 1)
        if after == BEGINNING:
            if first and first[0].after == BEGINNING:
                return self._records(0)
            return self._whole(epoch_now, last, revision)
        if first and first[0].position == after:
            return self._records(after.seq + 1)
        if after.seq < last.seq and first:  # is it forgotten, or has it never been?
            oldest = self._commits_from(0, 1)
            if oldest and oldest[0].position.seq > after.seq:
                return self._whole(epoch_now, last, revision)
        return self._put_back(epoch_now, last)

    def _head(self, after: Position) -> tuple[str, Position, int]:
        """Epoch, position and revision. A log that nobody has begun yet begins with an empty list."""
        key = self._keys.head
        for _ in range(2):
            answer = self._asked(RANGE, RangeRequest(key=key))
            if answer.kvs:
                try:
                    return *parse_head(answer.kvs[0].value), answer.header.revision
                except ValueError:
                    text = f"What etcd has at {key.decode()} is no mailbox list's"
                    raise Refusal(Code.CANNOT, text) from None
            if after != BEGINNING:
                break
            self._begin()
        raise self._without_list(after)

    def _begin(self) -> None:
        head = format_head(secrets.token_hex(8), BEGINNING)
        keys = self._keys
        guards = [absent(key) for key in (keys.head, keys.moving, keys.left)]
        self._asked(TXN, TxnRequest(compare=guards, success=[putting(keys.head, head)]))

    def _without_list(self, after: Position) -> Refusal:
        keys, prefix = self._keys, self._settings.prefix
        if self._asked(RANGE, RangeRequest(key=keys.left)).kvs:
            text = f"the mailbox list has left etcd at {prefix}: one master keeps it alone, see `murder help masters`"
            return HasLeft(text)
        if self._asked(RANGE, RangeRequest(key=keys.moving)).kvs:
            text = f"a mailbox list is just being copied to etcd at {prefix}"
            return Refusal(Code.UNAVAILABLE, text)
        if after == BEGINNING:
            return Refusal(Code.UNAVAILABLE, f"etcd has no mailbox list at {prefix} yet")
        text = (
            f"etcd has no mailbox list at {prefix}, and this master has one: it is not given up; see "
            "`murder help masters`"
        )
        return Refusal(Code.CANNOT, text)

    def _elsewhere(self, epoch: str, epoch_now: str, last: Position, revision: int) -> Whole:
        if not epoch:
            return self._whole(epoch_now, last, revision)
        answer = self._asked(RANGE, RangeRequest(key=self._keys.epoch(epoch)))
        if answer.kvs:
            return self._whole(epoch_now, last, revision, is_put_back=True)
        raise Refusal(
            Code.CANNOT,
            f"The list of this master has another history than etcd's at {self._settings.prefix}: move it away, and it is "
            "made anew; see `murder help masters`",
        )

    def _put_back(self, epoch: str, last: Position) -> Whole:
        """This master was told more than etcd has: an older copy was put back. A new history begins, so that nobody takes
        what was told before for a part of it."""
        keys, new = self._keys, secrets.token_hex(8)
        request = TxnRequest(
            compare=[same(keys.head, format_head(epoch, last))],
            success=[
                putting(keys.head, format_head(new, last)),
                putting(keys.epoch(epoch), new.encode()),
            ],
        )
        self._asked(TXN, request)
        epoch_now, position, revision = self._head(BEGINNING)
        return self._whole(epoch_now, position, revision, is_put_back=True)

    def _commits_from(self, seq: int, limit: int) -> list[Record]:
        request = RangeRequest(
            key=self._keys.commit(seq), range_end=behind(self._keys.log), limit=limit
        )
        return [_parsed(pair) for pair in self._asked(RANGE, request).kvs]

    def _records(self, seq: int) -> Iterator[Record]:
        """From a commit on, to the present."""
        for page in self._pages(self._keys.commit(seq), behind(self._keys.log), 0):
            yield from map(_parsed, page)

    def _whole(
        self, epoch: str, position: Position, revision: int, *, is_put_back: bool = False
    ) -> Whole:
        keys = self._keys
        at = len(keys.rows)

        def rows() -> Iterator[Sequence[tuple[bytes, bytes]]]:
            for page in self._pages(keys.rows, behind(keys.rows), revision, LONG_S):
                yield [(pair.key[at:], pair.value) for pair in page]

        def records() -> Iterator[Record]:
            for page in self._pages(keys.log, behind(keys.log), revision):
                yield from map(_parsed, page)

        notes = {
            pair.key[len(keys.notes) :].decode(): pair.value
            for page in self._pages(keys.notes, behind(keys.notes), revision)
            for pair in page
        }
        return Whole(epoch, position, rows(), records(), notes, is_put_back)

    # Hearing of others

    def listen(self, on_news: Callable[[], None]) -> None:
        """The watch begins now at the latest. Raises UpstreamFailure where it cannot."""
        self._listeners.append(on_news)
        self._running()

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()

    async def _hear(self) -> None:
        """Watch, as long as the log is open."""
        pause_s = RETRY_MIN_S
        while not self._closing.is_set():
            endpoint = self._there().endpoint
            try:
                await self._watch(endpoint)
                pause_s = RETRY_MIN_S
            except FAILURES as error:
                if not self._is_up:
                    text = f"etcd at {endpoint}: {shown(error)}"
                    self._problem = UpstreamFailure(kind_of(error), "etcd", text)
                self._there().leave(endpoint)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
        self._there().close()

    async def _watch(self, endpoint: Endpoint) -> None:
        """Hear from one member, until it fails or has not told what there is."""
        keys, cluster = self._keys, self._there()
        answer = await cluster.ask(endpoint, RANGE, RangeRequest(key=keys.head), PULSE_ANSWER_S)
        self._heard.forget()
        self._is_up = True
        self._tell()  # perhaps there is something that came before the watch
        request = WatchRequest(
            create_request=WatchCreateRequest(
                key=keys.log,
                range_end=behind(keys.log),
                start_revision=answer.header.revision + 1,
                filters=[WatchCreateRequest.NODELETE],
            )
        )
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(PULSE_ANSWER_S):
                stream = await stack.enter_async_context(cluster.watch(endpoint, request))
            listening = asyncio.ensure_future(self._listen(stream))
            closing = asyncio.ensure_future(self._closing.wait())
            both = [listening, closing]
            try:
                while not self._closing.is_set():
                    await asyncio.wait(both, timeout=PULSE_S, return_when=asyncio.FIRST_COMPLETED)
                    if listening.done():
                        listening.result()
                        return
                    if closing.done():
                        return
                    head = RangeRequest(key=keys.head)
                    answer = await cluster.ask(endpoint, RANGE, head, PULSE_ANSWER_S)
                    self._is_up = True
                    if not answer.kvs:  # the list has left: who asks is told so
                        self._tell()
            finally:
                for task in both:
                    task.cancel()
                await asyncio.wait(both)

    async def _listen(self, stream: Any) -> None:
        async for answer in stream:
            if answer.canceled:
                reason = answer.cancel_reason or "the watch was ended"
                if answer.compact_revision:  # what it asks for is gone; it begins anew
                    reason = f"{reason}: compacted to {answer.compact_revision}"
                raise ConnectionResetError(reason)
            is_news = False
            for event in answer.events:
                if event.type == Event.PUT:
                    record = parse_record(event.kv.value)
                    self._heard.add(record, len(event.kv.value))
                    is_news = is_news or record.position.mark not in self._own
            if is_news:
                self._tell()

    # What an operator sees

    def members(self) -> Sequence[Member]:
        return self._wait(self._members())

    async def _members(self) -> list[Member]:
        cluster = self._there()
        within_s = min(2.0, self._settings.timeout_s)

        async def asked(endpoint: Endpoint) -> tuple[Endpoint, Any]:
            try:
                return endpoint, await cluster.ask(endpoint, STATUS, StatusRequest(), within_s)
            except FAILURES as error:
                return endpoint, error

        async def listed() -> Sequence[Any]:
            try:
                answer = await cluster.call(MEMBERS, MemberListRequest(), within_s)
            except (Denied, UpstreamFailure):
                return ()  # those that answer say so below
            return list(answer.members)

        endpoints = self._settings.members()
        members, answers = await asyncio.gather(
            listed(), asyncio.gather(*(asked(place) for place in endpoints))
        )
        names = {known.ID: known.name for known in members}
        by_url = {
            url.partition("://")[2]: known.name for known in members for url in known.clientURLs
        }
        states = []
        for endpoint, answer in answers:
            if isinstance(answer, BaseException):
                name = by_url.get(str(endpoint), "")
                states.append(Member(name, str(endpoint), False, 0, shown(answer)))
                continue
            member = answer.header.member_id
            problem = "; ".join(answer.errors) or ("" if answer.leader else "it knows no leader")
            is_leader = member == answer.leader
            name = names.get(member, f"{member:x}")
            states.append(Member(name, str(endpoint), is_leader, answer.dbSize, problem))
        return states

    def close(self) -> None:
        """Done already is no error."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._closing.set)
            thread.join(PULSE_S + PULSE_ANSWER_S + 1)


def _parsed(pair: KeyValue) -> Record:
    try:
        return parse_record(pair.value)
    except DecodeError:
        text = (
            f"What etcd has at {pair.key.decode('ascii', 'replace')} is no commit of a mailbox list"
        )
        raise Refusal(Code.CANNOT, text) from None
