"""What the source of a move may ask its target, as values: every field is judged here before anything is done with it.

The peer has shown a node's certificate; it may be a stolen one, or a node that is broken. Names of files, responses to
clients and rows of the list are made of these fields.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

from murder.errors import BadSyntax, Code, Refusal
from murder.model.acl import MAX_ACL_OCTETS, MAX_IDENTIFIER_OCTETS
from murder.model.carried import CarriedIdentity, Portrait
from murder.model.flag import MAX_KEYWORD_OCTETS, RECENT, canonical
from murder.model.message import Message, UidValidity
from murder.model.name import MailboxName, check_existing_name, display
from murder.wire.nodes.carry import (
    Words,
    format_message,
    format_name,
    format_portrait,
    parse_message,
    parse_portrait,
)

# RFC 8474 §7: objectid = 1*255(ALPHA / DIGIT / "_" / "-")
_OBJECT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
_MOVE_ID: Final = re.compile(r"[A-Za-z0-9]{1,64}")  # a part of a file's name
# RFC 9051 §9: an atom, and no `]`
_KEYWORD: Final = re.compile(r'[^(){ %*"\\\]\x00-\x20\x7f-\U0010ffff]+')
_ACL: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
MAX_PARTITION: Final = 255
MAX_READERS: Final = 100_000  # of one mailbox, beside its owner
MAX_SUBSCRIPTIONS: Final = 100_000
UINT32: Final = 2**32 - 1
MAX_SECONDS: Final = 253_402_300_799  # since 1970: the end of the year 9999
INT63: Final = 2**63 - 1  # mod-sequences, RFC 7162 §3.1
MAX_ROWS: Final = 5000  # of one batch; our own have 250
MAX_FLAGS: Final = 1000  # of one message; a client may set 128


@dataclass(frozen=True, slots=True)
class Begin:
    """A tree comes, or goes on to come. `source` is the server's own name, for people."""

    id: str
    root: MailboxName
    partition: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """Make the mailbox where it is not; of the portrait what was expunged and seen is not told. `was`: where a backup brings
    it back as a new one, which it was then."""

    name: MailboxName
    portrait: Portrait
    was: CarriedIdentity | None = None

    @property
    def identity(self) -> CarriedIdentity:
        """By which it is the same one wherever it lies."""
        return self.portrait.identity


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch; whether the octets of each message follow."""

    name: MailboxName
    rows: Sequence[tuple[Message, bool]]


@dataclass(frozen=True, slots=True)
class Kept:
    """Expunged messages that may come back: of the UIDs above `after`, `up_to` the highest, these and no others. With each
    when it was expunged (seconds since 1970), and whether its octets follow, as for Rows."""

    name: MailboxName
    after: int
    up_to: int
    rows: Sequence[tuple[Message, int, bool]]


@dataclass(frozen=True, slots=True)
class Complete:
    """All messages of a mailbox have come: this is what else there is to it."""

    name: MailboxName
    portrait: Portrait


@dataclass(frozen=True, slots=True)
class AskSum:
    """What a mailbox's numbers are."""

    name: MailboxName


@dataclass(frozen=True, slots=True)
class Prepare:
    """Rows of the list, notes by key, subscriptions."""

    rows: Sequence[tuple[MailboxName, bytes]]
    notes: Mapping[str, bytes]
    subscriptions: Sequence[MailboxName]


@dataclass(frozen=True, slots=True)
class Commit:
    """Show what is prepared."""

    id: str


@dataclass(frozen=True, slots=True)
class Abort:
    """The move has ended; what has come goes."""

    id: str


@dataclass(frozen=True, slots=True)
class Fate:
    """What has become of a move from the server asked?"""

    id: str
    root: MailboxName


@dataclass(frozen=True, slots=True)
class Compare:
    """`what` is `tree`, `facts` or `rows`."""

    id: str
    root: MailboxName
    name: MailboxName
    what: str
    number: int  # `upto` or `after`; -1 where there is none


Request = Begin | Hold | Rows | Kept | Complete | AskSum | Prepare | Commit | Abort | Fate | Compare
Act = Begin | Complete | Prepare | Commit | Abort
"""Those that are done or refused, and tell nothing else."""


def parse_request(words: Words) -> Request:
    """Raises BadSyntax, which says which field is wrong and how; Refusal for a word that this version does not know."""
    try:
        return _parse(words)
    except KeyError as error:
        raise BadSyntax(f"{error.args[0]} is missing") from None
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise BadSyntax(f"that is no request: {str(error)[:100]}") from None


