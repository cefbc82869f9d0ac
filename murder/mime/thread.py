"""From an envelope to what THREAD needs (RFC 5256 §3, "REFERENCES")."""

import re
from typing import Final

from murder.mime.sort import sent_date
from murder.mime.subject import base_subject
from murder.model.message import Message
from murder.model.part import Envelope
from murder.model.thread import Threadable

MAX_REFERENCES: Final = 1000  # of one message; the newest count

_MESSAGE_ID: Final = re.compile(rb"<([^<>\s]{1,998})>")


def message_ids(value: bytes | None) -> tuple[str, ...]:
    """The message ids in a field, in order, without brackets and without quotes around a local part."""
    if not value:
        return ()
    found = _MESSAGE_ID.findall(value)[-MAX_REFERENCES:]
    return tuple(one.replace(b'"', b"").decode("latin-1") for one in found)


def threadable(number: int, message: Message, envelope: Envelope) -> Threadable:
    """A message, ready for `model.thread`."""
    subject = base_subject(envelope.subject)
    own = message_ids(envelope.message_id)
    # In-Reply-To often holds several ids or an address; only its first one counts
    references = message_ids(envelope.references) or message_ids(envelope.in_reply_to)[:1]
    return Threadable(
        number,
        sent_date(message, envelope),
        subject.text,
        subject.is_reply,
        own[0] if own else "",
        references,
    )
