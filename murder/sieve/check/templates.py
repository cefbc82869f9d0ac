"""Strings of a script that are more than they look: encoded characters (RFC 5228 §2.4.2.4), variables (RFC 5229 §3)."""

import re
from dataclasses import dataclass
from typing import Final

_BLANK = r"[ \t\r\n]"
_ENCODED: Final = re.compile(
    rf"\$\{{(hex|unicode):({_BLANK}*+[0-9A-Fa-f]++(?:{_BLANK}++[0-9A-Fa-f]++)*+{_BLANK}*+)\}}",
    re.IGNORECASE,
)
# variable-ref = "${" [namespace] variable-name "}"; variable-name = num-variable / identifier
_REFERENCE: Final = re.compile(
    r"\$\{(?:([0-9]++)|((?:[A-Za-z_][A-Za-z0-9_]*+\.)*+)([A-Za-z_][A-Za-z0-9_-]*+))\}"
)
_MOST: Final = 0x10FFFF
DIGITS: Final = 10  # of a match value: there are none of so many (RFC 5229 §3.2)


@dataclass(frozen=True, slots=True)
class Reference:
    """A variable. `namespace` is b"" without its dot where there is none; all in lower case."""

    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Matched:
    """A match value: `${1}`."""

    number: int


@dataclass(frozen=True, slots=True)
class Template:
    """Texts and variables in turn."""

    parts: tuple[str | Reference | Matched, ...]


Text = str | Template


def source_of(text: Text) -> str:
    """As the script has it: with the names of its variables, not what they hold."""
    if isinstance(text, str):
        return text
    return "".join(part if isinstance(part, str) else _shown(part) for part in text.parts)


def _shown(part: Reference | Matched) -> str:
    if isinstance(part, Matched):
        return f"${{{part.number}}}"
    return f"${{{part.namespace}.{part.name}}}" if part.namespace else f"${{{part.name}}}"


def decode_characters(text: str) -> str:
    """The text with its encoded characters decoded. Raises ValueError for one that is none."""
    if "${" not in text:
        return text
    octets = bytearray()
    at = 0
    for match in _ENCODED.finditer(text):
        words = match[2].split()
        if match[1].lower() == "hex":
            if any(len(word) > 2 for word in words):
                continue
            decoded = bytes(int(word, 16) for word in words)
        else:
            decoded = b"".join(map(_character, words))
        octets += text[at : match.start()].encode("utf-8", "surrogateescape") + decoded
        at = match.end()
    if not at:
        return text
    octets += text[at:].encode("utf-8", "surrogateescape")
    return octets.decode("utf-8", "surrogateescape")


def _character(word: str) -> bytes:
    digits = word.lstrip("0")
    code = int(digits or "0", 16) if len(digits) <= 6 else _MOST + 1
    if code > _MOST or 0xD800 <= code <= 0xDFFF:
        raise ValueError(f"encoded unicode character '{word[:20]}' is not a valid character")
    return chr(code).encode()


def parse_template(text: str) -> Text:
    """The text, or a template if it has variables. What only looks like one is text."""
    if "${" not in text:
        return text
    parts: list[str | Reference | Matched] = []
    at = 0
    for match in _REFERENCE.finditer(text):
        number, namespace, name = match.groups()
        if number is None and not namespace and "-" in name:
            continue
        if match.start() > at:
            parts.append(text[at : match.start()])
        if number is not None:
            parts.append(Matched(int(number.lstrip("0")[:DIGITS] or "0")))
        else:
            parts.append(Reference(name.lower(), namespace[:-1].lower()))
        at = match.end()
    if not parts:
        return text
    if at < len(text):
        parts.append(text[at:])
    return Template(tuple(parts))
