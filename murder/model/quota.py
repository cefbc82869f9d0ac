"""Quota roots and what they limit (RFC 9208). Knows no octets of a protocol."""

from dataclasses import dataclass
from enum import Enum


class Resource(Enum):
    """What is limited; the value is its word on the wire and in `QUOTA=RES-…`."""

    STORAGE = "STORAGE"  # in units of 1024 octets, sum of RFC822.SIZE
    MESSAGE = "MESSAGE"
    MAILBOX = "MAILBOX"
    ANNOTATION_STORAGE = "ANNOTATION-STORAGE"


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of a resource is used and allowed, in the resource's own unit."""

    resource: Resource
    used: int
    limit: int


def storage_units(octets: int) -> int:
    """Octets in STORAGE's unit, rounded up."""
    return -(-octets // 1024)
