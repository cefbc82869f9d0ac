"""Fair turns: how long one piece of work may hold the event loop before the others have theirs.

Work that can be long (over the messages of a mailbox, the rows of a list, the octets of a mail) is given a `Turn` and asks
it between its steps; when the turn is over it rests, which lets every other connection go on, and has a new one. Work that
cannot ask between its steps (a parser, a sort) is done `aside`, in the one thread there is for such work, and its input
is bounded by its caller: a C function that holds the interpreter is not interrupted by a thread either.

Many connections may be ready in the same turn of the loop. Once it has lasted for as long as one of them may hold it, each
further one has only a moment of it before it stands in line (`share_of`): a hundred together are not a hundred turns.

A test gives a `Turn` a clock of its own and counts how often the work rests.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, MutableMapping, MutableSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from murder.model.pieces import PIECE, empty, let_go

TURN_S: Final = 0.005  # of the event loop for one connection, then the others
SHORT_TURN_S: Final = 0.001  # of what lasts for minutes, and no client waits for
LATE_TURN_S: Final = 0.0002  # of a turn of the loop that has lasted for TURN_S: some quick commands
# how long the thread aside may hold the interpreter while the loop waits for it
SWITCH_S: Final = 0.001

P = ParamSpec("P")
T = TypeVar("T")


def is_late(loop: asyncio.AbstractEventLoop, share_s: float = TURN_S) -> bool:
    """Whether this turn of the loop has lasted so long since somebody asked first, or since who `has_held` it began. No
    loop tells when its turn has begun: its time, uvloop's too, is that of now."""
    now = time.perf_counter()
    return now - _noted(loop, now) >= share_s


def share_of(loop: asyncio.AbstractEventLoop) -> float:
    """How long who begins now may hold the loop."""
    return LATE_TURN_S if is_late(loop) else TURN_S


def has_held(loop: asyncio.AbstractEventLoop, since: float) -> None:
    """Somebody has held the loop for more than a moment, since then (`perf_counter`): whoever begins in the same turn of the
    loop once a whole turn has gone has a moment."""
    _noted(loop, since)


def _noted(loop: asyncio.AbstractEventLoop, since: float) -> float:
    """When this turn of the loop began; from now on that is `since`, where nobody has noted it."""
    began = _line_of(loop).began
    if not began:
        began.append(since)
        loop.call_soon(began.clear)
    return began[0]


def began_of(loop: asyncio.AbstractEventLoop) -> list[float]:
    """Empty, or when this turn of the loop began, as far as is known; for who must ask without a call."""
    return _line_of(loop).began


