"""What LMTP says to a refusal or a failure (RFC 2033, RFC 3463), and how a reply is shown in a log."""

from collections.abc import Collection, Mapping
from typing import Final

from murder.errors import Code, UpstreamKind
from murder.serve.mail_log import Handled, facts_of
from murder.wire.lmtp import clean, reply

STATUS: Final = {  # what a refusal of the store or the list is in LMTP
    Code.OVER_QUOTA: (452, "4.2.2"),
    Code.NONEXISTENT: (550, "5.1.1"),
    Code.NO_PERMISSION: (550, "5.7.1"),
    Code.TOO_BIG: (552, "5.3.4"),
    Code.LIMIT: (452, "4.5.3"),
    Code.CANNOT: (550, "5.1.1"),
    Code.AUTHENTICATION_FAILED: (535, "5.7.8"),
    Code.AUTHORIZATION_FAILED: (535, "5.7.8"),
    Code.PRIVACY_REQUIRED: (538, "5.7.11"),
    Code.CONTACT_ADMIN: (525, "5.7.13"),
    Code.EXPIRED: (535, "5.7.8"),
}
ENHANCED: Final = {  # RFC 3463 §3.5, of a server that failed us
    UpstreamKind.RESOLVE: "4.4.4",
    UpstreamKind.CONNECT: "4.4.1",
    UpstreamKind.TLS: "4.7.0",
    UpstreamKind.AUTH: "4.7.0",
    UpstreamKind.AUTH_TEMPORARY: "4.3.2",
    UpstreamKind.UNAVAILABLE: "4.3.2",
    UpstreamKind.TIMEOUT: "4.4.2",
    UpstreamKind.PROTOCOL: "4.5.0",
    UpstreamKind.LOST: "4.4.2",
    UpstreamKind.DOWN: "4.4.1",
    UpstreamKind.MOVING: "4.2.1",
    UpstreamKind.UNSYNCHRONISED: "4.4.3",
}


def shown_reply(answer: bytes) -> str:
    """As one line."""
    text = answer.removesuffix(b"\r\n").decode("utf-8", "replace")
    return clean(text if text.isprintable() else " / ".join(text.splitlines()))


def refused_facts(handled: Handled, more: Mapping[str, object], answer: bytes) -> dict[str, object]:
    """For the mail log."""
    return {**facts_of(handled), **more, "reply": shown_reply(answer)}


def unknown_parameter(names: Collection[bytes]) -> bytes:
    """RFC 5321 §4.1.1.11."""
    printable = ", ".join(sorted(clean(name[:40].decode("utf-8", "replace")) for name in names))
    return reply(555, "5.5.4", f"These parameters are not known here: {printable}")
