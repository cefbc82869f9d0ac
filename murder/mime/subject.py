"""The base subject of RFC 5256 §2.1: what SORT SUBJECT and THREAD compare. Never raises."""

import re
from dataclasses import dataclass
from typing import Final

from murder.mime.header import decode_value
from murder.mime.text import fold

MAX_SUBJECT: Final = 2000  # characters that count; bounds the work on a subject made of prefixes
# enough for these in any encoding: 12 octets each, and the marks between
MAX_SUBJECT_OCTETS: Final = 32 * 1024

_SPACES: Final = re.compile(r"\s+")
_BLOB: Final = r"\[[^\[\]]*+\]\s*+"
# subj-refwd = ("re" / ("fw" ["d"])) *WSP [subj-blob] ":"; subj-leader = (*subj-blob subj-refwd) / WSP
_LEADER: Final = re.compile(rf"(?:{_BLOB})*+(?:re|fwd?)\s*+(?:{_BLOB})?:|\s+", re.IGNORECASE)
_BLOB_PREFIX: Final = re.compile(_BLOB)
_FWD_HEADER: Final = "[fwd:"


@dataclass(frozen=True, slots=True)
class BaseSubject:
    """`text` is folded for comparison; `is_reply`: something was taken off that makes it a reply or forward."""

    text: str
    is_reply: bool


def base_subject(value: bytes | None) -> BaseSubject:
    """Of a raw Subject field's value."""
    if not value:
        return BaseSubject("", False)
    text = _SPACES.sub(" ", decode_value(value[:MAX_SUBJECT_OCTETS])).strip()[:MAX_SUBJECT]
    is_reply = False
    while True:
        text, cut = _without_trailers(text)
        is_reply = is_reply or cut
        text, cut = _without_leaders(text)
        is_reply = is_reply or cut
        if not (text.lower().startswith(_FWD_HEADER) and text.endswith("]")):
            return BaseSubject(fold(text), is_reply)
        text = text[len(_FWD_HEADER) : -1]
        is_reply = True


def _without_trailers(text: str) -> tuple[str, bool]:
    cut = False
    while True:
        text = text.rstrip()
        if text[-5:].lower() != "(fwd)":
            return text, cut
        text, cut = text[:-5], True


def _without_leaders(text: str) -> tuple[str, bool]:
    """Steps 3 to 5: leaders, and blobs as long as something is left behind them."""
    at, cut = 0, False
    while True:
        leader = _LEADER.match(text, at)
        if leader is not None:
            cut = cut or not leader.group().isspace()
            at = leader.end()
            continue
        blob = _BLOB_PREFIX.match(text, at)
        if blob is None or blob.end() == len(text):
            return text[at:], cut
        at = blob.end()
