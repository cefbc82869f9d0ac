"""What a Cyrus says of a mailbox, a message or a reader, as values: the fields of its replication protocol."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from murder.errors import BadSyntax
from murder.model.annotation import is_entry_name
from murder.model.carried import CarriedIdentity
from murder.model.message import Message, ModSeq, Uid, UidValidity
from murder.model.name import MailboxName, split_domain
from murder.model.quota import Resource
from murder.model.seqset import holds, merge
from murder.wire.dlist import Value, format_value
from murder.wire.nodes.carry_words import (
    check_user,
    checked_identity,
    checked_message,
    checked_name,
)

SAVE_DATE: Final = "/vendor/cmu/cyrus-imapd/savedate"
_GUID: Final = re.compile(r"[0-9a-f]{40}")

EXPUNGED: Final = "\\Expunged"  # what a Cyrus still keeps of a message that is gone

RESOURCES: Final = {
    "STORAGE": Resource.STORAGE,
    "MESSAGE": Resource.MESSAGE,
    "X-NUM-FOLDERS": Resource.MAILBOX,
    "X-ANNOTATION-STORAGE": Resource.ANNOTATION_STORAGE,
}

Told = dict[str, Value]


@dataclass(slots=True)
class Arrived:
    """One mailbox as far as it has come. `told` is what the source said of it: it is told so when it asks."""

    name: MailboxName
    told: Told
    digests: dict[int, str] = field(default_factory=dict)  # of the messages there are, by UID
    annotations: dict[tuple[str, str], bytes] = field(default_factory=dict)  # by entry and user
    seen: dict[str, list[Uid]] = field(default_factory=dict)  # by reader, the owner's apart

    @property
    def identity(self) -> CarriedIdentity:
        """Raises BadSyntax."""
        uid_validity = UidValidity(number_of(self.told, "UIDVALIDITY"))
        return checked_identity(CarriedIdentity(text_of(self.told, "UNIQUEID"), uid_validity))


def octets_of(value: Value) -> bytes:
    """NIL is none. Raises BadSyntax, as all here."""
    if value is None:
        return b""
    if not isinstance(value, bytes):
        raise BadSyntax("a word was expected")
    return value


def word_of(value: Value) -> str:
    """As text, whatever octets."""
    return octets_of(value).decode("utf-8", "surrogateescape")


def name_in(value: Value) -> MailboxName:
    """Raises BadSyntax for what can be no mailbox's name."""
    return checked_name(MailboxName(octets_of(value)))


def user_in(fields: Told, key: str) -> str:
    """A user's name; "" for everybody. Raises BadSyntax."""
    user = text_of(fields, key, "")
    if user:
        check_user(user)
    return user


def values_of(value: Value) -> list[Value]:
    """Of a list; NIL is an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadSyntax("a list was expected")
    return value


def mapping_of(value: Value) -> Told:
    """Of `%(key value …)`."""
    if not isinstance(value, dict):
        raise BadSyntax("keys with values were expected")
    return value


def text_of(fields: Told, key: str, absent: str | None = None) -> str:
    """A word of a mapping. Raises BadSyntax where it is missing and has no default."""
    if key not in fields and absent is None:
        raise BadSyntax(f"{key} is missing")
    return word_of(fields[key]) if key in fields else absent or ""


def number_of(fields: Told, key: str) -> int:
    """A number of a mapping. Raises BadSyntax."""
    return number_in(text_of(fields, key), key)


def number_in(text: str, what: str) -> int:
    """Raises BadSyntax: a Cyrus counts in 64 bits."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 19 or int(digits) >= 2**63:
        raise BadSyntax(f"{what} is not a number")
    return int(text)


def uid_in(value: Value) -> Uid:
    """Raises BadSyntax."""
    uid = number_in(word_of(value), "a UID")
    if not 0 < uid < 2**32:
        raise BadSyntax("a UID is out of range")
    return Uid(uid)


def guid_of(fields: Told) -> str:
    """The SHA-1 of a message. Raises BadSyntax."""
    guid = text_of(fields, "GUID")
    if not _GUID.fullmatch(guid):
        raise BadSyntax(f"{guid[:40]!r} is not a SHA-1")
    return guid


def _date(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise BadSyntax(f"{seconds} is not a date") from None


def message_of(record: Told) -> Message:
    """With what a Cyrus shows of it: dates in the host's zone, the EMAILID that it makes of the digest."""
    saved = None
    for value in values_of(record.get("ANNOTATIONS")):
        entry = mapping_of(value)
        if text_of(entry, "ENTRY") == SAVE_DATE:
            saved = _date(number_in(word_of(entry.get("VALUE")), "a date"))
    flags = flags_of(record)
    message = Message(
        Uid(number_of(record, "UID")),
        flags - {EXPUNGED},
        _date(number_of(record, "INTERNALDATE")).astimezone(),
        number_of(record, "SIZE"),
        ModSeq(number_of(record, "MODSEQ")),
        saved,
        "M" + guid_of(record)[:24],
    )
    return replace(checked_message(message), flags=flags)


def flags_of(record: Told) -> frozenset[str]:
    """System flags and keywords, and what Cyrus alone knows (`\\Expunged`)."""
    return frozenset(word_of(flag) for flag in values_of(record.get("FLAGS")))


def missing_of(guids: Sequence[Value], places: Mapping[str, object]) -> list[bytes]:
    """What a Cyrus is told of those that are at none of the `places`. Raises BadSyntax. For a thread."""
    missing: list[Value] = [octets_of(guid) for guid in guids if word_of(guid) not in places]
    return [b"* MISSING " + format_value(missing)] if missing else []


def uids_of(text: str, among: Iterable[int]) -> list[Uid]:
    """A set of UIDs as a seen list has it (`1:5,7`), as far as there are such. Raises BadSyntax. For a thread."""
    ranges = []
    for span in filter(None, text.split(",")):
        low, _, high = span.partition(":")
        first = number_in(low, "a UID")
        ranges.append((first, 2**32 if high == "*" else number_in(high or low, "a UID")))
    merged = merge(ranges)
    return [Uid(uid) for uid in sorted(among) if holds(merged, uid)]


def called(name: MailboxName) -> set[bytes]:
    """What an administrator may call it at a server, whatever separator that one has."""
    domain, inner = split_domain(name)
    slashed = inner.replace(b".", b"/").replace(b"^", b".")
    return {
        name_form + b"@" + domain if domain else name_form for name_form in (inner, slashed)
    } | {bytes(name)}


def entries_of(box: Arrived) -> dict[str, dict[str, bytes]]:
    """Its annotations by reader and name, as RFC 5464 names them."""
    entries: dict[str, dict[str, bytes]] = {}
    for (entry, user), octets in box.annotations.items():
        name = f"/private{entry}" if user else f"/shared{entry}"
        if octets and is_entry_name(name.lower()):
            entries.setdefault(user, {})[name.lower()] = octets
    return entries
