"""The errors that cross rooms: facts only, never replies.

One function per protocol turns them into replies (`wire.imap.response.status_for` and its like in
POP3, LMTP and MUPDATE). A peer's fault, a refusal, a failure of a server we depend on, and our own
bug never look alike.
"""

import contextlib
import os
import pwd
import ssl
from enum import Enum
from pathlib import Path


class BadSyntax(Exception):
    """The peer sent octets that are no command. `offset` counts octets into the message, if known; `code` tells a
    program what is wrong, where there is a word for it."""

    def __init__(self, text: str, offset: int | None = None, code: "Code | None" = None) -> None:
        super().__init__(text if offset is None else f"{text} (at octet {offset})")
        self.text = text
        self.offset = offset
        self.code = code


class Code(Enum):
    """Why something well-formed was denied.

    The values are IMAP response codes (RFC 5530 unless noted), because IMAP has the finest set; POP3,
    LMTP and MUPDATE map them to theirs in one table each.
    """

    ALREADY_EXISTS = "ALREADYEXISTS"
    AUTHENTICATION_FAILED = "AUTHENTICATIONFAILED"
    AUTHORIZATION_FAILED = "AUTHORIZATIONFAILED"
    BAD_CHARSET = "BADCHARSET"  # RFC 3501 §7.1
    BAD_EVENT = "BADEVENT"  # RFC 5465 §8
    BAD_URL = "BADURL"  # RFC 4469 §5
    CANNOT = "CANNOT"
    CLOSED = "CLOSED"  # RFC 7162 §3.2.11
    CONTACT_ADMIN = "CONTACTADMIN"
    EXPIRED = "EXPIRED"  # what proved who it is
    EXPUNGE_ISSUED = "EXPUNGEISSUED"
    IN_USE = "INUSE"
    LIMIT = "LIMIT"
    METADATA = "METADATA"  # RFC 5464 §4.2.1; the text tells which
    MODIFIED = "MODIFIED"  # RFC 7162 §3.1.12
    NO_PERMISSION = "NOPERM"
    NONE = ""  # a plain NO, where no code fits
    NONEXISTENT = "NONEXISTENT"
    NOTIFICATION_OVERFLOW = "NOTIFICATIONOVERFLOW"  # RFC 5465 §5.8
    NOT_SAVED = "NOTSAVED"  # RFC 5182 §4
    OVER_QUOTA = "OVERQUOTA"
    PRIVACY_REQUIRED = "PRIVACYREQUIRED"
    READ_ONLY = "READ-ONLY"  # RFC 3501 §7.1
    REFERRAL = "REFERRAL"  # RFC 2193 §5; the detail is a URL
    TOO_BIG = "TOOBIG"  # RFC 4469 §5, RFC 7889
    TRY_CREATE = "TRYCREATE"  # RFC 3501 §7.1
    UID_REQUIRED = "UIDREQUIRED"  # RFC 9586 §3; of a BAD
    UNAVAILABLE = "UNAVAILABLE"
    UNKNOWN_CTE = "UNKNOWN-CTE"  # RFC 3516 §4.3
    USE_ATTR = "USEATTR"  # RFC 6154 §3


