"""POP3 at a backend: the TRANSACTION and UPDATE states on the user's INBOX (RFC 1939 §5 and §6).

What a session sees is fixed at its login: what others expunge it can read on, as far as the store keeps it. Nothing is
deleted without QUIT. Messages go out octet by octet as they are stored, whether the client has said UTF8 (RFC 6856) or
not: a header in UTF-8 is an odd header to an old client, and one that the server has rewritten would no longer be the
message that was signed, nor have the size that LIST told.
"""

from array import array
from collections.abc import Callable
from typing import ClassVar, Final

from murder.api.store import Mailbox
from murder.errors import Code, Refusal
from murder.mime.mapped import MAPPED_OCTETS, let_go
from murder.model.identity import Login
from murder.model.message import Uid
from murder.model.rights import Missing
from murder.net.connection import Connection
from murder.net.turns import Turn
from murder.roles.backend.changes.updates import View
from murder.roles.backend.maildrop import MaildropLock, lock_maildrop
from murder.roles.backend.messages.content import ends_of_header
from murder.roles.backend.records.last_pop import note_login
from murder.roles.backend.traced import trace_expunge
from murder.roles.backend.worker import BackendWorker
from murder.serve.client import Running
from murder.serve.line import ANY, LOGGED_IN, Row, Table
from murder.serve.pop3 import Pop3Dialogue
from murder.serve.service import ClientService
from murder.wire.dots import Stuffer
from murder.wire.pop3 import LISTED, ok, parse_numbers

PIECE_OCTETS: Final = 64 * 1024  # of a message, written at once
BATCH: Final = 1000  # messages told, or read, in one go; about a millisecond
COUNTED_OCTETS: Final = 16 * 1024  # of a message, whose lines are counted at once


