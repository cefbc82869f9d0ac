"""Scripts over a message that arrives: the site's, its recipient's, the site's again. What is to be done; it changes nothing
itself, but that an owner may be told that their script fails.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from murder.api.delivery import Arriving
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.log import Log
from murder.model.annotation import SHARED_SCRIPT
from murder.model.name import display
from murder.net.turns import Turn, line_up
from murder.roles.backend.records.annotations import SERVER, SHARED, Scope
from murder.roles.backend.records.deliveries import key_of
from murder.roles.backend.records.remembered import Entry, book_of
from murder.roles.backend.scripts.check import Compiler
from murder.roles.backend.scripts.longer import aside_for
from murder.roles.backend.scripts.places import find_by_id, find_place, resolve_special_use
from murder.roles.backend.scripts.site import Site
from murder.roles.backend.shared import Backend
from murder.sieve import (
    PAUSED,
    Answer,
    BadScript,
    Circumstances,
    Envelope,
    InList,
    LargeWork,
    ListIsKnown,
    ListMembers,
    LongWork,
    Machine,
    MailboxExists,
    MailboxIdExists,
    Metadata,
    Outcome,
    OwnAddresses,
    Paused,
    Question,
    RunProgram,
    Script,
    ScriptNamed,
    SeenBefore,
    SpecialUseExists,
    start,
)
from murder.wire import mutf7

# of the clock, for one message: a mail server waits ten minutes (RFC 5321 §4.5.3.2.6)
RUN_S: Final = 60.0
LATER: Final = "The filter of this mailbox takes too long, try again later"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A script that runs; `owner` is "" for one of the site's."""

    name: str
    octets: bytes = field(repr=False)
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a script, in whoever's words: `problem` has its line."""

    script: Chosen
    problem: str


@dataclass(frozen=True, slots=True)
class Ran:
    """What the scripts say, None where none could be run; `faults`: those that could not, or not to their end."""

    outcome: Outcome | None
    scripts: Sequence[Chosen] = ()
    faults: Sequence[Fault] = ()


async def scripts_for(backend: Backend, message: Arriving) -> list[Chosen]:
    """Those that run for a message that arrives, in order; where there are none, told in no time. Raises Refusal,
    UpstreamFailure."""
    site = backend.site
    if not site.before and not site.after and message.user is not None:  # mostly
        active = await backend.scripts.active(message.user)
        return [] if active is None else [Chosen(*active, message.user)]
    chosen = [Chosen(script.name, script.octets) for script in site.before]
    if message.user is None:
        chosen += _of_shared(backend, message)
    else:
        active = await backend.scripts.active(message.user)
        if active is not None:
            chosen.append(Chosen(*active, message.user))
    return chosen + [Chosen(script.name, script.octets) for script in site.after]


def _of_shared(backend: Backend, message: Arriving) -> list[Chosen]:
    """As Cyrus: an annotation names it."""
    named = backend.site.named
    if not named:
        return []
    value = backend.annotations.value(message.mailbox, SHARED, SHARED_SCRIPT)
    script = named.get(value.decode("utf-8", "replace")) if value else None
    return [Chosen(script.name, script.octets)] if script is not None else []


class Room:
    """For the large versions of the message that a run makes: had from the first on until it is left, which is when they
    have been carried out."""

    def __init__(self, backend: Backend, message: Arriving) -> None:
        self._turns, self._whose = backend.large_runs, whose(message)
        self._held = AsyncExitStack()
        self.is_had = False

    async def have(self) -> None:
        """Once."""
        await self._held.enter_async_context(self._turns.turn(self._whose))
        self.is_had = True

    async def __aenter__(self) -> "Room":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._held.aclose()


