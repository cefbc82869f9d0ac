"""Quota roots and what they limit (RFC 9208). Knows no octets of a protocol."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from murder.errors import BadSyntax

_LIMIT: Final = re.compile(r"([0-9]{1,18})([KMGT]?)(?:i?B)?", re.IGNORECASE)
_KIB: Final = {"": 1, "K": 1, "M": 1 << 10, "G": 1 << 20, "T": 1 << 30}


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


WRITTEN: Final = (Resource.STORAGE, Resource.MESSAGE, Resource.MAILBOX)
"""The resources that people limit."""


def parse_limits(texts: Sequence[str]) -> Mapping[Resource, int]:
    """`STORAGE=2G`, `MESSAGE=1000`, a mere size (of STORAGE), in the units of RFC 9208 (STORAGE: KiB). Raises BadSyntax."""
    limits = {}
    for text in texts:
        name, mark, limit = text.rpartition("=")
        resource = next((written for written in WRITTEN if written.value == name.upper()), None)
        if not mark:
            resource = Resource.STORAGE
        match = _LIMIT.fullmatch(limit)
        if match is None or resource is None or (match[2] and resource is not Resource.STORAGE):
            raise BadSyntax(
                f"{text}: expected STORAGE=SIZE (KiB, or as 500M, 2G), MESSAGE=COUNT or MAILBOX=COUNT"
            )
        limits[resource] = int(match[1]) * _KIB[match[2].upper()]
    return limits


def storage_units(octets: int) -> int:
    """Octets in STORAGE's unit, rounded up."""
    return -(-octets // 1024)
