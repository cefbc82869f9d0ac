"""Addresses as scripts see them: out of header fields, out of envelopes, and where mail is sent to (RFC 5228 §2.4.2.3)."""

import re
from dataclasses import dataclass
from typing import Final

from murder.mime.envelope import MISSING_HOST, NO_ADDRESS, parse_addresses
from murder.mime.header import decode_value

MOST_OCTETS: Final = 320  # of an address that mail is sent to: RFC 5321 §4.5.3.1
# As lenient as mail is: dots anywhere in the local part, names of hosts with underscores
_LOCAL: Final = re.compile(
    r'(?:[!#-\'*+\-/-9=?A-Z^-~.]++|"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*+")\Z'
)
_DOMAIN: Final = re.compile(
    r"(?:[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*+|\[[0-9A-Za-z:.]{1,60}\])\Z"
)
# A-d-l ":", which is left off (RFC 5321 §4.1.2)
_ROUTE: Final = re.compile(
    r"@[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++)*+(?:,@[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++)*+)*+:"
)


@dataclass(slots=True, unsafe_hash=True)
class Address:
    """`local` without quotes, `domain` may be empty; `name` is what is shown."""

    local: str
    domain: str
    name: str = ""

    def __str__(self) -> str:
        local = self.local
        if _LOCAL.match(local) is None:
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local}@{self.domain}" if self.domain else local

    @property
    def is_valid(self) -> bool:
        return bool(self.local and self.domain) and self.local.isascii() and self.domain.isascii()

    @property
    def plain(self) -> str:
        """As it is compared: without quotes."""
        return f"{self.local}@{self.domain}" if self.domain else self.local


def addresses_in(value: bytes) -> list[Address]:
    """The addresses of an unfolded header field, those in groups, too. What is none is left out."""
    addresses = []
    for parsed in parse_addresses(value):
        if parsed.host is None or parsed.mailbox is None:
            continue
        if (parsed.mailbox, parsed.host) == NO_ADDRESS or not parsed.mailbox:
            continue
        domain = (
            "" if parsed.host == MISSING_HOST else parsed.host.decode("utf-8", "surrogateescape")
        )
        local = parsed.mailbox.decode("utf-8", "surrogateescape")
        addresses.append(Address(local, domain, decode_value(parsed.name) if parsed.name else ""))
    return addresses


def parse_address(text: str) -> Address | None:
    """The one address that a text is, `local@domain` or with a name before it in angles; None where it is none. Strict:
    mail is sent to it."""
    text = text.strip(" \t")
    if len(text) > MOST_OCTETS + 200 or any(ord(letter) < 32 for letter in text):
        return None
    addresses = addresses_in(text.encode("utf-8", "surrogateescape"))
    if (
        len(addresses) != 1
        or ("<" in text and not text.endswith(">"))
        or ":" in text.partition("@")[0]
    ):
        return None
    path = text[text.rindex("<") + 1 : -1] if "<" in text else text
    path = "@".join(piece.strip(" \t") for piece in path.split("@"))
    address = parse_path(path)
    return address and Address(address.local, address.domain, addresses[0].name)


def parse_envelope_path(text: str) -> Address | None:
    """A path of an envelope, with its angles and a route or without; a local part alone is one, too."""
    if text.startswith("<") or text.endswith(">"):
        if not (text.startswith("<") and text.endswith(">")):
            return None
        text = text[1:-1]
    if text.startswith("@"):
        route = _ROUTE.match(text)
        if route is None:
            return None
        text = text[route.end() :]
    if "@" not in text:
        return Address(text, "") if _LOCAL.match(text) else None
    return parse_path(text)


def parse_path(text: str) -> Address | None:
    """`local@domain`, as an envelope has it (RFC 5321 §4.1.2)."""
    local, at, domain = text.rpartition("@")
    if not at or len(text.encode("utf-8", "surrogateescape")) > MOST_OCTETS:
        return None
    if _LOCAL.match(local) is None or _DOMAIN.match(domain) is None:
        return None
    if local.startswith('"'):
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    return Address(local, domain)


def part_of(address: Address, part: str, separator: str) -> str | None:
    """`all`, `localpart`, `domain`, or with RFC 5233 `user`, `detail`; None where it has none."""
    match part:
        case "all":
            return str(address)
        case "localpart":
            return address.local
        case "domain":
            return address.domain
        case "user":
            return _split(address.local, separator)[0]
        case _:
            return _split(address.local, separator)[1]


def _split(local: str, separator: str) -> tuple[str, str | None]:
    places = [at for mark in separator if (at := local.find(mark)) >= 0]
    if not places:
        return local, None
    at = min(places)
    return local[:at], local[at + 1 :]
