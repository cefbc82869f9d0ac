"""What a Cyrus says of a mailbox, a message or a reader, as values: the fields of its replication protocol."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from murder.errors import BadSyntax, Code, Refusal
from murder.model.annotation import is_entry_name
from murder.model.carried import CarriedIdentity
from murder.model.message import Message, ModSeq, Uid, UidValidity
from murder.model.name import MailboxName, split_domain
from murder.model.seqset import holds, merge
from murder.wire.dlist import Value

SAVE_DATE: Final = "/vendor/cmu/cyrus-imapd/savedate"
_MAILBOX_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}\Z")

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
        mailbox_id = text_of(self.told, "UNIQUEID")
        if not _MAILBOX_ID.match(mailbox_id):
            raise Refusal(Code.CANNOT, f"{mailbox_id!r} can be no mailbox's id")
        return CarriedIdentity(mailbox_id, UidValidity(number_of(self.told, "UIDVALIDITY")))


def octets_of(value: Value) -> bytes:
    if value is None:
        return b""
    if not isinstance(value, bytes):
        raise BadSyntax("a word was expected")
    return value


def word_of(value: Value) -> str:
    return octets_of(value).decode("utf-8", "surrogateescape")


def name_in(value: Value) -> MailboxName:
    return MailboxName(octets_of(value))


def values_of(value: Value) -> list[Value]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadSyntax("a list was expected")
    return value


def mapping_of(value: Value) -> Told:
    if not isinstance(value, dict):
        raise BadSyntax("keys with values were expected")
    return value


def text_of(told: Told, key: str, absent: str | None = None) -> str:
    """A word of a mapping. Raises BadSyntax where it is missing and has no default."""
    if key not in told and absent is None:
        raise BadSyntax(f"{key} is missing")
    return word_of(told[key]) if key in told else absent or ""


def number_of(told: Told, key: str) -> int:
    """A number of a mapping. Raises BadSyntax."""
    try:
        return int(text_of(told, key))
    except ValueError:
        raise BadSyntax(f"{key} is no number") from None


def message_of(record: Told) -> Message:
    """With what a Cyrus shows of it: dates in the host's zone, the EMAILID that it makes of the digest."""
    saved = None
    for one in values_of(record.get("ANNOTATIONS")):
        entry = mapping_of(one)
        if text_of(entry, "ENTRY") == SAVE_DATE:
            saved = datetime.fromtimestamp(int(word_of(entry.get("VALUE"))), UTC)
    return Message(
        Uid(number_of(record, "UID")),
        flags_of(record),
        datetime.fromtimestamp(number_of(record, "INTERNALDATE"), UTC).astimezone(),
        number_of(record, "SIZE"),
        ModSeq(number_of(record, "MODSEQ")),
        saved,
        "M" + text_of(record, "GUID")[:24],
    )


def flags_of(record: Told) -> frozenset[str]:
    """System flags and keywords, and what Cyrus alone knows (`\\Expunged`)."""
    return frozenset(word_of(one) for one in values_of(record.get("FLAGS")))


def uids_of(text: str, among: Iterable[int]) -> list[Uid]:
    """A set of UIDs as a seen list has it (`1:5,7`), as far as there are such. Raises BadSyntax."""
    ranges = []
    for one in filter(None, text.split(",")):
        low, _, high = one.partition(":")
        try:
            ranges.append((int(low), 2**32 if high == "*" else int(high or low)))
        except ValueError:
            raise BadSyntax(f"{text!r} is no set of UIDs") from None
    merged = merge(ranges)
    return [Uid(uid) for uid in sorted(among) if holds(merged, uid)]


def called(name: MailboxName) -> set[bytes]:
    """What an administrator may call it at a server, whatever separator that one has."""
    domain, inner = split_domain(name)
    slashed = inner.replace(b".", b"/").replace(b"^", b".")
    return {one + b"@" + domain if domain else one for one in (inner, slashed)} | {bytes(name)}


def entries_of(box: Arrived) -> dict[str, dict[str, bytes]]:
    """Its annotations by reader and name, as RFC 5464 names them."""
    told: dict[str, dict[str, bytes]] = {}
    for (entry, user), octets in box.annotations.items():
        name = f"/private{entry}" if user else f"/shared{entry}"
        if octets and is_entry_name(name.lower()):
            told.setdefault(user, {})[name.lower()] = octets
    return told


def file_name(word: str) -> str:
    """As part of a path: nothing in it leads elsewhere."""
    return quote(word, safe="@ +=,") if word not in ("", ".", "..") else "%2E"
