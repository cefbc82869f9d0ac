"""A user's script over a message that arrives: what is to be done. It changes nothing itself."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from murder.api.delivery import Arriving
from murder.backend.records.annotations import SERVER, SHARED, Scope
from murder.backend.records.deliveries import key_of
from murder.backend.scripts.places import find_by_id, find_place, resolve_special_use
from murder.backend.shared import Backend
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.log import Log
from murder.net.turns import Turn, aside, line_up
from murder.sieve import (
    PAUSED,
    Answer,
    BadScript,
    Circumstances,
    Envelope,
    InList,
    ListIsKnown,
    ListMembers,
    LongWork,
    MailboxExists,
    MailboxIdExists,
    Metadata,
    Outcome,
    OwnAddresses,
    Question,
    ScriptNamed,
    SeenBefore,
    SpecialUseExists,
    start,
)
from murder.wire import mutf7

RUN_S: Final = (
    60.0  # of the clock, for one message: a mail server waits ten minutes (RFC 5321 §4.5.3.2.6)
)
LATER: Final = "The filter of this mailbox takes too long, try again later"


async def run_script(backend: Backend, message: Arriving, log: Log) -> Outcome | None:
    """What the active script of the mailbox's user says; None where there is none. One that cannot be read is said in the
    log, and the message is kept. Raises Refusal, UpstreamFailure: then it can be asked again."""
    if message.user is None:
        return None
    active = await backend.scripts.active(message.user)
    if active is None:
        return None
    name, octets = active
    try:
        program = await backend.compiler.program(octets)
    except BadScript as bad:
        log.warning("script.failed", user=message.user, script=name, problem=str(bad)[:500])
        return None
    run = start(
        [program],
        message.octets,
        Envelope(_address(message.sender), _address(message.recipient)),
        Circumstances(
            now=datetime.now().astimezone(),
            user=message.user,
            host=backend.server_name,
            environment={
                "domain": backend.server_name.partition(".")[2],
                "host": backend.server_name,
                "location": "MDA",
                "phase": "during",
                "remote-ip": message.peer,
            },
        ),
        limits=backend.compiler.limits,
        cache=backend.compiler.cache,
    )
    answers = _Answers(backend, message)
    turn = Turn()
    try:
        async with asyncio.timeout(RUN_S):
            while True:
                found = run.advance()
                if isinstance(found, Outcome):
                    break
                if found is PAUSED:
                    await line_up()
                elif isinstance(found, LongWork):
                    run.answer(await aside(found.compute))
                else:
                    run.answer(await answers.answer(found))
                    if turn.is_over:  # most answers are known without a wait
                        await turn.rest()
    except TimeoutError:
        raise Refusal(Code.UNAVAILABLE, LATER) from None
    if found.failure is not None:
        log.warning("script.failed", user=message.user, script=name, problem=str(found.failure))
    return found


def _address(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


class _Answers:
    """What a script of this user may ask."""

    def __init__(self, backend: Backend, message: Arriving) -> None:
        self._backend = backend
        self._message = message
        assert message.user is not None
        self._user: str = message.user

    async def answer(self, question: Question) -> Answer:
        """Raises UpstreamFailure."""
        match question:
            case MailboxExists(mailbox=mailbox):
                return await self._exists(mailbox)
            case SpecialUseExists(mailbox=mailbox, uses=uses):
                return await self._has_uses(mailbox, uses)
            case ScriptNamed(name=name, is_global=False):
                return await self._script(name)
            case SeenBefore(handle=handle, period_s=period_s, renew=renew):
                key = key_of("seen", self._user, handle)
                return await self._backend.deliveries.was_seen(key, period_s, renew=renew)
            case OwnAddresses():
                return await self._addresses()
            case MailboxIdExists(mailbox_id=mailbox_id):
                found = await find_by_id(self._backend, self._user, mailbox_id)
                return found is not None
            case Metadata(mailbox=mailbox, name=name):
                return await self._metadata(mailbox, name)
            case InList() | ListIsKnown():
                return False
            case ListMembers():
                return ()
            case ScriptNamed():  # the site's: there are none
                return None
            case _:
                raise Refusal(Code.CANNOT, "A filter asks for what this server does not know")

    async def _exists(self, mailbox: str) -> bool:
        try:
            await find_place(self._backend, self._user, mailbox, create=False)
        except (Refusal, BadSyntax):
            return False
        return True

    async def _metadata(self, mailbox: str | None, name: str) -> str | None:
        """An annotation as the user may read it (RFC 5464): of a mailbox with the right `r`, or of the server."""
        entry = name.lower()
        scope = SHARED if entry.startswith("/shared/") else Scope(self._user)
        where = SERVER
        if mailbox is not None:
            login = await self._backend.gate.login_of(self._user)
            try:
                where = self._backend.namespace.internal(mutf7.encode(mailbox), self._user)
                self._backend.mailboxes.require(where, login, "r")
            except (Refusal, BadSyntax):
                return None
        value = self._backend.annotations.of(where, scope).get(entry)
        return value.decode("utf-8", "replace") if value is not None else None

    async def _has_uses(self, mailbox: str | None, uses: Sequence[str]) -> bool:
        turn = Turn()
        for use in dict.fromkeys(map(str.lower, uses)):
            if resolve_special_use(self._backend, self._user, use, mailbox) is None:
                return False
            if turn.is_over:
                await turn.rest()
        return True

    async def _script(self, name: str) -> bytes | None:
        try:
            return await self._backend.scripts.read(self._user, name)
        except Refusal as refusal:
            if refusal.code is not Code.NONEXISTENT:
                raise
            return None

    async def _addresses(self) -> tuple[str, ...]:
        try:
            login = await self._backend.gate.login_of(self._user)
        except UpstreamFailure:
            return (_address(self._message.recipient),)
        return login.identity.addresses or (_address(self._message.recipient),)
