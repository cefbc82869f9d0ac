"""SORT: what each key compares (RFC 5256 §3, RFC 5957), and messages put in order by them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from murder.mime.header import decode_value, parse_date
from murder.mime.subject import base_subject
from murder.mime.text import sort_form
from murder.model.message import Message
from murder.model.ordering import in_order
from murder.model.part import Address, Envelope
from murder.model.query.search import SortKey, SortOrder

# of a text that are compared: what is kept of a mailbox's messages is bounded
MAX_CHARACTERS: Final = 500
MAX_OCTETS: Final = 8192  # of a field, which become these in any encoding

Value = str | int | float | datetime


@dataclass(frozen=True, slots=True)
class Sortable:
    """A message with the number that the answer tells (sequence number or UID), which also breaks ties."""

    number: int
    message: Message
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Keyed:
    """What is compared of a message, one value for each order that is asked for: all that has to be kept of it."""

    number: int
    values: tuple[Value, ...]


def keyed(message: Sortable, orders: Sequence[SortOrder]) -> Keyed:
    return Keyed(message.number, tuple(_VALUES[order.key](message) for order in orders))


def sent_date(message: Message, envelope: Envelope) -> datetime:
    """The Date field's moment; the internal date where it is missing or none (RFC 5256 §2.2)."""
    return parse_date(envelope.date) or message.internal_date


def put_in_order(messages: Sequence[Keyed], orders: Sequence[SortOrder]) -> list[int]:
    """Their numbers, sorted by the first key, then the next …, then by number. REVERSE turns only its own key."""
    in_turn = in_order(messages, lambda message: message.number)
    for at in reversed(range(len(orders))):
        in_turn = in_order(in_turn, partial(_value, at), reverse=orders[at].reverse)
    return [message.number for message in in_turn]


def _value(at: int, message: Keyed) -> Any:
    return message.values[at]


def needs_envelope(orders: Iterable[SortOrder]) -> bool:
    """Whether any key looks into the header."""
    return any(order.key not in (SortKey.ARRIVAL, SortKey.SIZE) for order in orders)


def _mailbox(addresses: tuple[Address, ...]) -> str:
    """The first address's mailbox; empty where there is none."""
    mailbox = addresses[0].mailbox if addresses else None
    return _cut(sort_form(mailbox[:MAX_OCTETS].decode("utf-8", "replace"))) if mailbox else ""


def _display(addresses: tuple[Address, ...]) -> str:
    """RFC 5957 §3: the first address's name, or else the address."""
    if not addresses:
        return ""
    first = addresses[0]
    if first.name:
        return _cut(sort_form(decode_value(first.name[:MAX_OCTETS])))
    host = b"@" + first.host if first.host else b""
    return _cut(sort_form(decode_value(((first.mailbox or b"") + host)[:MAX_OCTETS])))


def _cut(text: str) -> str:
    return text[:MAX_CHARACTERS]


_VALUES: Final[dict[SortKey, Callable[[Sortable], Value]]] = {
    SortKey.ARRIVAL: lambda row: row.message.internal_date,
    SortKey.CC: lambda row: _mailbox(row.envelope.cc),
    SortKey.DATE: lambda row: sent_date(row.message, row.envelope).timestamp(),
    SortKey.FROM: lambda row: _mailbox(row.envelope.from_),
    SortKey.SIZE: lambda row: row.message.rfc822_size,
    SortKey.SUBJECT: lambda row: _cut(sort_form(base_subject(row.envelope.subject).text)),
    SortKey.TO: lambda row: _mailbox(row.envelope.to),
    SortKey.DISPLAYFROM: lambda row: _display(row.envelope.from_),
    SortKey.DISPLAYTO: lambda row: _display(row.envelope.to),
}
