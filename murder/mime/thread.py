"""From an envelope to what THREAD needs (RFC 5256 §3, "REFERENCES")."""

import re
from collections.abc import MutableMapping
from dataclasses import replace
from hashlib import blake2b
from typing import Final

from murder.mime.sort import sent_date
from murder.mime.subject import base_subject
from murder.model.message import Message
from murder.model.part import Envelope
from murder.model.pieces import dict_for
from murder.model.query.thread import Threadable

MAX_REFERENCES: Final = 1000  # of one message; the newest count
MAX_FIELD_OCTETS: Final = 128 * 1024  # of References; its end counts
# of a mailbox's messages together, at 8 octets: then a few of each are enough
MANY_REFERENCES: Final = 1_000_000
FEW_REFERENCES: Final = 10
# that only references name; then such as are known, and the last of each message
MAX_KEPT_IDS: Final = 50_000
MAX_KEPT_CHARACTERS: Final = 200  # of an id or a subject; longer ones are kept as a digest

_MESSAGE_ID: Final = re.compile(rb"<([^<>\s]{1,998})>")


def message_ids(value: bytes | None) -> tuple[str, ...]:
    """The message ids in a field, in order, without brackets and without quotes around a local part."""
    if not value:
        return ()
    ids = _MESSAGE_ID.findall(value[-MAX_FIELD_OCTETS:])[-MAX_REFERENCES:]
    return tuple(_short(message_id.replace(b'"', b"").decode("latin-1")) for message_id in ids)


def _short(text: str) -> str:
    """What is only compared, in no more than `MAX_KEPT_CHARACTERS`."""
    if len(text) <= MAX_KEPT_CHARACTERS:
        return text
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def threadable(number: int, message: Message, envelope: Envelope) -> Threadable:
    """A message, ready for `model.query.thread`."""
    subject = base_subject(envelope.subject)
    own = message_ids(envelope.message_id)
    # In-Reply-To often holds several ids or an address; only its first one counts
    references = message_ids(envelope.references) or message_ids(envelope.in_reply_to)[:1]
    return Threadable(
        number,
        sent_date(message, envelope).timestamp(),
        subject.text,
        subject.is_reply,
        own[0] if own else "",
        references,
    )


class References:
    """What is kept of the references of a mailbox's messages: each id once, and of very many the newest."""

    __slots__ = ("_ids", "_kept", "_named")

    def __init__(self, count: int = 0) -> None:
        """Of about so many messages."""
        self._ids: MutableMapping[str, str] = dict_for(count)
        self._kept = 0
        self._named = 0  # ids that were first seen in references

    def take_ids(self) -> MutableMapping[str, str]:
        """The ids, to be freed, when all messages are there."""
        ids, self._ids = self._ids, {}
        return ids

    def shared(self, message: Threadable) -> Threadable:
        """The same message, with its references as they are kept."""
        own = self._ids.setdefault(message.message_id, message.message_id)
        references, ids = message.references, self._ids
        if self._kept >= MANY_REFERENCES or self._named >= MAX_KEPT_IDS:
            known = (each for each in references[-FEW_REFERENCES:-1] if each in ids)
            references = (*known, *references[-1:])
        before = len(ids)
        shared = tuple([ids.setdefault(reference, reference) for reference in references])
        self._kept += len(shared)
        self._named += len(ids) - before
        return replace(message, subject=_short(message.subject), message_id=own, references=shared)
