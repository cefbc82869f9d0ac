"""What wrong passwords cost whoever sends them: time, by address *and* user, and few tries by address over all users.

A password is looked at first and a wrong one answered late, so a right one waits for nobody else's mistakes. What keeps
guesses rare is who is looked at at all:

    one user, from one address    one attempt at a time, and none before the answer to the last wrong one is due. With the
                                  defaults (2 s, doubling to 15 s) that is at 0, 2, 6, 14, 29, 44, 59 s: 7 in the first
                                  minute, then 4 a minute (5,760 a day), however many connections ask at once. Who has not
                                  failed yet may have `AT_ONCE` attempts under way, which a guesser has once a minute.
    all users, from one address   each different wrong password weighs 1, and what weighs on an address runs off by half
                                  in 3.5 min (`RUN_OFF_S`). At `per_address` (30) attempts wait in line: 30 guesses at
                                  once, then 6 a minute (8,640 a day) over all users together.

Not held up by that second rule is a user who has got in from this address within a day, until they fail. The same wrong
password again (a telephone with an old one) tells nothing new: it weighs nothing, and waits in a line of its own, by the
first rule, where it holds up nobody with another password. A right password pardons this user at this address, nobody
else. A minute of peace does, too. Who hangs up has been counted already. A ticket that is refused is no guess: it is
answered late, and that is all.

All workers count together: wrong passwords on boards, and there, too, whether an attempt of who has failed is under way;
other attempts under way by giving each worker its share of what is allowed, at least one.
"""

import asyncio
import functools
import hmac
import math
import mmap
import random
import secrets
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from murder.config.value import Network, contains
from murder.errors import Code, Refusal
from murder.model.identity import Identity
from murder.net.shared_counter import STAMP, Counts, Row, SharedTable, place_of
from murder.net.turns import line_up

FORGIVEN_S: Final = 60.0  # after the last failure
RUN_OFF_S: Final = 300.0  # what weighs on an address falls to 1/e of itself in it
RUN_OFF_ENDS_S: Final = 8 * RUN_OFF_S  # 30 guesses are 0.01 then
FAMILIAR_S: Final = 86400.0  # how long it is known that a user has got in from an address
SAID_AGAIN_S: Final = 600.0  # and how often that is told to the other workers
KNOWN_WRONG_S: Final = 86400.0
AT_ONCE: Final = 4  # attempts of a user at an address who has not failed, over all workers: a mail client's connections
# that an attempt is under way; a worker that has died in it is not waited for
MARKED_S: Final = 30.0
AGAIN_S: Final = 0.1  # then whoever waits for another worker's looks again
PATIENCE_S: Final = 60.0  # in line; no longer than a login may take
MAX_WAITING: Final = 1000  # in one line: as many strangers as one address may have, of whom nothing is read meanwhile
MAX_KNOWN: Final = 20_000  # wrong passwords, and familiar users: about 150 octets each
MAX_NAME: Final = 256  # characters that are looked at; no user has a longer one

Clock = Callable[[], float]
Recall = Callable[[str, bytes], Identity | None]
Sleep = Callable[[float], Awaitable[object]]
K = TypeVar("K")


@dataclass(slots=True, eq=False)
class _Line:
    """Who waits for the same, and how many are through and not back."""

    under_way: int = 0
    waiting: int = 0
    head: asyncio.Lock = field(default_factory=asyncio.Lock)
    left: asyncio.Event = field(default_factory=asyncio.Event)


