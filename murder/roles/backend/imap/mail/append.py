"""APPEND, MULTIAPPEND, REPLACE and Cyrus' LOCALAPPEND (RFC 3501 §6.3.11, RFC 3502, RFC 4315, RFC 8508).

Large messages stream from the connection into the store's `Incoming`; nothing of them is held here. Whatever is
refused, the stream is left behind the command.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from murder.api.store import Incoming, Mailbox, NewMessage, ReplacesMessages
from murder.errors import BadSyntax, Code, Misuse, Refusal
from murder.model.acl import Rights
from murder.model.message import Uid
from murder.model.name import MailboxName
from murder.model.rights import changeable
from murder.model.seqset import SeqSet
from murder.net.turns import Turn
from murder.roles.backend.changes.updates import View
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.mail.copy import open_target
from murder.roles.backend.imap.mail.noted import note
from murder.roles.backend.imap.mail.posted import has_come, is_posted, open_posted
from murder.roles.backend.imap.mail.stop import after_stop
from murder.roles.backend.imap.mail.urls import octets_of_url
from murder.roles.backend.imap.mailboxes.quota import quota_warning
from murder.roles.backend.imap.message_sets import uids_of
from murder.roles.backend.messages.content import size_told
from murder.roles.backend.scripts.copies import write_in_turns
from murder.roles.backend.traced import trace_append, trace_expunge
from murder.serve.client import Running
from murder.session.imap_server import CommandRest
from murder.wire.fragment import Chunk, Literal
from murder.wire.imap.command import Command
from murder.wire.imap.mail.append import (
    AppendForm,
    AppendHead,
    LiteralHead,
    parse_append_end,
    parse_append_head,
    parse_append_mailbox,
    parse_catenate_part,
    parse_localappend_mailbox,
    parse_replace_target,
    take_literal,
)
from murder.wire.imap.mail.copy import format_appenduid
from murder.wire.imap.response import status_line
from murder.wire.token import Scanner

MAX_MESSAGES: Final = 10_000  # of one MULTIAPPEND
MAX_OCTETS_FACTOR: Final = 16  # and together so many times the largest message


def run_append(dialogue: BackendImap, command: Command) -> Running:
    """APPEND (RFC 3501 §6.3.11, MULTIAPPEND, CATENATE): the octets come while it runs."""
    return _append(dialogue, command, parse_append_mailbox)


def run_localappend(dialogue: BackendImap, command: Command) -> Running:
    """LOCALAPPEND, which a Cyrus frontend sends for APPEND."""
    return _append(dialogue, command, parse_localappend_mailbox)


async def _append(
    dialogue: BackendImap, command: Command, parse_mailbox: Callable[[Scanner], bytes]
) -> None:
    scanner = Scanner(command.octets, command.start)
    appending = _Append(dialogue, scanner, command.literal)
    async with appending.whole():
        code = await appending.into(dialogue.name_of(parse_mailbox(scanner)))
    await dialogue.finish(command, code=code)


def run_replace(dialogue: BackendImap, command: Command) -> Running:
    """REPLACE (RFC 8508)."""
    return _replace(dialogue, command, by_uid=False)


def run_uid_replace(dialogue: BackendImap, command: Command) -> Running:
    """UID REPLACE (RFC 8508)."""
    return _replace(dialogue, command, by_uid=True)


async def _replace(dialogue: BackendImap, command: Command, by_uid: bool) -> None:
    """RFC 8508: as one change where the store can do that; else the new message first, durable, then the old one goes."""
    scanner = Scanner(command.octets, command.start)
    appending = _Append(dialogue, scanner, command.literal, most=1)
    async with appending.whole():
        number, mailbox = parse_replace_target(scanner)
        dialogue.need_writable()
        dialogue.need_rights("te")
        doomed = await uids_of(dialogue, SeqSet(((number, number),)), by_uid)
        if not doomed or not await dialogue.now.mailbox.messages(doomed):
            raise Refusal(Code.NONEXISTENT, "The message to be replaced does not exist")
        target = dialogue.name_of(mailbox)
        code = await appending.into(target, doomed)
        removed = appending.removed
        if not removed:
            removed = await dialogue.now.mailbox.expunge(doomed)
            if not removed:
                await appending.take_back(target)
                raise Refusal(Code.NONEXISTENT, "Another session has removed it meanwhile")
            await dialogue.now.removed(removed)
        await trace_expunge(dialogue, dialogue.now.mailbox, removed)
    dialogue.send(status_line(b"*", b"OK", "Replaced", code))
    await dialogue.finish(command, code=await dialogue.removal_code())


class _Append:
    """The messages of one APPEND, as they come in."""

    def __init__(
        self,
        dialogue: BackendImap,
        scanner: Scanner,
        literal: Literal | None,
        most: int = MAX_MESSAGES,
    ) -> None:
        self._most = most
        self._dialogue = dialogue
        self._scanner = scanner
        self._announced = literal  # a literal that is announced and not answered
        self._streaming = False  # chunks of an accepted literal are still to come
        self._messages: list[NewMessage] = []
        self._uids: Sequence[Uid] = ()  # what was appended
        self._doomed: Sequence[Uid] = ()  # of the selected mailbox, what it is to replace
        self.removed: Sequence[Uid] = ()  # of those, what has gone with it
        self._octets = 0
        self._turn = Turn()  # there may be thousands of messages, or of parts

    @asynccontextmanager
    async def whole(self) -> AsyncIterator[None]:
        """Whatever is raised, the stream is left behind the command, and what was received is let go."""
        try:
            yield
        except (BadSyntax, Refusal):
            await self._skip_rest()
            raise
        finally:
            for message in self._messages:
                await message.incoming.close()

    async def into(self, name: MailboxName, doomed: Sequence[Uid] = ()) -> bytes:
        """Receive all messages and append them to a mailbox; the response code. Raises BadSyntax, Refusal."""
        self._doomed = doomed
        opened = open_posted if is_posted(self._dialogue) else open_target
        mailbox, accessible = await opened(self._dialogue, name)
        try:
            return await self._receive_and_store(mailbox, accessible.rights)
        finally:
            mailbox.close()

    async def take_back(self, name: MailboxName) -> None:
        """What `into` has appended there, as if it had never been."""
        mailbox, _ = await open_target(self._dialogue, name)
        try:
            removed = await mailbox.expunge(self._uids)
            await trace_expunge(self._dialogue, mailbox, removed)
        finally:
            mailbox.close()

    async def _receive_and_store(self, mailbox: Mailbox, rights: Rights) -> bytes:
        """Take all messages and append them; the response code."""
        while True:
            head = parse_append_head(self._scanner)
            await self._check(head, mailbox)
            incoming = await self._take(head, mailbox)
            flags = changeable(head.flags, rights)
            size = await size_told(incoming.octets())
            new = NewMessage(incoming, flags, head.internal_date, told_size=size)
            self._messages.append(new)
            if not parse_append_end(self._scanner, head.form):
                break
        if len(self._messages) == 1 and await has_come(self._dialogue, mailbox, incoming):
            return b""
        octets = sum(message.incoming.size for message in self._messages)
        quotas = self._dialogue.backend.quotas

        async def store() -> Sequence[Uid]:
            async with quotas.room(mailbox.name, octets, len(self._messages)):
                self._dialogue.need_peer()
                return await self._append(mailbox)

        uids = self._uids = await after_stop(self._dialogue, mailbox.name, store)
        self._dialogue.send(await quota_warning(self._dialogue, mailbox.name, octets, len(uids)))
        await self._dialogue.has_added(mailbox.mailbox_id, uids)
        await note(self._dialogue, mailbox.name, mailbox.mailbox_id, uids, "APPEND")
        await trace_append(self._dialogue, mailbox, self._messages, uids)
        return format_appenduid((await mailbox.status()).uid_validity, uids)

    async def _append(self, mailbox: Mailbox) -> Sequence[Uid]:
        if self._doomed and (uid := await self._replace(self._dialogue.now, mailbox)) is not None:
            return [uid]
        return await mailbox.append(self._messages)

    async def _replace(self, view: View, target: Mailbox) -> Uid | None:
        """As one change; None where it cannot be one."""
        source = view.mailbox
        if not isinstance(source, ReplacesMessages):
            return None
        replaced = await source.replace(self._doomed, self._messages[0], target)
        if replaced is None:
            return None
        uid, self.removed = replaced
        await view.removed(self.removed)
        return uid

    async def _check(self, head: AppendHead, mailbox: Mailbox) -> None:
        """Before a message's octets are asked for. Raises BadSyntax, Refusal."""
        if head.form is AppendForm.UTF8 and not self._dialogue.manner.utf8:
            raise BadSyntax("UTF8 has to be enabled first")
        if len(self._messages) >= self._most:
            raise Refusal(Code.LIMIT, "Too many messages for one APPEND")
        if head.literal is None:
            return
        if not head.literal.size:
            raise Refusal(Code.CANNOT, "A message has at least one octet")
        await self._count(head.literal.size, head.literal.size, mailbox)

    async def _count(self, more: int, size: int, mailbox: Mailbox) -> None:
        """So many octets more, of a message that will have `size`; others have their turn meanwhile. Raises Refusal."""
        if self._turn.is_over:
            await self._turn.rest()
        largest = self._dialogue.service.limits.max_message_bytes
        if size > largest:
            raise Refusal(Code.TOO_BIG, f"A message may have {largest} octets")
        self._octets += more
        if self._octets > MAX_OCTETS_FACTOR * largest:
            raise Refusal(Code.LIMIT, "Too much for one APPEND")
        quotas = self._dialogue.backend.quotas
        await quotas.check_room(mailbox.name, self._octets, len(self._messages) + 1)

    async def _take(self, head: AppendHead, mailbox: Mailbox) -> Incoming:
        literal = head.literal
        incoming = self._dialogue.backend.store.incoming()
        try:
            if literal is not None:
                await self._take_literal(incoming, literal)
            else:
                await self._catenate(incoming, mailbox)
        except BaseException:
            await incoming.close()
            raise
        return incoming

    async def _take_literal(self, incoming: Incoming, literal: LiteralHead) -> None:
        announced = self._announced
        if announced is not None and self._scanner.at == len(self._scanner.octets):
            await self._stream(incoming, announced)
        else:
            await incoming.write(take_literal(self._scanner, literal))

    async def _catenate(self, incoming: Incoming, mailbox: Mailbox) -> None:
        """RFC 4469: a message of texts and of what URLs name."""
        first = True
        while (part := parse_catenate_part(self._scanner, first)) is not None:
            first = False
            if isinstance(part, LiteralHead):
                await self._count(part.size, incoming.size + part.size, mailbox)
                await self._take_literal(incoming, part)
            else:
                octets = await octets_of_url(self._dialogue, part)
                await self._count(len(octets), incoming.size + len(octets), mailbox)
                await write_in_turns(incoming, (octets,))

    async def _stream(self, incoming: Incoming, literal: Literal) -> None:
        dialogue = self._dialogue
        self._announced = None
        owed = dialogue.session.accept_literal(literal)
        self._streaming = True
        if owed:
            dialogue.send(owed)
        while True:
            event = await dialogue.next_event(dialogue.service.limits.command_timeout_s)
            if not isinstance(event, Chunk):
                raise Misuse(f"a literal was expected, not {type(event).__name__}")
            if event.last:
                self._streaming = False
            await incoming.write(event.data)
            if event.last:
                break
        await self._go_on()

    async def _go_on(self) -> None:
        """Behind a literal: the rest of the command, up to its end or the next announced literal."""
        dialogue = self._dialogue
        event = await dialogue.next_event(dialogue.service.limits.command_timeout_s)
        if not isinstance(event, CommandRest):
            raise Misuse(f"the rest of a command was expected, not {type(event).__name__}")
        self._announced = event.literal
        self._scanner = Scanner(event.octets)

    async def _skip_rest(self) -> None:
        """The command is refused: leave the stream behind it."""
        dialogue = self._dialogue
        while self._streaming:
            event = await dialogue.next_event(dialogue.service.limits.command_timeout_s)
            self._streaming = not (isinstance(event, Chunk) and event.last)
            if not self._streaming:
                await self._go_on()
        if self._announced is not None:
            announced, self._announced = self._announced, None
            dialogue.session.refuse_literal(announced)
