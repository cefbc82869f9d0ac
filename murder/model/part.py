"""A message's parts and its envelope, as values: what `mime` finds and `wire` writes.

RFC 3501 §6.4.5 (BODYSTRUCTURE, ENVELOPE), RFC 2045, RFC 2046. All text is octets as they stand in the message, unfolded
and not decoded. Knows no octets of a protocol.
"""

from dataclasses import dataclass
from typing import Final

Parameters = tuple[tuple[bytes, bytes], ...]  # names in upper case, in the order of the header

RFC822: Final = (b"MESSAGE", b"RFC822")


@dataclass(frozen=True, slots=True)
class Address:
    """One address, or one end of a group: a group begins with `mailbox` set and `host` None, and ends with both None
    (RFC 3501 §7.4.2)."""

    name: bytes | None
    route: bytes | None  # obsolete source route, RFC 5322 §4.4
    mailbox: bytes | None
    host: bytes | None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message's header, parsed. None: there is no such field. `sender` and `reply_to` already stand for From where
    they are missing. `references` is no part of ENVELOPE; THREAD needs it."""

    date: bytes | None = None
    subject: bytes | None = None
    from_: tuple[Address, ...] = ()
    sender: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    in_reply_to: bytes | None = None
    message_id: bytes | None = None
    references: bytes | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One MIME part, by offsets into the message: header `[header_start, body_start)` with its blank line, body
    `[body_start, body_end)` without the line end that belongs to the boundary.

    `media` is type and subtype in upper case. `lines` counts the line ends of the body. `children` are the parts of a
    multipart; a message/rfc822 has one: the embedded message, which, like the whole message, has an `envelope`.
    A multipart in which no part was found has an empty one. What was not looked into, being too deep, is text/plain in place
    of a multipart, application/octet-stream in place of a message/rfc822.
    """

    media: tuple[bytes, bytes]
    parameters: Parameters
    header_start: int
    body_start: int
    body_end: int
    lines: int
    content_id: bytes | None = None
    description: bytes | None = None
    encoding: bytes = b"7BIT"
    md5: bytes | None = None
    disposition: tuple[bytes, Parameters] | None = None
    languages: tuple[bytes, ...] = ()
    location: bytes | None = None
    children: "tuple[Part, ...]" = ()
    envelope: Envelope | None = None

    @property
    def size(self) -> int:
        """Octets of the body."""
        return self.body_end - self.body_start

    @property
    def is_multipart(self) -> bool:
        return self.media[0] == b"MULTIPART" and bool(self.children)

    @property
    def is_message(self) -> bool:
        """Whether it embeds a message, its only child."""
        return self.media == RFC822 and bool(self.children)
