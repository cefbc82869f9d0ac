"""Proving that what a backup has is whole, and letting go of old points."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from murder.admin.operate.backup.kept import (
    Entry,
    read_mailbox,
    read_page,
    read_point,
    read_unit,
    time_of,
)
from murder.admin.operate.backup.vault import Damaged, Vault, digest_of_file
from murder.errors import Refusal
from murder.model.name import display

EVERY: Final[Mapping[str, Callable[[datetime], object]]] = {
    "hourly": lambda at: (at.date(), at.hour),
    "daily": lambda at: at.date(),
    "weekly": lambda at: at.isocalendar()[:2],
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: at.year,
}


@dataclass(slots=True)
class Verified:
    """What was looked at, and one sentence for each thing that is wrong."""

    points: int = 0
    objects: int = 0
    octets: int = 0
    problems: list[str] = field(default_factory=list)


class Verifying:
    """Every object that a point names is read and compared with its name."""

    def __init__(self, vault: Vault, tell: Callable[[Verified], None] = lambda _: None) -> None:
        self._vault = vault
        self._tell = tell
        self._found: dict[str, bool] = {}  # digests, and whether each is whole
        self.verified = Verified()

    async def run(self, points: Sequence[str]) -> Verified:
        """What is damaged is put aside: the next run reads it from its backend again, if it still has it."""
        for name in points:
            self.verified.points += 1
            try:
                point = read_point(self._vault, name)
            except Refusal as refusal:
                self._wrong(refusal.text)
                continue
            await self._is_whole(point.mailbox_list, f"the mailbox list of {name}")
            for root, digest in point.units.items():
                await self._unit(digest, f"{display(root)} of {name}")
        return self.verified

    async def _unit(self, digest: str, what: str) -> None:
        if digest in self._found or not await self._is_whole(digest, what):
            return
        try:
            await self._mailboxes(read_unit(self._vault, digest).mailboxes, what)
        except Refusal as refusal:  # whole, and not what this or any version has written
            self._wrong(f"{what}: {refusal.text}")

    async def _mailboxes(self, mailboxes: Sequence[Entry], what: str) -> None:
        for mailbox in mailboxes:
            what_of = f"mailbox {display(mailbox.name)} ({what})"
            if mailbox.digest in self._found or not await self._is_whole(mailbox.digest, what_of):
                continue
            for page in read_mailbox(self._vault, mailbox.digest).pages:
                if page.digest in self._found or not await self._is_whole(page.digest, what_of):
                    continue
                for row in read_page(self._vault, page.digest).values():
                    message = f"message {row.message.uid} of {what_of}"
                    if not row.digest:
                        self._wrong(f"{message}: it could not be read when this was taken")
                    elif row.digest not in self._found:
                        await self._is_whole(row.digest, message)

    async def _is_whole(self, digest: str, what: str) -> bool:
        problem = ""
        try:
            path = self._vault.path_of(digest)
        except Damaged as damaged:
            self._wrong(f"{what}: {damaged.text}")
            self._found[digest] = False
            return False
        try:
            actual, octets = await asyncio.to_thread(digest_of_file, path)
            problem = "" if actual == digest else f"{path} is damaged"
            self.verified.octets += octets
        except Damaged as damaged:
            problem = damaged.text
        except OSError as error:
            problem = f"{path} cannot be read: {error.strerror}"
        self._found[digest] = not problem
        self.verified.objects += 1
        self._tell(self.verified)
        if problem:
            self._wrong(f"{what}: {problem}")
            self._vault.put_aside(digest)
        return not problem

    def _wrong(self, text: str) -> None:
        self.verified.problems.append(text)


def kept_of(
    points: Mapping[str, str], keep: Mapping[str, int], whole: Collection[str]
) -> list[str]:
    """Those of these points (with their scopes) that stay. What is backed up by itself, a backend say, is kept by itself."""
    stays: set[str] = set()
    for scope in set(points.values()):
        same = [name for name in sorted(points) if points[name] == scope]
        stays |= _kept_of(same, keep, [name for name in same if name in whole])
    return sorted(stays)


def _kept_of(points: Sequence[str], keep: Mapping[str, int], whole: Sequence[str]) -> set[str]:
    """The last of each of so many hours, days, … that have one; always the last, and the last that is whole."""
    stays = {points[-1]} if points else set()
    stays |= {max(whole)} if whole else set()
    for period, number in keep.items():
        seen: list[object] = []
        for name in reversed(points):
            at = EVERY[period](time_of(name))
            if len(seen) < number and at not in seen:
                seen.append(at)
                stays.add(name)
    return stays


@dataclass(slots=True)
class Pruned:
    """What has gone."""

    points: int = 0
    objects: int = 0
    octets: int = 0


def prune(vault: Vault, gone: Sequence[str]) -> Pruned:
    """Remove these points, and then all objects that no other names. Raises Refusal: nothing is removed where what
    the others name cannot be told."""
    used = _used(vault, [name for name in vault.points() if name not in gone])
    pruned = Pruned(len(gone))
    for name in gone:
        vault.remove_point(name)
    for folder in vault.folders():
        for path in folder.iterdir():
            if folder.name != "new" and folder.name + path.name not in used:
                pruned.objects += 1
                pruned.octets += path.lstat().st_size
                path.unlink()
    return pruned


def _used(vault: Vault, points: Sequence[str]) -> set[str]:
    used: set[str] = set()
    for name in points:
        point = read_point(vault, name)
        used.add(point.mailbox_list)
        for digest in set(point.units.values()) - used:
            used.add(digest)
            for mailbox in read_unit(vault, digest).mailboxes:
                if mailbox.digest in used:
                    continue
                used.add(mailbox.digest)
                for page in read_mailbox(vault, mailbox.digest).pages:
                    if page.digest not in used:
                        used.add(page.digest)
                        used |= {row.digest for row in read_page(vault, page.digest).values()}
    return used


def scopes_of(vault: Vault) -> tuple[dict[str, str], set[str]]:
    """All points with their scopes; and those with nothing missing. Raises Refusal where one cannot be read."""
    points = [read_point(vault, name) for name in vault.points()]
    whole = {point.name for point in points if not point.missing}
    return {point.name: point.scope for point in points}, whole