class _Lines:
    """First come, first served, by key; in this process."""

    def __init__(self, sleep: Sleep) -> None:
        self._sleep = sleep
        self.lines: dict[str, _Line] = {}

    def __len__(self) -> int:
        return len(self.lines)

    def is_waited_for(self, key: str, wait_s: Callable[[int], float]) -> bool:
        """Whether somebody who comes now would have to wait."""
        line = self.lines.get(key)
        return wait_s(0) > 0 if line is None else line.waiting > 0 or wait_s(line.under_way) > 0

    async def enter(
        self, key: str, wait_s: Callable[[int], float], on_wait: Callable[[], None]
    ) -> None:
        """Wait until `wait_s(under way)` says 0; its `inf` is "until one leaves". Raises Refusal(UNAVAILABLE)."""
        line = self.lines.get(key)
        if line is None:
            line = self.lines[key] = _Line()
        if not line.waiting and not wait_s(line.under_way):
            line.under_way += 1
            return
        if line.waiting >= MAX_WAITING:
            raise _busy()
        line.waiting += 1
        on_wait()
        try:
            async with asyncio.timeout(PATIENCE_S), line.head:
                while left_s := wait_s(line.under_way):
                    line.left.clear()
                    await (line.left.wait() if left_s == math.inf else self._sleep(left_s))
                line.under_way += 1
        except TimeoutError:
            await line_up()  # hundreds may have come at once, and each refusal is a line of the log
            raise _busy() from None
        finally:
            line.waiting -= 1
            self._drop(key, line)

    def leave(self, key: str) -> None:
        line = self.lines[key]
        line.under_way -= 1
        line.left.set()
        self._drop(key, line)

    def _drop(self, key: str, line: _Line) -> None:
        if not line.under_way and not line.waiting:
            del self.lines[key]


def _busy() -> Refusal:
    return Refusal(
        Code.UNAVAILABLE, "Too many wrong passwords have come from your address, try again later"
    )


class Peer(Protocol):
    """Who waits: a connection."""

    @property
    def peer(self) -> str: ...

    @property
    def is_lost(self) -> bool: ...

    def hold_off(self) -> None:
        """Nothing is read of it while it waits."""
        ...


class Attempt:
    """A password that is looked at now. One of `right`, `wrong`, `void` says how it went; the first one counts."""

    __slots__ = (
        "_address",
        "_decided",
        "_late_s",
        "_lines",
        "_pair",
        "_peer",
        "_penalties",
        "began",
        "is_again",
        "known",
    )

    def __init__(
        self,
        penalties: "Penalties",
        peer: "Peer",
        address: str = "",
        pair: str = "",
        late_s: float = 0.0,
    ) -> None:
        """`late_s`: how late it is answered if it is wrong, where nothing is counted (no `pair`)."""
        self._penalties = penalties
        self._late_s = late_s
        self._peer = peer
        self._address, self._pair = address, pair
        self._lines: list[str] = []  # it stands in, to be left
        self.began = 0.0  # when it was its turn
        self.known: bytes | None = None  # of the password, where there is one to be known again
        self.is_again = False
        self._decided = False

    def right(self) -> None:
        if self._leave() and self._pair:
            self._penalties.pardon(self._pair, self.known)

    def wrong(self) -> float:
        """Counted from here on; in how many seconds it is to be answered: so many after its turn began, however long it was
        looked at. How long that took would tell who guesses whether there is such a user."""
        if self._decided:
            return 0.0
        try:
            if not self._pair:
                return self._late_s
            # before it leaves its lines: another worker looks at them at any time
            return self._penalties.count(
                self._address, self._pair, self.known, self.began, is_again=self.is_again
            )
        finally:
            self._leave()

    def void(self) -> None:
        """Nobody has learned anything: what checks passwords is away."""
        self._leave()

    def _leave(self) -> bool:
        if self._decided:
            return False
        self._decided = True
        self.step_out()
        return True

    async def stand(self, key: str, wait_s: Callable[[int], float]) -> None:
        await self._penalties.lines.enter(key, wait_s, self._peer.hold_off)
        self._lines.append(key)

    def step_out(self) -> None:
        """Of all lines."""
        for key in self._lines:
            self._penalties.lines.leave(key)
            self._penalties.unmark(key)
        self._lines.clear()


