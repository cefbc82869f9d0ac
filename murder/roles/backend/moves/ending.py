"""How what has come ends: shown, or removed; and what of it is still what came.

Users here may call a mailbox of theirs as one that has come was called, once it is deleted, or renamed, at the source.
"""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

from murder.errors import Code, Refusal
from murder.model.entry import EntryState, Location, MailboxEntry
from murder.model.name import MailboxName, display, owner_of
from murder.roles.backend.changes.news import Kind, News
from murder.roles.backend.moves.alone import ADDING_S, alone_with
from murder.roles.backend.moves.journal import (
    ARRIVING,
    CYRUS,
    Journal,
    Move,
    Side,
    State,
    intent_of,
)
from murder.roles.backend.moves.outgoing import freeze
from murder.roles.backend.shared import Backend
from murder.roles.mupdate.database.change import Change, PutEntry, PutNote
from murder.wire.nodes.carry import parse_name


async def commit(
    backend: Backend,
    journal: Journal,
    move: Move,
    step: Callable[[str], None] = lambda _: None,
    *,
    is_alone: bool = False,
) -> None:
    """Show what is prepared, tell the master. From PREPARED or COMMITTED; done already is no error. Raises Refusal,
    UpstreamFailure: then it is to be done again; before it is shown, nobody is kept out of its tree until then.
    `is_alone`: the caller is alone with it, and has read it since."""
    async with nullcontext(move) if is_alone else alone_with(journal, move) as now:
        await _commit(backend, journal, now, step)
    if move.by == CYRUS and (owner := owner_of(move.root)) is not None:
        await backend.scripts.take_in(owner)  # which came as files


async def _commit(
    backend: Backend, journal: Journal, move: Move, step: Callable[[str], None]
) -> None:
    if move.state is State.DONE:
        return
    if move.state not in (State.PREPARED, State.COMMITTED):
        raise Refusal(Code.CANNOT, f"the move {move.id} is {move.state.value}, not prepared")
    words = json.loads(journal.prepared_path(move).read_bytes())
    place = bytes(Location(backend.server_name, move.partition))
    rows = [
        MailboxEntry(parse_name(name), EntryState.ACTIVE, place, acl.encode("latin-1"))
        for name, acl in words["rows"]
    ]
    intent = intent_of(move)
    await backend.announcer.hold(intent)
    if move.state is State.PREPARED:
        try:
            move = await _show(backend, journal, move, rows, words, step)
        except (Refusal, OSError):
            if all(is_nobodys(backend, row.name) for row in rows):
                with suppress(Refusal):  # a full disk, say: who goes on has the lock
                    await backend.announcer.finish(intent, [])
            raise
    # it may have been shown before this server died, and somebody have changed it since
    present = [entry for row in rows if (entry := backend.mailboxes.find(row.name))]
    await backend.announcer.announce(present)
    for row in rows:
        backend.events.publish(News(Kind.ARRIVED, row.name))
    step("announced")
    await backend.announcer.finish(intent, [])
    await journal.save(move, state=State.DONE, finished_at=time.time())
    journal.prepared_path(move).unlink(missing_ok=True)


async def _show(
    backend: Backend,
    journal: Journal,
    move: Move,
    rows: Sequence[MailboxEntry],
    words: Mapping[str, Any],
    step: Callable[[str], None],
) -> Move:
    """In the list, with their tree locked; the move as it is then."""
    await freeze(backend, [row.name for row in rows], False)
    owner = owner_of(move.root)
    if owner is not None:
        for name in words["subscriptions"]:
            await backend.store.subscribe(owner, parse_name(name), True)
    changes: list[Change] = [PutEntry(row) for row in rows]
    changes += [PutNote(key, text.encode("latin-1")) for key, text in words["notes"].items()]
    await backend.announcer.commit(changes)
    step("shown")
    seqs = [entry.seq for row in rows if (entry := backend.mailboxes.list.find(row.name))]
    return await journal.save(move, state=State.COMMITTED, shown_seq=max(seqs, default=0))


async def abort(
    backend: Backend,
    journal: Journal,
    move: Move,
    step: Callable[[str], None] = lambda _: None,
    *,
    is_alone: bool = False,
) -> None:
    """Remove what has come. Only while the source owns the mailboxes: it says so. May be done again after a crash.
    `is_alone`: the caller has its tree locked."""
    async with alone_with(journal, move, ADDING_S) as now:
        if now.state is State.ABORTED:
            return
        now = await journal.save(now, only_from=ARRIVING | {State.ENDING}, state=State.ENDING)
        step("ending")
        async with nullcontext() if is_alone else alone_in(backend, now):
            for name in sorted(now.names, key=len, reverse=True):
                await remove(backend, journal, now, name)
                step("removed")
        await backend.announcer.finish(intent_of(now), [])  # of a commit that came no further
        await journal.save(now, state=State.ABORTED, finished_at=time.time())
        journal.prepared_path(now).unlink(missing_ok=True)


async def remove(backend: Backend, journal: Journal, move: Move, name: MailboxName) -> None:
    """With its tree locked."""
    if is_nobodys(backend, name) and not _is_anothers(journal, move, name):
        await backend.store.delete(name)


def is_nobodys(backend: Backend, name: MailboxName) -> bool:
    """Whether no mailbox of this server is called so: what the store has of it has come, or is kept."""
    return backend.mailboxes.list.find(name) is None


def check_is_nobodys(backend: Backend, name: MailboxName) -> None:
    """Raises Refusal where one is."""
    if not is_nobodys(backend, name):
        raise Refusal(Code.IN_USE, f"{display(name)} is another mailbox here meanwhile")


async def id_of(backend: Backend, name: MailboxName) -> str | None:
    """What the store has under this name. Raises Refusal where it cannot tell now."""
    try:
        mailbox = await backend.store.open(name, "")
    except Refusal as refusal:
        if refusal.code is not Code.NONEXISTENT:
            raise
        return None
    mailbox.close()
    return mailbox.mailbox_id


@asynccontextmanager
async def alone_in(
    backend: Backend, move: Move, wait_s: float | None = None
) -> AsyncIterator[None]:
    """Nobody makes, renames or removes a mailbox of its tree meanwhile. Raises Refusal(IN_USE); soon, with `wait_s`."""
    if backend.announcer.is_held(intent_of(move)):  # its commit came no further
        yield
        return
    async with backend.announcer.locked(move.root, wait_s):
        yield


def left_behind(journal: Journal, root: MailboxName) -> set[MailboxName]:
    """What is kept here of this user's mailboxes (or of shared ones) that have left, under the names that they had."""
    owner = owner_of(root)
    return {
        name
        for move in journal.moves()
        if move.side is Side.OUT and move.state is State.DONE and owner_of(move.root) == owner
        for name in move.names
    }


def _is_anothers(journal: Journal, move: Move, name: MailboxName) -> bool:
    """Whether it was here before: it had moved away from here, and is kept for that move. Or a later move brings it, with
    what this one had brought: its source may tell that this one was given up when that one is under way."""
    return any(
        name in other.names
        and (other.state in ARRIVING if other.side is Side.IN else other.state is State.DONE)
        for other in journal.moves()
        if other.id != move.id
    )
