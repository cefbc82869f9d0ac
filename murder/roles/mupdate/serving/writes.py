"""What one connection changes in the master's list: gathered while its input is taken up, then one batch for the ledger.

Replies of a batch are one write, after the commit. Knows no commands that read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure, UpstreamKind
from murder.log import Log
from murder.model.name import MailboxName, display
from murder.roles.mupdate.commits.bounds import Bounds
from murder.roles.mupdate.commits.epochs import epoch_work
from murder.roles.mupdate.commits.ledger import Ledger, Work, carry_out
from murder.roles.mupdate.commits.owner import DONE, Taken
from murder.roles.mupdate.commits.proposal import Deactivate, Delete, Peer, proposal_of
from murder.roles.mupdate.commits.waiting import MAX_COMMIT_COST, ROW_COST
from murder.roles.mupdate.database.transaction import ListTransaction
from murder.roles.mupdate.serving.pulse import Pulse
from murder.wire.mupdate import UNAVAILABLE, Command, Kind, Verb, format_status

AWAY: Final = f"{UNAVAILABLE}the mailbox list does not answer now, try again later"
_DONE_LINE: Final = b' OK "%b"\r\n' % DONE.encode()
MAX_OUTSTANDING: Final = 5000  # writes of one connection that wait for the disk, and a few
# Of access lists that one connection has waiting, and one more; or more, where all connections together have no more than
# so many: long ones are cheaper together
MAX_BATCH_OCTETS: Final = 16 * 1024
MOST_OCTETS: Final = 1 << 20
MOST_OCTETS_OF_ALL: Final = 8 << 20


@dataclass(slots=True)
class Counters:
    """What an operator counts."""

    connections: int = 0
    changes: int = 0
    refused: int = 0
    conflicts: int = 0
    taken: int = 0  # active rows that an administrator took from their server
    octets_waiting: int = 0  # of access lists, on their way to the disk


class Writer(Protocol):
    """What is needed of the connection."""

    peer: Peer | None

    @property
    def log(self) -> Log: ...

    def answer(self, lines: bytes) -> None:
        """Send the replies of a batch, in order (nothing where it is lost), and go on."""
        ...

    def was_malformed(self) -> None:
        """A command among them was none."""
        ...


@dataclass(frozen=True, slots=True)
class _Refusing:
    """A proposal that is refused already, in its place among the others."""

    error: Exception

    def __call__(self, transaction: ListTransaction) -> object:
        return self.error


@dataclass(frozen=True, slots=True)
class _Awake:
    """A proposal that counts only while the process has been awake since it came."""

    pulse: Pulse
    number: int
    work: Work | _Refusing

    def __call__(self, transaction: ListTransaction) -> object:
        if not self.pulse.is_since(self.number):
            return UpstreamFailure(
                UpstreamKind.TIMEOUT, "this node", "it has stood still meanwhile"
            )
        return self.work(transaction)


class Writes:
    """See the module. One a connection; without a ledger all is refused."""

    __slots__ = (
        "_batch",
        "_bounds",
        "_cost",
        "_counters",
        "_ledger",
        "_octets",
        "_octets_waiting",
        "_outstanding",
        "_pulse",
        "_tags",
        "_writer",
        "is_full",
        "is_idle",
    )

    def __init__(
        self,
        writer: Writer,
        ledger: Ledger | None,
        bounds: Bounds,
        counters: Counters,
        pulse: Pulse | None = None,
    ) -> None:
        self._writer = writer
        self._ledger = ledger
        self._bounds = bounds
        self._counters = counters
        self._pulse = pulse
        self._batch: list[Work | _Refusing | _Awake] = []
        self._tags: list[bytes] = []
        self._cost = 0
        self._octets = 0  # of the access lists in it,
        self._octets_waiting = 0  # and of those handed to the ledger
        self._outstanding = 0
        # Asked before each command of the connection, and so no properties: there is nothing to be answered;
        self.is_idle = True
        self.is_full = False  # no more is taken up until what there is has been committed

    @property
    def is_answered(self) -> bool:
        """Whether nothing waits for the disk."""
        return not self._outstanding

    def _look(self) -> None:
        """Whether it is full, and idle."""
        self.is_idle = not self._outstanding and not self._batch
        self.is_full = self._has_enough()

    def _has_enough(self) -> bool:
        octets = self._octets + self._octets_waiting
        return (
            self._outstanding + len(self._batch) >= MAX_OUTSTANDING
            or self._cost >= MAX_COMMIT_COST
            or (
                octets >= MAX_BATCH_OCTETS
                and (
                    octets >= MOST_OCTETS
                    or self._counters.octets_waiting + self._octets >= MOST_OCTETS_OF_ALL
                )
            )
        )

    def refuse(self, tag: bytes, error: Exception) -> None:
        """An answer in its place among those to come."""
        self._batch.append(_Refusing(error))
        self._tags.append(tag)
        self._look()

    def add(self, command: Command, peer: Peer) -> None:
        self._take(command, peer)
        self._look()

    def add_all(self, commands: Sequence[Command]) -> None:
        """One behind the other; one that fails unexpectedly fails alone. Whether that is enough is looked at once, at the
        end."""
        take, writer = self._take, self._writer
        for command in commands:
            peer = writer.peer
            assert peer is not None
            try:
                take(command, peer)
            except Exception as error:  # noqa: BLE001 - the end of a command: told in its place
                self.refuse(command.tag, error)
        self._look()

    def _take(self, command: Command, peer: Peer) -> None:
        """Into the batch, or refused there."""
        if self._ledger is None:
            self.refuse(command.tag, BadSyntax("read-only session"))
            return
        if not peer.may_write:
            self.refuse(command.tag, Refusal(Code.NO_PERMISSION, f"{peer.name} may only read here"))
            return
        work: Work
        try:
            if command.verb is Verb.EPOCH:
                self._cost += ROW_COST
                work = epoch_work(command, peer)
            else:
                proposal = proposal_of(command, peer, self._bounds)
                if isinstance(proposal, Delete):
                    self._cost += ROW_COST + self._lines_of(proposal.name)
                else:
                    if isinstance(proposal, Deactivate):
                        self._cost += self._lines_of(proposal.wanted.name)
                    if proposal.server not in peer.claimed:
                        self._writer.peer = peer.claiming(proposal.server)
                    raw_acl = proposal.wanted.raw_acl
                    self._octets += len(raw_acl)
                    self._cost += ROW_COST + raw_acl.count(b"\t") // 2  # as `cost_of`
                work = partial(carry_out, proposal, self._bounds)
        except Refusal as refusal:
            self.refuse(command.tag, refusal)
            return
        self._batch.append(work)
        self._tags.append(command.tag)

    def _lines_of(self, name: MailboxName) -> int:
        """Of the index, that go with a row: as many as if it were put there."""
        assert self._ledger is not None
        row = self._ledger.mailboxes.row(name)
        return 0 if row is None else row.count(b"\t") // 2

    def submit(self) -> None:
        """Hand all writes of this turn to the ledger; replies come when they are durable."""
        if not self._batch:
            return
        batch, tags, cost, octets = self._batch, self._tags, self._cost, self._octets
        self._batch, self._tags, self._cost, self._octets = [], [], 0, 0
        if self._ledger is None:
            self._look()
            self._reply(tags, [write.error for write in batch if isinstance(write, _Refusing)])
            return
        self._outstanding += len(batch)
        self._octets_waiting += octets
        self._counters.octets_waiting += octets
        if self.is_full:  # else it has not become so: it is as much as before
            self._look()

        def durable(outcomes: Sequence[object]) -> None:
            self._outstanding -= len(outcomes)
            self._octets_waiting -= octets
            self._counters.octets_waiting -= octets
            self.is_idle = not self._outstanding and not self._batch
            if self.is_full:
                self.is_full = self._has_enough()
            if outcomes.count(DONE) == len(outcomes):  # nearly always
                self._counters.changes += len(tags)
                self._writer.answer(_DONE_LINE.join([*tags, b""]))
            else:
                self._reply(tags, outcomes)

        peer = self._writer.peer.name if self._writer.peer else ""
        if (pulse := self._pulse) is not None and self._ledger.is_shared:
            batch = [_Awake(pulse, pulse.number, work) for work in batch]
        self._ledger.propose(batch, durable, cost, peer, self)

    def _reply(self, tags: Sequence[bytes], outcomes: Sequence[object]) -> None:
        lines = []
        for tag, outcome in zip(tags, outcomes, strict=True):
            if type(outcome) is str:
                lines.append(b'%b OK "%b"\r\n' % (tag, outcome.encode()))
            elif type(outcome) is Taken:
                lines.append(tag + _DONE_LINE)
                self._tell_of(outcome)
            else:
                assert isinstance(outcome, Exception)
                lines.append(self._refusal_line(tag, outcome))
        self._counters.changes += len(lines)
        self._writer.answer(b"".join(lines))

    def _tell_of(self, taken: Taken) -> None:
        self._counters.taken += 1
        self._writer.log.warning(
            "mailbox.taken",
            mailbox=display(taken.name),
            backend=taken.taker,
            holder=taken.holder,
            node=self._writer.peer.name if self._writer.peer else "",
        )

    def _refusal_line(self, tag: bytes, error: Exception) -> bytes:
        counters, log = self._counters, self._writer.log
        match error:
            case Refusal(code=code):
                counters.refused += 1
                peer = self._writer.peer.name if self._writer.peer else ""
                if code is Code.IN_USE:
                    counters.conflicts += 1
                    log.warning("mailbox.conflict", node=peer, problem=error.text)
                elif code is Code.UNAVAILABLE:
                    return format_status(tag, Kind.NO, f"{UNAVAILABLE}{error.text}")
                elif code is Code.LIMIT:
                    log.warning("mailbox.beyond_limit", node=peer, problem=error.text)
                    return format_status(tag, Kind.NO, f"[{code.value}] {error.text}")
                return format_status(tag, Kind.NO, error.text)
            case BadSyntax():
                self._writer.was_malformed()
                return format_status(tag, Kind.BAD, error.text)
            case UpstreamFailure():
                log.warning(
                    "upstream.failed",
                    backend=error.server,
                    kind=error.kind.value,
                    problem=error.text,
                )
                return format_status(tag, Kind.NO, AWAY)
            case _:
                log.error("command.crashed", exc_info=error)
                return format_status(tag, Kind.NO, "internal error; the log has it")
