"""When a maildrop was last opened by POP3: Cyrus' `lastpop`, for an operator who looks for mailboxes that nobody reads.

A shared annotation, so that it goes where its mailbox goes. It is written once in an hour of the clock: who polls every
minute costs no commit each time.
"""

from contextlib import suppress
from datetime import UTC, datetime

from murder.errors import Refusal
from murder.model.annotation import LASTPOP
from murder.model.name import MailboxName
from murder.roles.backend.records.annotations import SHARED, Annotations
from murder.wire.imap.date import format_date_time


async def note_login(
    annotations: Annotations, name: MailboxName, now: datetime | None = None
) -> None:
    """A login has succeeded; it does so too where nothing can be noted (there are too many annotations)."""
    text = format_date_time(now or datetime.now(UTC)).strip(b'"').lstrip()
    before = annotations.value(name, SHARED, LASTPOP) or b""
    if before[: _hour_of(before)] == text[: _hour_of(text)]:
        return
    with suppress(Refusal):
        await annotations.change(name, {SHARED: {LASTPOP: text}})


def _hour_of(text: bytes) -> int:
    """Where it ends in a date: behind the first two digits of its time."""
    return text.find(b":")
