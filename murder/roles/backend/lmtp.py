"""LMTP at a backend: recipients are mailboxes of the list, the message goes into the store (RFC 2033, RFC 5321 §4.4).

One `Incoming` serves all recipients, so the store keeps one copy where it can; 250 is said for a recipient only when its
copy is durable. `Delivered-To` is written for a single recipient: with more there is one text for all, and none of them
is told of the others.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from murder.api.delivery import Arriving
from murder.api.store import Incoming, Mailbox, NewMessage
from murder.errors import Code, Refusal
from murder.log import plain_log
from murder.mime.section import select_fields
from murder.model.name import MailboxName, display, inbox_of, owner_of
from murder.net.connection import Connection
from murder.net.turns import line_up
from murder.roles.backend.filtering import Rejected, targets_of
from murder.roles.backend.imap.mail.content import end_of_header, size_told
from murder.roles.backend.records.duplicates import key_of
from murder.roles.backend.scripts.carry_out import Delivery, rejection_of
from murder.roles.backend.scripts.run import Ran, run_scripts, scripts_for
from murder.roles.backend.scripts.telling import facts_of, tell_owners
from murder.roles.backend.traced import place_of
from murder.roles.backend.worker import BackendWorker
from murder.serve.lmtp import LmtpDialogue, folder_of, shown_reply, users_of
from murder.serve.service import ClientService
from murder.serve.watched import traced
from murder.wire.lmtp import Envelope, clean, format_saved, parse_recipient, reply

UNKNOWN = "No such user here"
MAX_MESSAGE_ID_OCTETS = 1000
DELIVERED = reply(250, "2.1.5", "Ok")
MAX_REJECT_LINES: Final = 20  # of a filter's text
BEGUN_AT_ONCE: Final = 16  # copies, some 0.1 ms each; then all others have a turn


@dataclass(frozen=True, slots=True)
class Addressee:
    """An accepted recipient: where the copy goes, and how it was addressed."""

    mailbox: MailboxName
    address: bytes


class MailboxFull(Refusal):
    """A quota says so; a full disk is another matter."""


def full_if_so(refusal: Refusal) -> Refusal:
    """What a check of quotas raised, told apart from a full disk."""
    is_full = refusal.code is Code.OVER_QUOTA
    return MailboxFull(refusal.code, refusal.text) if is_full else refusal


class BackendLmtp(LmtpDialogue):
    """See the module."""

    def __init__(
        self, connection: Connection, service: ClientService, backend: BackendWorker
    ) -> None:
        super().__init__(connection, service)
        self.backend = backend.shared
        self.addressees: list[Addressee] = []
        self.backend.sessions.add(self)

    async def receive(self, given: Envelope) -> bytes:
        for user in users_of(parse_recipient(given.path), domains=self.backend.domains):
            await self.backend.notice(inbox_of(user))
        mailbox = self._mailbox_of(given.path)
        await self.check_room(mailbox)
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

    async def check_room(self, mailbox: MailboxName) -> None:
        """Raises MailboxFull."""
        try:
            await self.backend.quotas.check_room(mailbox, messages=1)
        except Refusal as refusal:
            raise full_if_so(refusal) from refusal

    @asynccontextmanager
    async def room(self, mailbox: MailboxName, octets: int) -> AsyncIterator[None]:
        """Room for a message, while it is added. Raises MailboxFull; a disk that is full raises what it raises."""
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(
                    self.backend.quotas.room(mailbox, octets=octets, messages=1)
                )
            except Refusal as refusal:
                raise full_if_so(refusal) from refusal
            yield

    def reply_for(self, error: BaseException) -> bytes:
        if isinstance(error, MailboxFull):
            permanent = self.backend.config.lmtp_over_quota == "permanent"
            return reply(552 if permanent else 452, "5.2.2" if permanent else "4.2.2", error.text)
        if isinstance(error, Refusal) and error.code is Code.OVER_QUOTA:  # the disk is
            return reply(452, "4.3.1", error.text)
        return super().reply_for(error)

    async def begin_delivery(self) -> "Arrival":
        arrival = Arrival(self, self.addressees)
        try:
            await arrival.write(self.trace())
        except BaseException:
            arrival.abandon()
            raise
        return arrival

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
        client = clean(self.peer_name.decode("utf-8", "replace")).replace("(", "[").encode()
        manner = b"LMTP" + b"S" * self.connection.is_tls + b"A" * (self.login is not None)
        date = format_datetime(datetime.now(UTC)).encode()
        fields += [
            b"Received: from %b ([%b])" % (client, self.peer_address.encode()),
            b"\tby %b with %b" % (self.service.server_name.encode(), manner),
            b"\tid %b; %b" % (self.connection.cid.encode(), date),
        ]
        return b"".join(field + b"\r\n" for field in fields)


@dataclass(frozen=True, slots=True)
class Copy:
    """Where a copy of the message is; no UID: it was there before."""

    mailbox: MailboxName
    mailbox_id: str
    uid: int | None
    place: str = ""  # backend.traced; "" where nobody wants to know

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        found: dict[str, object] = {
            "mailbox": display(self.mailbox),
            "mailbox_id": self.mailbox_id,
        }
        if self.uid is None:
            return {**found, "duplicate": True}
        return {**found, "uid": self.uid, **({"place": self.place} if self.place else {})}


# of abandoned messages; the loop alone would lose them
_CLOSING: Final[set["asyncio.Task[None]"]] = set()


class Arrival:
    """A message on its way into the store."""

    def __init__(self, dialogue: BackendLmtp, addressees: Sequence[Addressee]) -> None:
        self._dialogue = dialogue
        self._addressees = addressees
        self._store = dialogue.backend.store
        self._incoming: Incoming | None = None
        self._error: Exception | None = None
        self._saved = reply(250, "2.1.5", format_saved(dialogue.message_id))
        try:
            self._incoming = self._store.incoming()
        except (Refusal, OSError) as error:
            self._error = error

    async def write(self, octets: bytes) -> None:
        if self._incoming is None or self._error is not None:
            return
        try:
            await self._incoming.write(octets)
        except (Refusal, OSError) as error:
            self._error = error

    async def finish(self) -> AsyncIterator[bytes]:
        answers = await self._answers()
        if self._incoming is not None:
            incoming, self._incoming = self._incoming, None
            await incoming.close()
        yield answers

    async def _answers(self) -> bytes:
        if self._incoming is None or self._error is not None:
            answer = self._broken()
            for addressee in self._addressees:
                self._dialogue.note_refused(addressee.address, answer)
            return answer * len(self._addressees)
        size = await size_told(self._incoming.octets())
        message = NewMessage(self._incoming, told_size=size)
        answers: list[asyncio.Task[bytes]] = []
        async with asyncio.TaskGroup() as copies:
            for number, addressee in enumerate(self._addressees, 1):
                answers.append(copies.create_task(self._deliver(addressee, message)))
                if not number % BEGUN_AT_ONCE:
                    await line_up()
        return b"".join(answer.result() for answer in answers)

    async def _deliver(self, addressee: Addressee, message: NewMessage) -> bytes:
        """One recipient's copy, or what a filter makes of it; and the reply, which the mail log has, too."""
        copies: list[Copy] = []
        dialogue, attempt = self._dialogue, self._attempt(addressee, message, copies)
        session = dialogue.session_told
        answer = await traced(dialogue.service.spans, session, "LMTP delivery", attempt)
        if answer.startswith(b"2"):
            dialogue.service.figures.add("messages", "delivered")
            facts = dialogue.message_facts(addressee.address)
            dialogue.mail_log.info(
                "message.delivered",
                {
                    **facts,
                    "copies": [copy.shown() for copy in copies],
                    "reply": shown_reply(answer),
                },
            )
        else:
            dialogue.note_refused(addressee.address, answer)
        return answer

    async def _attempt(
        self, addressee: Addressee, message: NewMessage, copies: list["Copy"]
    ) -> bytes:
        """`copies`: what is kept."""
        try:
            arriving = self._arriving(addressee, message.incoming)
            if not await self._filter(arriving, message, copies):
                copies.append(await self._store_in(addressee.mailbox, message))
        except Rejected as refusal:
            return reply(
                550, "5.7.1", *refusal.text.splitlines()[:MAX_REJECT_LINES] or ["Rejected"]
            )
        except Refusal as refusal:
            if refusal.code is Code.NONEXISTENT:  # it was there at RCPT: moved or renamed since
                return reply(451, "4.2.0", "The mailbox has just gone, try again later")
            return self._dialogue.reply_for(refusal)
        except Exception as error:  # noqa: BLE001 - one recipient's trouble is not the others'
            return self._dialogue.reply_for(error)
        return self._saved

    async def _filter(self, arriving: Arriving, message: NewMessage, copies: list["Copy"]) -> bool:
        """What plugins decide, else the user's script; False where nobody does. Raises Refusal, UpstreamFailure."""
        dialogue, backend = self._dialogue, self._dialogue.backend
        if backend.filters:
            targets = await targets_of(backend, arriving, dialogue.log)
            if targets is not None:
                for target in targets:
                    flagged = replace(message, flags=target.flags)
                    copies.append(await self._store_in(target.mailbox, flagged))
                return True
        scripts = await scripts_for(backend, arriving)
        if not scripts:
            return False
        ran = await run_scripts(backend, arriving, scripts, dialogue.log)
        await self._carry_out(arriving, ran, message, copies)
        if ran.faults:
            await tell_owners(backend, ran.faults, self._store_made, dialogue.log)
        return True

    async def _carry_out(
        self, arriving: Arriving, ran: Ran, message: NewMessage, copies: list["Copy"]
    ) -> None:
        """Raises Rejected, Refusal, UpstreamFailure."""
        dialogue, backend = self._dialogue, self._dialogue.backend
        if ran.outcome is None:
            copies.append(await self._store_in(arriving.mailbox, message))
            return
        if (text := rejection_of(ran.outcome)) is not None:
            self._tell(facts_of(arriving.mailbox, ran.outcome, ran.scripts))
            raise Rejected(Code.NO_PERMISSION, text)

        async def store_in(name: MailboxName, new: NewMessage) -> None:
            copies.append(await self._store_in(name, new))

        assert backend.upstreams is not None
        delivery = Delivery(
            backend,
            backend.upstreams,
            arriving,
            ran.outcome,
            ran.scripts,
            message,
            store_in,
            self._store_made,
            dialogue.log,
        )
        facts = await delivery.carry_out()
        if facts is not None:
            self._tell(facts)

    def _tell(self, facts: Mapping[str, object]) -> None:
        """What scripts decided, for every message that they see: the short way into the log."""
        plain_log.info("message.filtered", {**self._dialogue.log_facts(), **facts})

    async def _store_made(self, name: MailboxName, message: NewMessage) -> None:
        """What is not the message that came: no copy of it, whatever its Message-ID."""
        async with self._dialogue.room(name, message.incoming.size):
            mailbox = await self._store.open(name, owner_of(name) or "")
            try:
                await mailbox.append([message])
            finally:
                mailbox.close()

    def _arriving(self, addressee: Addressee, incoming: Incoming) -> Arriving:
        dialogue = self._dialogue
        envelope = dialogue.envelope
        assert envelope is not None
        return Arriving(
            envelope.path,
            addressee.address,
            addressee.mailbox,
            owner_of(addressee.mailbox),
            incoming.octets(),
            dialogue.connection.cid,
            dialogue.peer_address,
        )

    async def _store_in(self, name: MailboxName, message: NewMessage) -> "Copy":
        async with self._dialogue.room(name, message.incoming.size):
            mailbox = await self._store.open(name, owner_of(name) or "")
            try:
                uid = await self._keep(mailbox, message)
                is_told = uid is not None and self._dialogue.mail_log.is_full
                place = await place_of(mailbox, uid or 0) if is_told else ""
                return Copy(name, mailbox.mailbox_id, uid, place)
            finally:
                mailbox.close()

    async def _keep(self, mailbox: Mailbox, message: NewMessage) -> int | None:
        """Into the mailbox, if it is not there already: its UID."""
        duplicates = self._dialogue.backend.duplicates
        if duplicates is None or not (message_id := self._message_id()):
            return (await mailbox.append([message]))[0]
        key = key_of(mailbox.mailbox_id, message_id)
        async with duplicates.alone(key):
            if await duplicates.has(key):
                shown = clean(message_id.decode("utf-8", "replace"))
                self._dialogue.log.info(
                    "message.duplicate", mailbox=display(mailbox.name), message_id=shown
                )
                return None
            uids = await mailbox.append([message])
            await duplicates.note(key)
            return uids[0]

    def _message_id(self) -> bytes:
        """As its header has it; empty where it has none."""
        assert self._incoming is not None
        octets = self._incoming.octets()
        header = bytes(octets[: end_of_header(octets)])
        field = select_fields(header, (b"Message-ID",), True)
        return b"".join(field.partition(b":")[2].split())[:MAX_MESSAGE_ID_OCTETS]

    def _broken(self) -> bytes:
        return self._dialogue.reply_for(self._error or OSError("no room for the message"))

    def abandon(self) -> None:
        if self._incoming is not None:
            closing = asyncio.get_running_loop().create_task(self._close(self._incoming))
            _CLOSING.add(closing)
            closing.add_done_callback(_CLOSING.discard)
            self._incoming = None

    async def _close(self, incoming: Incoming) -> None:
        try:
            await incoming.close()
        except (Refusal, OSError) as error:
            self._dialogue.reply_for(error)  # into the log: nobody waits for it
