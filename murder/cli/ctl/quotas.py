"""Quotas as people write and read them."""

import re
from collections.abc import Sequence
from typing import Final

import asyncclick as click

from murder.cli.screen import octets

_LIMIT: Final = re.compile(r"([0-9]+)([KMGT]?)(?:i?B)?", re.IGNORECASE)
_KIB: Final = {"": 1, "K": 1, "M": 1 << 10, "G": 1 << 20, "T": 1 << 30}
RESOURCES: Final = ("STORAGE", "MESSAGE", "MAILBOX")


def limits_of(texts: Sequence[str]) -> dict[str, int]:
    """`STORAGE=2G`, `MESSAGE=1000`, in the units of RFC 9208 (STORAGE: KiB). Raises UsageError."""
    limits = {}
    for text in texts:
        resource, _, limit = text.partition("=")
        resource = resource.upper()
        match = _LIMIT.fullmatch(limit)
        if match is None or resource not in RESOURCES or (match[2] and resource != "STORAGE"):
            raise click.UsageError(
                f"{text}: expected STORAGE=SIZE (KiB, or as 500M, 2G), MESSAGE=COUNT or MAILBOX=COUNT"
            )
        limits[resource] = int(match[1]) * _KIB[match[2].upper()]
    return limits


def quota_text(root: str, words: Sequence[str]) -> str:
    """A quota root with its resources (RFC 9208 §5.1: name, usage, limit), for people."""
    parts = []
    for at in range(0, len(words) - 2, 3):
        resource, usage, limit = words[at : at + 3]
        used, most = int(usage), int(limit)
        if resource.upper() == "STORAGE":
            amount = f"{octets(1024 * used)} of {octets(1024 * most)}"
        else:
            amount = f"{used} of {most}"
        part = f" ({100 * used / most:.0f} %)" if most else ""
        parts.append(f"{resource} {amount}{part}")
    return f"{root}  {', '.join(parts) or 'no limits'}"
