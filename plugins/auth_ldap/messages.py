"""LDAP's messages (RFC 4511), as far as a login needs them: requests to octets, answers from octets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Final

from plugins.auth_ldap import ber

BIND, UNBIND, SEARCH, EXTENDED = 0x60, 0x42, 0x63, 0x77
BIND_DONE, ENTRY, SEARCH_DONE, REFERENCE, EXTENDED_DONE = 0x61, 0x64, 0x65, 0x73, 0x78
CONTROLS: Final = 0xA0
REFERRAL: Final = 0xA3  # of a result: where to ask instead
MAX_CONTROLS: Final = 20  # of one message
START_TLS: Final = b"1.3.6.1.4.1.1466.20037"
NOTICE_OF_DISCONNECTION: Final = 0  # the number of a message that nobody asked for
BASE, ONE, SUBTREE = 0, 1, 2

MAX_VALUES: Final = 10_000  # of an entry: who asks is answered in a few milliseconds

SUCCESS, NO_SUCH_OBJECT, INVALID_NAME, INVALID_CREDENTIALS = 0, 32, 34, 49
SIZE_LIMIT: Final = 4
RESULTS: Final[Mapping[int, str]] = MappingProxyType(
    {
        1: "operations error",
        2: "protocol error",
        3: "time limit exceeded",
        4: "size limit exceeded",
        7: "it does not take passwords (authMethodNotSupported)",
        8: "it wants a stronger way in (strongerAuthRequired)",
        10: "it refers to another server",
        11: "its limits are exceeded",
        13: "it wants TLS (confidentialityRequired)",
        16: "no such attribute",
        18: "inappropriate matching",
        19: "a constraint is violated; the account may be locked",
        32: "no such entry",
        34: "that is no name of an entry",
        48: "inappropriate authentication: the entry has no password",
        49: "invalid credentials",
        50: "insufficient access rights",
        51: "it is busy",
        52: "it is unavailable",
        53: "it is unwilling",
    }
)


@dataclass(frozen=True, slots=True)
class Result:
    """How a request ended."""

    code: int
    name: str = ""
    text: str = ""
    controls: tuple[tuple[bytes, bytes], ...] = ()  # by their names: values

    def control(self, name: bytes) -> bytes:
        """The value of that one; nothing where it did not come."""
        return next((value for kind, value in self.controls if kind == name), b"")

    def __str__(self) -> str:
        said = RESULTS.get(self.code, f"result {self.code}")
        return f"{said} ({self.text})" if self.text else said


@dataclass(frozen=True, slots=True)
class Entry:
    """One that was found. Attributes by their names in small letters; values are octets."""

    name: str
    attributes: Mapping[str, Sequence[bytes]]

    def texts(self, attribute: str) -> list[str]:
        """Its values that are text."""
        values = self.attributes.get(attribute.lower(), ()) if attribute else ()
        return [value.decode("utf-8", "replace") for value in values]

    def text(self, attribute: str) -> str:
        """The first, or nothing."""
        return next(iter(self.texts(attribute)), "")


@dataclass(frozen=True, slots=True)
class Message:
    """An answer: its number, its kind (a tag), and what is in it."""

    number: int
    kind: int
    value: Result | Entry | str | None  # text: where the search goes on, at another server


def format_request(number: int, operation: bytes, *controls: bytes) -> bytes:
    """`controls` are asked for by their names; who does not know them passes them over."""
    asked = [ber.element(ber.SEQUENCE, ber.octets(name)) for name in controls]
    more = [ber.element(CONTROLS, *asked)] if asked else []
    return ber.element(ber.SEQUENCE, ber.integer(number), operation, *more)


def bind_request(name: bytes, password: bytes) -> bytes:
    """A simple bind, version 3 (RFC 4511 §4.2)."""
    return ber.element(BIND, ber.integer(3), ber.octets(name), ber.octets(password, 0x80))


def unbind_request() -> bytes:
    """RFC 4511 §4.3: nobody answers it."""
    return ber.element(UNBIND)


def start_tls_request() -> bytes:
    """The extended operation (RFC 4511 §4.14)."""
    return ber.element(EXTENDED, ber.octets(START_TLS, 0x80))


def search_request(
    base: str, scope: int, encoded_filter: bytes, attributes: Sequence[str], most: int, time_s: int
) -> bytes:
    """RFC 4511 §4.5.1; without attributes only the entry's name is asked for. `most` entries, within `time_s` seconds."""
    return ber.element(
        SEARCH,
        ber.octets(base.encode("utf-8", "surrogateescape")),
        ber.integer(scope, ber.ENUMERATED),
        ber.integer(0, ber.ENUMERATED),  # aliases are not followed
        ber.integer(most),
        ber.integer(time_s),
        ber.boolean(False),
        encoded_filter,
        ber.element(
            ber.SEQUENCE, *(ber.octets(attribute.encode()) for attribute in attributes or ("1.1",))
        ),
    )


