"""The section `[dns]`: names of users in DNS."""

# ruff: noqa: RUF009 (`option` is dataclasses.field with a doc, not a shared value)

from dataclasses import dataclass
from typing import Literal

from murder.config.value import Endpoint, option


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """Names for users in DNS, each of which leads to the server of their INBOX: `murder ctl dns zone`, `murder help dns`.
    Needed where that is run, and at masters with `follows`."""

    suffix: str = option("", "What stands behind the users' names.", example='"imap.example.org"')
    by: Literal["user", "letter"] = option(
        "user",
        "A name for each user, or one for each first letter, which leads to where most of its users are.",
    )
    ttl_s: int = option(300, "How long others may believe a record.", least=0)
    follows: bool = option(
        False,
        "A master keeps the names itself: they follow as users come, move and go, `--update` is not needed. The list is "
        "compared with the zone at the start and once a day.",
    )
    server: Endpoint | None = option(
        None,
        "The zone's primary server, which takes the changes.",
        example='"127.0.0.1:53"',
        default_port=53,
    )
    zone: str = option(
        "", "The zone at that server; empty: the suffix itself.", example='"example.org"'
    )
    key_name: str = option("", "The TSIG key (RFC 8945) by which it knows us.", example='"murder"')
    key: str = option("", "That key, in base64.", secret=True)
    key_algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha1"] = option(
        "hmac-sha256", "Its algorithm."
    )
    timeout_s: float = option(10.0, "Waiting for an answer of it.", least=0.01)
