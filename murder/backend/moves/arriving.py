"""Mailbox trees on their way in: the target's side of a move, as the source asks for it.

What arrives stands in the store and nowhere else, until `prepare` has written down everything and `commit` shows it:
rows and notes in one commit, then the master. Each request may come again after a crash.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from murder.api import CarriesMailboxes
from murder.backend.annotations import is_note_of
from murder.backend.moves.batches import AHEAD, Taken, digest, read
from murder.backend.moves.journal import ARRIVING, Journal, Move, Side, State, intent_of
from murder.backend.moves.outgoing import freeze, sum_of
from murder.backend.moves.verify import tell
from murder.backend.shared import Backend
from murder.errors import BadSyntax, Code, Refusal
from murder.model.entry import EntryState, Location, MailboxEntry
from murder.model.name import MailboxName, check_new_name, display, is_below, owner_of
from murder.mupdate.change import Change, PutEntry, PutNote
from murder.net.frames import FrameChannel
from murder.wire.carry import (
    Words,
    format_uids,
    parse_message,
    parse_name,
    parse_portrait,
)


def taking(backend: Backend) -> CarriesMailboxes:
    """Its store, which takes in what comes. Raises Refusal."""
    store = backend.store
    if not isinstance(store, CarriesMailboxes):
        raise Refusal(Code.CANNOT, f"The store {backend.config.store} cannot take in mailboxes")
    return store


class Arriving:
    """One connection of a source. `server` is whose certificate it has shown."""

    def __init__(
        self,
        backend: Backend,
        journal: Journal,
        channel: FrameChannel,
        server: str,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._backend = backend
        self._store = taking(backend)
        self._journal = journal
        self._channel = channel
        self._server = server
        self._step = step
        self._move: Move | None = None
        self._named: dict[str, MailboxName] = {}  # mailbox id -> how it is called here
        self._storing: deque[asyncio.Task[None]] = deque()  # the batches that came last, in order

    async def serve(self) -> None:
        """Answer until the source has gone, in its order. Raises UpstreamFailure."""
        try:
            while True:
                words = (await self._channel.receive()).words()
                answer = await self._answered(self._answer(words))
                if answer:
                    await self._channel.send(answer)
        finally:
            for storing in self._storing:
                storing.cancel()
            await asyncio.gather(*self._storing, return_exceptions=True)

    async def _answered(self, answer: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        """It, or what is told of its refusal."""
        try:
            return await answer
        except (KeyError, TypeError, ValueError, BadSyntax) as error:
            return {"no": f"that is no request: {error!r}", "code": Code.CANNOT.value}
        except Refusal as refusal:
            return {"no": refusal.text, "code": refusal.code.value}

    async def _answer(self, words: Words) -> dict[str, Any]:
        """Nothing for a batch: it is answered for when it has been stored."""
        if words["do"] == "rows":
            await self._take_batch(words)
            return {}
        await self._stored()
        match words["do"]:
            case "begin":
                return await self._begin(words)
            case "hold":
                return await self._hold(words)
            case "complete":
                await self._store.complete(self._name(words), parse_portrait(words))
                return {"ok": True}
            case "sum":
                return await sum_of(self._backend, self._name(words))
            case "prepare":
                return await self._prepare(words)
            case "commit":
                return await self._commit(str(words["id"]))
            case "abort":
                return await self._abort(str(words["id"]))
            case "fate":
                return self._fate(words)
            case "compare":
                return {"ok": True, **await tell(self._backend, self._journal, words)}
            case other:
                raise Refusal(Code.CANNOT, f"{other} is unknown here")

    @property
    def _now(self) -> Move:
        if self._move is None:
            raise Refusal(Code.CANNOT, "no move was begun")
        return self._move

    def _name(self, words: Words) -> MailboxName:
        """A name of the tree that moves: nothing else is touched."""
        name = parse_name(words["name"])
        root = self._now.root
        if name != root and not is_below(name, root):
            raise Refusal(Code.CANNOT, f"{display(name)} is no part of {display(root)}")
        return name

    # --- what comes

    async def _begin(self, words: Words) -> dict[str, Any]:
        root = parse_name(words["root"])
        check_new_name(root)
        async with self._backend.announcer.locked(root):  # what is kept here is not let go of now
            if self._backend.mailboxes.find(root) is not None:
                raise Refusal(Code.ALREADY_EXISTS, f"{display(root)} is here already")
            found = self._journal.find(Side.IN, str(words["id"]))
            if found is None:
                found = Move(
                    str(words["id"]),
                    Side.IN,
                    root,
                    self._server,
                    str(words["partition"]) or self._backend.config.partition,
                    started_at=time.time(),
                )
            if found.root != root or found.server != self._server:
                raise Refusal(Code.CANNOT, f"the move {found.id} is another's")
            self._move = await self._journal.save(
                found, only_from=ARRIVING | {State.ABORTED}, state=State.COPYING
            )
        for name in found.names:
            await self._note_name(name)
        return {"ok": True}

    async def _note_name(self, name: MailboxName) -> None:
        try:
            mailbox = await self._backend.store.open(name, "")
        except Refusal:
            return
        self._named[mailbox.mailbox_id] = name
        mailbox.close()

    async def _hold(self, words: Words) -> dict[str, Any]:
        name, identity = self._name(words), parse_portrait(words).identity
        if name not in self._now.names:
            names = (*self._now.names, name)
            self._move = await self._journal.save(self._now, only_from=ARRIVING, names=names)
        called = self._named.get(identity.mailbox_id)
        if called is not None and called != name:  # renamed at the source meanwhile
            await self._backend.store.rename(called, name)
        if identity.mailbox_id not in self._named:
            await self._backend.announcer.make_room_for(name, identity.mailbox_id)
        held = await self._store.hold(name, self._now.partition, identity)
        self._named[identity.mailbox_id] = name
        found = self._journal.find(Side.IN, self._now.id)
        if found is None or found.state not in ARRIVING:  # given up meanwhile: nothing of it stays
            await _remove(self._backend, self._journal, self._now, name)
            raise Refusal(Code.CANNOT, f"the move {self._now.id} has been given up")
        return {"modseq": held.modseq, "uids": format_uids(held.uids)}

    async def _take_batch(self, words: Words) -> None:
        """Messages: their rows, then the octets of those that have some. While others come, this one is stored."""
        name = self._name(words)
        taken = Taken([(parse_message(row[:-1]), bool(row[-1])) for row in words["rows"]])
        try:
            await taken.take(self._channel, self._backend.store.incoming)
            await self._stored(all_but=AHEAD - 2)
        except BaseException:
            taken.close()
            raise
        before = self._storing[-1] if self._storing else None
        storing = asyncio.create_task(self._store_and_answer(name, taken, before))
        storing.add_done_callback(lambda _: taken.close())
        self._storing.append(storing)

    async def _stored(self, all_but: int = 0) -> None:
        """What has come, but for so many batches, is in the store, and answered for. Raises UpstreamFailure."""
        while len(self._storing) > all_but:
            await self._storing.popleft()

    async def _store_and_answer(
        self, name: MailboxName, taken: Taken, before: "asyncio.Task[None] | None"
    ) -> None:
        answer = await self._answered(self._keep(name, taken))
        await asyncio.to_thread(taken.close)
        if before is not None:
            await before
        await self._channel.send(answer)

    async def _keep(self, name: MailboxName, taken: Taken) -> dict[str, Any]:
        """The answer is a digest of what the store has now, not of what came."""
        await taken.write()
        await self._store.receive(name, taken.carried)
        self._step("received")
        self._move = replace(
            self._now,
            messages=self._now.messages + sum(has_octets for _, has_octets in taken.rows),
            octets=self._now.octets + taken.octets,
        )
        mailbox = await self._backend.store.open(name, owner_of(name) or "")
        try:
            told = {message.uid: has_octets for message, has_octets in taken.rows}
            rows = await read(
                mailbox, await mailbox.messages(list(told)), lambda row: told[row.uid]
            )
            return {"digest": await asyncio.to_thread(digest, rows)}
        finally:
            mailbox.close()

    # --- the end

    async def _prepare(self, words: Words) -> dict[str, Any]:
        move = self._now
        names = tuple(parse_name(row[0]) for row in words["rows"])
        for name in names:
            if name not in move.names:
                raise Refusal(Code.CANNOT, f"{display(name)} has not come")
        if not all(is_note_of(key, names) for key in words["notes"]):
            raise Refusal(Code.CANNOT, "a note that belongs to no mailbox of the move")
        for name in set(move.names) - set(names):  # deleted or renamed at the source meanwhile
            await self._backend.store.delete(name)
        await self._journal.save_prepared(move, json.dumps(dict(words)).encode())
        self._move = await self._journal.save(
            move, only_from=ARRIVING, names=names, state=State.PREPARED
        )
        self._step("prepared")
        return {"ok": True}

    async def _commit(self, move_id: str) -> dict[str, Any]:
        move = self._journal.find(Side.IN, move_id)
        if move is None or move.server != self._server:
            raise Refusal(Code.NONEXISTENT, f"the move {move_id} is not known here")
        await commit(self._backend, self._journal, move, self._step)
        return {"ok": True}

    async def _abort(self, move_id: str) -> dict[str, Any]:
        move = self._journal.find(Side.IN, move_id)
        if move is not None and move.server == self._server:
            await abort(self._backend, self._journal, move, self._step)
        self._move = None
        return {"ok": True}

    def _fate(self, words: Words) -> dict[str, Any]:
        """What became of a move from here to that server, which has not heard of it for long."""
        move = self._journal.find(Side.OUT, str(words["id"]))
        known = move is not None and move.server == self._server
        root = self._backend.mailboxes.find(parse_name(words["root"]))
        return {"state": move.state.value if move and known else "", "has": root is not None}


async def commit(
    backend: Backend, journal: Journal, move: Move, step: Callable[[str], None] = lambda _: None
) -> None:
    """Show what is prepared, tell the master. From PREPARED or COMMITTED; done already is no error. Raises Refusal,
    UpstreamFailure: then it is to be done again."""
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
        await freeze(backend, [row.name for row in rows], False)
        owner = owner_of(move.root)
        if owner is not None:
            for name in words["subscriptions"]:
                await backend.store.subscribe(owner, parse_name(name), True)
        changes: list[Change] = [PutEntry(row) for row in rows]
        changes += [PutNote(key, text.encode("latin-1")) for key, text in words["notes"].items()]
        await backend.announcer.commit(changes)
        step("shown")
        seqs = [found.seq for row in rows if (found := backend.mailboxes.list.find(row.name))]
        shown_seq = max(seqs, default=0)
        move = await journal.save(move, state=State.COMMITTED, shown_seq=shown_seq)
    await backend.announcer.announce(rows)
    step("announced")
    await backend.announcer.finish(intent, [])
    await journal.save(move, state=State.DONE, finished_at=time.time())
    journal.prepared_path(move).unlink(missing_ok=True)


async def abort(
    backend: Backend, journal: Journal, move: Move, step: Callable[[str], None] = lambda _: None
) -> None:
    """Remove what has come. Only while the source owns the mailboxes: it says so. May be done again after a crash."""
    if move.state is State.ABORTED:
        return
    move = await journal.save(move, only_from=ARRIVING | {State.ENDING}, state=State.ENDING)
    step("ending")
    for name in sorted(move.names, key=len, reverse=True):
        await _remove(backend, journal, move, name)
        step("removed")
    await journal.save(move, state=State.ABORTED, finished_at=time.time())
    journal.prepared_path(move).unlink(missing_ok=True)


async def _remove(backend: Backend, journal: Journal, move: Move, name: MailboxName) -> None:
    if backend.mailboxes.list.find(name) is None and not _is_older(journal, move, name):
        await backend.store.delete(name)


def _is_older(journal: Journal, move: Move, name: MailboxName) -> bool:
    """Whether it was here before: it had moved away from here, and is kept for that move."""
    return any(
        other.side is Side.OUT and other.state is State.DONE and other.holds(name)
        for other in journal.moves()
        if other.id != move.id
    )
