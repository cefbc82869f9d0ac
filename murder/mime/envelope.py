"""ENVELOPE values out of a header: RFC 5322 addresses with groups, comments and routes, by RFC 3501 §7.4.2's rules.

Never raises, and is linear in the header's size; of very many addresses the first are told. Text stays octets, encoded
words are not decoded.
"""

import re
from collections.abc import Collection
from typing import Final

from murder.mime.bounds import bounds
from murder.mime.field import ESCAPE, LISTS, end_of_comment, known_fields, unquote
from murder.model.part import Address, Envelope

MAX_LIST_OCTETS: Final = 128 * 1024  # of an address field: for comments and names without an end
MISSING_HOST: Final = b"unspecified-domain"  # as Cyrus: a NIL host would begin a group
# `<>`, as Dovecot: an empty mailbox is none
NO_ADDRESS: Final = (b"MISSING_MAILBOX", b"MISSING_DOMAIN")

_TOKEN: Final = re.compile(
    rb'(?P<space>[ \t\r\n\x00]+)|(?P<quoted>"[^"\\]*+(?:\\.[^"\\]*+)*+"?)|(?P<domain>\[[^]\\]*+(?:\\.[^]\\]*+)*+\]?)'
    rb'|(?P<comment>\()|(?P<special>[<>@,;:])|(?P<atom>[^ \t\r\n\x00"\[(<>@,;:]+)',
    re.DOTALL,
)

# The most frequent ones, in one step: `local@host`, `words of a name <local@host>`, up to a comma or the end
_ATOM: Final = rb'[^ \t\r\n\x00\x0b\x0c"\[(<>@,;:]++'
_PLAIN: Final = re.compile(
    rb"[ \t]*+(?:((?:%(atom)b(?: %(atom)b)*+)?)[ \t]*+<(%(atom)b)@(%(atom)b)>|(%(atom)b)@(%(atom)b))[ \t]*+(?:,|\Z)"
    % {b"atom": _ATOM}
)

_WANTED: Final = frozenset(
    b"DATE SUBJECT FROM SENDER REPLY-TO TO CC BCC IN-REPLY-TO MESSAGE-ID REFERENCES".split()
)


def parse_envelope(
    octets: bytes, start: int, end: int, names: Collection[bytes] = _WANTED
) -> Envelope:
    """The envelope of the header `[start, end)`; of the fields of these names only."""
    return envelope_of(known_fields(octets, start, end, names))


def envelope_of(fields: dict[bytes, bytes]) -> Envelope:
    """The envelope of these unfolded fields, by names in upper case."""
    if fields.keys().isdisjoint(_WANTED):
        return Envelope()
    lists = {
        name: parse_addresses(value) for name, value in fields.items() if value and name in LISTS
    }
    from_ = lists.get(b"FROM", ())
    return Envelope(
        date=fields.get(b"DATE"),
        subject=fields.get(b"SUBJECT"),
        from_=from_,
        sender=lists.get(b"SENDER") or from_,
        reply_to=lists.get(b"REPLY-TO") or from_,
        to=lists.get(b"TO", ()),
        cc=lists.get(b"CC", ()),
        bcc=lists.get(b"BCC", ()),
        in_reply_to=fields.get(b"IN-REPLY-TO"),
        message_id=fields.get(b"MESSAGE-ID"),
        references=fields.get(b"REFERENCES"),
    )


def parse_addresses(value: bytes) -> tuple[Address, ...]:
    """An unfolded address list. What is no address is told as well as it goes, with a host that says so. What comes
    behind `Bounds.addresses` is left out; a group is closed all the same."""
    value = value[:MAX_LIST_OCTETS]
    addresses, at = _plain_addresses(value, bounds().addresses)
    if at >= len(value):
        return tuple(addresses)
    reader = _AddressReader(addresses)
    while at < len(value) and not reader.is_full:
        match = _TOKEN.match(value, at)
        if match is None:
            at += 1
            continue
        at = match.end()
        kind, token = match.lastgroup, match.group()
        if kind == "comment":
            begin, at = at, end_of_comment(value, at - 1)
            reader.comment(value[begin:at].removesuffix(b")"))
        elif kind == "space":
            reader.space()
        elif kind == "special":
            reader.special(token)
        else:
            reader.word(unquote(token))
    return reader.finish()


