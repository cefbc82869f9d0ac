"""An operator's program reads mailboxes for a backup, while people use them: frames behind the command XBACKUP.

Nothing is locked and nothing changes. The program asks for what has changed since it was last here, counts at the end, and
asks again until nothing has happened meanwhile: so each mailbox is in the backup as it was at one mod-sequence.
"""

from typing import Final

from murder.api import CarriesMailboxes
from murder.errors import BadSyntax, Code, Refusal
from murder.model.message import ModSeq
from murder.model.name import MailboxName, no_such_mailbox, owner_of
from murder.net.frames import FrameChannel, words_of
from murder.net.turns import aside, line_up
from murder.roles.backend.moves.outgoing import HIGHEST, PAGE_MESSAGES, Pace
from murder.roles.backend.records.annotations import NOTE_KEYS
from murder.roles.backend.shared import Backend
from murder.wire.nodes.backup_words import (
    AskUser,
    Count,
    Counted,
    Fetch,
    Look,
    Looked,
    Octets,
    Page,
    Request,
    format_counted,
    format_looked,
    format_octets,
    format_page,
    format_subscribed,
    parse_request,
)
from murder.wire.nodes.carry import Words
from murder.wire.nodes.carry_answers import Refused, format_answer

NOTE_KINDS: Final = {key(MailboxName(b""))[0]: key for key in NOTE_KEYS}


class Reading:
    """One connection of an operator's program."""

    def __init__(self, backend: Backend, channel: FrameChannel) -> None:
        store = backend.store
        if not isinstance(store, CarriesMailboxes):
            raise Refusal(
                Code.CANNOT, f"The store {backend.config.store} cannot be read as a whole"
            )
        self._backend = backend
        self._store: CarriesMailboxes = store
        self._channel = channel
        self._pace = Pace(backend.config.move_bytes_per_s)

    async def serve(self) -> None:
        """Answer until it has gone. Raises UpstreamFailure."""
        while True:
            words = await words_of(await self._channel.receive())
            try:
                request = await aside(parse_request, words)
                if isinstance(request, Fetch):
                    await self._fetch(request)
                else:
                    await self._channel.send(await self._answer(request))
            except BadSyntax as error:
                text = f"that is no request: {error.text}"
                await self._channel.send(format_answer(Refused(Code.CANNOT, text)))
            except Refusal as refusal:
                await self._channel.send(format_answer(Refused(refusal.code, refusal.text)))

    async def _answer(self, request: Request) -> Words:
        match request:
            case Look():
                return await self._look(request)
            case Page(name, since, after):
                self._need(name)
                return format_page(await self._store.rows(name, since, after, PAGE_MESSAGES))
            case Count(name):
                return await self._count(name)
            case AskUser(user):
                return format_subscribed(sorted(await self._backend.store.subscriptions(user)))
            case _:
                raise Refusal(Code.CANNOT, "that has no answer")

    def _need(self, name: MailboxName) -> None:
        """What only the store has (it has left, or arrives) is not this server's to give."""
        if self._backend.mailboxes.list.find(name) is None:
            raise no_such_mailbox(name)

    async def _look(self, request: Look) -> Words:
        name = request.name
        mailboxes = self._backend.mailboxes
        entry = mailboxes.list.find(name)
        if entry is None:
            raise no_such_mailbox(name)
        since = request.since if request.since else HIGHEST  # all rows come: no tombstone is needed
        portrait = await self._store.portrait(name, ModSeq(since))
        notes = {
            kind: octets
            for kind, key in NOTE_KINDS.items()
            if (octets := mailboxes.list.note(key(name)))
        }
        return format_looked(Looked(portrait, entry.raw_acl, notes))

    async def _count(self, name: MailboxName) -> Words:
        self._need(name)
        mailbox = await self._backend.store.open(name, owner_of(name) or "")
        try:
            status = await mailbox.status()
        finally:
            mailbox.close()
        return format_counted(Counted(status.messages, status.highest_modseq))

    async def _fetch(self, request: Fetch) -> None:
        """A message that cannot be read is told, and the next one follows."""
        self._need(request.name)
        mailbox = await self._backend.store.open(request.name, owner_of(request.name) or "")
        try:
            for uid in request.uids:
                octets, answer = None, Octets(uid)
                try:
                    octets = await mailbox.octets(uid)
                    answer = Octets(uid, len(octets))
                except Refusal as refusal:
                    is_gone = refusal.code is Code.EXPUNGE_ISSUED
                    answer = Octets(uid, 0, is_gone, "" if is_gone else refusal.text)
                except (OSError, ValueError) as error:
                    answer = Octets(uid, problem=str(error)[:200])
                await self._channel.send(format_octets(answer))
                if octets is not None:
                    await self._channel.send_octets(octets)
                    await self._pace.keep(len(octets))
                await line_up()
        finally:
            mailbox.close()