def _parse(words: Words) -> Request:
    match words["do"]:
        case "begin":
            partition = _text(words.get("partition", ""), "partition", MAX_PARTITION)
            source = _text(words.get("source", ""), "source", MAX_PARTITION)
            return Begin(parse_move_id(words["id"]), _name(words["root"]), partition, source)
        case "hold":
            portrait = checked_portrait(parse_portrait(words))
            return Hold(_name(words["name"]), portrait, _was(words.get("was")))
        case "rows":
            if len(words["rows"]) > MAX_ROWS:
                raise BadSyntax(f"a batch has more than {MAX_ROWS} rows")
            rows = [
                (checked_message(parse_message(row[:-1])), bool(row[-1])) for row in words["rows"]
            ]
            return Rows(_name(words["name"]), rows)
        case "kept":
            return _kept(words)
        case "complete":
            return Complete(_name(words["name"]), checked_portrait(parse_portrait(words)))
        case "sum":
            return AskSum(_name(words["name"]))
        case "prepare":
            return Prepare(
                [(_name(name), parse_acl_octets(acl)) for name, acl in words["rows"]],
                {str(key): _octets(text, "a note") for key, text in words["notes"].items()},
                parse_subscriptions(words["subscriptions"]),
            )
        case "commit":
            return Commit(parse_move_id(words["id"]))
        case "abort":
            return Abort(parse_move_id(words["id"]))
        case "fate":
            return Fate(parse_move_id(words["id"]), _name(words["root"]))
        case "compare":
            return _compare(words)
        case other:
            raise Refusal(Code.CANNOT, f"{str(other)[:40]!r} is unknown here")


def format_request(request: Request) -> Words:
    """As the words of a frame."""
    match request:
        case Begin(move_id, root, partition, source):
            words = {"do": "begin", "id": move_id, "root": format_name(root)}
            return words | {"source": source, "partition": partition}
        case Hold(name, portrait, was):
            words = {"do": "hold", "name": format_name(name), **format_portrait(portrait)}
            more = {} if was is None else {"was": [was.mailbox_id, was.uid_validity]}
            return words | {"expunged": [], "seen": {}} | more
        case Rows(name, rows):
            sent = [[*format_message(row), has_octets] for row, has_octets in rows]
            return {"do": "rows", "name": format_name(name), "rows": sent}
        case Kept(name, after, up_to, kept):
            messages = [[*format_message(row), at, has_octets] for row, at, has_octets in kept]
            window = {"after": after, "up_to": up_to}
            return {"do": "kept", "name": format_name(name), **window, "rows": messages}
        case Complete(name, portrait):
            return {"do": "complete", "name": format_name(name), **format_portrait(portrait)}
        case AskSum(name):
            return {"do": "sum", "name": format_name(name)}
        case Prepare():
            return {"do": "prepare", **format_prepared(request)}
        case Commit(move_id):
            return {"do": "commit", "id": move_id}
        case Abort(move_id):
            return {"do": "abort", "id": move_id}
        case Fate(move_id, root):
            return {"do": "fate", "id": move_id, "root": format_name(root)}
        case Compare(move_id, root, name, what, number):
            words = {"do": "compare", "what": what, "id": move_id, "root": format_name(root)}
            words |= {"name": format_name(name)}
            key = {"facts": "upto", "rows": "after"}.get(what)
            return words | ({key: number} if key is not None else {})
        case _:
            assert_never(request)


def format_prepared(prepared: Prepare) -> dict[str, Any]:
    """Its fields alone, as they also lie on the disk."""
    return {
        "rows": [[format_name(name), format_name(raw_acl)] for name, raw_acl in prepared.rows],
        "notes": {key: format_name(octets) for key, octets in prepared.notes.items()},
        "subscriptions": [format_name(name) for name in prepared.subscriptions],
    }


def _kept(words: Words) -> Kept:
    if len(words["rows"]) > MAX_ROWS:
        raise BadSyntax(f"a batch has more than {MAX_ROWS} rows")
    rows = [
        (
            checked_message(parse_message(row[:-2])),
            _number(row[-2], "a moment", 0, MAX_SECONDS),
            bool(row[-1]),
        )
        for row in words["rows"]
    ]
    after = _number(words["after"], "a UID", 0, UINT32)
    up_to = _number(words["up_to"], "a UID", after, UINT32)
    uids = [message.uid for message, _, _ in rows]
    if uids != sorted(set(uids)) or (uids and not after < uids[0] <= uids[-1] <= up_to):
        raise BadSyntax(f"these are not UIDs from {after + 1} to {up_to} in their order")
    return Kept(_name(words["name"]), after, up_to, rows)


def _compare(words: Words) -> Compare:
    what = str(words["what"])
    number = {"facts": words.get("upto"), "rows": words.get("after")}.get(what, -1)
    return Compare(
        parse_move_id(words["id"]),
        _name(words["root"]),
        _name(words["name"]),
        what,
        _number(number, "a number", -1, INT63),
    )


def parse_move_id(value: Any) -> str:
    """Raises BadSyntax: it becomes part of a file's name."""
    if not isinstance(value, str) or not _MOVE_ID.fullmatch(value):
        raise BadSyntax("the id of a move is 1 to 64 letters and digits")
    return value


