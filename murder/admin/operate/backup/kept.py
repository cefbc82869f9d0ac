"""What a point in time is made of, as values and as the JSON objects of a vault.

A point names units: a user with all their mailboxes, or one mailbox of nobody. A unit names its mailboxes, a mailbox the
pages of its rows, a row the digest of its message's octets. What is the same as before has the same digest, so a point
costs what has changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from murder.admin.operate.backup.vault import Vault
from murder.errors import BadSyntax, Code, Refusal
from murder.model.carried import Portrait
from murder.model.message import Message, Uid
from murder.model.name import MailboxName
from murder.wire.nodes.carry import (
    format_message,
    format_name,
    format_portrait,
    parse_message,
    parse_name,
    parse_portrait,
)
from murder.wire.nodes.carry_words import checked_message, checked_portrait

PAGE_UIDS: Final = 256  # of one page: those whose UIDs share all but the last eight bits
NAME: Final = "%Y%m%dT%H%M%SZ"  # of a point


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of a mailbox: which, under which digest, how many messages, of how many octets."""

    number: int
    digest: str
    messages: int
    octets: int


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A message and the digest of its octets, "" where they could not be read."""

    message: Message
    digest: str


@dataclass(frozen=True, slots=True)
class KeptMailbox:
    """A mailbox at one mod-sequence. `notes` by kind (`wire.nodes.backup_words`); `unread`: whose octets could not
    be read."""

    name: MailboxName
    server: str
    partition: str
    portrait: Portrait
    raw_acl: bytes
    notes: Mapping[str, bytes]
    pages: Sequence[Page]
    unread: Sequence[Uid] = ()

    @property
    def messages(self) -> int:
        return sum(page.messages for page in self.pages)

    @property
    def octets(self) -> int:
        return sum(page.octets for page in self.pages)


@dataclass(frozen=True, slots=True)
class Entry:
    """A mailbox of a unit: under which digest, how many messages, of how many octets."""

    name: MailboxName
    digest: str
    messages: int
    octets: int


@dataclass(frozen=True, slots=True)
class Unit:
    """Its mailboxes, and what their user subscribes to."""

    root: MailboxName
    mailboxes: Sequence[Entry]
    subscriptions: Sequence[MailboxName]


@dataclass(frozen=True, slots=True)
class Point:
    """`missing`: what should be in it and is not, with the reason. `mailbox_list`: the master's list, as
    `murder ctl list load` reads it."""

    name: str
    began: float
    ended: float
    scope: str
    units: Mapping[MailboxName, str]
    missing: Mapping[str, str]
    mailbox_list: str
    messages: int = 0
    octets: int = 0
    new_octets: int = 0


def put_mailbox(vault: Vault, mailbox: KeptMailbox) -> Entry:
    """For its unit."""
    fields = {
        "name": format_name(mailbox.name),
        "server": mailbox.server,
        "partition": mailbox.partition,
        "portrait": format_portrait(mailbox.portrait),
        "acl": format_name(mailbox.raw_acl),
        "notes": {kind: format_name(octets) for kind, octets in mailbox.notes.items()},
        "pages": [[page.number, page.digest, page.messages, page.octets] for page in mailbox.pages],
        "unread": list(mailbox.unread),
    }
    return Entry(mailbox.name, vault.put_json(fields), mailbox.messages, mailbox.octets)


def read_mailbox(vault: Vault, digest: str) -> KeptMailbox:
    """Raises Refusal."""
    fields = vault.read_json(digest)
    try:
        return KeptMailbox(
            parse_name(fields["name"]),
            str(fields["server"]),
            str(fields["partition"]),
            checked_portrait(parse_portrait(fields["portrait"])),
            bytes(parse_name(fields["acl"])),
            {kind: bytes(parse_name(text)) for kind, text in fields["notes"].items()},
            [
                Page(int(field[0]), str(field[1]), int(field[2]), int(field[3]))
                for field in fields["pages"]
            ],
            [Uid(int(uid)) for uid in fields["unread"]],
        )
    except (BadSyntax, KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise _unreadable(vault, digest, error) from None


def put_page(vault: Vault, number: int, rows: Mapping[Uid, KeptRow]) -> Page:
    """Rows, by UID, as one object."""
    ordered = [rows[uid] for uid in sorted(rows)]
    page = [[*format_message(row.message), row.digest] for row in ordered]
    octets = sum(row.message.size for row in ordered)
    return Page(number, vault.put_json(page), len(ordered), octets)


def read_page(vault: Vault, digest: str) -> dict[Uid, KeptRow]:
    """The reverse. Raises Refusal."""
    page = vault.read_json(digest)
    try:
        if not isinstance(page, list):
            raise TypeError("no list")
        rows = [KeptRow(checked_message(parse_message(row[:-1])), str(row[-1])) for row in page]
    except (BadSyntax, IndexError, TypeError, ValueError) as error:
        raise _unreadable(vault, digest, error) from None
    return {row.message.uid: row for row in rows}


def put_unit(vault: Vault, unit: Unit) -> str:
    """Its digest."""
    fields = {
        "root": format_name(unit.root),
        "mailboxes": [
            [format_name(mailbox.name), mailbox.digest, mailbox.messages, mailbox.octets]
            for mailbox in unit.mailboxes
        ],
        "subscriptions": [format_name(name) for name in unit.subscriptions],
    }
    return vault.put_json(fields)


def read_unit(vault: Vault, digest: str) -> Unit:
    """Raises Refusal."""
    fields = vault.read_json(digest)
    try:
        return Unit(
            parse_name(fields["root"]),
            [
                Entry(parse_name(field[0]), str(field[1]), int(field[2]), int(field[3]))
                for field in fields["mailboxes"]
            ],
            [parse_name(name) for name in fields["subscriptions"]],
        )
    except (BadSyntax, KeyError, IndexError, ValueError, TypeError) as error:
        raise _unreadable(vault, digest, error) from None


def _unreadable(vault: Vault, digest: str, error: Exception) -> Refusal:
    return Refusal(Code.CANNOT, f"{vault.path_of(digest)} cannot be read: {error!r}")


def keep_point(vault: Vault, point: Point) -> Point:
    """Write it; as it is called then."""
    fields: dict[str, Any] = {
        "format": 1,
        "began": point.began,
        "ended": point.ended,
        "scope": point.scope,
        "units": {format_name(root): digest for root, digest in point.units.items()},
        "missing": dict(point.missing),
        "list": point.mailbox_list,
        "messages": point.messages,
        "octets": point.octets,
        "new_octets": point.new_octets,
    }
    return _point(vault.keep_point(point.name, fields), fields)


def read_point(vault: Vault, name: str) -> Point:
    """Raises Refusal."""
    fields = vault.point(name)
    try:
        return _point(name, fields)
    except (BadSyntax, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise Refusal(Code.CANNOT, f"the point {name} cannot be read: {error!r}") from None


def _point(name: str, fields: Mapping[str, Any]) -> Point:
    return Point(
        name,
        float(fields["began"]),
        float(fields["ended"]),
        str(fields["scope"]),
        {parse_name(root): str(digest) for root, digest in fields["units"].items()},
        dict(fields["missing"]),
        str(fields["list"]),
        int(fields["messages"]),
        int(fields["octets"]),
        int(fields["new_octets"]),
    )


def time_of(name: str) -> datetime:
    """When a point was begun. Raises Refusal for what is not the name of a point."""
    try:
        return datetime.strptime(name[:16], NAME).replace(tzinfo=UTC)
    except ValueError:
        raise Refusal(Code.CANNOT, f"{name} is not the name of a point") from None


def moment(text: str) -> datetime:
    """What people call a time: a point's name, a date (its end), or date and time, in UTC where no zone is given. Raises
    Refusal."""
    try:
        return time_of(text) + timedelta(seconds=1)
    except Refusal:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        example = "2026-11-20, 2026-11-20T03:00 or the name of a point"
        raise Refusal(Code.CANNOT, f"{text} is no time: {example}") from None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return at + (timedelta(days=1) if len(text) == len("2026-11-20") else timedelta(seconds=1))
