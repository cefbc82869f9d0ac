"""What the target of a move answers its source, as values: the other half of `carry_words`.

The peer has shown a node's certificate; every field is judged here all the same: the source's journal, its reports to
operators and what it sends next are made of them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, assert_never

from murder.errors import BadSyntax, Code, Refusal
from murder.model.message import Message, ModSeq
from murder.model.name import MailboxName
from murder.model.seqset import Ranges
from murder.wire.nodes.carry import (
    Words,
    format_message,
    format_name,
    format_ranges,
    parse_message,
    parse_uid_ranges,
)
from murder.wire.nodes.json_fields import Fields

NUMBERS = (
    *("messages", "unseen", "deleted", "octets"),
    *("uid_next", "uid_validity", "highest_modseq"),
)


@dataclass(frozen=True, slots=True)
class Done:
    """What was asked for is done, and durable."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the target has of a mailbox already: up to which mod-sequence, and which messages; which it keeps of those that
    were expunged, None where it takes none of these."""

    modseq: ModSeq
    uids: Ranges
    kept: Ranges | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A digest of a batch as it reads it back."""

    digest: str


@dataclass(frozen=True, slots=True)
class Sum:
    """A mailbox's numbers; `uids` is a digest of all UIDs, ascending."""

    messages: int
    unseen: int
    deleted: int
    octets: int
    uid_next: int
    uid_validity: int
    highest_modseq: int
    uids: str = ""

    def differing(self, other: "Sum") -> list[str]:
        """The names of the fields that are not the same."""
        names = [field.name for field in fields(self)]
        return sorted(name for name in names if getattr(self, name) != getattr(other, name))


@dataclass(frozen=True, slots=True)
class Known:
    """What the server asked knows of a move, "" for nothing, and whether it has the mailbox at its root."""

    state: str
    has_root: bool


@dataclass(frozen=True, slots=True)
class TreeRow:
    """A mailbox of a tree as the list there shows it."""

    name: MailboxName
    mailbox_id: str
    raw_acl: bytes
    seq: int


@dataclass(frozen=True, slots=True)
class Tree:
    """All that is beside the messages. `notes` are without secrets; `shown_seq` is that of the list when the move ended,
    `left_to` the server that it has moved on to."""

    rows: tuple[TreeRow, ...]
    notes: Mapping[str, bytes]
    subscriptions: tuple[MailboxName, ...]
    shown_seq: int
    names: tuple[MailboxName, ...]
    left_to: str


@dataclass(frozen=True, slots=True)
class Facts:
    """A mailbox's numbers. `gone` are the UIDs expunged after the mod-sequence that was asked for, `gone_before` a digest of
    all earlier ones, `seen` a digest for each other reader."""

    numbers: Mapping[str, int]
    mailbox_id: str
    gone: Ranges
    gone_before: str
    seen: Mapping[str, str]

    @property
    def modseq(self) -> int:
        """The highest that it has."""
        return self.numbers["highest_modseq"]


@dataclass(frozen=True, slots=True)
class Row:
    """A message as one side has it: `digest` of its octets, "" where they cannot be read, and `problem` says why."""

    message: Message
    digest: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CopyRows:
    """The next messages of a mailbox that is compared; none at its end."""

    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """It was not done."""

    code: Code
    text: str


Answer = Done | Held | Stored | Sum | Known | Tree | Facts | CopyRows | Refused


def format_answer(answer: Answer) -> Words:
    """As the words of a frame."""
    match answer:
        case Done():
            return {"ok": True}
        case Held(modseq, uids, kept):
            held = {"modseq": int(modseq), "uids": format_ranges(uids)}
            return held if kept is None else held | {"kept": format_ranges(kept)}
        case Stored(digest):
            return {"digest": digest}
        case Sum():
            return asdict(answer)
        case Known(state, has_root):
            return {"state": state, "has": has_root}
        case Tree():
            return _format_tree(answer)
        case Facts(numbers, mailbox_id, gone, gone_before, seen):
            fields = {"ok": True, "numbers": dict(numbers), "mailbox_id": mailbox_id}
            return fields | {
                "gone": format_ranges(gone),
                "gone_before": gone_before,
                "seen": dict(seen),
            }
        case CopyRows(rows):
            told_rows = [[*format_message(row.message), row.digest, row.problem] for row in rows]
            return {"ok": True, "rows": told_rows}
        case Refused(code, text):
            return {"no": text, "code": code.value}
        case _:
            assert_never(answer)


