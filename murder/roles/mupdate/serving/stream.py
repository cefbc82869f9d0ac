"""UPDATE and FOLLOW subscribers: the list in Cyrus' order, OK, what changed meanwhile, then every change at once.

No transaction outlives a batch and nothing is queued for a peer that does not read: a subscriber is a number (what it
has been sent), and whoever lags is brought up to date from the journal when its connection takes octets again, each row
once, as it is then. Who lags too far, or takes nothing for too long, is cut off; the others never notice.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

from murder.model.name import name_of_key
from murder.net.seconds import until_look
from murder.net.turns import TURN_S, line_up
from murder.roles.mupdate.database.lacking import LACKING, parse_lacking
from murder.roles.mupdate.database.mboxlist import Committed, MailboxList
from murder.roles.mupdate.database.record import (
    ACTIVE,
    HEAD,
    HEAD_OCTETS,
    QUOTABLE,
    server_of_row,
)
from murder.wire.mupdate import (
    FORGOTTEN,
    format_delete,
    format_lacking,
    format_mailbox,
    format_position,
    format_reserve,
)

# Of a commit's rows; more is read from the list, for each peer as it takes it
LIVE_OCTETS: Final = 64 * 1024
STUCK_S: Final = 120.0  # a subscriber that takes nothing for so long is gone
POLL_S: Final = 1.0  # how soon changes of other processes (`ctl list load`) are seen
_BOTH: Final = ACTIVE | QUOTABLE
_DOTS: Final = bytes.maketrans(b"\x1f", b".")
# Octets below `.`, which a real Cyrus replica compares wrongly: it may lose names that have them in a
# resynchronisation (its merge uses strcmp on dotted names, its database another order). Such rows are sent again.
_BELOW_DOT: Final = bytes(range(0x20, 0x2E))


def format_rows(
    tag: bytes, rows: Iterable[tuple[bytes, bytes]], *, literals: bool = False
) -> bytes:
    """MAILBOX and RESERVE responses for stored rows, as `MailboxList.rows` gives them. The hot path of dumps.

    `literals`: every string as `{n+}`, which is all that a Cyrus master ever sends in a stream; our own replicas read
    quoted strings faster.
    """
    lines = []
    unpack = HEAD.unpack_from
    for key, row in rows:
        _, flags, length = unpack(row)
        if key[0] == 0xFF:
            lines.append(format_row(tag, key, row, literals=literals))
            continue
        middle = HEAD_OCTETS + length
        if literals:
            name, location, acl = key.translate(_DOTS), row[HEAD_OCTETS:middle], row[middle:]
            if flags & ACTIVE:
                lines.append(
                    _LITERAL_MAILBOX % (tag, len(name), name, length, location, len(acl), acl)
                )
            else:
                lines.append(_LITERAL_RESERVE % (tag, len(name), name, length, location))
        elif flags == _BOTH:
            lines.append(
                _QUOTED_MAILBOX % (tag, key.translate(_DOTS), row[HEAD_OCTETS:middle], row[middle:])
            )
        else:
            lines.append(format_row(tag, key, row))
    return b"".join(lines)


def format_row(tag: bytes, key: bytes, row: bytes | None, *, literals: bool = False) -> bytes:
    """One response for one row; DELETE where it is None."""
    name = name_of_key(key)
    if row is None:
        return _LITERAL_DELETE % (tag, len(name), name) if literals else format_delete(tag, name)
    _, flags, length = HEAD.unpack_from(row)
    location = row[HEAD_OCTETS : HEAD_OCTETS + length]
    acl = row[HEAD_OCTETS + length :]
    if literals and flags & ACTIVE:
        return _LITERAL_MAILBOX % (tag, len(name), name, length, location, len(acl), acl)
    if literals:
        return _LITERAL_RESERVE % (tag, len(name), name, length, location)
    if flags & ACTIVE:
        return format_mailbox(tag, name, location, acl)
    return format_reserve(tag, name, location)


_QUOTED_MAILBOX: Final = b'%b MAILBOX "%b" "%b" "%b"\r\n'
_LITERAL: Final = b"{%d+}\r\n%b"
_LITERAL_MAILBOX: Final = b"%b MAILBOX " + b" ".join([_LITERAL] * 3) + b"\r\n"
_LITERAL_RESERVE: Final = b"%b RESERVE " + b" ".join([_LITERAL] * 2) + b"\r\n"
_LITERAL_DELETE: Final = b"%b DELETE " + _LITERAL + b"\r\n"


def is_at_risk(key: bytes) -> bool:
    """Whether a real Cyrus replica may lose this name in its merge."""
    return len(key) != len(key.translate(None, _BELOW_DOT))


def why_not_from(mailboxes: MailboxList, mark: str) -> str:
    """What is said to who would follow from a mark from which they cannot."""
    if mailboxes.has_forgotten(mark):
        return f"{FORGOTTEN}removals since then are not known any more"
    return "that is not in this list's history"


class Outlet(Protocol):
    """What a subscriber needs of its connection."""

    def send(self, data: bytes) -> None: ...

    async def send_all(self, data: bytes) -> None:
        """Until the peer has taken most of it. Raises as `flush`."""
        ...

    async def flush(self) -> None:
        """Wait until the peer has taken most of it. Raises ConnectionResetError if it never does."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether octets wait for the peer above the high-water mark."""
        ...

    def cut(self, reason: str) -> None:
        """End the connection at once."""
        ...


