"""A frontend's connection to one backend as one user: commands out, answers passed to the client or read here.

The hot path: `relay` writes a command and queues its tag; answers go through a `ResponseCutter` to the client's
connection, untouched (`passing`). Own commands (`ask`) run only while nothing is in flight. Back-pressure goes both ways.
"""

import asyncio
import functools
import itertools
import re
import secrets
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator
from typing import Final

from murder.errors import BadSyntax, UpstreamFailure, UpstreamKind
from murder.net.bulk import BULK_OCTETS, SLICE_OCTETS, took_much, write_much
from murder.net.outgoing.exchange import (
    LASTING,
    MAX_COLLECTED,
    RESPONSE_OCTETS,
    SEARCHED_OCTETS,
    STRAY,
    Asker,
    Client,
    InternalCommand,
    Into,
    Keeper,
    Reply,
    Untagged,
    parse_reply,
)
from murder.net.outgoing.passing import InFlight, PassesOn
from murder.net.outgoing.upstream import Address
from murder.net.sweep import NOWHERE, SLOT_S
from murder.net.turns import Turn, share_of, stand_in_line
from murder.session.imap_client import is_tagged
from murder.trail.figures import CLASSES_S
from murder.wire.fragment import Chunk, Literal
from murder.wire.imap.mailboxes.moved import LEFT
from murder.wire.imap.response import LASTS

MAX_HEARD: Final = 16 * 1024  # octets up to the answer to a login, or to its end
ANSWER_TIMES: Final = 4  # the wait for octets, of a whole answer that is kept
SMALL_OCTETS: Final = 16 * 1024  # a read that may not be the whole answer
MAX_IN_FLIGHT: Final = 500  # commands of a client that a backend has not answered; more wait
# of a command in flight, to be sent again: no more than 1 MiB a connection
KEPT_OCTETS: Final = 2048

_numbers = itertools.count(1)


