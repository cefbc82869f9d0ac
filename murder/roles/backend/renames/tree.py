"""A root and all below it, as far as this server has it: what RENAME, DELETE and their kin make of each mailbox there."""

import time
from dataclasses import dataclass
from typing import Protocol

from murder.errors import Code, Refusal
from murder.model.entry import MailboxEntry
from murder.model.name import (
    MailboxName,
    before_deletion,
    deleted_name,
    display,
    is_below,
    is_deleted,
    moved,
)
from murder.net.turns import in_turns
from murder.roles.backend.hierarchy.intent import Intent
from murder.roles.backend.hierarchy.limits import may_rest
from murder.roles.backend.renames.rows import Moves
from murder.roles.backend.shared import Backend
from murder.wire.nodes.rename_words import Act


@dataclass(frozen=True, slots=True)
class Tree:
    """What is to become of it; `act` says how `old` and `new` are meant."""

    act: Act
    old: MailboxName
    new: MailboxName

    @property
    def above(self) -> MailboxName:
        """Below this is all of it: of what rests, the moment of deletion stands last in each name."""
        if self.act is not Act.UNDELETE:
            return self.old
        return MailboxName(self.old.rpartition(b".")[0])

    @property
    def target(self) -> str:
        """For people."""
        return "" if self.act is Act.DELETE else display(self.new)

    def has(self, name: MailboxName) -> bool:
        """Whether a mailbox goes with it, one below `above`."""
        if self.act is not Act.UNDELETE:
            return is_below(name, self.old)
        before, root = before_deletion(name), before_deletion(self.old)
        if before is None or root is None:
            return False
        return is_below(before[0], self.new) and before[1] == root[1]

    async def moves_at(self, backend: Backend) -> Moves:
        """What this server has of it, each with its new name."""
        names = await self.names_at(backend)
        rests = self.act is Act.DELETE and await rests_when_deleted(backend, names)
        return self.moves_of(names, rests=rests)

    def moves_of(self, names: list[MailboxName], *, rests: bool) -> Moves:
        """For these."""
        return tuple((name, self._renamed(name, rests)) for name in names)

    async def names_at(self, backend: Backend) -> list[MailboxName]:
        """The root first, where it is here."""
        root = backend.mailboxes.find(self.old)
        below = [head.name async for head in in_turns(backend.mailboxes.below(self.above))]
        names = [name for name in below if name != self.old and self.has(name)]
        return [root.name, *names] if root is not None else names

    def _renamed(self, name: MailboxName, rests: bool) -> MailboxName:
        if self.act is Act.RENAME:
            return moved(name, self.old, self.new)
        if self.act is Act.DELETE:
            resting = before_deletion(self.new)
            assert resting is not None
            return deleted_name(name, resting[1]) if rests else name
        before = before_deletion(name)
        assert before is not None
        return before[0]

    def changed_meanwhile(self) -> Refusal:
        """What is below it is not what it was a moment ago."""
        text = f"What is below {display(self.old)} changes just now: try again"
        return Refusal(Code.IN_USE, text, names=(self.old,))


async def rests_when_deleted(backend: Backend, names: list[MailboxName]) -> bool:
    """Whether they are kept for a while."""
    delays = backend.config.delete == "delayed" and not any(is_deleted(name) for name in names)
    return delays and await may_rest(backend, names)


class Knows(Protocol):
    """The master as this file needs it."""

    async def below(self, name: bytes) -> list[MailboxEntry] | None: ...


async def moment_of_deletion(backend: Backend, master: Knows | None, name: MailboxName) -> int:
    """Now, in seconds; a little later where something of the same name has been put to rest in this second. Raises
    UpstreamFailure."""
    now = int(time.time())
    above = Tree(Act.UNDELETE, deleted_name(name, now), name).above
    names = [head.name async for head in in_turns(backend.mailboxes.below(above))]
    if master is not None and backend.config.delete == "delayed":
        names += [row.name for row in await master.below(above) or ()]
    deletions = map(before_deletion, names)
    taken = {before[1] for before in deletions if before is not None and is_below(before[0], name)}
    while now in taken:
        now += 1
    return now


def act_of(moves: Moves) -> Act:
    """What was begun with these."""
    old, new = moves[0]
    if old == new or (is_deleted(new) and not is_deleted(old)):
        return Act.DELETE
    return Act.UNDELETE if is_deleted(old) and not is_deleted(new) else Act.RENAME


async def ids_of_doomed(backend: Backend, moves: Moves) -> list[str]:
    """Under which sessions know what they lose."""
    ids = []
    for old, _ in moves if act_of(moves) is Act.DELETE else ():
        try:
            mailbox = await backend.store.open(old, "")
        except Refusal:
            continue  # the store has lost it
        ids.append(mailbox.mailbox_id)
        mailbox.close()
    return ids


async def carry_out(backend: Backend, intent: Intent) -> None:
    """What was prepared, and is decided; sessions that lose a mailbox are told. Raises what the store raises."""
    doomed = await ids_of_doomed(backend, intent.moves)
    await backend.announcer.carry_out(intent)
    for mailbox_id in doomed:
        backend.tracker.mailbox_changed(mailbox_id)
