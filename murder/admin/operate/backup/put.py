"""Putting back what a point in time has: mailboxes that are not there any more, or a copy beside those that are.

A tree comes as a move does (`backend.moves.arriving`): kept aside at its backend until all of it is there, compared and
durable, then shown at once. Each mailbox is a new one, with an id and a UIDVALIDITY that nobody was told: no UID means
another message than it did. What is broken off goes on where it was when the same is asked for again.
"""

import asyncio
import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from murder.admin.operate.backup.kept import Entry, KeptMailbox, KeptRow, read_mailbox, read_page
from murder.admin.operate.backup.link import WRITE, Link
from murder.admin.operate.backup.vault import Damaged, Vault
from murder.admin.operate.moves import act
from murder.admin.operate.reach import Reach
from murder.errors import Code, Refusal
from murder.model.carried import CarriedIdentity, Portrait
from murder.model.message import Message, ModSeq, Uid, UidValidity
from murder.model.name import MailboxName
from murder.model.seqset import Ranges, holds
from murder.wire.nodes.carry import format_name
from murder.wire.nodes.carry_words import Abort, Begin, Commit, Complete, Hold, Prepare

BATCH_MESSAGES: Final = 250
BATCH_OCTETS: Final = 4 * 1024 * 1024
HIGHEST_VALIDITY: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Coming:
    """A mailbox that comes: under which name, with which rights, and what the point has of it; None: it is made empty."""

    name: MailboxName
    raw_acl: bytes
    kept: Entry | None
    with_notes: bool = True


@dataclass(frozen=True, slots=True)
class Tree:
    """Mailboxes that are shown together. `root` is the topmost of them."""

    root: MailboxName
    server: str
    partition: str
    mailboxes: Sequence[Coming]
    subscriptions: Sequence[MailboxName] = ()


@dataclass(slots=True)
class Put:
    """How far a restore is. `lost`: messages that the backup names and does not have, and why."""

    trees: int = 0
    mailboxes: int = 0
    messages: int = 0
    octets: int = 0
    empty: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Journal:
    """What is under way: by the same id and time it goes on."""

    id: str
    began: int
    server: str
    source: str  # which mailboxes of the backup, as a digest


