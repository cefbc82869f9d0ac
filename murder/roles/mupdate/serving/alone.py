"""One command that is all of what has come, and nothing else is on its way: carried out in few steps. Nearly all are such: a
frontend asks where one mailbox is (FIND), a backend announces one and waits. What is not so plain goes the way of all
commands (`net.dialogue`), and is answered alike.
"""

from typing import Final, Protocol

from murder.model.name import collation_key
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.commits.proposal import Peer
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.record import ACTIVE, HEAD, HEAD_OCTETS, QUOTABLE
from murder.roles.mupdate.serving.pulse import Pulse
from murder.roles.mupdate.serving.stream import format_rows
from murder.roles.mupdate.serving.writes import Writes
from murder.serve.client import ClientDialogue, Serving
from murder.session.mupdate_server import MupdateServerSession
from murder.wire.mupdate import PLAIN_FIND, Command, plain_write

FIND_WITHIN: Final = 64  # of what has come: a tag is shorter
NOTED_OCTETS: Final = 4096  # what is written less at a time is not worth counting


class ServesList(Serving, Protocol):
    """What is needed of the service."""

    mailboxes: MailboxList
    ledger: Ledger | None
    pulse: Pulse | None

    def goes_on(self) -> bool:
        """The process has stood still: whether who spoke before is still heard."""
        ...


class AloneDialogue(ClientDialogue):
    """See the module: what comes in first, and how writes are answered."""

    service: ServesList
    session: MupdateServerSession
    peer: Peer | None = None
    _writes: Writes
    _held: Command | None = None  # a read that waits for the writes before it
    _is_alone = False  # what came last stood alone: nothing of it waits here

    def written(self) -> None:
        """Writes have been answered: go on with what waits for them."""
        raise NotImplementedError

    def received(self, data: bytes) -> None:
        service = self.service
        pulse = service.pulse
        if pulse is not None and not pulse.beats() and not service.goes_on():
            return
        is_busy = self._task is not None or self._pump_is_due or self._pumping or self.is_closing
        is_free = not is_busy and self._held is None and not self.connection.writing_paused
        self._is_alone = is_free and self.session.may_be_plain(data)
        if self._is_alone:
            if data.find(b" FIND ", 0, FIND_WITHIN) > 0:
                self._is_alone = self._tell_found(data)
            else:
                self._is_alone = self._write(data)
        if not self._is_alone:
            super().received(data)

    def _write(self, data: bytes) -> bool:
        """Hand a change to the ledger, where it is a plain one; whether it was."""
        writes, peer = self._writes, self.peer
        if writes.is_full or peer is None or (command := plain_write(data)) is None:
            return False
        self.bad_commands = 0
        self.active_at = self.loop.time()
        writes.add(command, peer)
        writes.submit()
        return True

    def _tell_found(self, data: bytes) -> bool:
        """Answer a FIND at once; whether it is answered."""
        service = self.service
        ledger = service.ledger
        plain = PLAIN_FIND.fullmatch(data) if self._writes.is_idle else None
        is_shared = ledger is not None and ledger.is_shared
        if plain is None or (is_shared and ledger is not None and not ledger.is_ready):
            return False  # a list of its own is there from the beginning
        tag, size, literal, name = plain.groups()
        if literal is not None:
            if int(size) != len(literal):
                return False
            name = literal
        row = service.mailboxes.row(name)
        if row is None and is_shared:
            return False  # another master may know of it already
        self.bad_commands = 0
        self._say(format_found(tag, name, row))
        return True

    def input_ended(self) -> bool:
        self._is_alone = False  # the end waits for the answer
        return super().input_ended()

    def answer(self, lines: bytes) -> None:
        """For `writes.Writer`."""
        self._say(lines)
        if not self._is_alone:
            self.written()

    def _say(self, lines: bytes) -> None:
        connection = self.connection
        self.active_at = self.loop.time()
        is_short = len(lines) < NOTED_OCTETS
        if connection.is_plain and is_short and not (connection.gathered or self._pumping):
            connection.transport.write(lines)
        elif not connection.is_lost:
            self.send(lines)


def format_found(tag: bytes, name: bytes, row: bytes | None) -> bytes:
    """The answer to FIND, of a name and its row, None for none."""
    if row is None:
        return _OK % tag
    _, flags, length = HEAD.unpack_from(row)
    if flags != ACTIVE | QUOTABLE or b"!" in name:
        return format_rows(tag, [(collation_key(name), row)]) + _OK % tag
    middle = HEAD_OCTETS + length
    return _PLAIN % (tag, name, row[HEAD_OCTETS:middle], row[middle:], tag)


_OK: Final = b'%b OK "Search completed"\r\n'
_PLAIN: Final = b'%b MAILBOX "%b" "%b" "%b"\r\n' + _OK
