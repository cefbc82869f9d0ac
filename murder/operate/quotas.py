"""Quotas as people write and read them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from murder.errors import BadSyntax
from murder.operate.wording import octets

_LIMIT: Final = re.compile(r"([0-9]{1,18})([KMGT]?)(?:i?B)?", re.IGNORECASE)
_KIB: Final = {"": 1, "K": 1, "M": 1 << 10, "G": 1 << 20, "T": 1 << 30}
RESOURCES: Final = ("STORAGE", "MESSAGE", "MAILBOX")


@dataclass(frozen=True, slots=True)
class Quota:
    """One resource of a root, in the units of RFC 9208 (STORAGE: KiB)."""

    resource: str
    usage: int
    limit: int

    @property
    def text(self) -> str:
        """For people."""
        if self.resource.upper() == "STORAGE":
            amount = f"{octets(1024 * self.usage)} of {octets(1024 * self.limit)}"
        else:
            amount = f"{self.usage} of {self.limit}"
        return amount + (f" ({100 * self.usage / self.limit:.0f} %)" if self.limit else "")


def parse_limits(texts: Sequence[str]) -> dict[str, int]:
    """`STORAGE=2G`, `MESSAGE=1000`, in the units of RFC 9208 (STORAGE: KiB). Raises BadSyntax."""
    limits = {}
    for text in texts:
        resource, _, limit = text.partition("=")
        resource = resource.upper()
        match = _LIMIT.fullmatch(limit)
        if match is None or resource not in RESOURCES or (match[2] and resource != "STORAGE"):
            raise BadSyntax(
                f"{text}: expected STORAGE=SIZE (KiB, or as 500M, 2G), MESSAGE=COUNT or MAILBOX=COUNT"
            )
        limits[resource] = int(match[1]) * _KIB[match[2].upper()]
    return limits


def quotas_of(told: Mapping[str, Sequence[str]]) -> dict[str, list[Quota]]:
    """By root, from its words (RFC 9208 §5.1: name, usage, limit)."""
    return {
        root: [
            Quota(words[at], int(words[at + 1]), int(words[at + 2]))
            for at in range(0, len(words) - 2, 3)
        ]
        for root, words in told.items()
    }


def quota_text(root: str, words: Sequence[str]) -> str:
    """A quota root with its resources, for people."""
    parts = [f"{one.resource} {one.text}" for one in quotas_of({root: words})[root]]
    return f"{root}  {', '.join(parts) or 'no limits'}"
