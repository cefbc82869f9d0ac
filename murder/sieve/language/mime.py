"""Parts of a message: RFC 5703. Tests of their headers, loops over them, their text, and what is put in their place."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from murder.mime.decode import decode_text
from murder.mime.field import parameter_value, parse_disposition, parse_media
from murder.model.part import Part
from murder.sieve.check.checker import Wrong
from murder.sieve.check.emit import Label
from murder.sieve.check.spec import Argument, Call, Extension, Result, Suspended, Tag, Takes, Word
from murder.sieve.language.variables import MODIFIER_TAGS, check_name, modified, modifiers_of
from murder.sieve.match.kinds import Over
from murder.sieve.problem import RunProblem
from murder.sieve.questions import LongWork
from murder.sieve.run.machine import Machine, cut
from murder.sieve.run.message import FIELDS_AT_ONCE, Field, Message, read_fields
from murder.sieve.run.parts import (
    HTML_STEPS,
    content_of,
    parts_in,
    structure_of,
    without_markup,
)

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.check.emit import Emitter
    from murder.sieve.grammar.tree import Node

MAX_LOOPS: Final = 4  # within each other, as Pigeonhole
LOOPS: Final = "foreverypart"


@dataclass(slots=True)
class Loop:
    """Parts that are still to be gone through; `part` is the one that is. They are places in `message`, but for `by` octets:
    an edit of the header moves all of them, and a script may make one for each."""

    parts: list[Part]
    message: Message
    at: int = -1
    by: int = 0
    _moved: tuple[int, int, Part] | None = None  # of which place, by how much

    @property
    def part(self) -> Part:
        part = self.parts[self.at]
        if not self.by:
            return part
        if self._moved is None or self._moved[:2] != (self.at, self.by):
            self._moved = (self.at, self.by, _moved_by(part, self.by))
        return self._moved[2]

    def settle(self) -> None:
        """All of them are where they are said to be, for who changes them."""
        self._moved = None
        if self.by:
            self.parts[:] = [_moved_by(part, self.by) for part in self.parts]
            self.by = 0


def open_loops(machine: Machine) -> list[Loop]:
    """The loops that stand around the present command, outermost first."""
    loops: list[Loop] = machine.state.setdefault(LOOPS, [])
    for loop in loops:
        if loop.message is not machine.message:
            _follow(loop, machine.message)
    return loops


def _follow(loop: Loop, message: Message) -> None:
    """The header was edited: all parts are where they were in the body."""
    loop.by += message.header_size - loop.message.header_size
    loop.message = message


def _moved_by(part: Part, by: int) -> Part:
    return replace(
        part,
        header_start=part.header_start + by if part.header_start else 0,
        body_start=part.body_start + by,
        body_end=part.body_end + by,
        children=tuple(_moved_by(child, by) for child in part.children),
    )


# Headers of parts


def fields_of_parts(machine: Machine, call: Call, names: Sequence[str]) -> Suspended:
    """With `:mime` the fields of the part that a loop is at, else of the whole; with `:anychild` of those within, too."""
    loops = open_loops(machine)
    if loops:  # which knows the parts, also those of a message that was edited since
        part = loops[-1].part
    else:
        part = yield from structure_of(machine, machine.message)
    parts = parts_in(part) if "anychild" in call.tags else iter((part,))
    of_parts: list[Field] = []
    wanted = {name.lower() for name in names}
    for mime_part in parts:
        machine.looked_at(mime_part.body_start - mime_part.header_start)
        fields = read_fields(machine.message.octets, mime_part.header_start, mime_part.body_start)
        for number, field in enumerate(fields, 1):
            if field.name in wanted:
                of_parts.append(field)
            if not number % FIELDS_AT_ONCE:
                machine.charge(FIELDS_AT_ONCE)
                yield None
        yield None
    return of_parts


def aspect_of(machine: Machine, call: Call, field: Field) -> list[str]:
    """The values that a test looks at: the whole field, or what of a structured one is asked for (RFC 5703 §4.1)."""
    how = call.tags.get("mimeopts")
    if how is None:
        return [field.text]
    is_media = field.name == "content-type"
    media = parse_media(field.value) if is_media else None
    if how == "param":
        if is_media:
            parameters = media[1] if media is not None else ()
        else:
            disposition = parse_disposition(field.value)
            parameters = disposition[1] if disposition is not None else ()
        wanted = machine.texts(call.tags["param"])
        values = [
            parameter_value(parameters, name.upper().encode("utf-8", "surrogateescape"))
            for name in wanted
        ]
        return [decode_text(value, "utf-8") for value in values if value is not None]
    disposition = parse_disposition(field.value) if field.name == "content-disposition" else None
    if disposition is not None:
        first = disposition[0].decode("latin-1").lower()
        return {"type": [first], "subtype": [""], "contenttype": [first]}[how]
    if media is None:  # or it is another field; those that are understood are counted
        is_counted = call.matching is not None and call.matching.kind.over is Over.COUNT
        return [] if is_counted else [""]
    main, sub = (word.decode("latin-1").lower() for word in media[0])
    return {"type": [main], "subtype": [sub], "contenttype": [f"{main}/{sub}"]}[how]


def _check_mime(checker: "Checker", call: Call, node: "Node") -> None:
    for name in ("mimeopts", "anychild"):
        if name in call.tags and "mime" not in call.tags:
            tag_text = "the :anychild tag" if name == "anychild" else f"the :{call.tags[name]} tag"
            raise Wrong(node.at, f"{tag_text} for the {node.name} test requires the :mime tag")


# Loops


def _enter(machine: Machine, call: Call) -> Suspended:
    """The parts within the one that is around, or all of the message, itself first."""
    loops = open_loops(machine)
    if len(loops) >= MAX_LOOPS:
        raise RunProblem(f"foreverypart loops are nested too deeply (max {MAX_LOOPS})")
    if loops:
        parts = list(parts_in(loops[-1].part))[1:]
        machine.charge(len(parts))
        loops.append(Loop(parts, machine.message))
    else:
        root = yield from structure_of(machine, machine.message)
        loops.append(Loop(list(parts_in(root)), machine.message))
    machine.charge(len(loops[-1].parts))


def _next(machine: Machine, call: Call) -> Result:
    loop = open_loops(machine)[-1]
    loop.at += 1
    return loop.at < len(loop.parts)


def _leave(machine: Machine, call: Call) -> Result:
    open_loops(machine).pop()
    return None


_ENTER: Final = Word(LOOPS, run=_enter)
_NEXT: Final = Word(LOOPS, run=_next, is_test=True)
_LEAVE: Final = Word(LOOPS, run=_leave)


def _emit_loop(emitter: "Emitter", call: Call) -> None:
    begin, end = Label(), Label()
    emitter.do(Call(_ENTER, call.at, call.line, call.column))
    emitter.place(begin)
    emitter.unless(Call(_NEXT, call.at, call.line, call.column), end)
    leave = Call(_LEAVE, call.at, call.line, call.column)
    emitter.loops.append((call.tags.get("name", ""), end, leave))
    emitter.commands(call.block)
    emitter.loops.pop()
    emitter.go(begin)
    emitter.place(end)
    emitter.do(leave)


def _emit_break(emitter: "Emitter", call: Call) -> None:
    """To the end of the innermost loop, or of the one with this name; those within it are left."""
    name = call.tags.get("name")
    for loop, end, leave in reversed(emitter.loops):
        if name is None or loop == name:
            emitter.go(end)
            return
        emitter.do(leave)


def _check_loop(checker: "Checker", call: Call, node: "Node") -> None:
    _check_loop_name(call, node)
    if len(_loops_around(checker)) >= MAX_LOOPS:
        raise Wrong(node.at, f"foreverypart loops are nested too deeply (max {MAX_LOOPS})")


def _check_loop_name(call: Call, node: "Node") -> None:
    if "name" in call.tags and not isinstance(call.tags["name"], str):
        raise Wrong(node.at, "the :name of a loop is a constant string")


def _loops_around(checker: "Checker") -> list[Call]:
    return [call for call in checker.around if call.word.name == LOOPS]


def _check_break(checker: "Checker", call: Call, node: "Node") -> None:
    _check_loop_name(call, node)
    loops = _loops_around(checker)
    if not loops:
        raise Wrong(node.at, "the break command is not placed inside a foreverypart loop")
    name = call.tags.get("name")
    if name is not None and name not in [loop.tags.get("name") for loop in loops]:
        raise Wrong(
            node.at, f"the break command names no foreverypart loop around it: '{name[:60]}'"
        )


# Texts of parts


def _check_extract(checker: "Checker", call: Call, node: "Node") -> None:
    if "variables" not in checker.required:
        raise Wrong(node.at, "extracttext command requires that variables extension is active")
    if not _loops_around(checker):
        raise Wrong(node.at, "the extracttext command is not placed inside a foreverypart loop")
    call.data = (check_name(checker, call.arguments[0], node), modifiers_of(call))


def _extract(machine: Machine, call: Call) -> Suspended:
    """RFC 5703 §7: of a part that is no text, nothing."""
    reference, modifiers = call.data
    loops = open_loops(machine)
    part = loops[-1].part
    text = ""
    if part.media[0] == b"TEXT":
        text = yield from content_of(machine, machine.message, part, is_text=True)
        if part.media[1] == b"HTML":
            machine.looked_at(HTML_STEPS * len(text))
            text = yield LongWork(partial(without_markup, text))
    first = call.tags.get("first")
    if first is not None:
        text = text[:first]
    text = cut(text, machine.limits.value_octets)
    machine.set_variable(reference, modified(machine, text, modifiers))


_LOOP_NAME: Final = Tag("name", Takes.STRING)
_MIME_TAGS: Final = (
    Tag("mime"),
    Tag("anychild"),
    *(Tag(name, group="mimeopts") for name in ("type", "subtype", "contenttype")),
    Tag("param", Takes.STRINGS, group="mimeopts", value="param"),
)
_TESTS: Final = ("header", "address", "exists")

MIME: Final = Extension(
    "mime",
    tags={"header": _MIME_TAGS, "address": _MIME_TAGS[:2], "exists": _MIME_TAGS[:2]},
    checks=dict.fromkeys(_TESTS, _check_mime),
)
FOREVERYPART: Final = Extension(
    "foreverypart",
    words=(
        Word(LOOPS, (), (_LOOP_NAME,), block=True, check=_check_loop, emit=_emit_loop),
        Word("break", (), (_LOOP_NAME,), check=_check_break, emit=_emit_break),
    ),
)
EXTRACTTEXT: Final = Extension(
    "extracttext",
    needs=("foreverypart",),
    words=(
        Word(
            "extracttext",
            (Argument("varname", Takes.STRING),),
            (*MODIFIER_TAGS, Tag("first", Takes.NUMBER)),
            check=_check_extract,
            run=_extract,
        ),
    ),
)