class ImapUpstream(PassesOn):
    """See the module. Made by `pool.open_imap`."""

    __slots__ = (
        "_asked",
        "_asked_until",
        "_asker",
        "_heard",
        "_kept_until",
        "_max_message",
        "_prefix",
        "_timeout_s",
        "_unanswered",
        "active_at",
        "address",
        "awaits_tls",
        "capabilities",
        "entered_at",
        "has_no_hurry",
        "holds_answers_back",
        "keeper",
        "outlasting",
        "server",
        "sweep_slot",
        "tags",
        "user",
    )

    def __init__(
        self, address: Address, client: Client, timeout_s: float, max_message: int
    ) -> None:
        super().__init__(client)
        self.address = address
        self.server = address.server
        self.capabilities: frozenset[bytes] = frozenset()
        self._timeout_s = timeout_s
        self._max_message = max_message
        # of whose question `_asked` is the tag, and `_heard` what has come of the answer
        self._asker: Asker | None = None
        self._asked, self._heard, self._asked_until = b"", b"", 0.0
        self._prefix = b"M" + secrets.token_hex(4).encode() + b"-"
        # `next_tag` without a call of Python
        self.tags: Iterator[bytes] = map((self._prefix + b"%d").__mod__, _numbers)
        self._unanswered: list[InFlight] = []  # when it ended
        self.sweep_slot = NOWHERE
        self.active_at = 0.0
        self.keeper: Keeper | None = None  # while it waits for its next user
        self._kept_until = 0.0
        self.awaits_tls = False  # what comes now in plain text was injected (CVE-2011-0411)
        self.has_no_hurry = False  # IDLE: silence is no failure
        # its next answer waits until the last one is acknowledged (Nagle), which takes a kernel 40 ms: Cyrus, most likely
        self.holds_answers_back = True
        self.user, self.entered_at = "", 0.0  # for whom alone it is kept (`pool`), let in then
        self.outlasting: re.Pattern[bytes] | None = None  # ends that; None, too, once it was said

    # --- Receiver

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        """The hot path is first: one tagged line and no more, all that there is in flight."""
        flight, cutter = self.flight, self._cutter
        # within a response, all that one reading has brought would be copied here for nothing
        is_between = not (cutter.literal or cutter.held or cutter.inside)
        if is_between and len(flight) == 1 and self._own is None:
            tag, future, _ = flight[0]
            # one `partition` in place of `startswith`, a slice and `find`
            line, ending, more = data.partition(b"\r\n")
            if future is None and ending and not more and line.partition(b" ")[0] == tag:
                flight.clear()
                if (times := self.times) is not None:
                    took_s = self.loop.time() - self.relayed_at
                    # in milliseconds: mostly it is none
                    times.classes[bisect_left(CLASSES_S, took_s) if took_s else 0] += 1
                    times.sum_s += took_s
                client = self.client
                connection = client.connection
                if connection.is_plain and not connection.gathered:
                    connection.transport.write(data)
                else:
                    connection.write(data)
                if not client.is_flowing:
                    client.upstream_idle(self)
                if connection.writing_paused:
                    self._waits_for_client = True
                    self.connection.pause_reading()
                return
        self.active_at = self.loop.time()
        try:
            if cutter.is_behind:
                self._pass_on(data)
            elif self._own is not None:
                if cutter.held or cutter.is_inside:
                    data = self._behind_unasked(self._own, data)
                self._collect(data)
            elif self._asker is not None:
                self._hear(data)
            elif self.keeper is not None:
                self.abandon()  # a BYE most likely; octets of somebody's at worst
                return
            elif self.awaits_tls:
                raise BadSyntax("octets behind the answer to STARTTLS")
            else:
                self._pass_on(data)
            if len(data) < SMALL_OCTETS:
                if self.holds_answers_back and (self._own or self.flight or self._asker):
                    self.connection.acknowledge_now()
            elif len(data) >= BULK_OCTETS:
                took_much(self.connection)
        except BadSyntax as error:
            self._end(UpstreamKind.PROTOCOL, str(error))
            self.connection.abort()

    def writable(self) -> None:
        self.client.upstream_idle(self)

    def lost(self, error: Exception | None) -> None:
        why = str(error or "it closed the connection")
        if self._cutter.is_behind and not self.is_lost:
            self._ends_with = why  # behind all that came before
        else:
            self._end(UpstreamKind.LOST, why)

    # --- relaying

    @property
    def is_inside(self) -> bool:
        """Whether the client has the beginning of a response, and not its end."""
        return self._cutter.is_inside

    @property
    def last_word(self) -> bytes:
        """Its BYE, where it said one."""
        return self._cutter.bye

    @property
    def in_flight(self) -> int:
        return len(self.flight)

    @property
    def is_full(self) -> bool:
        """Whether no more commands should be relayed for now. `upstream_idle` tells of the end of it."""
        return len(self.flight) >= MAX_IN_FLIGHT or self.connection.writing_paused

    def relay(self, tag: bytes, octets: bytes) -> None:
        """Send a client's command; its answers pass to the client. Raises UpstreamFailure if the backend has gone."""
        self.relay_all([(tag, octets)], octets)

    def relay_all(self, commands: list[tuple[bytes, bytes]], octets: bytes) -> float:
        """Likewise several commands, each with its tag, in one write. The time of the loop."""
        if self.is_lost:
            raise self.failure(UpstreamKind.LOST, "it closed the connection")
        now = self.loop.time()
        if not self.flight:  # as `watch`
            self.active_at = self.relayed_at = now
            if not self.sweep_slot:
                self.watch()
        if self.outlasting is not None:
            self.look_for_outlasting(octets)
        for tag, command in commands:
            self.flight.append((tag, None, command if len(command) <= KEPT_OCTETS else b""))
        connection = self.connection
        if connection.is_plain and not connection.gathered:
            connection.transport.write(octets)
        else:
            connection.write(octets)
        return now

    def write(self, octets: bytes) -> None:
        if self.outlasting is not None:
            self.look_for_outlasting(octets)
        self.connection.write(octets)

    def look_for_outlasting(self, octets: bytes) -> None:
        """Whether this leaves the connection to nobody but its user."""
        if len(octets) <= SEARCHED_OCTETS and not any(map(octets.upper().__contains__, LASTING)):
            return
        outlasting = self.outlasting
        if outlasting is None or len(octets) > SEARCHED_OCTETS or outlasting.search(octets):
            self.outlasting = None

    async def drain(self) -> None:
        """Raises UpstreamFailure."""
        try:
            await self.connection.drain(self._timeout_s)
        except ConnectionError as error:
            raise self.failure(UpstreamKind.LOST, str(error)) from error

    async def relay_much(self, tag: bytes, octets: bytes) -> None:
        """As `relay`, a slice at a time: of a long command that is not taken no more waits than one."""
        self.relay_all([(tag, b"")], octets[:SLICE_OCTETS])
        await self._write_slices(octets, SLICE_OCTETS)

    async def relayed(self, tag: bytes, *, is_last: bool = True, much: bytes = b"") -> Reply:
        """After `write` of a command with the client's tag, or with all of it as `much`: all answers pass to the client, the
        tagged one too where that is the last of it. Returns it. Raises UpstreamFailure (then the client has not been
        answered)."""
        if self.is_lost:
            raise self.failure(UpstreamKind.LOST, "it closed the connection")
        future: asyncio.Future[Reply] = self.loop.create_future()
        if not self.flight:
            self.watch()
        self.flight.append((tag, future, b""))
        self._withheld = b"" if is_last else tag
        if much:
            await self._write_slices(much)
        return await future

    # --- own commands

    async def execute(self, command: bytes, untagged: Untagged = None, into: Into = None) -> Reply:
        """An own command, without tag and line end; nothing of its answer passes to the client. Each untagged response
        goes, whole but for what `into` takes, to `untagged`, or into the Reply. Raises UpstreamFailure."""
        tag = self.next_tag()
        octets = tag + b" " + command + b"\r\n"
        if len(octets) > SLICE_OCTETS:
            return await self.answer(tag, untagged, into, octets)
        self.write(octets)
        return await self.answer(tag, untagged, into)

    def next_tag(self) -> bytes:
        return next(self.tags)

    async def answer(
        self, tag: bytes, untagged: Untagged = None, into: Into = None, much: bytes = b""
    ) -> Reply:
        """After `write` of an own command, or with all of it as `much`: its end. Raises UpstreamFailure."""
        if self.is_lost:
            raise self.failure(UpstreamKind.LOST, "it closed the connection")
        own = self._own = InternalCommand(tag, untagged, self._max_message, into)
        self.watch()
        try:
            if much:
                await self._write_slices(much)
            return await own.future
        except asyncio.CancelledError:
            self._end(UpstreamKind.LOST, "a command was given up")  # its answer would be nobody's
            self.connection.abort()
            raise
        finally:
            self._own = None

    def ask_at_once(
        self, asker: Asker, octets: bytes, tag: bytes, until: float | None = None
    ) -> None:
        """Send own commands, without a task that waits: `asker` hears the end of the one with this tag, of which nothing
        else is wanted; until then at the latest. Behind them a client's command may be in flight."""
        if self._waits_for_client:  # for one who has gone
            self.client_writable()
        self._asker, self._asked, self._heard = asker, tag + b" ", b""
        self.active_at = now = self.loop.time()
        self._asked_until = until or now + ANSWER_TIMES * self._timeout_s
        slot = self.sweep_slot
        if not slot or (until is not None and until < (slot - 1) * SLOT_S):
            self._sweep.watch_sooner(self, until or now + self._timeout_s)
        connection = self.connection
        if connection.is_plain and not connection.gathered:
            connection.transport.write(octets)
        else:
            connection.write(octets)

    def _hear(self, octets: bytes) -> None:
        asker, asked = self._asker, self._asked
        data = self._heard + octets if self._heard else octets
        begin = 0 if data.startswith(asked) else data.find(b"\n" + asked) + 1
        end = data.find(b"\n", begin) + 1 if begin or data.startswith(asked) else 0
        if not end:
            if len(data) > MAX_HEARD:
                raise BadSyntax("an endless answer to a login")
            self._heard = data
            return
        if begin and STRAY.search(data, 0, begin):
            raise BadSyntax("a tagged response to what nobody asked")
        self._asker, self._heard = None, b""
        if asker is not None:
            asker.heard(self, data[begin:end], None)
        if end < len(data) and not self.is_lost:
            if self.keeper is not None:
                self.abandon()  # it was to be silent
            else:
                self._pass_on(data[end:])

    def _behind_unasked(self, own: InternalCommand, octets: bytes) -> bytes:
        """What an own command is to hear, where a response that nobody asked for was half said before it: of one of which
        the client has the beginning, it gets the rest; the beginning of another is heard with the rest."""
        cutter = self._cutter
        if not cutter.is_inside:
            octets, cutter.held = cutter.held + octets, b""
            return octets
        passed, octets, more_waits = cutter.finish(octets)
        client = self.client.connection
        if passed and self.passes_unsolicited:
            write_much(client, passed)
        if client.writing_paused:
            self._waits_for_client = True
            self.connection.pause_reading()
        elif more_waits:
            self.connection.pause_reading()
            stand_in_line(self.loop, functools.partial(self._collect_again, own))
        return octets

    async def stream(
        self,
        tag: bytes,
        pieces: AsyncIterator[bytes],
        *,
        untagged: Untagged = None,
    ) -> Reply:
        """An own command, tag and line end included, that comes in pieces, no faster than the backend takes them.

        Its end, which may have come before the last piece; all pieces are taken in any case, also when the backend has
        gone meanwhile. Where `pieces` raises, the connection is given up: the backend is in the middle of a command.
        Raises UpstreamFailure.
        """
        if self.is_lost:
            raise self.failure(UpstreamKind.LOST, "it closed the connection")
        own = self._own = InternalCommand(tag, untagged, self._max_message)
        self.has_no_hurry = True  # it answers when it has all
        self.watch()
        try:
            async for octets in pieces:
                await self._write_slices(octets)
            self.has_no_hurry = False
            self.watch()
            return await own.future
        except BaseException:
            if not own.future.done():
                own.future.cancel()
                self._end(UpstreamKind.LOST, "a command was left unfinished")
                self.connection.abort()
            raise
        finally:
            self.has_no_hurry = False
            if self._own is own:
                self._own = None

    async def _write_slices(self, octets: bytes, begin: int = 0) -> None:
        """As `write_much`, each slice when the one before is taken, while others have their turns."""
        turn = Turn()
        for at in range(begin, len(octets), SLICE_OCTETS):
            if turn.is_over:
                await turn.rest()
            if self.is_lost:
                return
            try:
                await self.drain()
            except UpstreamFailure:
                self.connection.abort()  # who waits for the answer hears of it
                return
            self.write(octets[at : at + SLICE_OCTETS])

    def _collect(self, octets: bytes) -> None:
        """Responses to an own command, for one turn; what is left waits, and nothing is read meanwhile."""
        own = self._own
        assert own is not None
        if octets:
            own.fragmenter.feed(octets)
        turn_ends = time.perf_counter() + share_of(self.loop)
        while (fragment := own.fragmenter.next()) is not None:
            match fragment:
                case Literal():
                    own.meet(fragment)
                    continue
                case Chunk():
                    own.take(fragment)
                case bytes() if self._took(own, fragment):
                    rest = own.fragmenter.take_rest()
                    self._own = None
                    if rest and self.awaits_tls:
                        raise BadSyntax("octets behind the answer to STARTTLS")
                    if rest:
                        self._pass_on(rest)
                    return
            if own.untagged is not None and self.client.is_full:
                self._waits_for_client = True
                self.connection.pause_reading()
                return
            if time.perf_counter() >= turn_ends:
                self.connection.pause_reading()
                stand_in_line(self.loop, functools.partial(self._collect_again, own))
                return

    def _collect_again(self, own: InternalCommand) -> None:
        if self._own is own and not self.is_lost:
            self.connection.resume_reading()
            self.received(b"")
        elif self._may_read:
            self.connection.resume_reading()  # it has ended meanwhile

    def _took(self, own: InternalCommand, response: bytes) -> bool:
        """Whether this was the tagged line."""
        if response.startswith(own.tag + b" ") or not own.tag:  # the greeting, which comes unasked
            if not own.future.done():
                own.future.set_result(parse_reply(response, own.collected))
            return True
        if not response.startswith((b"* ", b"+", self._prefix)) and is_tagged(response):
            raise BadSyntax("a tagged response to what nobody asked")
        if response[:5].upper() == b"* BYE":
            self._cutter.bye = response
        if response.startswith(LEFT):
            self._tell_left(response)
        elif own.untagged is not None:
            own.untagged(response)
        elif response.startswith(LASTS):
            own.began_at = self.active_at  # it is at it
        else:
            own.size += len(response) + RESPONSE_OCTETS
            if own.size > MAX_COLLECTED:
                raise BadSyntax(f"an answer of more than {MAX_COLLECTED} octets")
            own.collected.append(response)
        return False

    # --- timeouts and the end

    def watch(self) -> None:
        """An answer is waited for from now on."""
        self.active_at = self.loop.time()
        if not self.sweep_slot:
            self._sweep.watch(self, self.active_at + self._timeout_s)

    def look(self, now: float) -> float | None:
        """For the sweep: is an answer overdue? A connection of which nothing is asked is looked at as often as one that is
        asked just then would have to be: so asking touches no timer."""
        if self.is_lost:
            return None
        if self.keeper is not None:
            if now < self._kept_until:
                return min(self._kept_until, now + self._timeout_s)
            self.close()
            return None
        if not (self.flight or self._own or self._asker):
            return now + self._timeout_s
        left = self.active_at + self._timeout_s - now
        own = self._own
        if own is not None and own.untagged is None:  # a drop now and then is no answer
            own.began_at = own.began_at or self.active_at
            left = min(left, own.began_at + ANSWER_TIMES * self._timeout_s - now)
        if self._asker is not None:
            left = min(left, self._asked_until - now)
        elif self._waits_for_client or self.has_no_hurry:
            left = self._timeout_s
        if left > 0:
            return now + left
        self._end(UpstreamKind.TIMEOUT, f"no answer in {self._timeout_s:g} s")
        self.connection.reset()  # should it only sleep: what it was asked has been refused
        return None

    def failure(self, kind: UpstreamKind, text: str, cure: str = "") -> UpstreamFailure:
        return UpstreamFailure(kind, self.server, text, cure)

    def _end(self, kind: UpstreamKind, text: str) -> None:
        if self.is_lost:
            return
        self._leave()
        if self._own is not None and not self._own.future.done():
            self._own.future.set_exception(self.failure(kind, text))
        if self._asker is not None:
            asker, self._asker = self._asker, None
            asker.heard(self, b"", self.failure(kind, text))
        unanswered = self._unanswered = [asked for asked in self.flight if asked[1] is None]
        for _, future, _ in self.flight:
            if future is None:
                continue
            if callable(future):
                future(self.failure(kind, text))
            elif not future.done():
                future.set_exception(self.failure(kind, text))
        mid_response = self.is_inside and (bool(self.flight) or self.passes_unsolicited)
        self.flight.clear()
        self.client.upstream_lost(self, [tag for tag, _, _ in unanswered], mid_response)

    def unanswered(self, tags: list[bytes]) -> list[tuple[bytes, bytes]] | None:
        """Of a client's commands that were in flight when it ended, the last ones, which have these tags, as they were sent;
        None where that cannot be told any more."""
        last = self._unanswered[len(self._unanswered) - len(tags) :]
        sent = [(tag, octets) for tag, _, octets in last]
        return sent if [tag for tag, octets in sent if octets] == tags else None

    async def idle_again(self, tag: bytes, octets: bytes) -> None:
        """A client's IDLE of which it has had the continuation: all else passes. Raises UpstreamFailure."""
        self.write(octets)
        await self.answer(b"+", self.client.send)
        self.flight.append((tag, None, octets))
        self.has_no_hurry = True

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is under way, and nothing is half said."""
        busy = self.is_lost or self.flight or self._own is not None or self._asker is not None
        return not (
            busy
            or self._ends_with
            or (cutter := self._cutter).held
            or cutter.inside
            or cutter.literal
        )

    def serve(self, client: Client, timeout_s: float, max_message: int) -> None:
        """From now on for this client, with nothing of the one before, and with the limits of now."""
        self._timeout_s, self._max_message = timeout_s, max_message
        self.client = client
        self.passes_unsolicited = self.has_no_hurry = False
        if self._waits_for_client:
            self.client_writable()
        self._cutter.bye = b""  # it is between two responses

    def expect_greeting(self) -> None:
        """It comes unasked."""
        self._own = InternalCommand(b"", None, self._max_message)

    async def greeted(self) -> Reply | None:
        """The greeting, where it has not been read yet. Raises UpstreamFailure."""
        own = self._own
        if own is None:
            return None
        self.watch()
        greeting = await own.future
        self._own = None
        return greeting

    def wait(self, keeper: Keeper, idle_s: float) -> None:
        """For the next user, so long. It must be silent: see `received`. What it was looked at for before is soon enough
        for a time that is longer."""
        self.keeper = keeper
        self._kept_until = self.loop.time() + idle_s
        if idle_s < self._timeout_s or not self.sweep_slot:
            self._sweep.watch_sooner(self, self._kept_until)

    def _leave(self) -> None:
        self.is_lost = True
        self._sweep.forget(self)
        if self.keeper is not None:
            self.keeper.forget(self)

    def abandon(self) -> None:
        """It is in no state to be used."""
        if not self.is_lost:
            self._leave()
        self.connection.abort()

    def close(self) -> None:
        """Say goodbye without waiting."""
        if not self.is_lost:
            self._leave()
            self.connection.write(self.next_tag() + b" LOGOUT\r\n")
            self.connection.close()