class Putting:
    """See the module. `tell` hears how far it is."""

    def __init__(
        self,
        reach: Reach,
        vault: Vault,
        point: str,
        tell: Callable[[Put], None] = lambda _: None,
    ) -> None:
        self._reach = reach
        self._vault = vault
        self._point = point
        self._tell = tell
        self.put = Put()

    async def tree(self, tree: Tree) -> None:
        """Durable and shown on return. Raises Refusal, UpstreamFailure, OSError: nothing of it is shown then, and the same
        call goes on."""
        path = self._journal_path(tree.root)
        journal = await self._begun(path, tree)
        if journal is None:
            return
        channel = await self._reach.frames(tree.server, WRITE)
        link = Link(channel, tree.server)
        try:
            begin = Begin(journal.id, tree.root, tree.partition, f"the point {self._point}")
            await link.do(begin)
            notes: dict[str, bytes] = {}
            for coming in tree.mailboxes:
                notes |= await self._mailbox(link, journal, coming)
            rows = [(coming.name, coming.raw_acl) for coming in tree.mailboxes]
            await link.do(Prepare(rows, notes, tree.subscriptions))
            await link.do(Commit(journal.id))
        finally:
            link.close()
        await asyncio.to_thread(path.unlink)
        self.put.trees += 1
        self._tell(self.put)

    # --- what was begun before

    def _journal_path(self, root: MailboxName) -> Path:
        name = hashlib.sha256(root).hexdigest()[:32]
        return self._vault.folder / "restores" / f"{name}.json"

    async def _begun(self, path: Path, tree: Tree) -> _Journal | None:
        """The restore that goes on, or a new one; None where it had just ended."""
        boxes = [
            [format_name(mailbox.name), mailbox.kept.digest if mailbox.kept is not None else ""]
            for mailbox in tree.mailboxes
        ]
        source = hashlib.sha256(json.dumps([self._point, boxes]).encode()).hexdigest()
        old = _read_journal(path)
        if old is not None and old.server == tree.server:
            with contextlib.suppress(Refusal):  # of one that has never begun there
                record = await act(self._reach, old.server, "SHOW", old.id)
                if record.state == "done" and old.source == source:
                    await asyncio.to_thread(path.unlink)
                    return None
                if record.state == "done":
                    old = None
        if old is not None and old.source == source and old.server == tree.server:
            return old
        if old is not None:
            await self._give_up(old)
        # letters and digits: it becomes a part of a file's name at the backend
        new = _Journal(secrets.token_hex(6), int(time.time()), tree.server, source)
        self._vault.replace(path, json.dumps(asdict(new)).encode())
        return new

    async def _give_up(self, old: _Journal) -> None:
        """Another one was under way under this name, and would stand in the way."""
        link = Link(await self._reach.frames(old.server, WRITE), old.server)
        try:
            await link.do(Abort(old.id))
        finally:
            link.close()

    # --- one mailbox

    async def _mailbox(self, link: Link, journal: _Journal, coming: Coming) -> dict[str, bytes]:
        """The notes that are shown with it."""
        kept, messages = None, 0
        if coming.kept is not None:
            kept = await asyncio.to_thread(read_mailbox, self._vault, coming.kept.digest)
        portrait = _portrait(journal, coming.name, kept)
        was = None if kept is None else kept.portrait.identity
        held = await link.hold(Hold(coming.name, portrait, was))
        if kept is not None:
            messages = await self._messages(link, coming, kept, held.uids)
        else:
            self.put.empty.append(self._reach.shown(coming.name))
        await link.do(Complete(coming.name, portrait))
        there = await link.sum(coming.name)
        if there.messages != messages:
            name_shown = self._reach.shown(coming.name)
            text = f"{name_shown} has {there.messages} messages at {link.server}, not {messages}"
            raise Refusal(Code.CANNOT, text)
        self.put.mailboxes += 1
        self._tell(self.put)
        if kept is None or not coming.with_notes:
            return {}
        return {f"{kind}/{format_name(coming.name)}": octets for kind, octets in kept.notes.items()}

    async def _messages(
        self, link: Link, coming: Coming, kept: KeptMailbox, present: Ranges
    ) -> int:
        """How many have come, now and before."""
        count, weight = 0, 0
        batch: list[tuple[Message, bytes | None]] = []
        for page in kept.pages:
            for row in self._rows(coming, page.digest, page.messages):
                is_here = holds(present, row.message.uid)
                octets = None if is_here else await self._octets(coming, row)
                if octets is None and not is_here:
                    continue
                batch.append((row.message, octets))
                weight += len(octets or b"")
                count += 1
                if weight >= BATCH_OCTETS or len(batch) >= BATCH_MESSAGES:
                    await self._store(link, coming.name, batch)
                    batch, weight = [], 0
        await self._store(link, coming.name, batch)
        return count

    def _rows(self, coming: Coming, digest: str, messages: int) -> list[KeptRow]:
        try:
            rows = read_page(self._vault, digest)
        except Damaged as damaged:
            name_shown = self._reach.shown(coming.name)
            self.put.lost[f"{messages} messages of {name_shown}"] = damaged.text
            return []
        return [rows[uid] for uid in sorted(rows)]

    async def _octets(self, coming: Coming, row: KeptRow) -> bytes | None:
        message_shown = f"{self._reach.shown(coming.name)}, UID {row.message.uid}"
        if not row.digest:
            self.put.lost[message_shown] = "it could not be read when this point was taken"
            return None
        try:
            return await asyncio.to_thread(self._vault.read, row.digest)
        except Damaged as damaged:
            self.put.lost[message_shown] = damaged.text
            return None

    async def _store(
        self, link: Link, name: MailboxName, batch: Sequence[tuple[Message, bytes | None]]
    ) -> None:
        if not batch:
            return
        if not await link.store(name, batch):
            text = f"{link.server} has not kept messages of {self._reach.shown(name)} as they were sent"
            raise Refusal(Code.CANNOT, text)
        self.put.messages += len(batch)
        self.put.octets += sum(message.size for message, _ in batch)
        self._tell(self.put)


def _portrait(journal: _Journal, name: MailboxName, kept: KeptMailbox | None) -> Portrait:
    """As it was, under an identity of its own."""
    was = kept.portrait.identity if kept is not None else CarriedIdentity("", UidValidity(0))
    text = f"{journal.id} {was.mailbox_id} {format_name(name)}"
    mailbox_id = hashlib.sha256(text.encode()).hexdigest()[:20]
    validity = min(max(journal.began, was.uid_validity + 1), HIGHEST_VALIDITY)
    identity = CarriedIdentity(mailbox_id, UidValidity(validity))
    if kept is None:
        return Portrait(identity, Uid(1), ModSeq(1))
    return replace(kept.portrait, identity=identity, expunged=())


def _read_journal(path: Path) -> _Journal | None:
    try:
        fields: Mapping[str, Any] = json.loads(path.read_bytes())
        return _Journal(
            str(fields["id"]), int(fields["began"]), str(fields["server"]), str(fields["source"])
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
