"""What scripts did, for the log; and that a script fails, for its owner, once in a while."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

from murder.api.store import NewMessage
from murder.errors import Refusal
from murder.log import Log
from murder.model.name import MailboxName, display, inbox_of
from murder.roles.backend.records.deliveries import key_of
from murder.roles.backend.records.remembered import Entry, book_of
from murder.roles.backend.scripts.copies import Copies
from murder.roles.backend.scripts.run import Chosen, Fault
from murder.roles.backend.shared import Backend
from murder.sieve import (
    Action,
    FileInto,
    Notify,
    Outcome,
    Pipe,
    Redirect,
    Reply,
)

TOLD_AGAIN_S: Final = 7 * 86_400.0
MAX_SHOWN: Final = 200  # characters of a name or address
TEXT: Final = """\
Your mail filter (the Sieve script "{name}") has an error:

    {problem}

Until it is mended, mail is kept in your INBOX (or where the site's own filters put it). You are told of this error once a
week at most.
"""


def shown_actions(outcome: Outcome, scripts: Sequence[Chosen]) -> list[str]:
    """One text for each: the script, its line, what is done. What no command says has no line."""
    return [_shown(action, scripts) for action in outcome.actions]


def facts_of(
    kept: MailboxName,
    outcome: Outcome,
    scripts: Sequence[Chosen],
    filed: Sequence[str] = (),
    sent: int = 0,
) -> Mapping[str, object]:
    """What `message.filtered` says: `kept` is where the message goes without a script, `filed` where else it went."""
    return {
        "mailbox": display(kept),
        "actions": shown_actions(outcome, scripts),
        "filed": list(filed),
        "sent": sent,
    }


def _shown(action: Action, scripts: Sequence[Chosen]) -> str:
    word = "vacation" if isinstance(action, Reply) else type(action).__name__.lower()
    match action:
        case FileInto(target=target):
            about = target.mailbox
        case Redirect(address=about) | Reply(recipient=about) | Pipe(program=about):
            pass
        case Notify(method=about):
            pass
        case _:
            about = ""
    text = f"{word} {about[:MAX_SHOWN]}" if about else word
    place = action.place
    if not place.line or place.script >= len(scripts):
        return text
    script = scripts[place.script].name
    included = f"/{place.include}" if place.include else ""
    return f"{script}{included}:{place.line} {text}"


async def tell_owners(
    backend: Backend,
    faults: Sequence[Fault],
    copies: Copies,
    log: Log,
) -> None:
    """Those whose own script it is, by a mail in their INBOX. That this cannot be done is said in the log alone."""
    for fault in faults:
        script = fault.script
        if not script.owner or not backend.site.tells_users:
            continue
        digest = hashlib.sha256(script.octets).hexdigest()
        key = key_of("fault", script.owner, digest, fault.problem)
        entry = Entry(key, TOLD_AGAIN_S, book_of("fault", script.owner))
        if await backend.deliveries.was_seen(entry):
            continue
        incoming = backend.store.incoming()
        try:
            await incoming.write(_message(backend.server_name, fault))
            await copies.add_made(inbox_of(script.owner), NewMessage(incoming))
            await backend.deliveries.see(entry)
        except Refusal as refusal:
            log.warning("script.not_told", user=script.owner, problem=str(refusal))
        finally:
            await incoming.close()


def _message(host: str, fault: Fault) -> bytes:
    now = datetime.now(UTC)
    message = EmailMessage(policy=SMTP)
    message["From"] = f"Mail filter <postmaster@{host}>"
    message["Subject"] = "Your mail filter has an error"
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{now.timestamp():f}.filter@{host}>"
    message["Auto-Submitted"] = "auto-generated"
    text = TEXT.format(name=fault.script.name, problem=fault.problem)
    message.set_content(text, charset="utf-8")
    return message.as_bytes()
