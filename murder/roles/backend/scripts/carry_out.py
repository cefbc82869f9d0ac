"""What a script has decided is done: copies first, here and at other backends, then what is to be sent is put down.

No message is lost: nothing is said to the sender before all copies are durable. Nothing is done twice: where there are
several steps their beginning is noted, and the sender's retry looks which of them were done before a crash.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from murder.api.delivery import Arriving
from murder.api.store import AppendsOnce, Mailbox, NewMessage, Once
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.log import Log
from murder.model.name import display
from murder.net.outgoing.upstream import Upstreams
from murder.net.turns import Turn
from murder.roles.backend.changes.events import MailQueued
from murder.roles.backend.records.deliveries import DONE, KEEP_S, Mail, key_of
from murder.roles.backend.records.remembered import Entry, book_of
from murder.roles.backend.scripts.copies import Copies, write_in_turns
from murder.roles.backend.scripts.elsewhere import Known, append_elsewhere, known_of
from murder.roles.backend.scripts.places import Place, find_by_id, find_place, resolve_special_use
from murder.roles.backend.scripts.run import (
    Chosen,
    environment_of,
    own_addresses,
    seen_entry,
    whose,
)
from murder.roles.backend.scripts.telling import facts_of
from murder.roles.backend.shared import Backend
from murder.sieve import (
    FileInto,
    Keep,
    Notify,
    Outcome,
    Pipe,
    Redirect,
    Remember,
    Reply,
    Target,
)
from murder.sieve.run.message import Message as ScriptMessage
from murder.wire.imap.flag import parse_flag_list
from murder.wire.token import Scanner

MAX_LOOKED_AT: Final = 1000  # messages that have come since a delivery was begun
MAX_RECEIVED: Final = 50  # hops of a message that is still redirected
KEY_OCTETS: Final = 64 * 1024  # of a body, by which a message is known again
REDIRECTED: Final = b"X-Sieve-Redirected-From: "
ON_TOP_OCTETS: Final = 64 * 1024  # in which they are looked for; a sender may put any number there
_ON_TOP: Final = re.compile(rb"(?:(?:Return-Path|Delivered-To):[^\n]*+\n)*+")
NO_WAY: Final = "This server sends no mail; try again later"
NO_ROOM: Final = "Too much mail of this mailbox's filter waits to be sent, try again later"
NO_PROGRAM: Final = "A program that this mailbox's filter needs has failed, try again later"


@dataclass(frozen=True, slots=True)
class Step:
    """One copy: where, with which flags, of which version of the message."""

    place: Place
    flags: frozenset[str]
    version: int


class Delivery:
    """One recipient's message, and the outcome of these scripts. `message` is what came. `occasion`: the message lies in its
    mailbox already, and this names why its scripts run; whether it stays there, `stays` tells then."""

    def __init__(
        self,
        backend: Backend,
        upstreams: Upstreams,
        arriving: Arriving,
        outcome: Outcome,
        scripts: Sequence[Chosen],
        message: NewMessage,
        copies: Copies,
        log: Log,
        occasion: str = "",
    ) -> None:
        self._backend = backend
        self._upstreams = upstreams
        self._arriving = arriving
        self._user: str = arriving.user or ""
        self._whose = whose(arriving)
        self._outcome = outcome
        self._scripts = scripts
        self._own: frozenset[str] = frozenset()  # addresses of the user
        self._message = message
        self._copies = copies
        self._log = log
        self._kept = False  # a copy is safe here
        self._occasion = occasion
        self.stays = False
        # what a delivery noted when it began that ended in the middle, where this is its retry
        self._before: Mapping[str, int] | None = None
        self._known_by: str | None = None
        self._marks: frozenset[str] | None = None  # from where it has been redirected before

    async def carry_out(self) -> Mapping[str, object] | None:
        """What the log is to say of it (`message.filtered`); None where all of it had been done before. Raises Refusal,
        UpstreamFailure where the sender is to try again."""
        if any(isinstance(action, Redirect) for action in self._outcome.actions):
            own = await own_addresses(self._backend, self._arriving)
            self._own = frozenset(address.lower() for address in own)
        steps = await self._steps()
        mails = self._mails(keep=b"" if steps or self.stays else bytes(self._arriving.mailbox))
        without, bound = await self._backend.deliveries.without_room(mails)
        if without:
            self._refuse_for_now([mail for mail in mails if mail.key in without], bound)
            mails = [mail for mail in mails if mail.key not in without]
        pipes = [action for action in self._outcome.actions if isinstance(action, Pipe)]
        seen = [
            seen_entry(self._whose, action.once.handle, action.once.period_s)
            for action in self._outcome.actions
            if isinstance(action, Remember)
        ]
        has_effects = bool(steps or mails or seen or pipes)
        if self._occasion and has_effects:
            # nothing else tells that it has been done
            done = self._entry("done", self._message_key)
            if await self._backend.deliveries.was_seen(done):
                return None
            seen.append(done)
        deliveries = self._backend.deliveries
        is_alone = len(steps) <= 1 and not (mails or seen or pipes)
        if is_alone and not steps:
            return self._told(steps, mails)
        key = delivery_key(self._arriving, self._message_key)
        if is_alone and not steps[0].place.server and isinstance(self._backend.store, AppendsOnce):
            await self._store(steps[0], deliveries.once(key))
            return self._told(steps, mails)
        async with deliveries.alone(key):
            before = await deliveries.begin(key, await self._next_uids(steps))
            if before is DONE:
                return None
            self._before = before
            for step in steps:
                if before is None or not await self._was_done(step, before):
                    await self._do(step)
            for pipe in pipes:
                await self._pipe(pipe, is_safe=bool(steps or mails) or self.stays)
            new = await deliveries.end(key, mails, seen)
        if mails:
            self._backend.events.publish(MailQueued())
        await self._file_copies(new)
        return self._told(steps, mails)

    @property
    def _message_key(self) -> str:
        """The same for the same message, and hardly for another one that has its Message-ID."""
        if self._known_by is None:
            self._known_by = message_key(self._original) + self._occasion
        return self._known_by

    # --- copies

    async def _steps(self) -> list[Step]:
        """Each mailbox once; copies here before those elsewhere, and what is kept before all."""
        steps: dict[Place, Step] = {}
        for action in self._outcome.actions:
            match action:
                case Keep(flags=flags, version=version):
                    place = Place(self._arriving.mailbox)
                case FileInto(target=target, flags=flags, version=version):
                    place = await self._place(target)
                case Redirect(version=version) if self._goes_round:
                    place, flags = Place(self._arriving.mailbox), None
                case _:
                    continue
            if self._occasion and place == Place(self._arriving.mailbox):
                self.stays = True
                continue
            old = steps.get(place)
            both = self._flags(flags or ()) | (old.flags if old else frozenset())
            steps[place] = Step(place, both, old.version if old else version)
        kept = self._arriving.mailbox
        return sorted(steps.values(), key=lambda step: (step.place.server, step.place.name != kept))

    def _flags(self, flags: Sequence[str]) -> frozenset[str]:
        """Those of them that a client could set."""
        if not flags:
            return frozenset()
        try:
            scanner = Scanner(f"({' '.join(flags)})".encode("ascii"))
            return parse_flag_list(scanner)
        except (BadSyntax, UnicodeError) as error:
            self._log.warning("script.failed", user=self._user, script="", problem=str(error))
            return frozenset()

    async def _place(self, target: Target) -> Place:
        """Raises UpstreamFailure, Refusal(UNAVAILABLE) where that is not known now; what cannot be had for certain is the
        mailbox in which the message would be kept."""
        if target.mailbox_id:
            named = await find_by_id(self._backend, self._user, target.mailbox_id)
            if named is not None:
                return Place(named)
        if target.special_use:
            used = await resolve_special_use(self._backend, self._user, target.special_use)
            if used is not None:
                return Place(used)
        try:
            return await find_place(self._backend, self._user, target.mailbox, create=target.create)
        except (Refusal, BadSyntax) as error:
            if isinstance(error, Refusal) and error.code is Code.UNAVAILABLE:
                raise
            self._not_filed(target.mailbox, str(error))
            return Place(self._arriving.mailbox)

    def _not_filed(self, wanted: str, problem: str) -> None:
        self._log.warning(
            "message.not_filed",
            mailbox=display(self._arriving.mailbox),
            wanted=wanted[:200],
            problem=problem,
        )

    async def _do(self, step: Step) -> None:
        if not step.place.server:
            await self._store(step)
            self._kept = True
            return
        try:
            known = self._known(step) if self._before is not None else None
            await self._append(step.place, step.flags, self._pieces(step.version), known)
        except UpstreamFailure as failure:
            if not self._kept:
                raise
            self._not_filed(display(step.place.name), str(failure))  # and the message is safe
        except Refusal as refusal:
            self._not_filed(display(step.place.name), str(refusal))
            if not self._kept:
                await self._keep_instead(step)

    async def _keep_instead(self, step: Step) -> None:
        """What another backend does not take for good is kept here."""
        kept = replace(step, place=Place(self._arriving.mailbox))
        if self._before is None or not await self._was_done(kept, self._before):
            await self._store(kept)
        self._kept = True

    async def _store(self, step: Step, once: Once | None = None) -> None:
        if not step.version:
            message = self._message
            if message.flags != step.flags:
                message = replace(message, flags=step.flags)
            await self._copies.add(step.place.name, message, once)
            return
        incoming = self._backend.store.incoming()
        try:
            await write_in_turns(incoming, self._pieces(step.version))
            await self._copies.add(step.place.name, NewMessage(incoming, step.flags), once)
        finally:
            await incoming.close()

    def _pieces(self, version: int) -> Sequence[bytes | memoryview]:
        return self._outcome.messages[version].pieces

    async def _append(
        self,
        place: Place,
        flagged: frozenset[str],
        pieces: Sequence[bytes | memoryview],
        known: Known | None = None,
    ) -> None:
        """At another backend. Raises UpstreamFailure, Refusal."""
        words = (self._user, flagged, pieces, known)
        await append_elsewhere(self._backend, self._upstreams, place, *words)

    def _known(self, step: Step) -> Known:
        """By what the copy is known that an earlier try may have made there."""
        return known_of(self._outcome.messages[step.version])

    def _entry(self, kind: str, *facts: str, period_s: float = KEEP_S) -> Entry:
        """What was done in this name, and is not done again for so long."""
        return Entry(key_of(kind, self._whose, *facts), period_s, book_of(kind, self._whose))

    # --- programs

    async def _pipe(self, action: Pipe, *, is_safe: bool) -> None:
        """Once. Raises Refusal where it fails, and the message would be nowhere."""
        backend = self._backend
        piped = self._entry("pipe", self._message_key, action.key)
        if await backend.deliveries.was_seen(piped):
            return
        said = await backend.site.programs.run(
            "pipe",
            action.program,
            action.arguments,
            self._pieces(action.version),
            environment_of(self._arriving),
            self._log,
            for_user=bool(self._scripts[action.place.script].owner),
        )
        if said is not None:
            await backend.deliveries.see(piped)
        elif not is_safe and not action.may_fail:
            raise Refusal(Code.UNAVAILABLE, NO_PROGRAM)

    # --- copies of what is sent (RFC 8580)

    async def _file_copies(self, new: frozenset[bytes]) -> None:
        """Of what is sent now, not of what was found to have been sent. That one cannot be filed is said in the log."""
        for action in self._outcome.actions:
            if not isinstance(action, Reply | Notify) or action.copy is None:
                continue
            if self._mail_key(action.key) not in new:
                continue
            target = action.copy
            try:
                place = await self._place(target)
                await self._file_copy(place, self._flags(target.flags), action.octets)
            except (Refusal, UpstreamFailure) as error:
                self._not_filed(target.mailbox, str(error))

    async def _file_copy(self, place: Place, flags: frozenset[str], octets: bytes) -> None:
        if place.server:
            await self._append(place, flags, (octets,))
            return
        incoming = self._backend.store.incoming()
        try:
            await incoming.write(octets)
            await self._copies.add_made(place.name, NewMessage(incoming, flags))
        finally:
            await incoming.close()

    # --- after a crash

    async def _next_uids(self, steps: Sequence[Step]) -> Mapping[str, int]:
        """Behind which the copies will be, for who has to look whether they are there."""
        names = {step.place.name for step in steps if not step.place.server}
        if len(names) < len(steps):
            names.add(self._arriving.mailbox)  # for what is not taken elsewhere
        next_uids: dict[str, int] = {}
        for name in sorted(names):
            mailbox = await self._backend.store.open(name, self._user)
            try:
                next_uids[display(name)] = int((await mailbox.status()).uid_next)
            finally:
                mailbox.close()
        return next_uids

    async def _was_done(self, step: Step, before: Mapping[str, int]) -> bool:
        """Whether an earlier try, which ended in the middle, has made this copy."""
        if step.place.server:
            return False  # it is asked there
        since = before.get(display(step.place.name))
        if since is None:
            return False
        mailbox = await self._backend.store.open(step.place.name, self._user)
        try:
            # of one that a script has changed, the body may be another
            body = "" if step.version else body_key(self._original)
            has_come = await has_since(mailbox, since, self._outcome.key, body)
        finally:
            mailbox.close()
        self._kept = self._kept or has_come
        return has_come

    # --- what is to be sent

    @property
    def _original(self) -> ScriptMessage:
        original = self._outcome.original
        assert original is not None  # of every run
        return original

    @property
    def _goes_round(self) -> bool:
        """A message that has been redirected from here before, or has come a long way, is kept and goes no further."""
        message = self._original
        marks = message.named("x-sieve-redirected-from")
        if self._marks is None:
            self._marks = frozenset(
                field.value.strip().strip(b"<>").lower().decode("utf-8", "surrogateescape")
                for field in marks[:MAX_RECEIVED]
            )
        came_to = self._arriving.recipient.decode("utf-8", "surrogateescape").lower()
        from_here = not self._marks.isdisjoint({*self._own, came_to})
        return from_here or max(len(marks), len(message.named("received"))) > MAX_RECEIVED

    def _mails(self, keep: bytes) -> list[Mail]:
        """`keep`: where what is redirected is kept if it cannot be sent, b"" where it is safe. Raises Refusal where this
        server sends none."""
        mails: list[Mail] = []
        for action in self._outcome.actions:
            match action:
                case Redirect(address=address, version=version):
                    if self._goes_round:
                        continue
                    mail = self._mail(action.key, self._sender(), (address,), b"")
                    mails.append(replace(mail, pieces=self._redirected(version), keep=keep))
                case Reply(recipient=recipient, octets=octets, once=once, sender=sender):
                    facts = (once.handle, recipient.casefold())
                    replied = self._entry("vacation", *facts, period_s=float(once.period_s))
                    mail = self._mail(action.key, sender, (recipient,), octets)
                    mails.append(replace(mail, once=replied))
                case Notify(recipients=recipients, octets=octets, sender=sender):
                    if recipients:  # none: all of them were told of this message already
                        mails.append(self._mail(action.key, sender, recipients, octets))
                case _:
                    pass
        if mails and not self._backend.sends_mail:
            if any(isinstance(action, Redirect) for action in self._outcome.actions):
                raise Refusal(Code.UNAVAILABLE, NO_WAY)
            self._not_filed("[backend.submission]", "this server sends no mail: no reply is sent")
            return []
        return mails

    def _refuse_for_now(self, mails: Sequence[Mail], bound: str) -> None:
        """Too many wait, by that key. What is to be redirected comes again (raises Refusal); a reply is left out."""
        to = [recipient for mail in mails for recipient in mail.recipients]
        self._log.warning("outgoing.full", user=self._whose, to=to, limit=bound)
        if any(mail.pieces for mail in mails):
            raise Refusal(Code.UNAVAILABLE, NO_ROOM)

    def _mail(self, key: str, sender: str, recipients: tuple[str, ...], octets: bytes) -> Mail:
        named = (self._mail_key(key), self._user, sender, recipients, octets)
        return Mail(*named, whose=self._whose)

    def _mail_key(self, key: str) -> bytes:
        return key_of("mail", self._whose, self._message_key, key)

    def _sender(self) -> str:
        """Of the envelope of what is redirected."""
        sender, recipient = (
            octets.decode("utf-8", "surrogateescape")
            for octets in (self._arriving.sender, self._arriving.recipient)
        )
        return self._backend.redirect_senders.of(sender, recipient)

    def _redirected(self, version: int) -> Sequence[bytes | memoryview]:
        """Without what the delivery here put on top, and with the mark by which a loop is known."""
        first, *rest = self._pieces(version)
        mark = REDIRECTED + self._arriving.recipient + b"\r\n"
        return (mark, below_trace(first), *rest)

    # --- the log

    def _told(self, steps: Sequence[Step], mails: Sequence[Mail]) -> Mapping[str, object]:
        kept = self._arriving.mailbox
        return facts_of(
            kept,
            self._outcome,
            self._scripts,
            [display(step.place.name) for step in steps if step.place.name != kept],
            len(mails),
        )


def below_trace(octets: bytes | memoryview) -> memoryview:
    """A message without the fields that deliveries have put on top of it."""
    on_top = _ON_TOP.match(octets, 0, ON_TOP_OCTETS)
    return memoryview(octets)[on_top.end() if on_top is not None else 0 :]


def body_key(message: ScriptMessage) -> str:
    """The same at the sender's next try, and hardly of another message that has its Message-ID: what some machines send has
    always the same one. Of its date, too: what they say may be the same."""
    body = message.body
    digest = hashlib.sha256(b"%d " % len(body) + body[:KEY_OCTETS])
    digest.update(message.digested("date"))
    return digest.hexdigest()


def message_key(message: ScriptMessage) -> str:
    """By which it is known again as a whole."""
    return message.key() + body_key(message)


def delivery_key(arriving: Arriving, key: str) -> bytes:
    """Of the delivery of that message (`message_key`): the same at the sender's next try."""
    envelope = (
        octets.decode("utf-8", "surrogateescape")
        for octets in (arriving.sender, arriving.recipient)
    )
    return key_of(arriving.user or "", display(arriving.mailbox), *envelope, key)


async def read_in_turns(octets: bytes | memoryview) -> ScriptMessage:
    """Its header may be large."""
    message = ScriptMessage(octets)
    turn = Turn()
    for _ in message.read():
        if turn.is_over:
            await turn.rest()
    return message


async def once_of(backend: Backend, arriving: Arriving) -> Once:
    """The mark of a message of which scripts say nothing."""
    message = await read_in_turns(arriving.octets)
    return backend.deliveries.once(delivery_key(arriving, message_key(message)))


async def has_since(mailbox: Mailbox, since: int, key: str, body: str = "") -> bool:
    """Whether a message with this key (`Outcome.key`), and this body (`body_key`) if one is named, has come since that
    UID."""
    turn = Turn()
    uids = [uid for uid in await mailbox.uids() if uid >= since]
    for uid in uids[:MAX_LOOKED_AT]:
        message = await read_in_turns(await mailbox.octets(uid))
        if message.key() == key and body in ("", body_key(message)):
            return True
        if turn.is_over:
            await turn.rest()
    return False
