"""What Sieve scripts would do with a message, step by step. Nothing is delivered, sent or noted anywhere.

What a script asks of the world is answered by the servers, as its owner, where they can tell; else it is assumed, and said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, assert_never

from murder.admin.operate.reach import Reach, data_of
from murder.admin.operate.scripts import UserScripts
from murder.admin.operate.site_scripts import site_script_at
from murder.errors import BadSyntax, Code, Refusal
from murder.model.identity import Identity
from murder.model.name import MailboxName, is_deleted, is_non_imap
from murder.model.rights import rights_in, takes_mail
from murder.net.turns import aside
from murder.sieve import (
    PAUSED,
    Answer,
    Circumstances,
    Envelope,
    FileInto,
    InList,
    Limits,
    ListIsKnown,
    ListMembers,
    LongWork,
    MailboxExists,
    MailboxIdExists,
    Metadata,
    Outcome,
    OwnAddresses,
    Policy,
    Question,
    RunProgram,
    Script,
    ScriptCache,
    ScriptNamed,
    SeenBefore,
    SpecialUseExists,
    start,
)
from murder.wire import mutf7
from murder.wire.token import string

# stands for all in a list of the site, where none is at hand
SOMEBODY: Final = "somebody@list.invalid"


@dataclass(frozen=True, slots=True)
class Tried:
    """A script that runs; `owner` is "" for one of the site's. What it includes becomes a program in `cache`."""

    name: str
    owner: str
    program: Script
    limits: Limits
    policy: Policy
    cache: ScriptCache


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of the script, and what it was told; `assumed` where no server was asked."""

    question: str
    answer: str
    assumed: bool


@dataclass(frozen=True, slots=True)
class Trial:
    """What it comes to, and what the scripts asked for. `scripts`: those that ran, as places in the outcome count them;
    `faults`: name and problem of those that failed and were left out, as a delivery does it. `not_filed`: mailboxes that
    take none of it, so that a delivery keeps the message in their stead."""

    outcome: Outcome
    scripts: Sequence[Tried]
    asked: Sequence[Asked] = ()
    faults: Sequence[tuple[str, str]] = ()
    not_filed: frozenset[str] = frozenset()


class Offline:
    """Scripts whose owner nobody knows: mailboxes are there, nothing has come before, other scripts are not there."""

    user = ""

    async def exists(self, mailbox: str) -> bool | None:
        """Whether it takes mail of the script's owner; None where nobody can tell."""
        return None

    async def script(self, name: str) -> bytes | None:
        return None

    async def site_script(self, name: str) -> tuple[bytes | None, bool]:
        """One of the site's folder; and whether that is known."""
        return None, False


class OfSite(Offline):
    """As that, beside the scripts of a site whose files are here."""

    def __init__(self, named: Mapping[str, bytes]) -> None:
        self._named = named

    async def site_script(self, name: str) -> tuple[bytes | None, bool]:
        return self._named.get(name), True


class Shared(Offline):
    """A shared mailbox's script where it is: it is nobody's."""

    def __init__(self, reach: Reach, server: str) -> None:
        self._reach = reach
        self._server = server

    async def exists(self, mailbox: str) -> bool | None:
        """Whether it takes mail of anybody, by the master's list."""
        name = self._name(mailbox)
        entry = await self._reach.master.find(name) if name is not None else None
        return entry is not None and entry.is_active and takes_mail(entry)

    def _name(self, mailbox: str) -> MailboxName | None:
        """None for what takes no mail by any name."""
        try:
            name = self._reach.namespace.internal(mutf7.encode(mailbox), self.user)
        except (Refusal, BadSyntax):
            return None
        return None if is_deleted(name) or is_non_imap(name) else name

    async def site_script(self, name: str) -> tuple[bytes | None, bool]:
        return await site_script_at(self._reach, self._server, name), True


class Online(Shared):
    """A user's scripts where they are."""

    def __init__(self, reach: Reach, scripts: UserScripts) -> None:
        super().__init__(reach, scripts.server)
        self._scripts = scripts
        self.user = scripts.user

    async def exists(self, mailbox: str) -> bool | None:
        """By the rights that the user has in it, at its backend; for a password's operator, in the master's list."""
        name = self._name(mailbox)
        entry = await self._reach.master.find(name) if name is not None else None
        if name is None or entry is None or not entry.is_active:
            return False
        if self._reach.credential.password is not None:  # it proves no one else to IMAP there
            is_granted = "i" in rights_in(entry, Identity(self.user))
            return True if is_granted else None  # a group may grant it
        client_name = self._reach.namespace.external(name, self.user)
        try:
            command = b"MYRIGHTS " + string(client_name)
            reply = await self._reach.execute(entry.server, command, user=self.user)
        except Refusal:
            return False
        return any(b"i" in line.rpartition(b" ")[2] for line in data_of(reply, b"MYRIGHTS"))

    async def script(self, name: str) -> bytes | None:
        try:
            return await self._scripts.read(name)
        except Refusal as refusal:
            if refusal.code is not Code.NONEXISTENT:
                raise
            return None