def parse_message(octets: bytes) -> Message:
    """One whole LDAPMessage. Raises Malformed."""
    tag, content, end = ber.read(octets)
    if tag != ber.SEQUENCE or end != len(octets):
        raise ber.Malformed("that is not an LDAP message")
    parts = list(islice(ber.elements(content), 3))
    if len(parts) < 2 or parts[0][0] != ber.INTEGER:
        raise ber.Malformed("a message without a number")
    number, (kind, body) = ber.number(parts[0][1]), parts[1]
    match kind:
        case 0x64:  # ENTRY
            return Message(number, kind, _entry(body))
        case 0x61 | 0x65 | 0x78:  # BIND_DONE, SEARCH_DONE, EXTENDED_DONE
            return Message(number, kind, _result(body, parts[2:]))
        case 0x73:  # REFERENCE
            return Message(number, kind, _url(body))
        case 0x79:  # IntermediateResponse
            return Message(number, kind, None)
    raise ber.Malformed(f"a message of the kind {kind:#x}")


def _url(body: bytes) -> str:
    """The first of a reference, or of a referral, fit for a log."""
    first = next((octets for _, octets in ber.elements(body)), b"")
    return "".join(filter(str.isprintable, first.decode("utf-8", "replace")[:300]))


def _result(body: bytes, behind: Sequence[tuple[int, bytes]]) -> Result:
    parts = list(islice(ber.elements(body), 4))
    if len(parts) < 3:
        raise ber.Malformed("a result without a code")
    name, text = (octets.decode("utf-8", "replace") for _, octets in parts[1:3])
    said = " ".join(text.rstrip("\0").split())[:300]
    if len(parts) > 3 and parts[3][0] == REFERRAL:
        said = _url(parts[3][1])
    return Result(ber.number(parts[0][1]), name, said, tuple(_controls(behind)))


def _controls(behind: Sequence[tuple[int, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Of what stands behind an operation."""
    controls = next((content for tag, content in behind if tag == CONTROLS), b"")
    for _, control in islice(ber.elements(controls), MAX_CONTROLS):
        parts = list(islice(ber.elements(control), 4))
        if parts:
            yield parts[0][1], next((value for tag, value in parts[1:] if tag == ber.OCTETS), b"")


def _entry(body: bytes) -> Entry:
    parts = list(islice(ber.elements(body), 3))
    if len(parts) < 2:
        raise ber.Malformed("an entry without a name")
    attributes: dict[str, list[bytes]] = {}
    left = MAX_VALUES
    for _, attribute in ber.elements(parts[1][1]):
        pair = list(islice(ber.elements(attribute), 3))
        if len(pair) < 2:
            raise ber.Malformed("an attribute without values")
        name = pair[0][1].decode("ascii", "replace").lower().partition(";")[0]
        values = [value for _, value in islice(ber.elements(pair[1][1]), left)]
        left -= 1 + len(values)
        if left <= 0:
            raise ber.Malformed(f"an entry with {MAX_VALUES} values or more")
        attributes.setdefault(name, []).extend(values)
    return Entry(parts[0][1].decode("utf-8", "surrogateescape"), attributes)
