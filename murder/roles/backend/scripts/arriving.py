"""A message that arrives, and its scripts: they run, what they say is done, and owners hear of what fails."""

from collections.abc import Sequence
from typing import Final, Protocol

from murder.api.delivery import Arriving
from murder.api.store import NewMessage
from murder.errors import Code
from murder.log import Log, plain_log
from murder.roles.backend.changes.events import MailQueued
from murder.roles.backend.scripts.carry_out import Delivery, once_of
from murder.roles.backend.scripts.copies import Copies
from murder.roles.backend.scripts.rejecting import Rejected, notification_of, rejection_of
from murder.roles.backend.scripts.run import Chosen, Room, run_scripts
from murder.roles.backend.scripts.telling import facts_of, shown_actions, tell_owners
from murder.roles.backend.shared import Backend

SCRIPT_FAILED: Final = "script.failed"  # among what was decided; the event of that name says more


class Session(Protocol):
    """By which the message comes."""

    @property
    def log(self) -> Log: ...

    @property
    def tells_utf8(self) -> bool:
        """Whether its replies may have more than ASCII."""
        ...

    def log_facts(self) -> dict[str, object]: ...


class ArrivingCopies(Copies, Protocol):
    """Of a message that arrives, for one of its recipients."""

    filtered: Sequence[str]  # what was said of it, for the mail log


async def run_and_carry_out(
    session: Session,
    backend: Backend,
    arriving: Arriving,
    scripts: Sequence[Chosen],
    message: NewMessage,
    copies: ArrivingCopies,
) -> None:
    """Raises Rejected, Refusal, UpstreamFailure. `message.filtered` is said of every message that scripts see: the short way
    into the log."""
    async with Room(backend, arriving) as room:
        ran = await run_scripts(backend, arriving, scripts, session.log, room)
        actions = shown_actions(ran.outcome, ran.scripts) if ran.outcome is not None else ()
        copies.filtered = (*actions, *((SCRIPT_FAILED,) if ran.faults else ()))
        if ran.outcome is None:
            await copies.add(arriving.mailbox, message, await once_of(backend, arriving))
        elif (rejection := rejection_of(ran.outcome)) is not None:
            words = (backend, arriving, rejection, ran.outcome)
            answer = None if session.tells_utf8 else notification_of(*words)
            wanted = [] if answer is None else [answer]
            without, bound = await backend.deliveries.without_room(wanted)
            if answer is not None and without:
                to = list(answer.recipients)
                session.log.warning("outgoing.full", user=answer.whose, to=to, limit=bound)
                answer = None
            if answer is not None:
                await backend.deliveries.end(answer.key, [answer])
                backend.events.publish(MailQueued())
            sent = 0 if answer is None else 1
            facts = facts_of(arriving.mailbox, ran.outcome, ran.scripts, sent=sent)
            plain_log.info("message.filtered", {**session.log_facts(), **facts})
            if answer is None:
                raise Rejected(Code.NO_PERMISSION, rejection.text)
        else:
            assert backend.upstreams is not None
            delivery = Delivery(
                backend,
                backend.upstreams,
                arriving,
                ran.outcome,
                ran.scripts,
                message,
                copies,
                session.log,
            )
            done = await delivery.carry_out()
            if done is not None:
                plain_log.info("message.filtered", {**session.log_facts(), **done})
        if ran.faults:
            await tell_owners(backend, ran.faults, copies, session.log)
