"""What an operator's program asks a backend that it backs up, and what it is answered: frames behind the command XBACKUP.

Frames, rows and portraits are those of a move (`wire.nodes.carry`). The octets of each message follow its `Octets`, if it
has some. Knows no sockets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from murder.errors import BadSyntax, Code, Refusal
from murder.model.carried import Portrait
from murder.model.message import Message, ModSeq, Uid
from murder.model.name import MailboxName
from murder.wire.nodes.carry import (
    Words,
    format_message,
    format_name,
    format_portrait,
    parse_message,
    parse_portrait,
)
from murder.wire.nodes.carry_words import (
    INT63,
    UINT32,
    check_user,
    checked_message,
    checked_portrait,
)
from murder.wire.nodes.json_fields import Fields

MAX_FETCHED: Final = 1000  # messages whose octets are asked for at once


@dataclass(frozen=True, slots=True)
class Look:
    """A mailbox without its messages; what was expunged, after `since` only."""

    name: MailboxName
    since: ModSeq


@dataclass(frozen=True, slots=True)
class Page:
    """The next rows that have changed after `since`."""

    name: MailboxName
    since: ModSeq
    after: Uid


@dataclass(frozen=True, slots=True)
class Fetch:
    """The octets of these messages, in this order."""

    name: MailboxName
    uids: Sequence[Uid]


@dataclass(frozen=True, slots=True)
class Count:
    """How many messages a mailbox has now, and its highest mod-sequence."""

    name: MailboxName


@dataclass(frozen=True, slots=True)
class AskUser:
    """What is the user's and no mailbox's: their subscriptions."""

    user: str


Request = Look | Page | Fetch | Count | AskUser


@dataclass(frozen=True, slots=True)
class Looked:
    """`notes` by kind: annotations, limits of a quota, keys of URLs."""

    portrait: Portrait
    raw_acl: bytes
    notes: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Octets:
    """Of one message; of none where it has gone, or cannot be read (`problem`)."""

    uid: Uid
    size: int = 0
    is_gone: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """The answer to Count."""

    messages: int
    highest_modseq: ModSeq


def parse_request(words: Words) -> Request:
    """Raises BadSyntax; Refusal for a word that this version does not know."""
    fields = Fields(words)
    do = fields.text("do")
    match do:
        case "look":
            return Look(fields.name("name"), ModSeq(_number(fields, "since", INT63)))
        case "page":
            since, after = _number(fields, "since", INT63), _number(fields, "after", UINT32)
            return Page(fields.name("name"), ModSeq(since), Uid(after))
        case "fetch":
            uids = words.get("uids")
            if not isinstance(uids, list) or len(uids) > MAX_FETCHED:
                raise BadSyntax(f"uids is no list of {MAX_FETCHED} at most")
            return Fetch(fields.name("name"), [Uid(_checked(uid, "a UID", UINT32)) for uid in uids])
        case "count":
            return Count(fields.name("name"))
        case "user":
            user = fields.text("user")
            check_user(user)
            return AskUser(user)
        case _:
            raise Refusal(Code.CANNOT, f"{do[:40]!r} is unknown here")


def format_request(request: Request) -> Words:
    """As the words of a frame."""
    match request:
        case Look(name, since):
            return {"do": "look", "name": format_name(name), "since": since}
        case Page(name, since, after):
            return {"do": "page", "name": format_name(name), "since": since, "after": after}
        case Fetch(name, uids):
            return {"do": "fetch", "name": format_name(name), "uids": list(uids)}
        case Count(name):
            return {"do": "count", "name": format_name(name)}
        case AskUser(user):
            return {"do": "user", "user": user}
        case _:
            assert_never(request)


def format_looked(looked: Looked) -> Words:
    """The answer to Look."""
    notes = {kind: format_name(octets) for kind, octets in looked.notes.items()}
    fields = {"acl": format_name(looked.raw_acl), "notes": notes}
    return fields | format_portrait(looked.portrait)


def parse_looked(words: Words) -> Looked:
    """The reverse. Raises BadSyntax, as all below."""
    acl, notes = Fields(words), words.get("notes")
    if not isinstance(notes, dict):
        raise BadSyntax("notes is no object")
    return Looked(
        checked_portrait(parse_portrait(words)),
        bytes(acl.name("acl")),
        {kind: bytes(Fields(notes).name(kind)) for kind in notes},
    )


def format_page(rows: Sequence[Message]) -> Words:
    """The answer to Page."""
    return {"rows": [format_message(row) for row in rows]}


def parse_page(words: Words) -> list[Message]:
    """The reverse."""
    rows = words.get("rows")
    if not isinstance(rows, list):
        raise BadSyntax("rows is no list")
    return [checked_message(parse_message(row)) for row in rows]


def format_octets(octets: Octets) -> Words:
    """Before the octets of a message."""
    fields: dict[str, object] = {"uid": octets.uid, "size": octets.size}
    return fields | {"gone": octets.is_gone, "problem": octets.problem}


def parse_octets(words: Words) -> Octets:
    """The reverse."""
    fields = Fields(words)
    uid, size = _number(fields, "uid", UINT32), _number(fields, "size", INT63)
    return Octets(Uid(uid), size, fields.flag("gone"), fields.text("problem"))


def format_counted(counted: Counted) -> Words:
    """The answer to Count."""
    return {"messages": counted.messages, "modseq": counted.highest_modseq}


def parse_counted(words: Words) -> Counted:
    """The reverse."""
    fields = Fields(words)
    return Counted(_number(fields, "messages", UINT32), ModSeq(_number(fields, "modseq", INT63)))


def format_subscribed(names: Sequence[MailboxName]) -> Words:
    """The answer to AskUser."""
    return {"subscriptions": [format_name(name) for name in names]}


def parse_subscribed(words: Words) -> tuple[MailboxName, ...]:
    """The reverse."""
    return Fields(words).names("subscriptions")


def _number(fields: Fields, key: str, most: int) -> int:
    return _checked(fields.integer(key), key, most)


def _checked(number: object, what: str, most: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= most:
        raise BadSyntax(f"{what} is no number up to {most}")
    return number
