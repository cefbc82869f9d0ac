"""Talking with etcd for who blocks meanwhile: an event loop in a thread of its own, calls, refusals in words, ranges."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final, TypeVar

from google.protobuf.message import Message
from grpclib.const import Status

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from plugins.list_etcd.channel import TooLong
from plugins.list_etcd.client import RANGE, Cluster, Denied, Method
from plugins.list_etcd.etcd_pb2 import KeyValue, RangeRequest
from plugins.list_etcd.layout import Keys
from plugins.list_etcd.settings import Settings

T = TypeVar("T")

# of one record, where etcd has been told to take so many (--max-txn-ops)
MOST_CHANGES: Final = 1000
FEW_CHANGES: Final = 120  # where it has not: 128 is its own limit, some are for head and log
FIRST_PAGE: Final = 64  # rows of a range; more, where they are short
LAST_PAGE: Final = 16_384
PAGE_OCTETS: Final = 4 << 20
LONG_S: Final = 10.0  # a member may take for a page of all rows
NO_ROOM: Final = "database space exceeded"


class Talk:
    """See the module."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys = Keys(settings.prefix)
        self._cluster: Cluster | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._has_ended = False  # the loop takes no more work
        self._is_up = True  # until a call has taken all its time; then the watch says when it is
        self._problem: UpstreamFailure | None = None
        self._most_changes = MOST_CHANGES

    async def _hear(self) -> None:
        """What the loop does of itself, until it ends."""
        raise NotImplementedError

    def _running(self) -> asyncio.AbstractEventLoop:
        """Raises UpstreamFailure."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._run, name="list_etcd", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # none can be had now
                    self._loop.close()
                    self._loop = None
                    raise UpstreamFailure(UpstreamKind.DOWN, "etcd", str(error)) from error
                self._thread = thread
            return self._loop

    def _run(self) -> None:
        assert self._loop is not None
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._hear())
        finally:
            with self._starting:
                self._has_ended = True
            self._loop.run_until_complete(self._give_up())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _give_up(self) -> None:
        """Whoever still waits is told so now; nobody comes after them."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn  # what was handed over last has begun
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _hand_over(self, work: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        try:
            loop = self._running()
        except UpstreamFailure:
            work.close()
            raise
        with self._starting:
            if not self._has_ended:
                return asyncio.run_coroutine_threadsafe(work, loop)
        work.close()
        raise UpstreamFailure(UpstreamKind.DOWN, "etcd", "the log is closed")

    def _wait(self, work: Coroutine[Any, Any, T], within_s: float = 0.0) -> T:
        future = self._hand_over(work)
        try:
            return future.result((within_s or self._settings.timeout_s) + 2)
        except TimeoutError:
            future.cancel()
            raise UpstreamFailure(UpstreamKind.TIMEOUT, "etcd", "no answer") from None
        except concurrent.futures.CancelledError:
            raise UpstreamFailure(UpstreamKind.LOST, "etcd", "the log was closed") from None

    def _call(self, method: Method, request: Message, patience_s: float = 0.0) -> Any:
        """Raises Denied, UpstreamFailure. Where the last one has failed and nothing has been heard since, at once. With
        `patience_s` a member may take so long, for what is much."""
        if not self._is_up and self._problem is not None:
            text = self._problem.text
            raise UpstreamFailure(UpstreamKind.DOWN, "etcd", text)
        try:
            within_s = max(3 * patience_s, self._settings.timeout_s)
            return self._wait(self._ask(method, request, within_s, patience_s), within_s)
        except UpstreamFailure as failure:
            self._problem = failure
            self._is_up = False
            raise

    async def _ask(
        self, method: Method, request: Message, within_s: float, patience_s: float
    ) -> Any:
        return await self._there().call(method, request, within_s, patience_s)

    def _there(self) -> Cluster:
        if self._cluster is None:
            self._cluster = Cluster(self._settings)
        return self._cluster

    def _refusal(self, denied: Denied) -> Refusal:
        text = denied.text
        if NO_ROOM in text:
            return Refusal(
                Code.UNAVAILABLE,
                "etcd has no room left (its quota): nothing can be changed until it has; see `murder help masters`",
            )
        if denied.status is Status.PERMISSION_DENIED:
            return Refusal(
                Code.UNAVAILABLE,
                f"etcd does not let this master at {self._settings.prefix}: {text}",
            )
        return Refusal(Code.UNAVAILABLE, f"etcd refuses: {text}")

    def _asked(self, method: Method, request: Message, patience_s: float = 0.0) -> Any:
        """As `_call`; what is denied is a Refusal."""
        try:
            return self._call(method, request, patience_s)
        except Denied as denied:
            raise self._refusal(denied) from denied
        except TooLong as long:
            raise UpstreamFailure(UpstreamKind.PROTOCOL, "etcd", str(long)) from long

    def _pages(
        self, begin: bytes, end: bytes, revision: int, patience_s: float = 0.0
    ) -> Iterator[Sequence[KeyValue]]:
        """etcd 3.4 walks all keys up to the end for each page, however few it gives: of a million that takes a while."""
        limit = FIRST_PAGE
        while True:
            request = RangeRequest(key=begin, range_end=end, limit=limit, revision=revision)
            try:
                answer = self._asked(RANGE, request, patience_s)
            except UpstreamFailure as failure:
                if limit == 1 or not isinstance(failure.__cause__, TooLong):
                    raise
                limit = max(limit // 8, 1)  # rows may be long, from any row on
                continue
            if answer.kvs:
                yield answer.kvs
            if not answer.more:
                return
            begin = answer.kvs[-1].key + b"\0"
            octets = answer.ByteSize()
            if octets < PAGE_OCTETS // 2:
                limit = min(2 * limit, LAST_PAGE)
            elif octets > PAGE_OCTETS:
                limit = max(limit // 4, 1)