async def run_scripts(
    backend: Backend,
    message: Arriving,
    chosen: Sequence[Chosen],
    log: Log,
    room: Room,
    circumstances: Circumstances | None = None,
) -> Ran:
    """What they say together. One that cannot be read, or fails, is left out: the others say what
    becomes of the message. Raises Refusal, UpstreamFailure: then they can be asked again."""
    faults: list[Fault] = []
    programs: list[tuple[Chosen, Script]] = []
    for candidate in chosen:
        try:
            compiler = _compiler(backend.site, candidate)
            program = await compiler.program(candidate.octets, candidate.owner)
            programs.append((candidate, program))
        except BadScript as bad:
            faults.append(Fault(candidate, str(bad)[:500]))
    decided = None
    while programs and decided is None:
        outcome = await _run(backend, message, programs, log, room, circumstances)
        if outcome.failure is None:
            decided = outcome
        else:
            failed, _ = programs.pop(outcome.failure.script)
            faults.append(Fault(failed, str(outcome.failure)))
    for fault in faults:
        script = fault.script
        log.warning("script.failed", user=script.owner, script=script.name, problem=fault.problem)
    return Ran(decided, [candidate for candidate, _ in programs], faults)


def _compiler(site: Site, script: Chosen) -> Compiler:
    return site.users if script.owner else site.compiler


async def _run(
    backend: Backend,
    message: Arriving,
    programs: Sequence[tuple[Chosen, Script]],
    log: Log,
    room: Room,
    circumstances: Circumstances | None,
) -> Outcome:
    # what these include is compiled as theirs
    has_own = any(script.owner for script, _ in programs)
    compiler = backend.site.users if has_own else backend.site.compiler
    is_delivery = circumstances is None
    envelope = Envelope(_text(message.sender), _text(message.recipient))
    run = start(
        [program for _, program in programs],
        message.octets,
        envelope if is_delivery else Envelope(),
        circumstances or _circumstances(backend, message),
        limits=compiler.limits,
        policy=compiler.policy,
        cache=compiler.cache,
    )
    first = run.advance()
    if isinstance(first, Outcome):  # most ask nothing, and take a moment
        return first
    answers = Answers(backend, message, [script for script, _ in programs], log)
    try:
        async with asyncio.timeout(RUN_S), answers.turn:
            return await _to_end(run, first, answers, room)
    except TimeoutError:
        raise Refusal(Code.UNAVAILABLE, LATER) from None


async def _to_end(
    run: Machine, step: Question | Paused | Outcome, answers: "Answers", room: Room
) -> Outcome:
    turn = Turn()
    while not isinstance(step, Outcome):
        if step is PAUSED:
            await line_up()
        elif isinstance(step, LongWork):
            if isinstance(step, LargeWork) and not room.is_had:
                # who has room may wait for a turn with programs, and so nobody with a turn for room
                await answers.leave_turn()
                await room.have()
            run.answer(await aside_for(answers.whose, step.compute))
        else:
            run.answer(await answers.answer(step))
            if turn.is_over:  # most answers are known without a wait
                await turn.rest()
        step = run.advance()
    return step


def _circumstances(backend: Backend, message: Arriving) -> Circumstances:
    return Circumstances(
        now=datetime.now().astimezone(),
        user=message.user or "",
        host=backend.server_name,
        environment={
            "domain": backend.server_name.partition(".")[2],
            "host": backend.server_name,
            "location": "MDA",
            "phase": "during",
            "remote-ip": message.peer,
        },
    )


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


