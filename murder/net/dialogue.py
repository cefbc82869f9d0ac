"""The one loop for every protocol's server side: read -> session -> command -> handler -> write.

No task while idle: octets come by callback, a command that needs to wait gets one task for as long as it runs, and
commands run strictly in order. Nothing here knows a protocol: a subclass gives the greeting, the handlers, and the one
place where errors become replies.

Turns are fair. Commands that came together are carried out for `TURN_S` (for a moment only, where others have had this turn
of the loop), the rest after everybody else has had a turn.
While the peer does not take its answers, no further command of its is begun; what it sends meanwhile is held up to
`HELD_OCTETS`, and then not read. Handlers that answer much call `flush`, which waits for the peer and ends a turn.
"""

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from murder.errors import BadSyntax, Code, Refusal
from murder.net.bulk import BULK_OCTETS, took_much
from murder.net.connection import STUCK_WRITE_S, Connection, is_crowded
from murder.net.inbound import SHARE_OCTETS, inbound
from murder.net.sweep import NOWHERE, SLOT_S, here
from murder.net.turns import LATE_TURN_S, TURN_S, line_up, share_of, stand_in_line

HELD_OCTETS: Final = 256 * 1024  # input held for a busy session before reading stops
# the same where many peers take nothing: what so many send, each a message most likely, goes to a few servers
HELD_IN_CROWD_OCTETS: Final = 32 * 1024
HELD_BEFORE_LOGIN_OCTETS: Final = 16 * 1024  # the same of somebody we do not know
# one read may bring more; who sends that ahead of their login goes
MOST_BEFORE_LOGIN_OCTETS: Final = 64 * 1024
CLOSE_GRACE_S: Final = 5.0
OVERDUE_S: Final = 1.0  # how often it is looked whether a handler ends whose time to log in is over
NO_ROOM: Final = "So much of you is on its way in that there is no room for it: send it again"
GIVEN_UP: Final = "What it waited for was given up here: try again"  # the server stops, say


class Session(Protocol):
    """The doors of a sans-IO session, as this loop uses them. An event of None means: need more octets."""

    def receive(self, data: bytes | memoryview) -> None: ...

    def next_event(self) -> Any: ...  # each protocol's own union of events

    @property
    def held(self) -> int: ...

    @property
    def is_behind(self) -> bool:
        """There is more in what it holds, and it has stopped: the turn is over."""
        ...

    def take_rest(self) -> bytes: ...