def _plain_addresses(value: bytes, most: int) -> tuple[list[Address], int]:
    """The first addresses of a list, as long as they are plain, and where they end."""
    addresses: list[Address] = []
    at, size = 0, len(value)
    while at < size and len(addresses) < most:
        match = _PLAIN.match(value, at)
        if match is None:
            break
        name, mailbox, host, bare_mailbox, bare_host = match.groups()
        addresses.append(Address(name or None, None, mailbox or bare_mailbox, host or bare_host))
        at = match.end()
    return addresses, at


class _AddressReader:
    """Gathers words until something ends an address. `_words` holds the phrase or local part, with the spaces in it."""

    __slots__ = (
        "_angle",
        "_comment",
        "_done",
        "_found",
        "_gap",
        "_group",
        "_host",
        "_most",
        "_name",
        "_route",
        "_words",
    )

    def __init__(self, before: list[Address]) -> None:
        self._found = before
        self._group = False
        self._reset()

    def _reset(self) -> None:
        self._words: list[bytes] = []
        self._host: list[bytes] | None = None
        self._name: bytes | None = None
        self._most = bounds().addresses
        self._route: bytes | None = None
        self._comment: bytes | None = None
        self._angle = False
        self._done = False  # behind `>`, or a second word: nothing more belongs to this address
        self._gap = False  # a space came behind the host

    @property
    def is_full(self) -> bool:
        return len(self._found) >= self._most

    def word(self, token: bytes) -> None:
        """A word behind the host that belongs to nothing ends the address, where a comma is missing, as Dovecot has it; but
        we go on behind the next comma, where Dovecot tells no more addresses."""
        if self._done:
            return
        if self._host is None or self._angle:
            (self._words if self._host is None else self._host).append(token)
        else:
            is_dotted = token.startswith(b".") or not self._host or self._host[-1].endswith(b".")
            self._done = self._gap and not is_dotted
            if not self._done:
                self._host.append(token)
        self._gap = False

    def space(self) -> None:
        self._gap = self._host is not None
        if self._host is None and not self._angle and self._words and self._words[-1] != b" ":
            self._words.append(b" ")

    def comment(self, text: bytes) -> None:
        """Behind an address without a name it is the name; before one, and behind `>`, it is not, as Cyrus and Dovecot
        have it."""
        is_leading = self._host is None and not self._words
        if self._done or (is_leading and not self._angle):
            self.space()
            return
        self._comment = ESCAPE.sub(rb"\1", text.strip())
        self.space()

    def special(self, token: bytes) -> None:
        if self._done and token not in (b",", b";"):
            return
        match token:
            case b"," if self._angle and self._host is not None and self._is_further_route:
                self._host.append(b",@")
            case b"@" if self._host is None:
                self._host = []
            case b"@":
                if self._host and self._host[-1] != b",@":
                    self._host.append(b"@")
            case b"<" if not self._angle:
                # without a name before it, a comment will do
                self._name = self._phrase() or None
                self._words, self._host, self._angle = [], None, True
            case b":" if self._angle:
                self._end_route()
            case b":" if not self._group:
                self._found.append(Address(None, None, self._phrase(), None))
                self._group = True
                self._reset()
            case b">":
                self._done = self._angle
                self._angle = False
            case b"," | b";":
                self._end_address()
                if token == b";":
                    self._end_group()
            case _:
                pass

    @property
    def _is_further_route(self) -> bool:
        return self._route is None and self._is_route

    @property
    def _is_route(self) -> bool:
        """Within `<`, an at-sign came first: `<@relay,@relay:user@host>`."""
        return self._host is not None and not self._words

    def _end_route(self) -> None:
        if self._is_route and self._route is None:
            self._route = b"@" + b"".join(self._host or [])
            self._host = None

    def _phrase(self) -> bytes:
        words = self._words if self._host is None else [*self._words, b"@", *self._host]
        return b"".join(words).strip()

    def _end_address(self) -> None:
        mailbox = b"".join(self._words).strip()
        if mailbox or self._host is not None or self._name is not None or self._done:
            host = b"".join(self._host or []) or MISSING_HOST
            if not mailbox and self._host is None:
                mailbox, host = NO_ADDRESS
            name = self._name if self._name is not None else self._comment
            self._found.append(Address(name or None, self._route, mailbox, host))
        self._reset()

    def _end_group(self) -> None:
        if self._group:
            self._found.append(Address(None, None, None, None))
            self._group = False

    def finish(self) -> tuple[Address, ...]:
        self._end_address()
        self._end_group()
        return tuple(self._found)
