"""IMAP and MUPDATE URLs as values (RFC 5092, RFC 4467 URLAUTH, RFC 3656 §6). Knows no octets of a URL."""

from dataclasses import dataclass
from datetime import datetime

from murder.model.message import Uid, UidValidity
from murder.model.query.fetch import Section


@dataclass(frozen=True, slots=True)
class UrlServer:
    """`user;AUTH=mechanism@host:port`. User None: not named; mechanism None: not said, `*`: any."""

    host: str
    port: int | None = None
    user: str | None = None
    mechanism: str | None = None


@dataclass(frozen=True, slots=True)
class UrlAccess:
    """URLAUTH (RFC 4467 §3): who may use the URL, until when, and the proof of it.

    `access` is `anonymous`, `authuser`, `user` or `submit`, the last two with `user`. `mechanism` and `token` are empty
    in a rump, which GENURLAUTH is given; `rump` is the URL's octets as written up to the access identifier: what the
    token proves.
    """

    access: str
    user: str = ""
    expire: datetime | None = None
    mechanism: str = ""
    token: bytes = b""
    rump: bytes = b""


@dataclass(frozen=True, slots=True)
class ImapUrl:
    """A server, a mailbox, a message, a section or octets of it, or a search; relative where `server` is None.

    `mailbox` is in modified UTF-7 as IMAP commands have it, None where the URL names none (the selected one is meant, or
    none at all). `partial` is (offset, length or None for "to the end").
    """

    server: UrlServer | None = None
    mailbox: bytes | None = None
    uid_validity: UidValidity | None = None
    uid: Uid | None = None
    section: Section | None = None
    partial: tuple[int, int | None] | None = None
    search: bytes | None = None
    access: UrlAccess | None = None
