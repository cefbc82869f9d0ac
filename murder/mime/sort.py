"""SORT: what each key compares (RFC 5256 §3, RFC 5957), and messages put in order by them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from murder.mime.header import decode_value, parse_date
from murder.mime.subject import base_subject
from murder.mime.text import sort_form
from murder.model.message import Message
from murder.model.part import Address, Envelope
from murder.model.search import SortKey, SortOrder


@dataclass(frozen=True, slots=True)
class Sortable:
    """A message with the number that the answer tells (sequence number or UID), which also breaks ties."""

    number: int
    message: Message
    envelope: Envelope


def sent_date(message: Message, envelope: Envelope) -> datetime:
    """The Date field's moment; the internal date where it is missing or none (RFC 5256 §2.2)."""
    return parse_date(envelope.date) or message.internal_date


def in_sort_order(messages: Iterable[Sortable], orders: Sequence[SortOrder]) -> list[int]:
    """Their numbers, sorted by the first key, then the next …, then by number. REVERSE turns only its own key."""
    found = sorted(messages, key=lambda one: one.number)
    for order in reversed(orders):
        found.sort(key=_VALUES[order.key], reverse=order.reverse)
    return [one.number for one in found]


def needs_envelope(orders: Iterable[SortOrder]) -> bool:
    """Whether any key looks into the header."""
    return any(order.key not in (SortKey.ARRIVAL, SortKey.SIZE) for order in orders)


def _mailbox(addresses: tuple[Address, ...]) -> str:
    """The first address's mailbox; empty where there is none."""
    mailbox = addresses[0].mailbox if addresses else None
    return sort_form(mailbox.decode("utf-8", "replace")) if mailbox else ""


def _display(addresses: tuple[Address, ...]) -> str:
    """RFC 5957 §3: the first address's name, or else the address."""
    if not addresses:
        return ""
    first = addresses[0]
    if first.name:
        return sort_form(decode_value(first.name))
    host = b"@" + first.host if first.host else b""
    return sort_form(decode_value((first.mailbox or b"") + host))


_VALUES: Final[dict[SortKey, Callable[[Sortable], str | int | datetime]]] = {
    SortKey.ARRIVAL: lambda one: one.message.internal_date,
    SortKey.CC: lambda one: _mailbox(one.envelope.cc),
    SortKey.DATE: lambda one: sent_date(one.message, one.envelope),
    SortKey.FROM: lambda one: _mailbox(one.envelope.from_),
    SortKey.SIZE: lambda one: one.message.size,
    SortKey.SUBJECT: lambda one: sort_form(base_subject(one.envelope.subject).text),
    SortKey.TO: lambda one: _mailbox(one.envelope.to),
    SortKey.DISPLAYFROM: lambda one: _display(one.envelope.from_),
    SortKey.DISPLAYTO: lambda one: _display(one.envelope.to),
}
