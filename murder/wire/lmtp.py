"""LMTP's grammar: commands, paths, replies (RFC 2033, RFC 5321, RFC 2034, RFC 3030)."""

import re
from dataclasses import dataclass
from typing import Final

from murder.errors import BadSyntax

MAX_PATH_OCTETS: Final = 1024  # RFC 5321 §4.5.3.1.3 says 256; long plus-addresses exist
_PATH: Final = re.compile(
    rb'<(?:@[^:>]*:)?(?P<path>(?:"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*"|[^\s<>"])*)>'
)
_DOT_STRING: Final = re.compile(rb"[^\x00-\x20\"(),:;<>@\[\\\]\x7f]+")
_QUOTED: Final = re.compile(rb"[\"\\]")
_QUOTED_PAIR: Final = re.compile(rb"\\(.)")
_HEX_PAIR: Final = re.compile(rb"\+([0-9A-F]{2})")
_NOT_XTEXT: Final = re.compile(rb"[^!-~]|[+=]")
_REPLY: Final = re.compile(rb"([2-5][0-9][0-9])([ -]|$)")
_SAVED_BEFORE, _SAVED_BEHIND = "<", "> saved"
_SAVED: Final = f"250 2.1.5 {_SAVED_BEFORE}"
_OF_IDS: Final = frozenset("0123456789abcdef-")


@dataclass(frozen=True, slots=True)
class Envelope:
    """MAIL or RCPT: the path without its angle brackets and route, and the parameters, names in upper case."""

    path: bytes
    parameters: dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Recipient:
    """An address taken apart: `local[+detail][@domain]`, the quoting gone."""

    local: bytes
    detail: bytes
    domain: bytes


def parse_envelope(arguments: bytes, word: bytes) -> Envelope:
    """`FROM:<path> [parameters]` or `TO:…`. A space behind the colon is taken, as everybody does. Raises BadSyntax."""
    if arguments[: len(word)].upper() != word:
        raise BadSyntax(f"{word.decode()}<address> is missing")
    rest = arguments[len(word) :].lstrip(b" ")
    match = _PATH.match(rest)
    if match is None or len(match["path"]) > MAX_PATH_OCTETS:
        raise BadSyntax("that is not an address in angle brackets")
    tail = rest[match.end() :]
    if tail and not tail.startswith(b" "):
        raise BadSyntax("a space is missing behind the address")
    parameters = {}
    for given in tail.split():
        name, _, value = given.partition(b"=")
        parameters[name.upper()] = value
    return Envelope(match["path"], parameters)


def parse_recipient(path: bytes) -> Recipient:
    """Raises BadSyntax for an empty path."""
    if path.startswith(b'"'):
        quoted, _, tail = path[1:].rpartition(b'"')
        mailbox, domain = _QUOTED_PAIR.sub(rb"\1", quoted), tail.removeprefix(b"@")
    else:
        mailbox, mark, domain = path.rpartition(b"@")
        if not mark:
            mailbox, domain = domain, b""
    local, _, detail = mailbox.partition(b"+")
    if not local and not detail:
        raise BadSyntax("that address names nobody")
    return Recipient(local, detail, domain.lower())


def format_path(recipient: Recipient) -> bytes:
    """The address put together again, quoted where it must be."""
    mailbox = recipient.local + (b"+" + recipient.detail if recipient.detail else b"")
    if _DOT_STRING.fullmatch(mailbox) is None:
        mailbox = b'"' + _QUOTED.sub(rb"\\\g<0>", mailbox) + b'"'
    return mailbox + (b"@" + recipient.domain if recipient.domain else b"")


def parse_bdat(arguments: bytes) -> tuple[int, bool]:
    """`size [LAST]`, RFC 3030 §2. Raises BadSyntax."""
    words = arguments.split()
    is_well_formed = 1 <= len(words) <= 2 and words[0].isdigit() and len(words[0]) <= 12
    if not is_well_formed or words[1:] not in ([], [b"LAST"], [b"last"]):
        raise BadSyntax("BDAT takes a size and maybe LAST")
    return int(words[0]), len(words) == 2


def parse_xclient(arguments: bytes) -> dict[bytes, bytes]:
    """`NAME=value …`, values in xtext (RFC 3461 §4), as Postfix defined it; names in upper case. Raises BadSyntax."""
    fields = {}
    for word in arguments.split():
        name, mark, value = word.partition(b"=")
        if not mark:
            raise BadSyntax("XCLIENT takes NAME=value")
        if value.upper() not in (b"[UNAVAILABLE]", b"[TEMPUNAVAIL]"):
            decoded = _HEX_PAIR.sub(lambda pair: bytes((int(pair[1], 16),)), value)
            fields[name.upper()] = decoded
    return fields


def format_xclient(offered: list[bytes], facts: dict[bytes, bytes]) -> bytes:
    """The command with those facts that the server offered to take; b"" if it wants none."""
    words = []
    for name in offered:
        value = facts.get(name, b"")
        if name == b"ADDR" and b":" in value:
            value = b"IPV6:" + value
        if value:
            escaped = _NOT_XTEXT.sub(lambda octet: b"+%02X" % octet[0][0], value)
            words.append(name + b"=" + escaped)
    return b"XCLIENT " + b" ".join(words) + b"\r\n" if words else b""


def reply(code: int, enhanced: str, *lines: str) -> bytes:
    """A reply, of several lines if there are. Text that a peer chose has been made printable here."""
    prefix = f"{enhanced} " if enhanced else ""
    if len(lines) == 1:  # mostly
        return f"{code} {prefix}{clean(lines[0])}\r\n".encode("utf-8", "replace")
    last = len(lines) - 1
    replied = (
        f"{code}{' ' if at == last else '-'}{prefix}{clean(s)}\r\n" for at, s in enumerate(lines)
    )
    return "".join(replied).encode("utf-8", "replace")


def format_saved(id: str) -> str:
    """The text of a backend's 250 for a recipient: by which id its mail log has the message."""
    return f"{_SAVED_BEFORE}{id}{_SAVED_BEHIND}"


def parse_saved(line: bytes) -> str:
    """That id, of the reply's last line; "" of every other reply, as those of other servers are."""
    text = line.rstrip(b"\r\n").decode("utf-8", "replace")
    id = text.removeprefix(_SAVED).removesuffix(_SAVED_BEHIND)
    return id if text == f"{_SAVED}{id}{_SAVED_BEHIND}" and set(id) <= _OF_IDS else ""


def clean(text: str) -> str:
    """One line, whatever is in it."""
    if text.isprintable():
        return text[:480]
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:480]


def code_of(line: bytes) -> tuple[int, bool]:
    """A reply line's code, and whether it is the reply's last. Raises BadSyntax."""
    match = _REPLY.match(line)
    if match is None:
        raise BadSyntax(f"that is not a reply: {line[:80]!r}")
    return int(match[1]), match[2] != b"-"
