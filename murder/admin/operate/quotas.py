"""Quotas as people write and read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from murder.admin.operate.wording import octets
from murder.model import quota

RESOURCES: Final = tuple(resource.value for resource in quota.WRITTEN)


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
    """As `model.quota.parse_limits`, by their words. Raises BadSyntax."""
    return {resource.value: limit for resource, limit in quota.parse_limits(texts).items()}


def quotas_of(quotas: Mapping[str, Sequence[str]]) -> dict[str, list[Quota]]:
    """By root, from its words (RFC 9208 §5.1: name, usage, limit)."""
    return {
        root: [
            Quota(words[at], int(words[at + 1]), int(words[at + 2]))
            for at in range(0, len(words) - 2, 3)
        ]
        for root, words in quotas.items()
    }


def quota_text(root: str, words: Sequence[str]) -> str:
    """A quota root with its resources, for people."""
    parts = [f"{usage.resource} {usage.text}" for usage in quotas_of({root: words})[root]]
    return f"{root}  {', '.join(parts) or 'no limits'}"