def is_move_id(text: str) -> bool:
    return _MOVE_ID.fullmatch(text) is not None


def parse_subscriptions(value: Any) -> list[MailboxName]:
    """Raises BadSyntax."""
    if not isinstance(value, list):
        raise BadSyntax("subscriptions are no list")
    if len(value) > MAX_SUBSCRIPTIONS:
        raise BadSyntax(f"there are more than {MAX_SUBSCRIPTIONS} subscriptions")
    return [_name(name) for name in value]


def parse_acl_octets(value: Any) -> bytes:
    """Of a row of the list. Raises BadSyntax."""
    return checked_acl(_octets(value, "an access list"))


def checked_acl(raw_acl: bytes) -> bytes:
    """As it is; raises BadSyntax for what the list must not have."""
    if len(raw_acl) > MAX_ACL_OCTETS:
        raise BadSyntax(f"an access list has {len(raw_acl)} octets; it may have {MAX_ACL_OCTETS}")
    if not _ACL.fullmatch(raw_acl):
        raise BadSyntax("an access list has control characters")
    return raw_acl


def checked_name(name: MailboxName) -> MailboxName:
    """As it is; raises BadSyntax for what can be no mailbox's name."""
    try:
        check_existing_name(name)
    except Refusal as refusal:
        raise BadSyntax(f"{display(name[:100])}: {refusal.text}") from None
    return name


def checked_identity(identity: CarriedIdentity) -> CarriedIdentity:
    """As it is; raises BadSyntax. Clients are told both."""
    if not _OBJECT_ID.fullmatch(identity.mailbox_id):
        raise BadSyntax(f"{identity.mailbox_id[:40]!r} can be no mailbox's id")
    _number(identity.uid_validity, "UIDVALIDITY", 1, UINT32)
    return identity


def _was(value: Any) -> CarriedIdentity | None:
    match value:
        case None:
            return None
        case [str(mailbox_id), int(uid_validity)]:
            return checked_identity(CarriedIdentity(mailbox_id, UidValidity(uid_validity)))
    raise BadSyntax("what the mailbox was is no id with its UIDVALIDITY")


def checked_portrait(portrait: Portrait) -> Portrait:
    """As it is; raises BadSyntax."""
    checked_identity(portrait.identity)
    _number(portrait.uid_next, "UIDNEXT", 1, UINT32 + 1)
    _number(portrait.highest_modseq, "HIGHESTMODSEQ", 0, INT63)
    _number(portrait.recent_from, "the first recent UID", 0, UINT32 + 1)
    if any(not 0 <= modseq <= INT63 for modseq, _ in portrait.expunged):
        raise BadSyntax("a mod-sequence is out of range")
    if len(portrait.seen) > MAX_READERS:
        raise BadSyntax(f"a mailbox has more than {MAX_READERS} readers")
    for reader in portrait.seen:
        check_user(reader)
    return portrait


def check_user(user: str) -> None:
    """Raises BadSyntax for what can be nobody's name."""
    octets = user.encode("utf-8", "surrogateescape")
    if not 0 < len(octets) <= MAX_IDENTIFIER_OCTETS or any(
        octet < 0x20 or octet == 0x7F for octet in octets
    ):
        raise BadSyntax(f"{user[:40]!r} is no user's name")


def checked_message(message: Message) -> Message:
    """As it is; raises BadSyntax. Clients are told its flags and its id."""
    _number(message.uid, "a UID", 1, UINT32)
    _number(message.size, "a size", 0, UINT32)
    _number(message.modseq, "a mod-sequence", 0, INT63)
    if message.email_id and not _OBJECT_ID.fullmatch(message.email_id):
        raise BadSyntax(f"{message.email_id[:40]!r} can be no message's id")
    if len(message.flags) > MAX_FLAGS:
        raise BadSyntax(f"a message has more than {MAX_FLAGS} flags")
    for flag in message.flags:
        check_flag(flag)
    return message


def check_flag(flag: str) -> None:
    """Raises BadSyntax for what can be no message's flag."""
    if flag.startswith("\\"):
        is_good = canonical(flag) not in (None, RECENT)
    else:
        is_good = len(flag) <= MAX_KEYWORD_OCTETS and _KEYWORD.fullmatch(flag) is not None
    if not is_good:
        raise BadSyntax(f"{flag[:40]!r} is no flag")


def _name(value: Any) -> MailboxName:
    return checked_name(MailboxName(_octets(value, "a name")))


def _octets(value: Any, what: str) -> bytes:
    if not isinstance(value, str):
        raise BadSyntax(f"{what} is no text")
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        raise BadSyntax(f"{what} has characters that are no octets") from None


def _text(value: Any, what: str, most: int) -> str:
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise BadSyntax(f"{what} is no word of {most} characters at most")
    return value


def _number(value: Any, what: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadSyntax(f"{what} is no number from {least} to {most}")
    return value
