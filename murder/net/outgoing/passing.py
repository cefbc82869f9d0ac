"""What a backend sends for a client, passed on: its octets, untouched but for what `ResponseCutter` keeps back.

A turn at a time. A backend that means ill, or has lost its way, may send lines without end that are each worth a look: all
that one reading brings of them would hold the loop of everybody. What is not looked at in this turn waits for the next, in
line with all other work that does, and nothing more is read of that backend meanwhile. Nor is anything while the client
does not take what there is.
"""

import asyncio
import time
from collections import deque
from typing import Final

from murder.errors import UpstreamKind
from murder.net.bulk import LITTLE_OCTETS, write_much
from murder.net.connection import Connection
from murder.net.outgoing.exchange import Client, Hears, InternalCommand, Reply, parse_reply
from murder.net.sweep import here
from murder.net.turns import TURN_S, has_held, stand_in_line
from murder.session.imap_client import STEPS, ResponseCutter
from murder.trail.figures import Durations
from murder.wire.imap.mailboxes.moved import LEFT

LATE_STEPS: Final = STEPS - STEPS // 10  # counted already where the turn of the loop is late


# A command of a client's that its backend has not answered: its tag, who else waits for the end, its octets where it could
# be begun anew
InFlight = tuple[bytes, asyncio.Future[Reply] | Hears | None, bytes]


class PassesOn:
    """The half of an `ImapUpstream` that answers a client's commands. With slots: what a command reads of it stands
    together in memory, which is cold mostly."""

    __slots__ = (
        "_cutter",
        "_ends_with",
        "_own",
        "_sweep",
        "_waits_for_client",
        "_withheld",
        "client",
        "connection",
        "flight",
        "is_lost",
        "loop",
        "passes_unsolicited",
        "relayed_at",
        "times",
    )

    connection: Connection

    def __init__(self, client: Client) -> None:
        self._sweep = here()
        self.loop = self._sweep.loop
        self.client = client
        self.is_lost = False
        self.passes_unsolicited = False  # the client has a mailbox selected here
        self.flight: deque[InFlight] = deque()
        self.times: Durations | None = None  # where relayed commands are counted
        self._cutter = ResponseCutter()
        self.relayed_at = 0.0  # the first of those in flight
        self._withheld = b""  # the tag of a command whose tagged line does not pass
        self._own: InternalCommand | None = None
        self._waits_for_client = False
        self._ends_with = ""  # why it is over, when all that came before has been passed on

    def received(self, data: bytes) -> None:
        raise NotImplementedError

    def _end(self, kind: UpstreamKind, text: str) -> None:
        raise NotImplementedError

    def _collect_again(self, own: InternalCommand) -> None:
        raise NotImplementedError

    def _pass_on(self, octets: bytes) -> None:
        """For one turn; what is left waits in the cutter, and nothing is read meanwhile."""
        client, flight, cutter = self.client.connection, self.flight, self._cutter
        begins, began = time.perf_counter(), self._sweep.began
        late = began and begins - began[0] >= TURN_S
        gathered, cutter.steps = b"", LATE_STEPS if late else 0
        while octets or cutter.is_behind:
            tag = flight[0][0] if flight else b""
            passed, line, octets = cutter.feed(octets, tag)
            if cutter.left:
                self._tell_left(cutter.left)
                cutter.left = b""
            if line is not None and tag == self._withheld:
                passed, self._withheld = passed[: -len(line)], b""
            # without a tag nobody asked: it is passed to who has this backend's mailbox selected
            if passed and (tag or self.passes_unsolicited):
                gathered = gathered + passed if gathered else passed
            if line is None:
                if cutter.is_behind:
                    break
                continue
            _, future, _ = flight.popleft()
            if future is None and flight:
                continue
            if gathered:
                if client.is_plain and not client.gathered and len(gathered) <= LITTLE_OCTETS:
                    client.transport.write(gathered)
                else:
                    write_much(client, gathered)
                gathered = b""
            if callable(future):
                future(line)
            elif future is not None and not future.done():
                future.set_result(parse_reply(line))
            if not flight:
                if future is None and self.times is not None:
                    self.times.note(self.loop.time() - self.relayed_at)
                if not self.client.is_flowing:
                    self.client.upstream_idle(self)  # type: ignore[arg-type] # it is one: see the class
        if gathered:
            if client.is_plain and not client.gathered and len(gathered) <= LITTLE_OCTETS:
                client.transport.write(gathered)
            else:
                write_much(client, gathered)
        if cutter.steps >= LATE_STEPS:
            has_held(self.loop, begins)
        if client.writing_paused:
            self._waits_for_client = True
            self.connection.pause_reading()
        elif cutter.is_behind:
            self.connection.pause_reading()
            stand_in_line(self.loop, self._go_on)

    def _go_on(self) -> None:
        """The next turn of what has come."""
        if self._cutter.is_behind and not (self.is_lost or self._waits_for_client):
            self.received(b"")
        if not self._may_read:
            return
        if self._ends_with:
            self._end(UpstreamKind.LOST, self._ends_with)
        else:
            self.connection.resume_reading()

    @property
    def _may_read(self) -> bool:
        """Whether all that has come has been passed on, and the client takes more."""
        return not (self._cutter.is_behind or self.is_lost or self._waits_for_client)

    def client_writable(self) -> None:
        """The client takes octets again."""
        if self._waits_for_client:
            self._waits_for_client = False
            if self._cutter.is_behind or self._ends_with:
                stand_in_line(self.loop, self._go_on)
            else:
                self.connection.resume_reading()
            if self._own is not None:
                self.loop.call_soon(self._collect_again, self._own)

    def _tell_left(self, line: bytes) -> None:
        name = line[len(LEFT) :].rstrip(b"\r\n")
        self.client.upstream_left(self, name)  # type: ignore[arg-type] # as above
