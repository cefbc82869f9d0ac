"""Parts of a message as texts: for `body`, `extracttext` and what is said of parts. In steps, each a short piece of work."""

import re
from collections.abc import Iterator
from typing import Final

from murder.mime.decode import decoded_pieces, text_pieces
from murder.mime.entities import unescaped
from murder.mime.field import parameter_value
from murder.model.part import Part
from murder.sieve.check.spec import Suspended
from murder.sieve.match.comparators import fold_ascii
from murder.sieve.questions import LongWork
from murder.sieve.run.machine import Machine
from murder.sieve.run.message import Message

SHORT: Final = 64 * 1024  # octets of a message that is taken apart at once

WINDOW: Final = 64 * 1024  # characters looked at in one go: in C nobody else has a turn
HTML_STEPS: Final = 8  # times what other text costs

# What nobody reads, and where it ends
_HIDDEN: Final = {"<script": "</script", "<style": "</style", "<!--": "-->"}
MARKUP_LETTERS: Final = 3  # by which it is known
_MARKUP: Final = re.compile(r"</?[A-Za-z]|<[!?]")
# Elements whose text stands apart from what is before and behind them
_APART: Final = re.compile(
    r"</?(?:p|br|hr|div|t[dhr]|li|[uod]l|d[td]|h[1-6]|title|table|caption|blockquote|pre|option|address|section|article)"
    r"[\s/>]",
    re.IGNORECASE,
)


def structure_of(machine: Machine, message: Message) -> Suspended:
    """Its parts."""
    machine.looked_at(message.size)
    if message.size <= SHORT:
        return message.structure
    return (yield LongWork(lambda: message.structure))


def parts_in(part: Part) -> Iterator[Part]:
    """The part and all that is in it, in order, messages within it with their parts."""
    left = [part]
    while left:
        mime_part = left.pop()
        yield mime_part
        left.extend(reversed(mime_part.children))


def content_of(
    machine: Machine, message: Message, part: Part, *, is_text: bool, most: int | None = None
) -> Suspended:
    """A part without its transfer encoding, its text if it `is_text`; else each octet is a character, if it is no UTF-8. At
    `most` so many octets are looked at."""
    size = min(part.size, machine.limits.body_octets if most is None else most)
    if size < part.size:
        machine.note("a part of the message is longer than what is looked at")
    body = memoryview(message.octets)[part.body_start : part.body_start + size]
    octets = decoded_pieces(body, part.encoding) or decoded_pieces(body, b"") or iter(())
    pieces: list[str] = []
    if is_text:
        charset = (parameter_value(part.parameters, b"CHARSET") or b"").decode("ascii", "replace")
        for piece in text_pieces(octets, charset):
            machine.looked_at(len(piece))
            pieces.append(piece)
            yield None
        return "".join(pieces)
    gathered = []
    for raw in octets:
        machine.looked_at(len(raw))
        gathered.append(raw)
        yield None
    return b"".join(gathered).decode("utf-8", "surrogateescape")


def raw_text(octets: memoryview) -> str:
    """Octets as they are."""
    return bytes(octets).decode("utf-8", "surrogateescape")


def without_markup(text: str) -> str:
    """What is read of HTML: tags, scripts and styles left out, entities as characters, a blank between cells or paragraphs.
    Linear, and in short pieces, so that a thread that does it lets others run."""
    folded = fold_ascii(text)
    pieces: list[str] = []
    at = 0
    is_apart = False
    while at < len(text):
        tag = _find_markup(text, at)
        if is_apart and tag > at:
            is_apart = False
            if pieces and not (text[at].isspace() or pieces[-1][-1:].isspace()):
                pieces.append(" ")
        pieces += (unescaped(text[cut : min(cut + WINDOW, tag)]) for cut in range(at, tag, WINDOW))
        at = tag
        if at >= len(text):
            break
        is_apart = is_apart or _APART.match(text, at) is not None
        ending = next((end for begin, end in _HIDDEN.items() if folded.startswith(begin, at)), None)
        if ending is not None:
            end = _find(folded, ending, at + 1)
            at = end + len(ending) if ending == "-->" else _find(folded, ">", end) + 1
        else:
            at = _find(folded, ">", at) + 1
    return "".join(pieces)


def _find_markup(text: str, at: int) -> int:
    """Where it begins, or the end. A `<` before anything else is text."""
    while at < len(text):
        match = _MARKUP.search(text, at, at + WINDOW + MARKUP_LETTERS)
        if match is not None:
            return match.start()
        at += WINDOW
    return len(text)


def _find(text: str, what: str, at: int) -> int:
    """Where it is, or the end."""
    while at < len(text):
        position = text.find(what, at, at + WINDOW + len(what))
        if position >= 0:
            return position
        at += WINDOW
    return len(text)
