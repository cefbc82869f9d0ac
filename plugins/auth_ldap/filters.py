"""Filters (RFC 4515) as text and as octets, names of entries (RFC 4514), and what stands for `%u`, `%n`, `%d`, `%D` in them.

What comes from a user is escaped before it is put in: whatever it is, it is one value and nothing else.
"""

import re
from typing import Final

from plugins.auth_ldap import ber

MAX_DEPTH: Final = 20
PLACE: Final = re.compile(r"%([undD%])")
PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_SYMBOLS: Final = {"=": 3, ">=": 5, "<=": 6, "~=": 8}
_ITEM: Final = re.compile(
    r"(?P<attribute>[A-Za-z0-9.;-]*)(?P<dn>:dn)?(?::(?P<rule>[A-Za-z0-9.-]+))?(?P<sign>:=|=|>=|<=|~=)"
)


class BadFilter(ValueError):
    """What is wrong with a filter of the configuration."""


def escape_value(octets: bytes) -> str:
    """For a filter, or for a part of a name (RFC 4514 §2.4 takes \\XX for any octet): what is no letter, digit, - or _ as
    \\XX."""
    return "".join(chr(octet) if octet in PLAIN else f"\\{octet:02x}" for octet in octets)


def fill(template: str, user: str, name: str = "", *, is_escaped: bool = True) -> str:
    """`%u` the user as given, `%n` before the @, `%d` behind it, `%D` the name of an entry, `%%` a %."""
    local, _, domain = user.partition("@")
    values = {"u": user, "n": local, "d": domain, "D": name}

    def put(match: re.Match[str]) -> str:
        letter = match[1]
        if letter == "%":
            return "%"
        value = values[letter]
        return escape_value(value.encode("utf-8", "surrogateescape")) if is_escaped else value

    return PLACE.sub(put, template)


def encode_filter(text: str) -> bytes:
    """The octets of a filter. Raises BadFilter."""
    encoded, at = _filter(text, 0, 0)
    if at != len(text):
        raise BadFilter(f"{text!r}: there is more behind its end")
    return encoded


def _filter(text: str, at: int, depth: int) -> tuple[bytes, int]:
    if depth > MAX_DEPTH or text[at : at + 1] != "(":
        raise BadFilter(f"{text!r}: expected a ( at {at}")
    sign = text[at + 1 : at + 2]
    if sign in ("&", "|", "!") and sign:
        parts, at = [], at + 2
        while text[at : at + 1] == "(":
            part, at = _filter(text, at, depth + 1)
            parts.append(part)
        if sign == "!" and len(parts) != 1:
            raise BadFilter(f"{text!r}: ! takes one filter")
        encoded = ber.element(0xA0 + "&|!".index(sign), *parts)
    else:
        end = text.find(")", at)
        if end < 0:
            raise BadFilter(f"{text!r}: a ) is missing")
        encoded, at = _item(text[at + 1 : end]), end
    if text[at : at + 1] != ")":
        raise BadFilter(f"{text!r}: expected a ) at {at}")
    return encoded, at + 1


def _item(text: str) -> bytes:
    match = _ITEM.match(text)
    if match is None or not (match["attribute"] or match["rule"]):
        raise BadFilter(f"{text!r} is not attribute=value")
    attribute, value = match["attribute"].encode(), text[match.end() :]
    if match["sign"] == ":=":
        return ber.element(
            0xA9,
            *([ber.octets(match["rule"].encode(), 0x81)] if match["rule"] else []),
            *([ber.octets(attribute, 0x82)] if attribute else []),
            ber.octets(_value(value), 0x83),
            *([ber.element(0x84, b"\xff")] if match["dn"] else []),
        )
    if match["rule"] or match["dn"]:
        raise BadFilter(f"{text!r}: a rule is followed by :=")
    if match["sign"] == "=" and value == "*":
        return ber.octets(attribute, 0x87)
    if match["sign"] == "=" and "*" in value:
        return _substrings(attribute, value)
    tag = 0xA0 + _SYMBOLS[match["sign"]]
    return ber.element(tag, ber.octets(attribute), ber.octets(_value(value)))


def _substrings(attribute: bytes, value: str) -> bytes:
    first, *middle, last = value.split("*")
    parts = [ber.octets(_value(first), 0x80)] if first else []
    parts += [ber.octets(_value(piece), 0x81) for piece in middle if piece]
    parts += [ber.octets(_value(last), 0x82)] if last else []
    return ber.element(0xA4, ber.octets(attribute), ber.element(ber.SEQUENCE, *parts))


def _value(text: str) -> bytes:
    octets, at = bytearray(), 0
    while at < len(text):
        if text[at] == "\\":
            digits = text[at + 1 : at + 3]
            try:
                octets.append(int(digits, 16) if len(digits) == 2 else -1)
            except ValueError:
                raise BadFilter(f"{text!r}: \\ is followed by two hexadecimal digits") from None
            at += 3
        elif text[at] in "()*\0":
            raise BadFilter(f"{text!r}: {text[at]!r} is written \\{ord(text[at]):02x}")
        else:
            octets += text[at].encode("utf-8", "surrogateescape")
            at += 1
    return bytes(octets)


def for_anybody(template: str) -> str:
    """The filter that finds everybody whom this one could find."""
    return PLACE.sub(lambda match: "%" if match[1] == "%" else "*", template)


def first_value(name: str) -> str:
    """The value of the first part of an entry's name: `cn=Staff\\, all,ou=groups` is `Staff, all`."""
    value, at, octets = name.partition("=")[2], 0, bytearray()
    while at < len(value) and value[at] not in ",+":
        if value[at] != "\\":
            octets += value[at].encode("utf-8", "surrogateescape")
            at += 1
            continue
        digits = value[at + 1 : at + 3]
        if re.fullmatch("[0-9A-Fa-f]{2}", digits):
            octets.append(int(digits, 16))
            at += 3
        else:
            octets += value[at + 1 : at + 2].encode("utf-8", "surrogateescape")
            at += 2
    return octets.decode("utf-8", "replace").strip()
