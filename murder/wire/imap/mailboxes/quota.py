"""GETQUOTA, GETQUOTAROOT, SETQUOTA and their answers (RFC 9208 §7, RFC 2087)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from murder.errors import Code, Refusal
from murder.model.quota import Resource, Usage
from murder.wire.token import Scanner, astring

MAX_LIMIT: Final = 2**63 - 1  # number64
MAX_RESOURCES: Final = 100  # there are four


@dataclass(frozen=True, slots=True)
class SetQuotaRequest:
    """`limits` is the whole of the root's limits: a resource not named is no longer limited (RFC 9208 §4.1.3)."""

    root: bytes
    limits: tuple[tuple[Resource, int], ...]


# getquota = "GETQUOTA" SP quota-root-name; getquotaroot = "GETQUOTAROOT" SP mailbox: `mailbox.parse_mailbox` reads both


# setquota = "SETQUOTA" SP quota-root-name SP setquota-list
# setquota-list = "(" [setquota-resource *(SP setquota-resource)] ")"
def parse_setquota(scanner: Scanner) -> SetQuotaRequest:
    """Raises Refusal(CANNOT) for a resource that is not known: it is well-formed."""
    scanner.space()
    root = scanner.astring()
    scanner.space()
    scanner.open()
    limits: dict[Resource, int] = {}
    unknown = b""
    words = 0
    while not scanner.accept(b")"):
        words += 1
        if words > MAX_RESOURCES:
            raise scanner.bad(f"at most {MAX_RESOURCES} resources")
        word = scanner.word()
        scanner.space()
        limit = scanner.number(MAX_LIMIT)
        try:
            limits[Resource(word.decode("ascii"))] = limit
        except ValueError:
            unknown = word
        if scanner.peek() != b")":
            scanner.space()
    scanner.end()
    if unknown:
        raise Refusal(
            Code.CANNOT, f"{unknown.decode('ascii')} is not a resource that can be limited"
        )
    return SetQuotaRequest(root, tuple(limits.items()))


# quota-response = "QUOTA" SP quota-root-name SP quota-list
def format_quota(root: bytes, usages: Iterable[Usage]) -> bytes:
    """`* QUOTA root (STORAGE 10 512)CRLF`."""
    each = [
        b"%s %d %d" % (usage.resource.value.encode(), usage.used, usage.limit) for usage in usages
    ]
    return b"* QUOTA %s (%s)\r\n" % (astring(root), b" ".join(each))


# quotaroot-response = "QUOTAROOT" SP mailbox *(SP quota-root-name)
def format_quotaroot(mailbox: bytes, roots: Iterable[bytes]) -> bytes:
    """`* QUOTAROOT mailbox root …CRLF`; a mailbox may have no root."""
    pieces = [astring(mailbox), *map(astring, roots)]
    return b"* QUOTAROOT " + b" ".join(pieces) + b"\r\n"