class Answers:
    """What scripts may ask that run for this message, as its user; where that is nobody's, as anybody."""

    def __init__(
        self, backend: Backend, message: Arriving, scripts: Sequence[Chosen], log: Log
    ) -> None:
        self._backend = backend
        self._message = message
        self._scripts = scripts
        self._log = log
        self._user: str = message.user or ""
        self.whose = whose(message)
        # of scripts that have programs do something; to be left behind them
        self.turn = AsyncExitStack()
        self._has_turn = False

    async def answer(self, question: Question) -> Answer:
        """Raises UpstreamFailure, Refusal."""
        backend = self._backend
        match question:
            case MailboxExists(mailbox=mailbox):
                return await self._exists(mailbox)
            case SpecialUseExists(mailbox=mailbox, uses=uses):
                return await self._has_uses(mailbox, uses)
            case ScriptNamed(name=name, is_global=is_global):
                return self._of_site(name) if is_global else await self._script(name)
            case SeenBefore(handle=handle, period_s=period_s, renew=renew):
                entry = seen_entry(self.whose, handle, period_s)
                return await backend.deliveries.was_seen(entry, renew=renew)
            case OwnAddresses():
                return await own_addresses(backend, self._message)
            case MailboxIdExists(mailbox_id=mailbox_id):
                mailbox_name = self._user and await find_by_id(backend, self._user, mailbox_id)
                return bool(mailbox_name)
            case Metadata(mailbox=mailbox, name=name):
                return await self._metadata(mailbox, name)
            case InList(name=name, value=value):
                return await backend.site.lists.find(name, value)
            case ListIsKnown(name=name):
                return backend.site.lists.has(name)
            case ListMembers(name=name):
                return await backend.site.lists.members(name)
            case RunProgram():
                return await self._run(question)
            case _:
                raise Refusal(Code.CANNOT, "A filter asks for what this server does not know")

    async def leave_turn(self) -> None:
        """The one with programs, until the next is to do something."""
        await self.turn.aclose()
        self._has_turn = False

    async def _run(self, asked: RunProgram) -> memoryview | None:
        programs = self._backend.site.programs
        if not self._has_turn:
            await self.turn.enter_async_context(programs.scripts_turn(self.whose))
            self._has_turn = True
        return await programs.run(
            asked.kind,
            asked.program,
            asked.arguments,
            (asked.octets,),
            environment_of(self._message),
            self._log,
            for_user=bool(self._scripts[asked.script].owner),
        )

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
        if not self._user and (mailbox is not None or scope is not SHARED):
            return None
        if mailbox is not None:
            login = await self._backend.gate.login_of(self._user)
            try:
                where = self._backend.namespace.internal(mutf7.encode(mailbox), self._user)
                self._backend.mailboxes.require(where, login, "r")
            except (Refusal, BadSyntax):
                return None
        value = self._backend.annotations.value(where, scope, entry)
        return value.decode("utf-8", "replace") if value is not None else None

    async def _has_uses(self, mailbox: str | None, uses: Sequence[str]) -> bool:
        if not self._user:
            return False
        for use in dict.fromkeys(map(str.lower, uses)):
            if await resolve_special_use(self._backend, self._user, use, mailbox) is None:
                return False
        return True

    def _of_site(self, name: str) -> bytes | None:
        script = self._backend.site.named.get(name)
        return script.octets if script is not None else None

    async def _script(self, name: str) -> bytes | None:
        if not self._user:
            return None
        try:
            return await self._backend.scripts.read(self._user, name)
        except Refusal as refusal:
            if refusal.code is not Code.NONEXISTENT:
                raise
            return None


def whose(message: Arriving) -> str:
    """In whose name scripts remember and send: their user's; else the mailbox's own, behind a `+` as in an address, where no
    user's name is."""
    return f"+{display(message.mailbox)}" if message.user is None else message.user


def seen_entry(whose: str, handle: str, period_s: float) -> Entry:
    """What `duplicate` remembers."""
    return Entry(key_of("seen", whose, handle), float(period_s), book_of("seen", whose))


def environment_of(message: Arriving) -> Mapping[str, str]:
    """What a program is told beside the message."""
    return {
        "USER": message.user or "",
        "SENDER": _text(message.sender),
        "RECIPIENT": _text(message.recipient),
        "MAILBOX": display(message.mailbox),
    }


async def own_addresses(backend: Backend, message: Arriving) -> tuple[str, ...]:
    """At which its user gets mail: those of their identity; else the one it came to."""
    came_to = (_text(message.recipient),) if message.recipient else ()
    if message.user is None:
        return came_to
    try:
        login = await backend.gate.login_of(message.user)
    except UpstreamFailure:
        return came_to
    return login.identity.addresses or came_to