class BackendPop3(Pop3Dialogue):
    """See the module."""

    _octets = 0  # of all messages
    _octets_left = 0  # of those that are not marked

    @property
    def offers_utf8(self) -> bool:
        return True

    def __init__(
        self, connection: Connection, service: ClientService, backend: BackendWorker
    ) -> None:
        super().__init__(connection, service)
        self.backend = backend.shared
        self._lock: MaildropLock | None = None
        self._mailbox: Mailbox | None = None
        self._view: View | None = None  # what others expunge is kept for it
        self._uids, self._sizes = array("I"), array("Q")  # of the messages, 12 octets each
        self._deleted: set[int] = set()  # message numbers, from 1
        self._uid_validity = 0
        self._may_delete = False
        self.backend.sessions.add(self)

    async def open_maildrop(self, login: Login) -> bytes:
        await self.backend.ensure_inbox(login)
        name = self.maildrop_of(login, self.backend.namespace)
        try:
            mailbox, accessible = await self.backend.mailboxes.open_for(name, login, "r")
        except Missing as missing:
            raise await self.backend.without_maildrop(login, missing) from None
        try:
            self._lock = await lock_maildrop(
                self.backend.maildrop_locks, name, lambda: self.connection.is_lost
            )
            self._view = View(mailbox, read_only=True)
            self.backend.tracker.enter(self._view)
            await self._read(mailbox)
            self._uid_validity = (await mailbox.status()).uid_validity
        except BaseException:
            self._release()
            mailbox.close()
            raise
        self._mailbox = mailbox
        self._may_delete = frozenset("te") <= accessible.rights
        await note_login(self.backend.annotations, name)
        return ok(f"{len(self._uids)} messages")

    async def _read(self, mailbox: Mailbox) -> None:
        uids = await mailbox.uids()
        turn = Turn()
        for start in range(0, len(uids), BATCH):
            for message in await mailbox.messages(uids[start : start + BATCH]):
                self._uids.append(message.uid)
                self._sizes.append(message.size)
                self._octets += message.size
            if turn.is_over:
                await turn.rest()
        self._octets_left = self._octets

    def is_quiet(self) -> bool:
        return super().is_quiet() and not self._deleted  # what is marked would come again

    def ended(self) -> None:
        self._release()
        self.backend.sessions.discard(self)

    def _release(self) -> None:
        if self._view is not None:
            self.backend.tracker.leave(self._view)
            self._view = None
        if self._mailbox is not None:
            self._mailbox.close()
            self._mailbox = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # --- commands

    def _stat(self, arguments: bytes) -> None:
        self.send(ok(f"{self._count_left()} {self._octets_left}"))

    def _retr(self, arguments: bytes) -> Running:
        (number,) = parse_numbers(arguments, 1, 1)
        return self._retrieve(self._at(number), None)

    def _top(self, arguments: bytes) -> Running:
        number, lines = parse_numbers(arguments, 2, 2)
        return self._retrieve(self._at(number), lines)

    def _noop(self, arguments: bytes) -> None:
        self.send(ok())

    def _rset(self, arguments: bytes) -> None:
        self._octets_left = self._octets
        self._deleted.clear()
        self.send(ok())

    def _count_left(self) -> int:
        return len(self._uids) - len(self._deleted)

    def _at(self, number: int) -> int:
        """Where this message stands."""
        if not 1 <= number <= len(self._uids) or number in self._deleted:
            raise Refusal(Code.NONE, "No such message")
        return number - 1

    def _list(self, arguments: bytes) -> Running:
        if given := parse_numbers(arguments, 0, 1):
            self.send(ok(f"{given[0]} {self._sizes[self._at(given[0])]}"))
            return None
        return self._tell_all(f"{self._count_left()} messages", lambda at: b"%d" % self._sizes[at])

    def _uidl(self, arguments: bytes) -> Running:
        """`uidvalidity.uid`, as Cyrus: who moves here from it fetches nothing twice."""
        validity = self._uid_validity
        if given := parse_numbers(arguments, 0, 1):
            self.send(ok(f"{given[0]} {validity}.{self._uids[self._at(given[0])]}"))
            return None
        return self._tell_all("", lambda at: b"%d.%d" % (validity, self._uids[at]))

    async def _tell_all(self, first: str, fact: Callable[[int], bytes]) -> None:
        """A line for each message that is not deleted, some at a time: no more of them in memory than the client lags."""
        self.send(ok(first))
        for start in range(0, len(self._uids), BATCH):
            places = range(start, min(start + BATCH, len(self._uids)))
            lines = [
                b"%d %b\r\n" % (at + 1, fact(at)) for at in places if at + 1 not in self._deleted
            ]
            self.send(b"".join(lines))
            await self.flush()
        self.send(LISTED)
        self.understood()

    def _dele(self, arguments: bytes) -> None:
        (number,) = parse_numbers(arguments, 1, 1)
        self._at(number)
        if not self._may_delete:
            raise Refusal(Code.NO_PERMISSION, "You may not delete here")
        self._deleted.add(number)
        self._octets_left -= self._sizes[number - 1]
        self.send(ok(f"Message {number} will be deleted"))

    async def _retrieve(self, at: int, lines: int | None) -> None:
        """The message, or its header and so many lines of its body; no more of it in memory than the client lags."""
        assert self._mailbox is not None
        octets = await self._mailbox.octets(Uid(self._uids[at]))
        end = len(octets) if lines is None else await _end_of_top(octets, lines)
        stuffer = Stuffer()
        self.send(ok(f"{self._sizes[at]} octets"))
        for start in range(0, end, PIECE_OCTETS):
            self.send(stuffer.feed(bytes(octets[start : min(start + PIECE_OCTETS, end)])))
            if self.connection.writing_paused or not start % MAPPED_OCTETS:
                let_go(octets)
            await self.flush()
        self.send(stuffer.end())
        self.understood()

    def _quit(self, arguments: bytes) -> Running:
        return self._leave(arguments) if self.login is None else self._update()

    async def _update(self) -> None:
        """The UPDATE state (RFC 1939 §6)."""
        assert self._mailbox is not None
        if self._deleted:
            doomed = [Uid(self._uids[number - 1]) for number in sorted(self._deleted)]
            await trace_expunge(self, self._mailbox, await self._mailbox.expunge(doomed))
            self._deleted.clear()
        self._release()
        self.send(ok("Goodbye"))
        self.close()

    TABLE: ClassVar[Table] = {
        **Pop3Dialogue.TABLE,
        b"STAT": Row(LOGGED_IN, _stat),
        b"LIST": Row(LOGGED_IN, _list),
        b"UIDL": Row(LOGGED_IN, _uidl),
        b"RETR": Row(LOGGED_IN, _retr),
        b"TOP": Row(LOGGED_IN, _top),
        b"DELE": Row(LOGGED_IN, _dele),
        b"NOOP": Row(LOGGED_IN, _noop),
        b"RSET": Row(LOGGED_IN, _rset),
        b"QUIT": Row(ANY, _quit),
    }


async def _end_of_top(octets: memoryview, lines: int) -> int:
    """Where the header and so many lines of the body end. Looked for a piece at a time: a message may be line ends alone, or
    have no end of a header."""
    turn = Turn()
    at = 0
    for end in ends_of_header(octets):
        if end is not None:
            at = end
        elif turn.is_over:
            let_go(octets)
            await turn.rest()
    while lines and at < len(octets):
        piece = bytes(octets[at : at + COUNTED_OCTETS])
        there = piece.count(b"\n")
        if there >= lines:
            return at + _end_of_line(piece, lines)
        lines -= there
        at += len(piece)
        if turn.is_over:
            let_go(octets)
            await turn.rest()
    return at


def _end_of_line(octets: bytes, number: int) -> int:
    """Behind this line, of those that are there."""
    at = 0
    for _ in range(number):
        at = octets.index(b"\n", at) + 1
    return at
