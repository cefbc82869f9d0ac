"""The first words of a message, for a list of messages (RFC 8970). Never raises."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from murder.mime.entities import unescaped
from murder.mime.text import part_pieces
from murder.model.part import Part

MAX_CHARACTERS: Final = 200  # RFC 8970 §3.1
MAX_LOOK_CHARACTERS: Final = 20_000  # of the part's text; what comes behind is no preview
# of it while it is decoded, a megabyte: there may be no characters in it
MAX_LOOK_PIECES: Final = 64

_UNSEEN: Final = re.compile(
    r"<(script|style|head|title)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)", re.I | re.S
)
_TAG: Final = re.compile(r"<[^<>]*>?")
_QUOTED_LINE: Final = re.compile(r"^(?:>.*|-- ?)$", re.M)


def preview_of(octets: bytes | memoryview, root: Part) -> str:
    """At most `MAX_CHARACTERS` of the first text part, white space collapsed; empty where there is no text."""
    part = _first_text(root)
    if part is None:
        return ""
    text = _begin_of(part_pieces(octets, part))
    if part.media[1] == b"HTML":
        text = unescaped(_TAG.sub(" ", _UNSEEN.sub(" ", text)))
    text = text.replace("\r\n", "\n")
    words = " ".join(_QUOTED_LINE.sub(" ", text).split()) or " ".join(text.split())
    return "".join(letter for letter in words[:MAX_CHARACTERS] if letter.isprintable())


def _begin_of(pieces: Iterator[str]) -> str:
    """As much of a part's text as is looked at; no more of it is decoded."""
    text = ""
    for piece in islice(pieces, MAX_LOOK_PIECES):
        text += piece
        if len(text) >= MAX_LOOK_CHARACTERS:
            break
    return text[:MAX_LOOK_CHARACTERS]


def _first_text(root: Part) -> Part | None:
    """The first text/plain part, or else the first text/html one; not from attached messages."""
    waiting = [root]
    fallback: Part | None = None
    while waiting:
        part = waiting.pop()
        if part.is_multipart:
            waiting.extend(reversed(part.children))
        elif part.media == (b"TEXT", b"PLAIN"):
            return part
        elif part.media[0] == b"TEXT" and fallback is None:
            fallback = part
    return fallback
