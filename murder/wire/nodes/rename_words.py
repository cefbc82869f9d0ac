"""What backends say to each other while a hierarchy that lies on several of them is renamed, deleted or brought back, as
values: frames of JSON, behind the command XPART. The server of the root asks for `prepare`, `commit` and `abort`; a part
asks for the `fate`.

The peer has shown a node's certificate; it may be a stolen one, or a node that is broken: every field is judged here.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from murder.errors import BadSyntax, Code, Refusal
from murder.model.name import MailboxName, before_deletion, display, is_deleted
from murder.wire.nodes.carry import format_name
from murder.wire.nodes.carry_words import check_user, checked_name
from murder.wire.nodes.json_fields import Fields, parse_fields

CAPABILITY: Final = b"X-RENAME"  # of a backend that does all this, and XRENAME
# of one that deletes hierarchies and brings them back likewise: XDELETE, XUNDELETE
TREES: Final = b"X-TREE"
MAX_OCTETS: Final = 64 * 1024  # of one frame: two names at most, and a sentence
_ID: Final = re.compile(r"[A-Za-z0-9]{1,64}")


class Act(Enum):
    """What becomes of a root and all below it. The values are the words on the wire."""

    RENAME = "prepare"
    # `new` is where the root rests, with the moment: also where nothing rests
    DELETE = "prepare_delete"
    # `old` is where the root rests: all comes back that was deleted with it
    UNDELETE = "prepare_undelete"


@dataclass(frozen=True, slots=True)
class Prepare:
    """Write down that what is there below `old` will be below `new`. `user` wants it; an administrator has no limits."""

    id: str
    old: MailboxName
    new: MailboxName
    user: str
    is_admin: bool
    act: Act = Act.RENAME


@dataclass(frozen=True, slots=True)
class Commit:
    """It is decided."""

    id: str


@dataclass(frozen=True, slots=True)
class Abort:
    """It will not be."""

    id: str


@dataclass(frozen=True, slots=True)
class AskFate:
    """What has become of it?"""

    id: str


Request = Prepare | Commit | Abort | AskFate


class Fate(Enum):
    """What the server of the root says of a RENAME."""

    COMMIT = "commit"
    # also where it knows of none: what it has not written down has not been decided
    ABORT = "abort"
    OPEN = "open"  # it is under way


@dataclass(frozen=True, slots=True)
class Done:
    """What was asked for is done, and durable."""


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to AskFate."""

    fate: Fate


@dataclass(frozen=True, slots=True)
class Refused:
    """It was not done. `names` are the mailboxes that the text tells of, as Refusal has them."""

    code: Code
    text: str
    names: tuple[MailboxName, ...] = ()


Answer = Done | Told | Refused


def parse_request(octets: bytes) -> Request:
    """Raises BadSyntax, which says which field is wrong and how; Refusal for a word that this version does not know."""
    fields = _fields_of(octets)
    match fields.word("do"):
        case "prepare" | "prepare_delete" | "prepare_undelete" as word:
            user = fields.text("user")
            check_user(user)
            old, new = checked_name(fields.name("old")), checked_name(fields.name("new"))
            act = Act(word)
            _check_act(act, old, new)
            return Prepare(_id_of(fields), old, new, user, fields.flag("is_admin"), act)
        case "commit":
            return Commit(_id_of(fields))
        case "abort":
            return Abort(_id_of(fields))
        case "fate":
            return AskFate(_id_of(fields))
        case other:
            raise Refusal(Code.CANNOT, f"{str(other)[:40]!r} is unknown here")


def format_request(request: Request) -> dict[str, object]:
    """As the words of a frame."""
    match request:
        case Prepare(rename_id, old, new, user, is_admin, act):
            names = {"old": format_name(old), "new": format_name(new)}
            return {"do": act.value, "id": rename_id, **names, "user": user, "is_admin": is_admin}
        case Commit(rename_id):
            return {"do": "commit", "id": rename_id}
        case Abort(rename_id):
            return {"do": "abort", "id": rename_id}
        case AskFate(rename_id):
            return {"do": "fate", "id": rename_id}
        case _:
            assert_never(request)


def _check_act(act: Act, old: MailboxName, new: MailboxName) -> None:
    """Raises BadSyntax where the name of what is deleted is not that of its resting place."""
    if act is Act.RENAME:
        return
    resting, name = (new, old) if act is Act.DELETE else (old, new)
    before = before_deletion(resting) if is_deleted(resting) else None
    if before is None or before[0] != name:
        raise BadSyntax(f"{display(name)} does not rest at {display(resting)}")


def _fields_of(octets: bytes) -> Fields:
    if len(octets) > MAX_OCTETS:
        raise BadSyntax(f"a frame of {len(octets)} octets; it may have {MAX_OCTETS}")
    return parse_fields(octets)


def is_rename_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def _id_of(fields: Fields) -> str:
    text = fields.text("id")
    if not is_rename_id(text):
        raise BadSyntax("the id of a RENAME is 1 to 64 letters and digits")
    return text


def parse_answer(octets: bytes) -> Answer:
    """Raises BadSyntax."""
    fields = _fields_of(octets)
    if "no" in fields:
        try:
            code = Code(fields.text("code", ""))
        except ValueError:
            code = Code.NONE
        return Refused(code, fields.text("no"), fields.names("names", ()))
    if "fate" in fields:
        try:
            return Told(Fate(fields.text("fate")))
        except ValueError:
            raise BadSyntax("fate is none of commit, abort and open") from None
    if fields.flag("ok"):
        return Done()
    raise BadSyntax("ok is false")


def format_answer(answer: Answer) -> dict[str, object]:
    """As the words of a frame."""
    match answer:
        case Done():
            return {"ok": True}
        case Told(fate):
            return {"fate": fate.value}
        case Refused(code, text, names):
            external = [format_name(name) for name in names]
            return {"no": text, "code": code.value, "names": external}
        case _:
            assert_never(answer)