class Dialogue(ABC):
    """A server's side of one connection."""

    held_octets = HELD_OCTETS
    # Attributes begin as they stand here where no command looks at them: an object of up to 30 of its own has no dictionary
    write_timeout_s = STUCK_WRITE_S
    # False before a login: `idle_timeout_s` is all the time there is.
    activity_counts = True
    _waiter: asyncio.Future[None] | None = None
    _due = math.inf  # when what a handler waits for is overdue
    _ends_at = 0.0  # once it is closing: when it is cut off
    _closes_when_quiet_s = 0.0  # how often it is looked whether it is, if it is to close then
    _pumping = False
    _turn_ends = 0.0
    _input_ended = False  # the peer sends no more, and may still read
    _is_counted = False  # it holds more than its share (`inbound`)

    def __init__(self, connection: Connection, session: Session, idle_timeout_s: float) -> None:
        self.connection = connection
        self.session = session
        self.idle_timeout_s = idle_timeout_s
        sweep = self.sweep = here()
        loop = self.loop = sweep.loop
        self.active_at = loop.time()
        self.is_closing = False
        self._task: asyncio.Task[None] | None = None
        self.sweep_slot = NOWHERE
        self._pump_is_due = False  # its turn is over, the next one is asked for

    # --- what a protocol and role give

    @abstractmethod
    def greet(self) -> None:
        """Send the greeting."""

    @abstractmethod
    def handle(self, event: Any) -> Coroutine[Any, Any, None] | None:
        """Carry out one event: at once (None), or return the coroutine that does."""

    @abstractmethod
    def failed(self, event: Any, error: Exception) -> None:
        """A handler raised: send the reply that the error deserves, and log it."""

    @abstractmethod
    def hopeless(self, error: BadSyntax) -> None:
        """The stream cannot be cut any more: say so and close."""

    @abstractmethod
    def timed_out(self) -> None:
        """Nothing came for `idle_timeout_s`: say so and close."""

    def rested(self) -> None:
        """A handler has ended, and the next event has not been taken out yet."""

    def ended(self) -> None:
        """The connection is over and no handler runs: let go of everything."""

    # --- Receiver

    def begin(self) -> None:
        self.sweep.watch(self, self.active_at + self.idle_timeout_s)
        self.greet()

    def received(self, data: bytes) -> None:
        if self.is_closing:
            return
        if len(data) >= BULK_OCTETS:
            took_much(self.connection)
        self.session.receive(data)
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            return
        if self._task is None and not self._pump_is_due:
            self._pump()
            if not (held := self.session.held):
                if self._is_counted:
                    self._count_less()
                return
            if not self._pump_is_due and self._may_take():  # half a command
                self.connection.acknowledge_now()
                if held > SHARE_OCTETS and self.activity_counts:
                    self._comes_in(held)
                elif self._is_counted:
                    self._is_in()
                return
        else:
            held = self.session.held
        # A message that is still coming in is bounded by its session; what nobody takes out now is bounded here.
        most = self.held_octets if self.activity_counts else HELD_BEFORE_LOGIN_OCTETS
        if held > most or (held > HELD_IN_CROWD_OCTETS and is_crowded()):
            self.connection.pause_reading()
            if held > MOST_BEFORE_LOGIN_OCTETS and not self.activity_counts:
                self.session.take_rest()
                self.hopeless(BadSyntax("too much was sent ahead of the login"))
                self.loop.call_soon(self.connection.abort)  # with what TLS holds of it
        if held > SHARE_OCTETS and self.activity_counts:
            self._comes_in(held)

    def writable(self) -> None:
        """The peer takes octets again: so its commands go on. Handlers wait by `flush`; roles that write from callbacks
        add to this."""
        self.resume()

    def input_ended(self) -> bool:
        """The peer has closed its half (`printf ... | nc`). What it asked for before is answered; then we close too."""
        self._input_ended = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionResetError("the client has gone"))
        self.loop.call_soon(self.close_if_done)
        return True

    def close_if_done(self) -> None:
        """After the end of the input: close when all of it has been answered."""
        if self._input_ended and not self.is_closing and self.is_done():
            self.is_closing = True
            self.connection.close()

    def lost(self, error: Exception | None) -> None:
        self.is_closing = True
        self.sweep.forget(self)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionResetError("the client has gone"))
        if self._task is None:
            if self._is_counted:
                self._is_in()
            self.ended()
        # A running handler is not cancelled: what it began with the store or the master, it ends.

    # --- what has come and is not whole, or being carried out: `inbound`

    @property
    def account(self) -> str:
        """Whose connection it is."""
        return self.connection.peer

    def _comes_in(self, held: int) -> None:
        self._is_counted = True
        inbound().hold(self, held)

    def _is_in(self) -> None:
        self._is_counted = False
        inbound().let_go(self)

    @property
    def waits_for_peer(self) -> bool:
        """Whether nothing goes on before the peer sends more, or takes its answers."""
        if self.connection.writing_paused:
            return True
        return self._task is None and not self._pump_is_due and self.may_proceed()

    def give_way(self) -> None:
        """There is no room for so much."""
        self._is_counted = False
        if self._task is None:
            self.session.take_rest()
            self.say_no_room()
        self.loop.call_soon(self.connection.abort)  # with what TLS holds of it

    def say_no_room(self) -> None:
        """Say so, and close."""
        self.hopeless(BadSyntax(NO_ROOM))

    def _count_less(self) -> None:
        """Some of what counted may have been taken out, and been carried out."""
        if self._task is None:
            if (held := self.session.held) > SHARE_OCTETS:
                inbound().lower(self, held)
            else:
                self._is_in()

    def wait_for_room(self) -> None:
        self.connection.pause_reading()

    def has_room(self) -> None:
        if not self.connection.is_lost:
            self.connection.resume_reading()

    # --- one dialogue behind another

    def hand_over(self, heir: "Dialogue") -> None:
        """From here on the connection is another dialogue's, with what has come and not been taken out; this one is over.
        Called by a handler of this one, which does nothing behind it."""
        heir.active_at, heir._input_ended = self.active_at, self._input_ended
        rest = self.session.take_rest()
        if self._is_counted:
            self._is_in()
        if rest:
            heir.session.receive(rest)
        if self.sweep_slot:  # as `forget`, in a call less
            self.sweep.slots[self.sweep_slot].discard(self)
            self.sweep_slot = NOWHERE
        self.is_closing = True
        heir.sweep.watch(heir, heir.active_at + heir.idle_timeout_s)
        self.connection.receiver = heir
        self.ended()

    def go_on(self, event: Any, running: Coroutine[Any, Any, None]) -> None:
        """Carry out the rest of a command that the dialogue before this one took out."""
        self._turn_ends = time.perf_counter() + TURN_S
        self._task = self.loop.create_task(self._run(event, running))

    # --- what handlers use

    @property
    def time_left_s(self) -> float:
        """Of `idle_timeout_s`; before a login, of all the time that there is for it."""
        return max(0.0, self.active_at + self.idle_timeout_s - self.loop.time())

    def begin_time(self, timeout_s: float, *, activity_counts: bool) -> None:
        """From now on this time-out: one to log in, or one of silence."""
        self.idle_timeout_s, self.activity_counts = timeout_s, activity_counts
        self.active_at = self.loop.time()
        if self.sweep_slot:
            self.sweep.watch_sooner(self, self.active_at + timeout_s)

    @property
    def is_busy(self) -> bool:
        return self._task is not None

    def send(self, data: bytes) -> None:
        """Together with what else is sent in this turn of the loop: the answers to a burst of commands go as one."""
        self.connection.gather(data, later=not self._pumping)

    def need_peer(self) -> None:
        """Before something that must not happen twice: raises ConnectionResetError where the peer has given up waiting
        for it, as a proxy does that found us asleep, and told its client "no"."""
        if self.connection.is_reset():
            raise ConnectionResetError("the peer has given up")

    async def flush(self) -> None:
        """Wait while the client does not take what was sent, and let others have a turn when this one is over. Raises
        ConnectionResetError if the client never takes it."""
        if self.connection.writing_paused or self.connection.is_lost:
            await self.connection.drain(self.write_timeout_s)
            self._turn_ends = time.perf_counter() + share_of(self.loop)
        elif time.perf_counter() >= self._turn_ends:
            await self.rest()

    async def rest(self) -> None:
        """The end of a turn: all others have theirs, then the handler goes on."""
        await line_up()
        self._turn_ends = time.perf_counter() + TURN_S

    async def next_event(self, timeout_s: float | None = None) -> Any:
        """More input for the running command. Raises ConnectionResetError if the client has gone, TimeoutError. Without a
        timer of its own: see `net.sweep`."""
        while True:
            event = self.session.next_event()
            if event is not None:
                self._note_activity()
                if time.perf_counter() >= self._turn_ends:
                    await self.rest()
                return event
            if self.session.is_behind:
                await self.rest()
                continue
            if self._is_counted:  # all of it has gone to where it belongs
                self._is_in()
            if self.connection.is_lost or self._input_ended:
                raise ConnectionResetError("the client has gone")
            self.connection.resume_reading()
            loop = self.loop
            self._due = due = loop.time() + (
                self.idle_timeout_s if timeout_s is None else timeout_s
            )
            slot = self.sweep_slot
            if not slot or due < (slot - 1) * SLOT_S:  # as `watch_sooner`, without the call
                self.sweep.watch(self, due)
            self._waiter = loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter, self._due = None, math.inf

    async def begin_tls(self, context: Any) -> None:
        """Put TLS under the connection, its answer to the command having been sent."""
        await self.connection.start_tls(context, server_side=True)

    def close(self) -> None:
        """Send what is written, take no further command; the end when the client has ended too, or soon."""
        if not self.is_closing:
            self.is_closing = True
            if self._task is None:
                self.session.take_rest()  # it may be much, and stays until the client has gone
            self.connection.finish()
            self._ends_at = self.loop.time() + CLOSE_GRACE_S
            self.sweep.watch(self, self._ends_at)  # where it is lost already, it is looked at once

    def is_quiet(self) -> bool:
        """Whether this is a good moment to say BYE: no command runs and none is waiting."""
        return self._task is None and self.session.held == 0

    def close_when_quiet(self, look_s: float) -> None:
        """Close now, or as soon as it is found quiet; it is looked at so often."""
        if self.connection.is_lost or self.is_closing:
            return
        if self.is_quiet():
            self.close()
        else:
            self._closes_when_quiet_s = look_s
            self.sweep.watch_sooner(self, self.loop.time() + look_s)

    def is_done(self) -> bool:
        """Whether nothing that has come in still waits for its answer; half a command gets none."""
        return self._task is None and not self._pump_is_due and self._may_take()

    # --- the loop

    def resume(self) -> None:
        """Take up the input again after a handler of a role held it back without a task."""
        if self._task is None and not self._pump_is_due:
            self._pump()
            if self._is_counted:
                self._count_less()

    def may_proceed(self) -> bool:
        """A role that is in the middle of something without a task says False, and calls `resume` later."""
        return True

    def _may_take(self) -> bool:
        """Whether the next command may begin."""
        return (
            self._task is None
            and not self.is_closing
            and not self.connection.writing_paused
            and self.may_proceed()
        )

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        now = at = time.perf_counter()
        # as `share_of`, without the call
        began = self.sweep.began
        turn_ends = now + (LATE_TURN_S if began and now - began[0] >= TURN_S else TURN_S)
        try:
            connection = self.connection
            while (  # as `_may_take`, in one place less
                self._task is None
                and not self.is_closing
                and not connection.writing_paused
                and self.may_proceed()
            ):
                try:
                    event = self.session.next_event()
                except BadSyntax as error:
                    self.hopeless(error)
                    return
                if event is None:
                    if self.session.is_behind:
                        self._pump_is_due = True
                        stand_in_line(self.loop, self._pump_again)
                    elif self._input_ended:
                        self.loop.call_soon(self.close_if_done)
                    else:
                        self.connection.resume_reading()
                    return
                if self.activity_counts:  # as `_note_activity`, in one place less
                    self.active_at = self.loop.time()
                self._start(event)
                at = time.perf_counter()
                if at >= turn_ends:
                    self._pump_is_due = True
                    stand_in_line(self.loop, self._pump_again)
                    return
        finally:
            self._pumping = False
            if at - now >= LATE_TURN_S and not began:  # as `has_held`, without the call
                began.append(now)
                self.loop.call_soon(began.clear)
            self.connection.send_gathered()

    def _pump_again(self) -> None:
        self._pump_is_due = False
        if not self.connection.is_lost:
            self._pump()
            if self._is_counted:
                self._count_less()

    def _start(self, event: Any) -> None:
        try:
            running = self.handle(event)
        except Exception as error:  # noqa: BLE001 - the end of a command that ran at once
            self.failed(event, error)
            _forget_frames(error)
            return
        if running is not None:
            self._turn_ends = time.perf_counter() + TURN_S
            self._task = self.loop.create_task(self._run(event, running))

    async def _run(self, event: Any, running: Coroutine[Any, Any, None]) -> None:
        try:
            await running
        except ConnectionError as error:
            if self._input_ended:  # in the middle of a command; those before it have been answered
                self.connection.close()
            else:
                self.connection.abort()
            _forget_frames(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            if not self.connection.is_lost:  # what it waited for was, by others
                self.failed(event, Refusal(Code.UNAVAILABLE, GIVEN_UP))
        except Exception as error:  # noqa: BLE001 - the end of a task
            if not self.connection.is_lost:
                self.failed(event, error)
            _forget_frames(error)
        finally:
            self._task = None
            self._note_activity()
        if self.connection.is_lost:
            if self._is_counted:
                self._is_in()
            self.ended()
        else:
            if self._is_counted:
                self._count_less()
            self.rested()
            self._pump()
            if self._is_counted:
                self._count_less()

    def _note_activity(self) -> None:
        if self.activity_counts:
            self.active_at = self.loop.time()

    def look(self, now: float) -> float | None:
        """For the sweep: is the client's time over?"""
        if self.connection.is_lost:
            return None
        if self._ends_at:
            if now < self._ends_at:
                return self._ends_at
            self.connection.abort()
            return None
        if self._closes_when_quiet_s and self.is_quiet():
            self.close()
            return self._ends_at
        if now >= self._due and self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(TimeoutError())
        left = self.active_at + self.idle_timeout_s - now
        if self._task is not None:  # a running handler has its own timeouts
            left = self.idle_timeout_s if self.activity_counts else max(left, OVERDUE_S)
        if now < self._due:
            left = min(left, self._due - now)
        if left > 0:
            return now + min(left, self._closes_when_quiet_s or left)
        self.timed_out()
        return None


def _forget_frames(error: BaseException) -> None:
    """An error that somebody has in a variable is in a ring with the frame of that: until the collector finds it, it would
    keep all that its command has read and found, at each refusal as much again."""
    following: BaseException | None = error
    while following is not None and following.__traceback__ is not None:
        following.__traceback__ = None
        following = following.__cause__ or following.__context__