class Turn:
    """See the module. `rests` counts for tests."""

    __slots__ = ("_clock", "_ends", "_share_s", "rests")

    def __init__(
        self, share_s: float = TURN_S, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Of a turn of the loop that is late already it has a moment only (see `share_of`), of each later one its share."""
        self._share_s = share_s
        self._clock = clock
        loop = asyncio._get_running_loop()
        is_late_ = loop is not None and is_late(loop)
        self._ends = clock() + (min(share_s, LATE_TURN_S) if is_late_ else share_s)
        self.rests = 0

    @property
    def is_over(self) -> bool:
        return self._clock() >= self._ends

    async def rest(self) -> None:
        """Let all others have a turn, and begin a new one."""
        self.rests += 1
        await line_up()
        self._ends = self._clock() + self._share_s


async def in_turns(items: Iterable[T], turn: Turn | None = None) -> AsyncIterator[T]:
    """Each of these, with rests between: for a walk whose body does not wait for others."""
    turn = Turn() if turn is None else turn
    for item in items:
        yield item
        if turn.is_over:
            await turn.rest()


class _Line:
    """Who rests in one event loop, in order."""

    def __init__(self) -> None:
        self.began: list[float] = []  # see `began_of`
        self._waiting: deque[asyncio.Future[None] | Callable[[], None]] = deque()
        self._is_moving = False

    async def wait(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self.stand(turn)
        await turn

    def stand(self, who: "asyncio.Future[None] | Callable[[], None]") -> None:
        self._waiting.append(who)
        if not self._is_moving:
            self._is_moving = True
            asyncio.get_running_loop().call_soon(self._move)

    def _move(self) -> None:
        waiting = self._waiting
        who: asyncio.Future[None] | Callable[[], None] | None = None
        while waiting:
            who = waiting.popleft()
            if not isinstance(who, asyncio.Future):
                break
            if not who.done():  # who has been cancelled stands there no more
                who.set_result(None)
                break
        # What one holds is over and forgotten (`has_held`) before the next is moved: else that one is always late. Who has
        # a task holds the next turn of the loop, who has none holds this one
        if isinstance(who, asyncio.Future):
            asyncio.get_running_loop().call_soon(self._move_on)
            return
        try:
            if who is not None:
                who()
        finally:
            self._move_on()

    def _move_on(self) -> None:
        self._is_moving = bool(self._waiting)
        if self._is_moving:
            asyncio.get_running_loop().call_soon(self._move)


_lines: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Line]] = WeakKeyDictionary()


async def line_up() -> None:
    """Wait in line with all work of this loop that rests. One goes on in each turn of the loop: so many long works together
    hold it no longer than one of them does."""
    await _line_of(asyncio.get_running_loop()).wait()


def stand_in_line(loop: asyncio.AbstractEventLoop, go_on: Callable[[], None]) -> None:
    """As `line_up`, for who has no task: this is called when it is their turn."""
    _line_of(loop).stand(go_on)


def _line_of(loop: asyncio.AbstractEventLoop) -> _Line:
    line = _lines.get(loop)
    if line is None:
        line = _lines[loop] = _Line()
    return line


class Burst:
    """How many things of one kind begin in one turn of the loop, where each is short and hundreds may come together: `most`
    at once, the others in line, in the order they came."""

    __slots__ = ("_begun", "_lined_up", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun = self._lined_up = 0

    async def begin(self) -> None:
        """Wait until this one may begin."""
        if self._begun < self._most and not self._lined_up:
            if not self._begun:
                asyncio.get_running_loop().call_soon(self._turn_is_over)
            self._begun += 1
            return
        self._lined_up += 1
        try:
            await line_up()
        finally:
            self._lined_up -= 1

    def _turn_is_over(self) -> None:
        self._begun = 0


class _Aside:
    """The thread for work that cannot pause, made when it is first wanted."""

    def __init__(self, name: str = "aside") -> None:
        self._name = name
        self._threads: ThreadPoolExecutor | None = None

    def threads(self) -> ThreadPoolExecutor:
        if self._threads is None:
            sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
            self._threads = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        return self._threads


_aside: Final = _Aside()
_aside_for_scripts: Final = _Aside("scripts")


async def aside(function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
    """Run a function that needs a processor for some milliseconds or more, in a thread that all share, one at a time, so
    that it takes no more than a share of the interpreter from the event loop."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_aside.threads(), lambda: function(*arguments, **named))


async def aside_for_scripts(
    function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs
) -> T:
    """The same for work of users' own making, each of which may be half a minute: it waits for others of its kind, whose
    turn it is its caller's to say, and nobody else for it."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(
        _aside_for_scripts.threads(), lambda: function(*arguments, **named)
    )


async def aside_if(
    is_much: bool, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs
) -> T:
    """What a function returns; aside, if that is much work."""
    if is_much:
        return await aside(function, *arguments, **named)
    return function(*arguments, **named)


def free_aside(items: MutableSet[Any] | MutableMapping[Any, Any]) -> None:
    """Empty what nobody looks at any more; of many members nobody waits for that."""
    if len(items) > PIECE:
        with suppress(RuntimeError):  # no thread can be had: then all at once
            _aside.threads().submit(empty, items)


async def let_go_of(items: list[Any]) -> None:
    """Empty the list, so that nobody waits while its items are freed. No name of the caller's may hold them."""
    await aside_if(len(items) > PIECE, let_go, items)