class Subscriber:
    """One connection after UPDATE or FOLLOW. `hosts` (bytes of server names) restricts it: PARTIAL-UPDATE."""

    def __init__(
        self,
        hub: "Hub",
        outlet: Outlet,
        tag: bytes,
        *,
        hosts: Collection[bytes] = (),
        positions: bool = False,
    ) -> None:
        self._hub = hub
        self._outlet = outlet
        self._tag = tag
        self._hosts = frozenset(hosts)
        self._positions = positions
        self._literals = not positions
        self._left: set[bytes] = set()  # rows that were at our hosts when they changed unseen by us
        self.seq = 0
        self.is_live = False
        self.backlog_octets = 0
        self._lagging_since = 0.0
        self._mark_owed = positions
        self._lacking: bytes | None = None  # the note, as the peer knows it

    async def run(self, seq: int | None, ok: bytes) -> None:
        """Everything up to the live stream: the whole list and `ok`, or (`seq`: what the peer has) the changes
        since and then `ok`. Raises ConnectionResetError."""
        self._hub.add(self)
        if seq is None:
            self.seq = self._hub.mailboxes.last_seq()
            at_risk = await self._dump(resend=False)
            # FOLLOW: the list ends here, changes follow, OK says that it is complete
            if self._positions:
                self._outlet.send(format_position(self._tag, ""))
            else:
                self._outlet.send(ok)
                if at_risk:
                    await self._dump(resend=True)
        else:
            self.seq = seq
        await self._catch_up()
        if self._positions:
            self._outlet.send(ok)
        await self._catch_up()
        self.is_live = True  # nothing waits between the last look into the journal and this

    async def _dump(self, *, resend: bool) -> bool:
        """Send all rows, or again those that a Cyrus replica may lose; whether there are such."""
        last: bytes | None = b""
        is_any = False
        while last is not None:
            rows, last = self._hub.mailboxes.rows(last)
            if self._hosts:
                rows = [(key, row) for key, row in rows if server_of_row(row) in self._hosts]
            if resend:
                rows = [(key, row) for key, row in rows if is_at_risk(key)]
            elif not self._positions and not is_any:
                is_any = any(is_at_risk(key) for key, _ in rows)
            if rows:
                lines = format_rows(self._tag, rows, literals=self._literals)
                del rows  # their octets wait for the peer once, not twice
                await self._outlet.send_all(lines)
            await line_up()  # other connections have their turn after each batch
        return is_any

    async def _catch_up(self) -> None:
        """Send what changed since `seq`. Every row once, as it is now."""
        while True:
            if self._send_changes():
                return
            await self._outlet.flush()
            await line_up()

    def _send_changes(self) -> bool:
        """One batch from the journal; whether that was all."""
        following = self._hub.mailboxes.follow(self.seq)
        if following.is_lost:
            self._outlet.cut("too far behind")
            raise ConnectionResetError("the subscriber is too far behind")
        lines = self._lacking_line() + [
            format_row(self._tag, key, row, literals=self._literals)
            for _, key, row in following.changes
            if not self._hosts or self._concerns(key, row)
        ]
        if following.mark is not None and (self._mark_owed or following.seq > self.seq):
            lines += [format_position(self._tag, following.mark)] if self._positions else []
            self._mark_owed = False
        self.seq = following.seq
        if lines:
            self._outlet.send(b"".join(lines))
        if following.mark is not None:
            self._left.clear()
            return True
        return False

    def _lacking_line(self) -> list[bytes]:
        """Whether the list may have lost mailboxes, where the peer does not know: asked behind the changes, and told before
        them."""
        if not self._positions:
            return []
        noted, known = self._hub.mailboxes.note(LACKING), self._lacking
        if noted == known:
            return []
        self._lacking = noted
        at, count = parse_lacking(noted)
        return [format_lacking(self._tag, count, max(0, int(time.time() - at)))]

    def _concerns(self, key: bytes, row: bytes | None) -> bool:
        return (row is not None and server_of_row(row) in self._hosts) or key in self._left

    # Live

    def committed(self, committed: Committed, octets: int) -> None:
        """Called by the hub after each commit, in order. `octets`: of its rows."""
        if not self.is_live or self._outlet.is_full or self._lagging_since:
            self._fall_behind(committed, octets)
            return
        changes = committed.changes
        if committed.seq <= self.seq:
            return
        if changes and changes[0].seq <= self.seq:
            changes = [change for change in changes if change.seq > self.seq]
        elif not changes or changes[0].seq != self.seq + 1 or octets > LIVE_OCTETS:
            self._send_on()  # many at once, or another process was in between: the journal knows
            return
        if not changes:
            return
        is_less = None in [change.row for change in changes]
        lines = (self._lacking_line() if is_less else []) + [
            format_row(self._tag, change.key, change.row, literals=self._literals)
            for change in changes
            if not self._hosts
            or (change.row is not None and server_of_row(change.row) in self._hosts)
            or (change.old_row is not None and server_of_row(change.old_row) in self._hosts)
        ]
        if self._positions:
            lines.append(format_position(self._tag, committed.mark))
        self.seq = committed.seq
        if lines:
            self._outlet.send(b"".join(lines))

    def _fall_behind(self, committed: Committed, octets: int) -> None:
        if self._hosts:
            self._left.update(
                change.key
                for change in committed.changes
                if change.old_row is not None and server_of_row(change.old_row) in self._hosts
            )
        if not self.is_live:
            return  # `run` comes past the journal
        now = self._hub.now()
        self._lagging_since = self._lagging_since or now
        self.backlog_octets += octets
        if self.backlog_octets > self._hub.max_backlog_octets:
            self._outlet.cut(f"{self.backlog_octets} octets behind")
        elif now - self._lagging_since > STUCK_S:
            self._outlet.cut(f"takes nothing for {STUCK_S:g} s")

    def cut(self, reason: str) -> None:
        """End it: the peer comes again, and is told what it needs."""
        self.is_live = False
        self._outlet.cut(reason)

    def writable(self) -> None:
        """The peer takes octets again."""
        if self.is_live and self._lagging_since:
            self._send_on()

    def poll(self, last_seq: int) -> None:
        """See to changes that no commit of this process has told of, and to peers that are stuck."""
        if not self.is_live:
            return
        if self._lagging_since:
            if self._hub.now() - self._lagging_since > STUCK_S:
                self._outlet.cut(f"takes nothing for {STUCK_S:g} s")
        elif last_seq > self.seq:
            self._send_on()

    def _send_on(self) -> None:
        """A page; the next one when others have had their turn, or the peer has taken enough."""
        try:
            if not self._outlet.is_full and self._send_changes():
                self._lagging_since = 0.0
                self.backlog_octets = 0
                return
        except ConnectionResetError:
            return
        self._lagging_since = self._lagging_since or self._hub.now()
        if not self._outlet.is_full:
            self._hub.later(self)

    def go_on(self) -> None:
        """For the hub, whom it has asked for that."""
        if self.is_live and self._lagging_since:
            self._send_on()

    def is_current(self) -> bool:
        """Whether all that is committed has been sent, after a look into the list: what NOOP asks."""
        if self.is_live and not self._lagging_since and self._hub.mailboxes.last_seq() > self.seq:
            self._send_on()
        return self.is_live and not self._lagging_since


