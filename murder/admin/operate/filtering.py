"""What Sieve scripts would do with a message, step by step. Nothing is delivered, sent or noted anywhere.

What a script asks of the world is answered by the servers, as its owner, where they can tell; else it is assumed, and said.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from murder.admin.operate.reach import Reach, data_of
from murder.admin.operate.scripts import UserScripts
from murder.errors import BadSyntax, Code, Refusal
from murder.model.identity import Identity
from murder.model.name import is_deleted, is_non_imap
from murder.model.rights import rights_in
from murder.net.turns import aside
from murder.sieve import (
    PAUSED,
    Answer,
    Circumstances,
    Envelope,
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
    Question,
    Script,
    ScriptCache,
    ScriptNamed,
    SeenBefore,
    SpecialUseExists,
    start,
)
from murder.wire import mutf7
from murder.wire.token import string


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of the script, and what it was told; `assumed` where no server was asked."""

    question: str
    answer: str
    assumed: bool


@dataclass(frozen=True, slots=True)
class Trial:
    """What it comes to, and what the script asked for."""

    outcome: Outcome
    asked: Sequence[Asked] = ()


class Offline:
    """A script whose owner nobody knows: mailboxes are there, nothing has come before, other scripts are not there."""

    user = ""

    async def exists(self, mailbox: str) -> bool | None:
        """Whether it takes mail of the script's owner; None where nobody can tell."""
        return None

    async def script(self, name: str) -> bytes | None:
        return None


class Online(Offline):
    """A user's scripts where they are."""

    def __init__(self, reach: Reach, scripts: UserScripts) -> None:
        self._reach = reach
        self._scripts = scripts
        self.user = scripts.user

    async def exists(self, mailbox: str) -> bool | None:
        """By the rights that the user has in it, at its backend; for a password's operator, in the master's list."""
        try:
            name = self._reach.namespace.internal(mutf7.encode(mailbox), self.user)
        except (Refusal, BadSyntax):
            return False
        if is_deleted(name) or is_non_imap(name):
            return False
        entry = await self._reach.master.find(name)
        if entry is None or not entry.is_active:
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
    program: Script,
    message: bytes,
    envelope: Envelope,
    world: Offline,
    host: str,
    compile_again: Callable[[bytes], Script],
    limits: Limits,
) -> Trial:
    """Run a script over a message. Raises Refusal, UpstreamFailure where a server cannot be asked."""
    run = start(
        [program],
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
        limits=limits,
        cache=ScriptCache(compile_again),
        is_traced=True,
    )
    asked: list[Asked] = []
    while True:
        found = run.advance()
        if isinstance(found, Outcome):
            return Trial(found, tuple(asked))
        if found is PAUSED:
            continue
        if isinstance(found, LongWork):
            run.answer(await aside(found.compute))
            continue
        answer, exchange = await _answer(found, envelope, world)
        run.answer(answer)
        asked.append(exchange)


async def _answer(question: Question, envelope: Envelope, world: Offline) -> tuple[Answer, Asked]:
    answer: Answer
    assumed = True
    match question:
        case MailboxExists(mailbox=mailbox):
            known = await world.exists(mailbox)
            answer, assumed = known is not False, known is None
            text, shown = f"is there a mailbox {mailbox}", _yes(answer)
        case ScriptNamed(name=name, is_global=False):
            answer = await world.script(name)
            assumed = not world.user
            text, shown = f"is there a script {name}", _yes(answer is not None)
        case ScriptNamed(name=name):
            answer, assumed = None, False
            text, shown = f"is there a script {name} of the site", "no"
        case OwnAddresses():
            answer = (envelope.recipient or "",)
            text, shown = "which addresses are the owner's", ", ".join(answer)
        case SeenBefore():
            answer, text, shown = False, "has such a message come before", "no"
        case SpecialUseExists(uses=uses):
            answer, text, shown = True, f"is there a mailbox for {' '.join(uses)}", "yes"
        case MailboxIdExists(mailbox_id=mailbox_id):
            answer, text, shown = True, f"is there a mailbox with the id {mailbox_id}", "yes"
        case Metadata(name=name):
            answer, text, shown = None, f"what is the annotation {name}", "none"
        case InList(name=name) | ListIsKnown(name=name):
            answer, assumed = False, False
            text, shown = f"is there a list {name}", "no"
        case ListMembers(name=name):
            answer, assumed = (), False
            text, shown = f"who is in the list {name}", "nobody"
        case _:
            raise Refusal(Code.CANNOT, "The script asks for a program of the site")
    return answer, Asked(text, shown, assumed)


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"
