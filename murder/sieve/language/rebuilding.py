"""Parts put in the place of others, and messages put into others: RFC 5703 §5, §6."""

from collections.abc import Sequence
from dataclasses import replace as changed
from functools import partial
from typing import Final

from murder.model.part import Part
from murder.sieve.check.spec import Argument, Call, Extension, Suspended, Tag, Takes, Word
from murder.sieve.language.fields import LARGE_OCTETS, aside
from murder.sieve.language.mime import Loop, open_loops
from murder.sieve.problem import RunProblem
from murder.sieve.questions import LargeWork
from murder.sieve.run.compose import common_fields, format_field, format_lines, message_id
from murder.sieve.run.machine import Machine
from murder.sieve.run.message import Field, Message, field_of
from murder.sieve.run.parts import structure_of

MAX_REBUILT: Final = 16  # times that a message is put together anew, in one run
_KEPT: Final = ("subject", "from")


def _rebuild(machine: Machine) -> None:
    """Raises RunProblem when it was done too often."""
    count = machine.state["rebuilt"] = machine.state.get("rebuilt", 0) + 1
    if count > MAX_REBUILT:
        raise RunProblem(f"the message is replaced or enclosed too often (max {MAX_REBUILT})")
    # each may be in an action, and is in memory until that is done
    octets = machine.state["rebuilt octets"] = (
        machine.state.get("rebuilt octets", 0) + machine.message.size
    )
    if count > 1 and octets > machine.limits.rebuilt_octets:
        raise RunProblem("the message is too large to be replaced or enclosed so often")
    machine.check_editable()
    machine.looked_at(machine.message.size)


def _part(call: Call, text: str, line_end: bytes) -> bytes:
    """A part of a text: with `:mime` it has its own header."""
    body = format_lines(text).replace(b"\r\n", line_end)
    if "mime" in call.tags:
        return body
    fields = (
        format_field("Content-Type", "text/plain; charset=utf-8", line_end),
        format_field("Content-Transfer-Encoding", "8bit", line_end),
    )
    return b"".join(fields) + line_end + body


def _replace(machine: Machine, call: Call) -> Suspended:
    text = machine.text(call.arguments[0])
    _rebuild(machine)
    loops = open_loops(machine)
    root = yield from structure_of(machine, machine.message)
    new = _part(call, text, machine.message.line_end)
    machine.made(len(new))
    part = loops[-1].part if loops else root
    if part.header_start == root.header_start and part.body_end == root.body_end:
        yield from _replace_all(machine, call, new)
        _end(loops, machine.message)
        return
    octets = memoryview(machine.message.octets)
    # The line end before a boundary is the boundary's
    new = new.removesuffix(b"\n").removesuffix(b"\r")
    pieces = (octets[: part.header_start], new, octets[part.body_end :])
    if len(octets) <= LARGE_OCTETS:
        joined = b"".join(pieces)
    else:
        joined = yield LargeWork(lambda: b"".join(pieces))
    yield from _read(machine, joined)
    for loop in loops:
        loop.message = machine.message
    _shift(loops, part, len(new) - (part.body_end - part.header_start))


def _replace_all(machine: Machine, call: Call, new: bytes) -> Suspended:
    """The message keeps its header, but what it says of the body; fields that change are kept under another name."""
    end = machine.message.line_end
    fields: list[Field] = []
    for field in machine.message.fields:
        if field.name.startswith("content-") or field.name == "mime-version":
            continue
        if field.name in _KEPT and field.name in call.tags:
            fields.append(field_of(b"Original-" + field.whole))
        else:
            fields.append(field)
    for name in _KEPT:
        if name in call.tags:
            value = machine.text(call.tags[name])
            formatted = partial(format_field, name.title(), value, end)
            fields.append(field_of((yield from aside(len(value) > LARGE_OCTETS, formatted))))
    fields.append(field_of(format_field("MIME-Version", "1.0", end)))
    yield from _read(machine, b"".join(field.whole for field in fields) + new)


def _read(machine: Machine, octets: bytes) -> Suspended:
    """From here on the message is this one."""
    message = Message(octets)
    yield from machine.reading(message)
    machine.edit(message)