class Refusal(Exception):
    """Understood, and denied. `detail` is the response code's argument, if it takes one. `names`: mailboxes that `text`
    calls by their canonical names; who tells it to a client puts the client's names there."""

    def __init__(
        self, code: Code, text: str, detail: str = "", names: tuple[bytes, ...] = ()
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.detail = detail
        self.names = names


class ScopeMissing(Refusal):
    """A token is its user's, and is not for this: clients are told to get one with `scope`, where `openid_configuration`
    says (RFC 7628 §3.2.2); "" for not known."""

    def __init__(self, scope: str, openid_configuration: str) -> None:
        super().__init__(Code.AUTHORIZATION_FAILED, f"The token has not the scope {scope}")
        self.scope = scope
        self.openid_configuration = openid_configuration


NOT_YET_VALID, HAS_EXPIRED = 9, 10  # X509_V_ERR_CERT_..., as OpenSSL numbers them


def why_not_believed(error: ssl.SSLCertVerificationError, cure: str) -> tuple[str, str]:
    """What is wrong with a server's certificate, and what mends it: of its dates a clock, or a new one; else `cure`."""
    text = f"its certificate is not believed: {error.verify_message or error}"
    if error.verify_code == NOT_YET_VALID:
        return (
            text,
            "set the clock here (NTP), or the server's, if the certificate was made with that",
        )
    if error.verify_code == HAS_EXPIRED:
        return text, "renew it there, or set the clock here (NTP) if it is in date"
    return text, cure


class UpstreamKind(Enum):
    """How a server that we depend on failed us (idea: Dovecot's named proxy failures)."""

    RESOLVE = "resolve"  # its name has no address
    CONNECT = "connect"  # refused, unreachable, timed out
    TLS = "tls"  # no TLS, or a certificate that is not its own
    AUTH = "auth"  # it does not accept this proxy
    AUTH_TEMPORARY = "auth-temporary"  # it said "try again later" to a login
    UNAVAILABLE = "unavailable"  # it said so to all else: it goes down, or cannot do it now
    TIMEOUT = "timeout"  # connected, then silent
    PROTOCOL = "protocol"  # it spoke, but not the protocol
    LOST = "lost"  # it closed in the middle
    DOWN = "down"  # not tried: the circuit breaker is open
    MOVING = "moving"  # the mailbox is between two servers, for a moment
    UNSYNCHRONISED = "unsynchronised"  # our mailbox list has never been complete

    @property
    def retry(self) -> bool:
        """Whether a second attempt at once may help (only ever for idempotent work)."""
        return self in {UpstreamKind.LOST, UpstreamKind.AUTH_TEMPORARY, UpstreamKind.UNAVAILABLE}

    @property
    def is_sickness(self) -> bool:
        """Whether it speaks against the server itself, and counts for its circuit breaker. That it does not let one
        user in does not, nor what we know without having asked it."""
        return self not in {
            UpstreamKind.AUTH,
            UpstreamKind.DOWN,
            UpstreamKind.MOVING,
            UpstreamKind.UNSYNCHRONISED,
        }

    @property
    def reply(self) -> str:
        """What a client is told; every protocol puts its code for "try again later" in front."""
        return _REPLIES[self]


_REPLIES = {
    UpstreamKind.RESOLVE: "its address is not known",
    UpstreamKind.CONNECT: "it cannot be reached",
    UpstreamKind.TLS: "TLS failed",
    UpstreamKind.AUTH: "it refuses this proxy's login",
    UpstreamKind.AUTH_TEMPORARY: "it temporarily refuses logins",
    UpstreamKind.UNAVAILABLE: "it cannot do that now",
    UpstreamKind.TIMEOUT: "it does not answer",
    UpstreamKind.PROTOCOL: "protocol error",
    UpstreamKind.LOST: "the connection to it was lost",
    UpstreamKind.DOWN: "it is down",
    UpstreamKind.UNSYNCHRONISED: "the mailbox list is not complete yet",
    UpstreamKind.MOVING: "the mailbox is being moved",
}


class UpstreamFailure(Exception):
    """A server that we depend on failed us. `server` is its name in the mailbox list. `cure` is for the operator, and stands
    behind `text`, too; `problem` is what goes before."""

    def __init__(self, kind: UpstreamKind, server: str, text: str, cure: str = "") -> None:
        self.problem, self.cure = text, cure
        self.text = f"{text}; {cure}" if cure else text
        super().__init__(f"{server}: {self.text}")
        self.kind = kind
        self.server = server


class Misuse(Exception):
    """Our own code asked for something that is not allowed in this state: a bug of ours."""


def user_name() -> str:
    """Whom files are opened as."""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return str(os.geteuid())


def unreadable(path: Path, error: OSError) -> str:
    """Why a file of a node's cannot be read, and what cures it; for an operator, behind the file's name."""
    if not isinstance(error, PermissionError):
        return f"cannot be read: {error.strerror or error}"
    for folder in reversed(path.absolute().parents):
        if not os.access(folder, os.X_OK, effective_ids=True):
            return f"cannot be read: user {user_name()} may not enter {folder}; chmod o+x or chown that folder"
    return f"cannot be read by user {user_name()}; chown it to that user, chmod 600"
