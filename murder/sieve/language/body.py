"""What is in the body: RFC 5173."""

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from murder.mime.decode import AS_IT_IS
from murder.mime.field import parameter_value, parse_token
from murder.model.part import Part
from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Call, Extension, Suspended, Tag, Takes, Word
from murder.sieve.language.arguments import KEYS, MATCH_TAGS
from murder.sieve.language.fields import aside
from murder.sieve.language.mailboxes import matched
from murder.sieve.questions import LongWork
from murder.sieve.run.machine import Machine
from murder.sieve.run.message import read_fields
from murder.sieve.run.parts import (
    HTML_STEPS,
    SHORT,
    content_of,
    parts_in,
    raw_text,
    structure_of,
    without_markup,
)

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node

_HTML: Final = ((b"TEXT", b"HTML"), (b"APPLICATION", b"XHTML+XML"))
_BODIES: Final = "bodies"
MAX_KEPT: Final = 8  # texts of a body, of different types
MAX_KEPT_CHARACTERS: Final = 1024 * 1024  # of each
_READ: Final = ("text", "application/xhtml+xml")
_ENCODINGS: Final = AS_IT_IS - {b""} | {b"BASE64", b"QUOTED-PRINTABLE"}
# A Content-Type with more than one slash is none, though its begin may look like one
_MALFORMED: Final = re.compile(rb"[^/;]*+/[^/;\s]*+/")


def is_of_type(part: Part, wanted: str) -> bool:
    """`text`, `text/plain`, or empty for any (RFC 5173 §4.4)."""
    if not wanted:
        return True
    main, slash, sub = wanted.partition("/")
    if (slash and (not main or not sub)) or "/" in sub:
        return False
    media = (part.media[0].decode("latin-1").lower(), part.media[1].decode("latin-1").lower())
    return media[0] == main and (not slash or media[1] == sub)


def _body(machine: Machine, call: Call) -> Suspended:
    how = call.tags.get("transform", "text")
    if how == "raw":
        octets = machine.message.body
        if not octets:
            return False  # there is none
        if len(octets) > machine.limits.body_octets:
            machine.note("the body is longer than what is looked at")
            octets = octets[: machine.limits.body_octets]
        machine.looked_at(len(octets))
        values = [(yield from aside(len(octets) > SHORT, lambda: raw_text(octets)))]
    else:
        is_read = how == "text"
        wanted = _READ if is_read else tuple(map(str.lower, machine.texts(call.tags["content"])))
        values = yield from _kept(machine, wanted, is_read=is_read)
    matched_before = list(machine.frame.matched)
    is_match = yield from matched(machine, call, values)
    machine.frame.matched = matched_before  # RFC 5173 §6: `body` sets no match values
    return is_match


def _kept(machine: Machine, wanted: tuple[str, ...], *, is_read: bool) -> Suspended:
    """As `_contents`; what is not large is kept for the next test."""
    known = machine.message.known.setdefault(_BODIES, {})
    key = (wanted, is_read)
    if key not in known:
        values = yield from _contents(machine, wanted, is_read=is_read)
        if len(known) >= MAX_KEPT or sum(map(len, values)) > MAX_KEPT_CHARACTERS:
            return values
        known[key] = values
    return known[key]


def _contents(machine: Machine, wanted: Sequence[str], *, is_read: bool = False) -> Suspended:
    """The texts of all parts of a type: of a multipart what is around its parts, of a message its header (RFC 5173
    §4.4). `is_read`: as people read it, without HTML's tags."""
    message = machine.message
    root = yield from structure_of(machine, message)
    values: list[str] = []
    left = machine.limits.body_octets
    for part in parts_in(root):
        machine.charge(1)
        if not any(is_of_type(part, media_type) for media_type in wanted):
            continue
        if part.is_multipart:
            values += yield from _around_parts(machine, part)
        elif part.is_message:
            values.append((yield from _header_of(machine, part.children[0])))
        elif not is_read or not _is_broken(machine, part):
            is_text = part.media[0] == b"TEXT" or is_read
            text = yield from content_of(machine, message, part, is_text=is_text, most=left)
            left -= min(left, part.size)
            if is_read and part.media in _HTML:
                machine.looked_at(HTML_STEPS * len(text))
                text = yield LongWork(partial(without_markup, text))
            values.append(text)
    return values


def _is_broken(machine: Machine, part: Part) -> bool:
    """Whether nobody could read it: its encoding is not known, or its type is none."""
    for field in read_fields(machine.message.octets, part.header_start, part.body_start):
        if field.name == "content-type" and _MALFORMED.match(field.value):
            return True
        if field.name == "content-transfer-encoding" and field.value:
            return parse_token(field.value) not in _ENCODINGS
    return False


def _raw(machine: Machine, start: int, end: int) -> Suspended:
    """What stands there in the message, as text; others have their turn before the next of thousands."""
    octets = memoryview(machine.message.octets)[start:end][: machine.limits.body_octets]
    machine.looked_at(len(octets))
    yield None
    return (yield from aside(len(octets) > SHORT, lambda: raw_text(octets)))


def _header_of(machine: Machine, message: Part) -> Suspended:
    """Of a message within."""
    header: str = yield from _raw(machine, message.header_start, message.body_start)
    return header.removesuffix("\n").removesuffix("\r")


def _around_parts(machine: Machine, part: Part) -> Suspended:
    """What stands before the first boundary of a multipart, and behind the last."""
    boundary = (parameter_value(part.parameters, b"BOUNDARY") or b"").decode("utf-8", "replace")
    before: str = yield from _raw(machine, part.body_start, part.children[0].header_start)
    behind: str = yield from _raw(machine, part.children[-1].body_end, part.body_end)
    # the boundary is the line before the first part: to look for it in all that is there may take its length as often
    line = before.rfind("\n", 0, max(len(before) - 1, 0)) + 1
    before = before[:line] if before.startswith(f"--{boundary}", line) else ""
    line = behind.find("\n", behind.find(f"--{boundary}--") + 1)
    return [before, behind[line + 1 :] if line >= 0 else ""]


def _check(checker: "Checker", call: Call, node: "Node") -> None:
    """RFC 5173 §4.1: `:raw` and `:text` take nothing."""
    if "content" in call.tags and not call.tags["content"]:
        raise Wrong(node.at, "the :content tag takes content types")


BODY: Final = Extension(
    "body",
    words=(
        Word(
            "body",
            (KEYS,),
            (
                *MATCH_TAGS,
                Tag("raw", group="transform"),
                Tag("text", group="transform"),
                Tag("content", Takes.STRINGS, group="transform", value="content"),
            ),
            is_test=True,
            check=_check,
            run=_body,
        ),
    ),
)
