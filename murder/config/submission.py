"""The section `[backend.submission]`: where a backend sends mail."""

# ruff: noqa: RUF009 (`option` is dataclasses.field with a doc, not a shared value)

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from murder.config.value import Endpoint, TlsMode, option


@dataclass(frozen=True, slots=True)
class SubmissionConfig:
    """Where a backend sends what users' scripts want sent: redirected mail, replies, notifications. Without a server a
    message that is to be redirected is refused for now (451)."""

    server: Endpoint | None = option(
        None, "The mail server that takes it.", example='"127.0.0.1:25"', default_port=25
    )
    protocol: Literal["smtp", "lmtp"] = option("smtp", "What it speaks.")
    tls: TlsMode = option("starttls", "How the connection is encrypted: starttls, implicit, none.")
    tls_name: str = option("", "The name in its certificate; empty: the one in `server`.")
    ca: Path | None = option(
        None,
        "Who signs its certificate; empty: whom this host trusts.",
        example='"/etc/ssl/certs/mail-ca.pem"',
        must_exist=True,
    )
    user: str = option("", "Log in there as this user; empty: without a login.")
    password: str = option("", "Its password.", secret=True)
    timeout_s: float = option(60.0, "Waiting for it.", least=0.01)
    retry_s: float = option(
        300.0,
        "When what it did not take is sent again; then twice as late each time, four hours at most.",
        least=0.01,
    )
    give_up_s: float = option(432000.0, "How long that is tried.", least=0)
    max_waiting: int = option(
        100_000,
        "How many mails may wait to be sent; then what is to be redirected is refused for now (451), and replies and "
        "notifications are left out. 0: any number.",
        least=0,
    )
    max_waiting_bytes: int = option(
        8 * 1024**3, "Likewise, their octets in sum. 0: any number.", least=0
    )
    max_waiting_per_user: int = option(
        5000, "Of one user, or shared mailbox. 0: any number.", least=0
    )
    max_waiting_bytes_per_user: int = option(
        1024**3, "Likewise, their octets in sum. 0: any number.", least=0
    )
    redirect_sender: Literal["sender", "recipient", "srs"] = option(
        "sender",
        "The envelope's sender of what is redirected: `sender` as it came, `recipient` the address it came to (whose domain "
        "may send from here: SPF), which gets the bounces; `srs` one of `srs_domain` by which the mail server there "
        "(postsrsd, or another with libsrs2) sends bounces back to the sender.",
    )
    srs_domain: str = option(
        "", "For `srs`: the domain of rewritten senders.", example='"example.org"'
    )
    srs_secret: str = option(
        "", "For `srs`: the secret, as postsrsd has it in its file.", secret=True
    )