def _shift(loops: Sequence[Loop], gone: Part, by: int) -> None:
    """Loops go on over the same parts, at their new places; not into the one that was replaced."""
    for loop in loops:
        loop.settle()
        kept = []
        for number, part in enumerate(loop.parts):
            is_inside = gone.header_start <= part.header_start and part.body_end <= gone.body_end
            if number > loop.at and is_inside:
                continue
            kept.append(_moved(part, gone, by) if number >= loop.at else part)
        loop.parts[:] = kept


def _moved(part: Part, gone: Part, by: int) -> Part:
    if part.body_end < gone.body_end or (
        part.body_end == gone.body_end and part.header_start > gone.header_start
    ):
        return part
    if part.header_start == gone.header_start and part.body_end == gone.body_end:
        return changed(part, body_end=max(part.body_start, part.body_end + by), children=())
    is_behind = part.header_start >= gone.body_end
    return changed(
        part,
        header_start=part.header_start + by if is_behind else part.header_start,
        body_start=part.body_start + by if is_behind else part.body_start,
        body_end=part.body_end + by,
        children=tuple(_moved(child, gone, by) for child in part.children),
    )


def _enclose(machine: Machine, call: Call) -> Suspended:
    """The message becomes an attachment of another, whose text is the script's (RFC 5703 §6)."""
    loops = open_loops(machine)
    if loops:
        machine.note("enclose works on the whole message, also in a loop")
    text = machine.text(call.arguments[0])
    _rebuild(machine)
    lines = machine.texts(call.tags.get("headers", ()))
    subject = machine.text(call.tags["subject"]) if "subject" in call.tags else None
    header = yield from aside(
        len(subject or "") + sum(map(len, lines)) > LARGE_OCTETS,
        lambda: _envelope_fields(machine, subject, lines),
    )
    boundary = "=_" + message_id(machine, "enclose", text)[7:39]
    original = machine.message.octets
    made = b"".join(header)
    body = format_lines(text)
    machine.made(len(made) + len(body))

    def joined() -> bytes:
        marks = f"--{boundary}\r\n".encode()
        return b"".join(
            (
                made,
                f'Content-Type: multipart/mixed; boundary="{boundary}"\r\n\r\n'.encode(),
                marks,
                b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
                body,
                b"\r\n" + marks,
                b"Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n",
                original,
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )

    octets = joined() if len(original) <= LARGE_OCTETS else (yield LargeWork(joined))
    yield from _read(machine, octets)
    _end(loops, machine.message)


def _end(loops: Sequence[Loop], message: Message) -> None:
    """Nothing of what they go through is there any more."""
    for loop in loops:
        loop.parts[loop.at + 1 :] = []
        loop.message = message


def _envelope_fields(machine: Machine, subject: str | None, lines: Sequence[str]) -> list[bytes]:
    """From, To and the like are the message's; all else is new. Raises RunProblem."""
    fields = [format_field(name, value) for name, value in common_fields(machine, "enclose")]
    for name in ("from", "to", "cc"):
        fields += [field.whole for field in machine.message.named(name)]
    if subject is not None:
        fields.append(format_field("Subject", subject))
    else:
        fields += [field.whole for field in machine.message.named("subject")]
    for line in lines:
        name, colon, value = line.partition(":")
        known = field_of(format_field(name.strip(), value)) if colon else None
        if known is None or not known.name or known.name in _GENERATED:
            raise RunProblem(f"enclose: '{line[:60]}' is not a header that can be added")
        fields.append(known.whole)
    fields.append(format_field("MIME-Version", "1.0"))
    return fields


_GENERATED: Final = frozenset(
    "content-type content-transfer-encoding content-disposition mime-version message-id date".split()
)
_SUBJECT: Final = Tag("subject", Takes.STRING)

REPLACE: Final = Extension(
    "replace",
    words=(
        Word(
            "replace",
            (Argument("replacement", Takes.STRING),),
            (Tag("mime"), _SUBJECT, Tag("from", Takes.STRING)),
            run=_replace,
        ),
    ),
)
ENCLOSE: Final = Extension(
    "enclose",
    words=(
        Word(
            "enclose",
            (Argument("text", Takes.STRING),),
            (_SUBJECT, Tag("headers", Takes.STRINGS)),
            run=_enclose,
        ),
    ),
)