class Penalties:
    """See the module. The first failure is answered `first_s` late, each further one twice as late, up to `most_s`; with
    `first_s` 0 nothing costs anything."""

    def __init__(
        self,
        first_s: float = 2.0,
        most_s: float = 15.0,
        trusted: tuple[Network, ...] = (),
        counts: Counts | None = None,
        per_address: int = 30,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._counts = counts
        self._share = counts.workers if counts is not None else 1
        self._made: tuple[SharedTable, SharedTable] | None = None
        self._stamps: list[tuple[mmap.mmap, tuple[int, ...], float]] = []
        self._clock, self.sleep = clock, sleep
        self._key = secrets.token_bytes(32)
        self._wrong: OrderedDict[bytes, float] = OrderedDict()
        self._familiar: OrderedDict[str, float] = OrderedDict()  # when that was last told
        self.lines = _Lines(sleep)
        self.configure(first_s, most_s, trusted, per_address)

    def configure(
        self, first_s: float, most_s: float, trusted: tuple[Network, ...], per_address: int
    ) -> None:
        self.first_s = first_s
        self.most_s = max(most_s, first_s)
        self.trusted = trusted
        self.per_address = per_address

    @property
    def _tables(self) -> tuple[SharedTable, SharedTable]:
        """Of pairs and of addresses; made when somebody comes."""
        if self._made is None:
            counts = self._counts or Counts.alone()
            self._made = (
                counts.failures(self._is_forgotten),
                counts.guesses(lambda row: self._clock() - row.when > RUN_OFF_ENDS_S),
            )
        return self._made

    def _find_stamps(self) -> list[tuple[mmap.mmap, tuple[int, ...], float]]:
        """Where the tables say when anything was put there, and how long that matters."""
        failures, guesses = self._tables
        self._stamps = [(*failures.stamps, FORGIVEN_S), (*guesses.stamps, RUN_OFF_ENDS_S)]
        return self._stamps

    # --- an attempt

    async def begin(self, peer: Peer, user: str, password: bytes | None) -> Attempt:
        """Wait for this attempt's turn. Raises Refusal(UNAVAILABLE) where that would take too long, and ConnectionResetError
        where the client has not waited. `password` is None where it does not pass here (SCRAM)."""
        if not self.first_s or (self.trusted and contains(self.trusted, peer.peer)):
            return Attempt(self, peer)
        place = place_of(peer.peer)
        pair = f"{place}\0{_folded(user)}"
        attempt = Attempt(self, peer, place, pair)
        try:
            await self._queue(attempt, place, pair, password)
            if peer.is_lost:
                raise ConnectionResetError("the client has not waited")
            attempt.began = self._clock()
        except BaseException:
            attempt.void()
            raise
        return attempt

    def begin_unguessable(self, peer: Peer, *, is_node: bool) -> Attempt:
        """Of what nobody comes upon by trying, a ticket: who shows an old one is no guesser, and names nobody. So it waits
        for nobody's mistakes and nobody for it; a wrong one is answered late, if not to a node."""
        is_free = is_node or bool(self.trusted and contains(self.trusted, peer.peer))
        return Attempt(self, peer, late_s=0.0 if is_free else self.first_s)

    def at_once(self, peer: str, user: str, password: bytes, recall: Recall) -> Identity | None:
        """Who is known at once, where an attempt would not wait: counted as a right one. Of anybody else nothing is counted
        and nothing told: None, whether they would have to wait or are not known."""
        if not self.first_s or (self.trusted and contains(self.trusted, peer)):
            return recall(user, password)
        place, pair = _place_and_pair(peer, user[:MAX_NAME])
        now, is_quiet = self._clock(), not self.lines.lines
        if is_quiet:
            for memory, stamps, lasts_s in self._stamps or self._find_stamps():
                # 0: never, which is not long ago where the machine has just started
                for at in stamps:
                    when = STAMP.unpack_from(memory, at)[0]
                    if when and now - when <= lasts_s:
                        is_quiet = False
        if not is_quiet and self._is_held_up(place, pair):
            return None
        known = self._digest(pair, password) if self._wrong else None
        if known is not None and self._is_known_wrong(known):
            return None
        decision = recall(user, password)
        if decision is not None and now - self._familiar.get(pair, -math.inf) > SAID_AGAIN_S:
            self.pardon(pair, known)
        return decision

    def _is_held_up(self, place: str, pair: str) -> bool:
        """Whether an attempt would wait, whatever its password, by what is counted now."""
        most = max(1, AT_ONCE // self._share)
        if self.lines.is_waited_for(
            pair, lambda under_way: self._pair_wait_s(pair, under_way, most)
        ):
            return True
        if self._standing(pair)[0]:
            return True  # a right one pardons
        if not self.per_address:
            return False
        is_waited = self.lines.is_waited_for(
            place, lambda under_way: self._place_wait_s(place, under_way)
        )
        return is_waited and not self._is_familiar(pair)

    async def _queue(self, attempt: Attempt, place: str, pair: str, password: bytes | None) -> None:
        known = None if password is None else self._digest(pair, password)
        attempt.known = known
        most = max(1, AT_ONCE // self._share)
        if not self._is_known_wrong(known):
            await attempt.stand(pair, lambda under_way: self._take(pair, under_way, most))
        if self._is_known_wrong(known):  # perhaps by now
            again = _again(pair)
            attempt.is_again = True
            attempt.step_out()
            await attempt.stand(again, lambda under_way: self._take(again, under_way, 1))
            return
        if not self.per_address:
            return

        def wait_s(under_way: int) -> float:
            return self._place_wait_s(place, under_way)

        if self.lines.is_waited_for(place, wait_s) and self._is_familiar(pair):
            return
        await attempt.stand(place, wait_s)

    def _pair_wait_s(self, pair: str, under_way: int, most: int) -> float:
        count, last = self._standing(pair)
        if not count:
            return math.inf if under_way >= most else 0.0
        left_s = last + self.delay_s(count) - self._clock()
        if left_s > 0:
            return left_s
        return math.inf if under_way else 0.0

    def _take(self, pair: str, under_way: int, most: int) -> float:
        """As `_pair_wait_s`, of who goes on at 0: of who has failed one worker has one under way. Said first and looked at
        then: of two at the same instant at most one goes on."""
        left_s = self._pair_wait_s(pair, under_way, most)
        if left_s or self._share == 1 or not self._standing(pair)[0]:
            return left_s
        board, now = self._tables[0], self._clock()
        own = board.own(pair)
        board.put(pair, replace(own, level=now))
        others = board.rows(pair, of_others=True)
        if any(row.level and now - row.level < MARKED_S for row in others):
            board.put(pair, replace(own, level=0.0))
            return AGAIN_S * random.uniform(0.5, 1.5)  # each at another time
        return 0.0

    def unmark(self, key: str) -> None:
        """What this worker had under way in that line is over."""
        if self._share > 1:
            own = self._tables[0].own(key)
            if own.level:
                self._tables[0].put(key, replace(own, level=0.0))

    def _place_wait_s(self, place: str, under_way: int) -> float:
        weight = self._weight(place)
        if under_way >= max(1, self.per_address // self._share):
            return math.inf
        if weight + under_way + 1 <= self.per_address + 1e-6:
            return 0.0
        if under_way:
            return math.inf
        most = max(self.per_address - 1, 0.5)
        return RUN_OFF_S * math.log(weight / most) if weight > most else 0.0

    def delay_s(self, count: int) -> float:
        """How late the last of so many failures is answered."""
        return float(min(self.most_s, self.first_s * 2 ** min(count - 1, 30))) if count else 0.0

    # --- what has been counted

    def failures(self, address: str, user: str) -> int:
        """How many wrong passwords count against this user at this address, of all workers."""
        return self._standing(f"{place_of(address)}\0{_folded(user)}")[0]

    def _standing(self, pair: str) -> tuple[int, float]:
        """How many count and when the last one came."""
        board, now = self._tables[0], self._clock()
        if now - board.newest() > FORGIVEN_S:
            return 0, 0.0  # nobody has failed for long
        rows = list(board.rows(pair))
        pardoned = max((row.pardoned for row in rows), default=0.0)
        counting = [row for row in rows if row.count and row.when >= pardoned]
        last = max((row.when for row in counting), default=0.0)
        if now - last > FORGIVEN_S:
            return 0, 0.0
        return sum(row.count for row in counting), last

    def _weight(self, place: str) -> float:
        board, now = self._tables[1], self._clock()
        if now - board.newest() > RUN_OFF_ENDS_S:
            return 0.0
        return sum(_run_off(row, now) for row in board.rows(place))

    def count(
        self, address: str, pair: str, known: bytes | None, began: float, *, is_again: bool
    ) -> float:
        """A wrong password that was looked at since `began`; in how many seconds it is to be answered. One that is known to
        be wrong weighs nothing, whether it stood in the line for such or was not known yet when it came."""
        is_known = self._is_known_wrong(known)
        self._familiar.pop(pair, None)
        if is_known:
            return self._fail(_again(pair) if is_again else pair, began, grows=is_again)
        guesses, now = self._tables[1], self._clock()
        guesses.put(address, Row(0, now, level=_run_off(guesses.own(address), now) + 1))
        if known is not None:
            _note(self._wrong, known, now)
        return self._fail(pair, began, grows=True)

    def _fail(self, key: str, began: float, *, grows: bool) -> float:
        board, now = self._tables[0], self._clock()
        count, _ = self._standing(key)
        own = board.own(key)
        own_count = own.count if count and now - own.when <= FORGIVEN_S else 0
        late_s = self.delay_s(max(1, count + grows))
        # no earlier: who takes their time with an exchange is not forgiven for that
        when = max(began, now - late_s)
        board.put(key, Row(max(1, own_count + grows), when, own.pardoned))
        return max(0.0, when + late_s - now)

    def pardon(self, pair: str, known: bytes | None) -> None:
        """A right password."""
        now = self._clock()
        if known is not None:
            self._wrong.pop(known, None)
        if self._standing(pair)[0] or now - self._familiar.get(pair, -math.inf) > SAID_AGAIN_S:
            self._tables[0].put(pair, Row(0, 0.0, now))
            _note(self._familiar, pair, now)

    def is_familiar(self, address: str, user: str) -> bool:
        """Whether this user has got in from there of late, and not failed since."""
        return self._is_familiar(f"{place_of(address)}\0{_folded(user)}")

    def _is_familiar(self, pair: str) -> bool:
        now = self._clock()
        if self._standing(pair)[0]:
            return False
        rows = list(self._tables[0].rows(pair))
        pardoned = max((row.pardoned for row in rows), default=0.0)
        failed = max((row.when for row in rows), default=0.0)
        return pardoned > failed and now - pardoned < FAMILIAR_S

    def _is_forgotten(self, row: Row) -> bool:
        now = self._clock()
        return now - row.when > FORGIVEN_S and now - row.pardoned > FAMILIAR_S

    def _digest(self, pair: str, password: bytes) -> bytes:
        return hmac.digest(
            self._key, pair.encode("utf-8", "surrogatepass") + b"\0" + password, "sha256"
        )

    def _is_known_wrong(self, known: bytes | None) -> bool:
        when = None if known is None else self._wrong.get(known)
        return when is not None and self._clock() - when < KNOWN_WRONG_S


@functools.lru_cache(maxsize=4096)
def _place_and_pair(peer: str, user: str) -> tuple[str, str]:
    place = place_of(peer)
    return place, f"{place}\0{_folded(user)}"


def _again(pair: str) -> str:
    """The line and row of wrong passwords that are known."""
    return pair + "\0again"


def _note(noted: OrderedDict[K, float], key: K, when: float) -> None:
    noted[key] = when
    noted.move_to_end(key)
    if len(noted) > MAX_KNOWN:
        noted.popitem(last=False)


def _run_off(row: Row, now: float) -> float:
    """What is left of a weight. Such parts may be summed: each falls at the same rate."""
    return row.level * math.exp((row.when - now) / RUN_OFF_S)


def _folded(user: str) -> str:
    """One spelling for all that mean the same user."""
    return unicodedata.normalize("NFKC", user[:MAX_NAME]).casefold()
