"""A message's first words, for PREVIEW (RFC 8970). Never raises."""

import html
import re
from typing import Final

from murder.mime.decode import decode_text, decode_transfer
from murder.mime.field import parameter_value
from murder.model.part import Part

MAX_PREVIEW: Final = 200  # characters; RFC 8970 §3.1 wants 200, at most 256
MAX_LOOKED_AT: Final = (
    64 * 1024
)  # octets of a part; mail programs begin HTML with this much style at most

_HIDDEN: Final = re.compile(
    r"<(style|script|head|title)\b[^<>]*>.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_TAG: Final = re.compile(r"<[^<>]*>?")
_QUOTED_LINE: Final = re.compile(r"^[ \t]*>.*$", re.MULTILINE)
_SPACE: Final = re.compile(r"[\s\u200b-\u200d\u2060\ufeff\u00ad\u034f]+")


def preview_of(octets: bytes | memoryview, root: Part) -> str:
    """The first text in the message without markup, quotations and repeated white space; empty where there is none."""
    part = _first_text(root)
    if part is None:
        return ""
    end = min(part.body_end, part.body_start + MAX_LOOKED_AT)
    body = memoryview(octets)[part.body_start : end]
    decoded = decode_transfer(body, part.encoding)
    charset = (parameter_value(part.parameters, b"CHARSET") or b"").decode("ascii", "replace")
    text = decode_text(body if decoded is None else decoded, charset)
    if part.media[1] == b"HTML":
        text = html.unescape(_TAG.sub(" ", _HIDDEN.sub(" ", text)))
    else:
        text = _QUOTED_LINE.sub("", text)
    return _SPACE.sub(" ", text).strip()[:MAX_PREVIEW].rstrip()


def _first_text(root: Part) -> Part | None:
    """The first text part that is no attachment; in an alternative plain text rather than HTML."""
    waiting = [root]
    html_part: Part | None = None
    while waiting:
        part = waiting.pop()
        if part.children:
            waiting.extend(reversed(part.children))
        elif part.media[0] == b"TEXT" and (
            part.disposition is None or part.disposition[0] != b"ATTACHMENT"
        ):
            if part.media[1] == b"PLAIN":
                return part
            html_part = html_part or part
    return html_part
