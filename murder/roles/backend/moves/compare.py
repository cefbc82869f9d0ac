"""Two copies of a mailbox, one older than the other, compared message by message: same, changed since, or different.

The older one has all that happened up to its highest mod-sequence (RFC 7162): whatever the newer one has otherwise must
have happened later and say so. What does not is loss or damage, at either end. Rows come in ascending batches from both
sides at once; beside them only UIDs are held.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from murder.model.message import MailboxStatus, Message, Uid
from murder.model.name import MailboxName
from murder.model.seqset import holds
from murder.wire.nodes.carry_answers import Facts, Row
from murder.wire.nodes.move_words import MoveCompared

MAX_TOLD: Final = 20  # findings of a mailbox told in words; the others are counted


class Verdict(Enum):
    """How two copies stand to each other; the later ones outweigh the earlier."""

    SAME = "same"
    CHANGED = "changed"
    DIFFERENT = "different"


Fetch = Callable[[Uid], Awaitable[Sequence[Row]]]
"""The next rows behind a UID; none at the end."""


@dataclass(slots=True)
class Compared:
    """What was found of one mailbox. `flags` counts messages whose flags changed since."""

    name: bytes
    messages: int = 0
    octets: int = 0
    arrived: int = 0
    expunged: int = 0
    flags: int = 0
    verdict: Verdict = Verdict.SAME
    told: list[str] = field(default_factory=list)
    more: int = 0

    def note(self, verdict: Verdict, text: str = "") -> None:
        if self.verdict is not Verdict.DIFFERENT and verdict is not Verdict.SAME:
            self.verdict = verdict
        if text and len(self.told) < MAX_TOLD:
            self.told.append(text)
        elif text:
            self.more += 1

    def shown(self) -> MoveCompared:
        """As an operator is told."""
        return MoveCompared(
            MailboxName(self.name),
            self.verdict.value,
            messages=self.messages,
            octets=self.octets,
            arrived=self.arrived,
            expunged=self.expunged,
            flags=self.flags,
            told=tuple(self.told),
            more=self.more,
        )


def numbers_of(status: MailboxStatus) -> dict[str, int]:
    """A mailbox's numbers, as both ends tell them."""
    return {
        "messages": status.messages,
        "unseen": status.unseen,
        "deleted": status.deleted,
        "octets": status.size,
        "uid_next": int(status.uid_next),
        "uid_validity": int(status.uid_validity),
        "highest_modseq": int(status.highest_modseq),
    }


def digest_of(uids: Sequence[int]) -> str:
    """Of all UIDs of a mailbox, ascending. For a thread."""
    digest = hashlib.sha256()
    for start in range(0, len(uids), 10_000):
        digest.update(",".join(map(str, uids[start : start + 10_000])).encode() + b",")
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Sides:
    """Who the two are, for what is told."""

    older: str
    newer: str


async def lockstep(older: Fetch, newer: Fetch) -> AsyncIterator[tuple[Uid, Row | None, Row | None]]:
    """All UIDs that either has, ascending, with what each has of it."""
    buffers: list[list[Row]] = [[], []]
    last, ended = [Uid(0), Uid(0)], [False, False]

    async def fill(side: int, fetch: Fetch) -> None:
        if not buffers[side] and not ended[side]:
            rows = list(await fetch(last[side]))
            ended[side] = not rows
            buffers[side] = rows[::-1]
            if rows:
                last[side] = rows[-1].message.uid

    while True:
        await asyncio.gather(fill(0, older), fill(1, newer))
        heads = [buffer[-1].message.uid for buffer in buffers if buffer]
        if not heads:
            return
        uid = min(heads)
        ours, theirs = (
            buffer.pop() if buffer and buffer[-1].message.uid == uid else None for buffer in buffers
        )
        yield uid, ours, theirs


