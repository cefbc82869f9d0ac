"""GENURLAUTH, RESETKEY, URLFETCH and their answers (RFC 4467 §8, RFC 5524 URLAUTH=BINARY)."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from murder.model.part import Part
from murder.wire.imap.mail.body import format_body_structure
from murder.wire.token import Scanner, astring, literal, nstring

MAX_URLS: Final = 100
MAX_MECHANISMS: Final = 10  # there is one
MAX_WORDS: Final = 10  # of what is asked of a URL; there are three


@dataclass(frozen=True, slots=True)
class ResetKeyRequest:
    """No mailbox: all keys of the user. No mechanisms: all."""

    mailbox: bytes | None = None
    mechanisms: tuple[str, ...] = ()


class UrlFetchItem(Enum):
    """RFC 5524 §3.2."""

    BODYPARTSTRUCTURE = "BODYPARTSTRUCTURE"
    BODY = "BODY"
    BINARY = "BINARY"


@dataclass(frozen=True, slots=True)
class UrlFetchRequest:
    """One URL; no items: the plain form of RFC 4467."""

    url: bytes
    items: tuple[UrlFetchItem, ...] = ()


# genurlauth = "GENURLAUTH" 1*(SP url-rump SP mechanism)
def parse_genurlauth(scanner: Scanner) -> tuple[tuple[bytes, str], ...]:
    """Pairs of a rump URL, as written, and a mechanism in upper case."""
    pairs: list[tuple[bytes, str]] = []
    while not pairs or not scanner.at_end():
        scanner.space()
        url = scanner.astring()
        scanner.space()
        pairs.append((url, scanner.word().decode("ascii")))
        if len(pairs) > MAX_URLS:
            raise scanner.bad(f"at most {MAX_URLS} URLs")
    scanner.end()
    return tuple(pairs)


# resetkey = "RESETKEY" [SP mailbox *(SP mechanism)]
def parse_resetkey(scanner: Scanner) -> ResetKeyRequest:
    """Without a mailbox: the keys of all."""
    mailbox: bytes | None = None
    mechanisms = []
    if not scanner.at_end():
        scanner.space()
        mailbox = scanner.astring()
        while not scanner.at_end():
            scanner.space()
            mechanisms.append(scanner.word().decode("ascii"))
            if len(mechanisms) > MAX_MECHANISMS:
                raise scanner.bad(f"at most {MAX_MECHANISMS} mechanisms")
    scanner.end()
    return ResetKeyRequest(mailbox, tuple(mechanisms))


# urlfetch = "URLFETCH" 1*(SP url-full); RFC 5524: also "(" url-full *(SP item) ")"
def parse_urlfetch(scanner: Scanner) -> tuple[UrlFetchRequest, ...]:
    """One request at least, with what is asked of each URL."""
    requests: list[UrlFetchRequest] = []
    while not requests or not scanner.at_end():
        scanner.space()
        if scanner.accept(b"("):
            requests.append(_parse_extended(scanner))
        else:
            requests.append(UrlFetchRequest(scanner.astring()))
        if len(requests) > MAX_URLS:
            raise scanner.bad(f"at most {MAX_URLS} URLs")
    scanner.end()
    return tuple(requests)


def _parse_extended(scanner: Scanner) -> UrlFetchRequest:
    url = scanner.astring()
    items: dict[UrlFetchItem, None] = {}
    words = 0
    while not scanner.accept(b")"):
        scanner.space()
        start = scanner.at
        word = scanner.word().decode("ascii")
        if word not in UrlFetchItem.__members__:
            scanner.at = start
            raise scanner.bad("BODYPARTSTRUCTURE, BODY or BINARY")
        items[UrlFetchItem[word]] = None
        words += 1
        if words > MAX_WORDS:
            raise scanner.bad(f"at most {MAX_WORDS} items of a URL")
    if {UrlFetchItem.BODY, UrlFetchItem.BINARY} <= items.keys():
        raise scanner.bad("only one of BODY and BINARY")
    return UrlFetchRequest(url, tuple(items) or (UrlFetchItem.BODY,))


# genurlauth-data = "*" SP "GENURLAUTH" 1*(SP url-full)
def format_genurlauth(urls: Iterable[bytes]) -> bytes:
    """`* GENURLAUTH url …CRLF`, in the order in which they were asked for."""
    return b"* GENURLAUTH " + b" ".join(map(astring, urls)) + b"\r\n"


# urlfetch-data = "*" SP "URLFETCH" 1*(SP url-full SP nstring)
def format_urlfetch(url: bytes, octets: bytes | None) -> bytes:
    """The plain form; None where the URL gives nothing: RFC 4467 forbids to say why."""
    return b"* URLFETCH %s %s\r\n" % (astring(url), nstring(octets))


def format_urlfetch_around(
    url: bytes,
    size: int,
    item: UrlFetchItem | None = None,
    structure: Part | None = None,
    *,
    has_nul: bool = False,
) -> tuple[bytes, bytes]:
    """What stands before and behind so many octets, in either form: with an `item` in that of RFC 5524."""
    begin = b"* URLFETCH %s " % astring(url)
    if item is None:
        return b"%s{%d}\r\n" % (begin, size), b"\r\n"
    if structure is not None:
        begin += b"(BODYPARTSTRUCTURE %s) " % format_body_structure(structure, extended=True)
    tilde = b"~" if has_nul else b""
    return b"%s(%s %s{%d}\r\n" % (begin, item.value.encode(), tilde, size), b")\r\n"


def format_urlfetch_extended(
    url: bytes,
    item: UrlFetchItem | None,
    octets: bytes | None = None,
    structure: Part | None = None,
) -> bytes:
    """The form of RFC 5524, with the octets asked for and the part's structure, as far as given."""
    pieces = []
    if structure is not None:
        pieces.append(b"(BODYPARTSTRUCTURE %s)" % format_body_structure(structure, extended=True))
    if item in (UrlFetchItem.BODY, UrlFetchItem.BINARY) and item is not None:
        value = b"NIL"
        if octets is not None:
            tilde = b"~" if item is UrlFetchItem.BINARY and b"\x00" in octets else b""
            value = tilde + literal(octets)
        pieces.append(b"(%s %s)" % (item.value.encode(), value))
    return b"* URLFETCH %s %s\r\n" % (astring(url), b" ".join(pieces) or b"NIL")