class Hub:
    """All subscribers of one list."""

    def __init__(
        self,
        mailboxes: MailboxList,
        max_backlog_octets: int,
        hears: Callable[[Committed], None] = lambda _: None,
    ) -> None:
        """`hears`: who else in this process is told of each commit."""
        self.mailboxes = mailboxes
        self.max_backlog_octets = max_backlog_octets
        self.subscribers: set[Subscriber] = set()
        self._hears = hears
        self._timer: asyncio.TimerHandle | None = None
        self._later: dict[Subscriber, None] = {}
        self._goes_on = False

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def add(self, subscriber: Subscriber) -> None:
        self.subscribers.add(subscriber)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(until_look(POLL_S), self._poll)

    def later(self, subscriber: Subscriber) -> None:
        """Have it go on in a turn to come."""
        self._later[subscriber] = None
        if not self._goes_on:
            self._goes_on = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        end = time.perf_counter() + TURN_S
        for subscriber in list(self._later):  # who asks again comes behind them
            self._later.pop(subscriber, None)
            subscriber.go_on()
            if time.perf_counter() >= end:
                break
        if self._later and not self._goes_on:
            self._goes_on = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def remove(self, subscriber: Subscriber) -> None:
        self.subscribers.discard(subscriber)
        self._later.pop(subscriber, None)
        if not self.subscribers:
            self.close()

    def committed(self, committed: Committed) -> None:
        """For `Ledger.on_commit`."""
        self._hears(committed)
        if committed.is_anew:
            for subscriber in list(self.subscribers):
                subscriber.cut("the list has another history")
            return
        if not self.subscribers:
            return
        octets = sum([len(change.key) + len(change.row or b"") for change in committed.changes])
        for subscriber in list(self.subscribers):
            subscriber.committed(committed, octets)

    def _poll(self) -> None:
        last_seq = self.mailboxes.last_seq()
        for subscriber in list(self.subscribers):
            subscriber.poll(last_seq)
        self._timer = None
        if self.subscribers:
            self._timer = asyncio.get_running_loop().call_later(until_look(POLL_S), self._poll)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def lag(self) -> Sequence[int]:
        """How many changes each subscriber is behind."""
        last_seq = self.mailboxes.last_seq()
        return [last_seq - subscriber.seq for subscriber in self.subscribers]