def _format_tree(tree: Tree) -> Words:
    rows = [
        {
            "name": format_name(row.name),
            "id": row.mailbox_id,
            "acl": format_name(row.raw_acl),
            "seq": row.seq,
        }
        for row in tree.rows
    ]
    return {
        "ok": True,
        "tree": rows,
        "notes": {key: format_name(octets) for key, octets in tree.notes.items()},
        "subscriptions": [format_name(name) for name in tree.subscriptions],
        "shown_seq": tree.shown_seq,
        "names": [format_name(name) for name in tree.names],
        "left_to": tree.left_to,
    }


def check_refused(words: Words, server: str) -> None:
    """Raises Refusal where it says `no`; BadSyntax."""
    fields_told = Fields(words)
    if "no" in fields_told:
        try:
            code = Code(words.get("code", ""))
        except ValueError:
            code = Code.NONE
        text = fields_told.text("no")
        raise Refusal(code, text if text.startswith(f"{server} ") else f"{server}: {text}")


def parse_done(words: Words) -> Done:
    """Raises BadSyntax, as all below."""
    if not Fields(words).flag("ok"):
        raise BadSyntax("ok is false")
    return Done()


def parse_held(words: Words) -> Held:
    """The answer to Hold."""
    modseq = Fields(words).integer("modseq")
    if modseq < 0:
        raise BadSyntax("modseq is below 0")
    kept = None if words.get("kept") is None else parse_uid_ranges(words["kept"])
    return Held(ModSeq(modseq), parse_uid_ranges(words.get("uids")), kept)


def parse_stored(words: Words) -> Stored:
    """The answer to Rows, and to Kept."""
    return Stored(Fields(words).text("digest"))


def parse_sum(answer: Words) -> Sum:
    """The answer to AskSum."""
    words = Fields(answer)
    counted = {key: words.integer(key) for key in NUMBERS}
    return Sum(**counted, uids=words.text("uids"))


def parse_known(answer: Words) -> Known:
    """The answer to Fate."""
    words = Fields(answer)
    return Known(words.text("state"), words.flag("has"))


def parse_moved_tree(answer: Words) -> Tree:
    """The answer to Compare("tree")."""
    words = Fields(answer)
    rows = answer.get("tree")
    if not isinstance(rows, list):
        raise BadSyntax("tree is no list")
    return Tree(
        tuple(_parse_tree_row(row) for row in rows),
        _octets_by_key(answer, "notes"),
        words.names("subscriptions"),
        words.integer("shown_seq"),
        words.names("names"),
        words.text("left_to"),
    )


def _parse_tree_row(row: Any) -> TreeRow:
    if not isinstance(row, dict):
        raise BadSyntax("tree has what is no object")
    words = Fields(row)
    return TreeRow(
        words.name("name"), words.text("id"), bytes(words.name("acl")), words.integer("seq")
    )


def _octets_by_key(words: Words, key: str) -> dict[str, bytes]:
    octets_by_name = words.get(key)
    if not isinstance(octets_by_name, dict):
        raise BadSyntax(f"{key} is no object")
    return {name: bytes(Fields(octets_by_name).name(name)) for name in octets_by_name}


def parse_facts(answer: Words) -> Facts:
    """The answer to Compare("facts")."""
    words = Fields(answer)
    numbers = answer.get("numbers")
    if not isinstance(numbers, dict):
        raise BadSyntax("numbers is no object")
    counted = {key: Fields(numbers).integer(key) for key in NUMBERS}
    seen = answer.get("seen")
    if not isinstance(seen, dict):
        raise BadSyntax("seen is no object")
    return Facts(
        counted,
        words.text("mailbox_id"),
        parse_uid_ranges(answer.get("gone")),
        words.text("gone_before"),
        {reader: Fields(seen).text(reader) for reader in seen},
    )


def parse_rows(words: Words) -> CopyRows:
    """The answer to Compare("rows")."""
    rows = words.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise BadSyntax("rows is no list of lists")
    return CopyRows(tuple(Row(parse_message(row[:-2]), str(row[-2]), str(row[-1])) for row in rows))
