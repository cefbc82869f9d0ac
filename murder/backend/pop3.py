"""POP3 at a backend: the TRANSACTION and UPDATE states on the user's INBOX (RFC 1939 §5 and §6).

What a session sees is fixed at its login. Nothing is deleted without QUIT. Messages go out octet by octet as they are
stored, whether the client has said UTF8 (RFC 6856) or not: a header in UTF-8 is an odd header to an old client, and one
that his server has rewritten would no longer be the message that was signed, nor have the size that LIST told.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from murder.api.store import Mailbox
from murder.backend.maildrop import MaildropLock, lock_maildrop
from murder.backend.shared import Backend
from murder.errors import BadSyntax, Code, Refusal
from murder.login.gate import Login
from murder.login.imap import Running
from murder.login.pop3 import Pop3Dialogue
from murder.login.service import ClientService
from murder.model.message import Message
from murder.net.connection import Connection
from murder.wire.dots import Stuffer
from murder.wire.pop3 import listing, ok, parse_numbers

PIECE_OCTETS: Final = 64 * 1024  # of a message, written at once
_HEADER_END: Final = re.compile(rb"\r?\n\r?\n")
_LINE_END: Final = re.compile(rb"\n")


class BackendPop3(Pop3Dialogue):
    """See the module."""

    @property
    def offers_utf8(self) -> bool:
        return True

    def __init__(
        self, connection: Connection, service: ClientService, backend: Backend, locks: Path
    ) -> None:
        super().__init__(connection, service)
        self.backend = backend
        self._locks = locks
        self._lock: MaildropLock | None = None
        self._mailbox: Mailbox | None = None
        self._messages: Sequence[Message] = ()
        self._deleted: set[int] = set()  # message numbers, from 1
        self._uid_validity = 0
        self._may_delete = False
        backend.sessions.add(self)

    async def open_maildrop(self, login: Login) -> bytes:
        await self.backend.ensure_inbox(login)
        name = self.maildrop_of(login, self.backend.namespace)
        mailbox, found = await self.backend.mailboxes.open_for(name, login, "r")
        try:
            self._lock = await lock_maildrop(self._locks, name, lambda: self.connection.is_lost)
            self._messages = await mailbox.messages()
            self._uid_validity = (await mailbox.status()).uid_validity
        except BaseException:
            mailbox.close()
            self._release()
            raise
        self._mailbox = mailbox
        self._may_delete = frozenset("te") <= found.rights
        return ok(f"{len(self._messages)} messages")

    def is_quiet(self) -> bool:
        return super().is_quiet() and not self._deleted  # what is marked would come again

    def ended(self) -> None:
        self._release()
        self.backend.sessions.discard(self)

    def _release(self) -> None:
        if self._mailbox is not None:
            self._mailbox.close()
            self._mailbox = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # --- commands

    def transact(self, keyword: bytes, arguments: bytes) -> Running:
        match keyword:
            case b"STAT":
                left = [message.size for _, message in self._left()]
                self.send(ok(f"{len(left)} {sum(left)}"))
            case b"LIST":
                self._list(arguments)
            case b"UIDL":
                self._uidl(arguments)
            case b"RETR":
                (number,) = parse_numbers(arguments, 1, 1)
                return self._retrieve(self._message(number), None)
            case b"TOP":
                number, lines = parse_numbers(arguments, 2, 2)
                return self._retrieve(self._message(number), lines)
            case b"DELE":
                self._dele(arguments)
            case b"NOOP":
                self.send(ok())
            case b"RSET":
                self._deleted.clear()
                self.send(ok())
            case b"QUIT":
                return self._quit()
            case _:
                raise BadSyntax("no command of this server, or not after login")
        return None

    def _left(self) -> list[tuple[int, Message]]:
        numbered = enumerate(self._messages, 1)
        return [(number, message) for number, message in numbered if number not in self._deleted]

    def _message(self, number: int) -> Message:
        if not 1 <= number <= len(self._messages) or number in self._deleted:
            raise Refusal(Code.NONE, "No such message")
        return self._messages[number - 1]

    def _list(self, arguments: bytes) -> None:
        if given := parse_numbers(arguments, 0, 1):
            self.send(ok(f"{given[0]} {self._message(given[0]).size}"))
            return
        left = self._left()
        self.send(listing(f"{len(left)} messages", [b"%d %d" % (n, m.size) for n, m in left]))

    def _uidl(self, arguments: bytes) -> None:
        """`uidvalidity.uid`, as Cyrus: who moves here from it fetches nothing twice."""
        validity = self._uid_validity
        if given := parse_numbers(arguments, 0, 1):
            self.send(ok(f"{given[0]} {validity}.{self._message(given[0]).uid}"))
            return
        lines = [b"%d %d.%d" % (number, validity, m.uid) for number, m in self._left()]
        self.send(listing("", lines))

    def _dele(self, arguments: bytes) -> None:
        (number,) = parse_numbers(arguments, 1, 1)
        self._message(number)
        if not self._may_delete:
            raise Refusal(Code.NO_PERMISSION, "You may not delete here")
        self._deleted.add(number)
        self.send(ok(f"Message {number} will be deleted"))

    async def _retrieve(self, message: Message, lines: int | None) -> None:
        """The message, or its header and so many lines of its body; no more of it in memory than the client lags."""
        assert self._mailbox is not None
        octets = await self._mailbox.octets(message.uid)
        end = len(octets) if lines is None else _end_of_top(octets, lines)
        stuffer = Stuffer()
        self.send(ok(f"{message.size} octets"))
        for at in range(0, end, PIECE_OCTETS):
            self.send(stuffer.feed(bytes(octets[at : min(at + PIECE_OCTETS, end)])))
            await self.flush()
        self.send(stuffer.end())

    async def _quit(self) -> None:
        """The UPDATE state (RFC 1939 §6)."""
        assert self._mailbox is not None
        if self._deleted:
            doomed = [self._messages[number - 1].uid for number in sorted(self._deleted)]
            await self._mailbox.expunge(doomed)
            self._deleted.clear()
        self._release()
        self.send(ok("Goodbye"))
        self.close()


def _end_of_top(octets: memoryview, lines: int) -> int:
    """Where the header and so many lines of the body end."""
    header = _HEADER_END.search(octets)
    if header is None:
        return len(octets)
    at = header.end()
    for _ in range(lines):
        found = _LINE_END.search(octets, at)
        if found is None:
            return len(octets)
        at = found.end()
    return at
