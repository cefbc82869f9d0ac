"""LMTP at a backend: recipients are mailboxes of the list, the message goes into the store (RFC 2033, RFC 5321 §4.4).

One `Incoming` serves all recipients, so the store keeps one copy where it can; 250 is said for a recipient only when his
copy is durable. `Delivered-To` is written for a single recipient: with more there is one text for all, and none of them
is told of the others.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from murder.api.store import Incoming, NewMessage
from murder.backend.shared import Backend
from murder.errors import Code, Refusal
from murder.login.line import LineService
from murder.login.lmtp import LmtpDialogue, folder_of, users_of
from murder.model.name import MailboxName, inbox_of, owner_of
from murder.net.connection import Connection
from murder.wire.lmtp import Envelope, clean, parse_recipient, reply

UNKNOWN = "No such user here"
DELIVERED = reply(250, "2.1.5", "Ok")


@dataclass(frozen=True, slots=True)
class Addressee:
    """An accepted recipient: where his copy goes, and what he was called."""

    mailbox: MailboxName
    address: bytes


class BackendLmtp(LmtpDialogue):
    """See the module."""

    def __init__(self, connection: Connection, service: LineService, backend: Backend) -> None:
        super().__init__(connection, service)
        self.backend = backend
        self.addressees: list[Addressee] = []
        backend.sessions.add(self)

    async def receive(self, given: Envelope) -> bytes:
        mailbox = self._mailbox_of(given.path)
        await self.backend.quotas.check_room(mailbox, messages=1)
        self.addressees.append(Addressee(mailbox, given.path))
        return DELIVERED

    def _mailbox_of(self, path: bytes) -> MailboxName:
        """The folder behind `+` where it exists and takes mail, else INBOX. Raises Refusal."""
        recipient = parse_recipient(path)
        mailboxes = self.backend.mailboxes
        users = users_of(recipient, domains=self.backend.domains)
        for user in users or [""]:
            folder = folder_of(recipient, user, self.backend.namespace)
            if folder is not None and mailboxes.may_post(folder):
                return folder
            if user and mailboxes.find(inbox_of(user)) is not None:
                return inbox_of(user)
        for user in users:
            mailboxes.check_has_not_left(inbox_of(user))
        if not users and folder is not None:
            mailboxes.check_has_not_left(folder)
        if not users and folder is not None and mailboxes.find(folder) is not None:
            raise Refusal(Code.NO_PERMISSION, "Nobody may post there")
        raise Refusal(Code.NONEXISTENT, UNKNOWN)

    async def begin_delivery(self) -> "Arrival":
        return Arrival(self, self.addressees)

    def forget(self) -> None:
        self.addressees = []

    def ended(self) -> None:
        super().ended()
        self.backend.sessions.discard(self)

    def trace(self) -> bytes:
        """The fields that final delivery puts on top (RFC 5321 §4.4)."""
        assert self.envelope is not None
        fields = [b"Return-Path: <" + self.envelope.path + b">"]
        if len(self.addressees) == 1:
            fields.append(b"Delivered-To: " + self.addressees[0].address)
        told = clean(self.peer_name.decode("utf-8", "replace")).replace("(", "[").encode()
        manner = b"LMTP" + b"S" * self.connection.is_tls + b"A" * (self.login is not None)
        date = format_datetime(datetime.now(UTC)).encode()
        fields += [
            b"Received: from %b ([%b])" % (told, self.peer_address.encode()),
            b"\tby %b with %b" % (self.service.server_name.encode(), manner),
            b"\tid %b; %b" % (self.connection.cid.encode(), date),
        ]
        return b"".join(field + b"\r\n" for field in fields)


class Arrival:
    """A message on its way into the store."""

    def __init__(self, dialogue: BackendLmtp, addressees: Sequence[Addressee]) -> None:
        self._dialogue = dialogue
        self._addressees = addressees
        self._store = dialogue.backend.store
        self._incoming: Incoming | None = None
        self._error: Exception | None = None
        try:
            self._incoming = self._store.incoming()
            self._incoming.write(dialogue.trace())
        except (Refusal, OSError) as error:
            self._error = error

    async def write(self, octets: bytes) -> None:
        if self._incoming is None or self._error is not None:
            return
        try:
            self._incoming.write(octets)
        except (Refusal, OSError) as error:
            self._error = error

    async def finish(self) -> AsyncIterator[bytes]:
        if self._incoming is None or self._error is not None:
            yield self._broken() * len(self._addressees)
            return
        message = NewMessage(self._incoming)
        answers = await asyncio.gather(
            *(self._deliver(addressee.mailbox, message) for addressee in self._addressees)
        )
        yield b"".join(answers)

    async def _deliver(self, name: MailboxName, message: NewMessage) -> bytes:
        """One recipient's copy, and his reply."""
        try:
            size = message.incoming.size
            async with self._dialogue.backend.quotas.room(name, octets=size, messages=1):
                mailbox = await self._store.open(name, owner_of(name) or "")
                try:
                    await mailbox.append([message])
                finally:
                    mailbox.close()
        except Refusal as refusal:
            if refusal.code is Code.NONEXISTENT:  # it was there at RCPT: moved or renamed since
                return reply(451, "4.2.0", "The mailbox has just gone, try again later")
            return self._dialogue.reply_for(refusal)
        except Exception as error:  # noqa: BLE001 - one recipient's trouble is not the others'
            return self._dialogue.reply_for(error)
        return DELIVERED

    def _broken(self) -> bytes:
        if isinstance(self._error, Refusal) and self._error.code is Code.OVER_QUOTA:
            return reply(452, "4.3.1", self._error.text)
        return self._dialogue.reply_for(self._error or OSError("no room for the message"))

    def abandon(self) -> None:
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None