async def run_trial(
    scripts: Sequence[Tried], message: bytes, envelope: Envelope, world: Offline, host: str
) -> Trial:
    """Run scripts over a message, one behind the other, as a delivery does: one that fails is left out. There is one at
    least. Raises Refusal, UpstreamFailure where a server cannot be asked."""
    left = list(scripts)
    faults: list[tuple[str, str]] = []
    while True:
        trial = await _run_once(left, message, envelope, world, host)
        failure = trial.outcome.failure
        if failure is not None:
            faults.append((left[failure.script].name, str(failure)))
        if failure is None or len(left) == 1:
            not_filed = await _not_filed(trial.outcome, world)
            return replace(trial, faults=tuple(faults), not_filed=not_filed)
        del left[failure.script]


async def _not_filed(outcome: Outcome, world: Offline) -> frozenset[str]:
    """Of the mailboxes that are named, those of which a server says that they take no mail of the scripts' owner."""
    named: list[str] = []
    for action in outcome.actions:
        if isinstance(action, FileInto):
            target = action.target
            is_made = target.create and bool(world.user)
            if not (is_made or target.mailbox_id or target.special_use):
                named.append(target.mailbox)
    return frozenset([name for name in named if await world.exists(name) is False])


async def _run_once(
    scripts: Sequence[Tried], message: bytes, envelope: Envelope, world: Offline, host: str
) -> Trial:
    own = [script for script in scripts if script.owner]  # what these include is compiled as theirs
    by = (own or scripts)[0]
    run = start(
        [script.program for script in scripts],
        message,
        envelope,
        Circumstances(
            now=datetime.now().astimezone(),
            user=world.user,
            host=host,
            environment={
                "domain": host.partition(".")[2],
                "host": host,
                "location": "MDA",
                "phase": "during",
            },
        ),
        limits=by.limits,
        policy=by.policy,
        cache=by.cache,
        is_traced=True,
    )
    asked: list[Asked] = []
    while True:
        step = run.advance()
        if isinstance(step, Outcome):
            return Trial(step, tuple(scripts), tuple(asked))
        if step is PAUSED:
            continue
        if isinstance(step, LongWork):
            run.answer(await aside(step.compute))
            continue
        answer, exchange = await _answer(step, envelope, world)
        run.answer(answer)
        asked.append(exchange)


async def _answer(question: Question, envelope: Envelope, world: Offline) -> tuple[Answer, Asked]:
    answer: Answer
    assumed = True
    match question:
        case MailboxExists(mailbox=mailbox):
            known = await world.exists(mailbox)
            answer, assumed = known is not False, known is None
            text, answered = f"is there a mailbox {mailbox}", _yes(answer)
        case ScriptNamed(name=name, is_global=False):
            answer = await world.script(name)
            assumed = not world.user
            text, answered = f"is there a script {name}", _yes(answer is not None)
        case ScriptNamed(name=name):
            answer, is_known = await world.site_script(name)
            assumed = not is_known
            text, answered = f"is there a script {name} of the site", _yes(answer is not None)
        case OwnAddresses():
            answer = (envelope.recipient or "",)
            text, answered = "which addresses are the owner's", ", ".join(answer)
        case SeenBefore():
            answer, text, answered = False, "has such a message come before", "no"
        case SpecialUseExists(uses=uses):
            answer, text, answered = True, f"is there a mailbox for {' '.join(uses)}", "yes"
        case MailboxIdExists(mailbox_id=mailbox_id):
            answer, text, answered = True, f"is there a mailbox with the id {mailbox_id}", "yes"
        case Metadata(name=name):
            answer, text, answered = None, f"what is the annotation {name}", "none"
        case InList(name=name, value=value):
            answer, text, answered = "", f"is {value} in the list {name}", "no"
        case ListIsKnown(name=name):
            answer, text, answered = False, f"is there a list {name}", "no"
        case ListMembers(name=name):
            answer, text, answered = (SOMEBODY,), f"who is in the list {name}", SOMEBODY
        case RunProgram(program=program):
            answer, text, answered = None, f"what does the program {program} say", "it is not run"
        case LongWork():
            raise AssertionError("it is no question to the world")
        case _:
            assert_never(question)
    return answer, Asked(text, answered, assumed)


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"