async def compare_rows(
    compared: Compared, sides: Sides, before: Facts, older: Fetch, newer: Fetch
) -> tuple[list[Uid], tuple[int, int]]:
    """Messages, into `found`; `before` is the older side's. The UIDs that only the older has, and how many each has."""
    missing: list[Uid] = []
    counts = [0, 0]
    async for uid, ours, theirs in lockstep(older, newer):
        counts[0] += ours is not None
        counts[1] += theirs is not None
        for row, side in ((ours, sides.older), (theirs, sides.newer)):
            if row is not None and row.problem:
                compared.note(
                    Verdict.DIFFERENT, f"message {uid} cannot be read at {side}: {row.problem}"
                )
        if theirs is not None and ours is not None:
            _compare_row(compared, sides, before.modseq, ours, theirs)
        elif theirs is not None:
            if uid < before.numbers["uid_next"]:
                compared.note(Verdict.DIFFERENT, f"message {uid} is missing at {sides.older}")
            else:
                compared.arrived += 1
                compared.note(Verdict.CHANGED)
        else:
            missing.append(uid)
    return missing, (counts[0], counts[1])


def _compare_row(compared: Compared, sides: Sides, modseq: int, ours: Row, theirs: Row) -> None:
    compared.messages += 1
    compared.octets += ours.message.size
    old, new = ours.message, theirs.message
    wrong = []
    if ours.digest != theirs.digest and ours.digest and theirs.digest:
        wrong.append("octets")
    if old.size != new.size:
        wrong.append("size")
    if old.internal_date != new.internal_date or old.save_date != new.save_date:
        wrong.append("dates")
    if old.email_id != new.email_id:
        wrong.append("id")
    if old.modseq != new.modseq or _folded(old) != _folded(new):
        if new.modseq > modseq and new.modseq > old.modseq:
            compared.flags += 1
            compared.note(Verdict.CHANGED)
        else:
            wrong += ["flags"] if _folded(old) != _folded(new) else ["mod-sequence"]
    if wrong:
        both = f"{sides.older} and {sides.newer}"
        compared.note(
            Verdict.DIFFERENT, f"message {old.uid} differs between {both}: {', '.join(wrong)}"
        )


def _folded(message: Message) -> frozenset[str]:
    return frozenset(flag.lower() for flag in message.flags)


def compare_facts(
    compared: Compared, sides: Sides, older: Facts, newer: Facts, missing: Sequence[Uid]
) -> None:
    """Numbers, what was expunged, what other readers have seen; `newer` was asked after all rows."""
    both = f"{sides.older} and {sides.newer}"
    for uid in missing:
        if holds(newer.gone, uid):
            compared.expunged += 1
            compared.note(Verdict.CHANGED)
        else:
            compared.note(Verdict.DIFFERENT, f"message {uid} is missing at {sides.newer}")
    if older.mailbox_id != newer.mailbox_id:
        compared.note(
            Verdict.DIFFERENT, f"it is another mailbox at {sides.newer}: the MAILBOXID differs"
        )
    same = ["uid_validity"]
    if older.modseq == newer.modseq:
        same += ["messages", "unseen", "deleted", "octets", "uid_next"]
    for key in same:
        if older.numbers[key] != newer.numbers[key]:
            numbers = f"{older.numbers[key]} and {newer.numbers[key]}"
            word = key.upper().replace("_", "")
            compared.note(Verdict.DIFFERENT, f"{word} differs between {both}: {numbers}")
    for key in ("uid_next", "highest_modseq"):
        if newer.numbers[key] < older.numbers[key]:
            word = key.upper().replace("_", "")
            compared.note(Verdict.DIFFERENT, f"{word} is lower at {sides.newer}")
    if older.gone_before != newer.gone_before:
        compared.note(Verdict.DIFFERENT, f"what was expunged earlier differs between {both}")
    if older.seen != newer.seen:
        readers = sorted(
            reader
            for reader in older.seen.keys() | newer.seen.keys()
            if older.seen.get(reader) != newer.seen.get(reader)
        )
        verdict = Verdict.DIFFERENT if older.modseq == newer.modseq else Verdict.CHANGED
        compared.note(verdict, f"what has been seen differs, of {', '.join(readers)}")
