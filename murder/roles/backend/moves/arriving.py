"""Mailbox trees on their way in: the target's side of a move, as the source asks for it.

What arrives stands in the store and nowhere else, until `prepare` has written down everything and `commit` shows it:
rows and notes in one commit, then the master. Each request may come again after a crash.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from murder.api import CarriedRetained, CarriesMailboxes, CarriesRetained, TellsRetained
from murder.api.turns import behind
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.log import logger
from murder.model.carried import CarriedIdentity, Portrait
from murder.model.message import Uid
from murder.model.name import MailboxName, check_new_name, display, is_below, owner_of
from murder.model.seqset import Ranges, compress
from murder.net.frames import FrameChannel, words_of
from murder.net.turns import Turn, aside
from murder.roles.backend.moves.alone import ADDING_S, adding_to, alone_with
from murder.roles.backend.moves.batches import AHEAD, Taken, digest, read, with_sizes
from murder.roles.backend.moves.ending import (
    abort,
    alone_in,
    check_is_nobodys,
    commit,
    id_of,
    is_nobodys,
    left_behind,
    remove,
)
from murder.roles.backend.moves.journal import (
    ARRIVING,
    FROM_BACKUP,
    Journal,
    Move,
    Side,
    State,
    may_be_only_here,
)
from murder.roles.backend.moves.others import Others
from murder.roles.backend.moves.outgoing import sum_of
from murder.roles.backend.moves.verify import tell
from murder.roles.backend.records.annotations import check_note, note_keys_of
from murder.roles.backend.shared import Backend
from murder.roles.backend.traced import Doer, trace_restore
from murder.wire.nodes.carry import Words
from murder.wire.nodes.carry_answers import (
    Answer,
    Done,
    Held,
    Known,
    Refused,
    Stored,
    format_answer,
)
from murder.wire.nodes.carry_words import (
    Abort,
    AskSum,
    Begin,
    Commit,
    Compare,
    Complete,
    Fate,
    Hold,
    Kept,
    Prepare,
    Rows,
    format_prepared,
    parse_request,
)

PAGE: Final = 250  # rows read at once of what may come back
PREPARE_WAIT_S: Final = 2.0  # the source has stopped the mailboxes meanwhile, and tries again


def taking(backend: Backend) -> CarriesMailboxes:
    """Its store, which takes in what comes. Raises Refusal."""
    store = backend.store
    if not isinstance(store, CarriesMailboxes):
        raise Refusal(
            Code.CANNOT,
            f"The store {backend.config.store} cannot receive mailboxes from other servers",
        )
    return store


@dataclass(frozen=True, slots=True)
class Restorer:
    """An operator who brings back what a backup has: for the audit trail, and the mail log."""

    audit: Callable[[str], None]
    doer: Doer


class Arriving:
    """One connection of a source. `server` is whose certificate it has shown."""

    def __init__(
        self,
        backend: Backend,
        journal: Journal,
        channel: FrameChannel,
        server: str,
        step: Callable[[str], None] = lambda _: None,
        restorer: Restorer | None = None,
    ) -> None:
        self._backend = backend
        self._restorer = restorer
        self._store = taking(backend)
        self._journal = journal
        self._channel = channel
        self._server = server
        self._step = step
        self._log = logger(role="backend")
        self._move: Move | None = None
        self._came_from = ""
        self._were: dict[MailboxName, CarriedIdentity | None] = {}  # by what it is called now
        self._named: dict[str, MailboxName] = {}  # mailbox id -> how it is called here
        # likewise, of what had left for another server, and may come back under another name
        self._left: dict[str, MailboxName] = {}
        self._elsewhere: dict[str, tuple[MailboxName, str]] = {}  # likewise, and by which move
        self._looked_at: set[tuple[str, MailboxName]] = set()  # of those moves
        self._taken: list[Taken] = []  # the batches that are not closed yet
        self._storing: deque[asyncio.Task[None]] = deque()  # the batches that came last, in order
        self._others = Others(backend.figures)

    async def serve(self) -> None:
        """Answer until the source has gone, in its order. Raises UpstreamFailure."""
        try:
            while True:
                frame = await self._channel.receive()
                answer = await self._answered(self._answer(await words_of(frame)))
                if answer is not None:
                    await self._channel.send(format_answer(answer))
        finally:
            for storing in self._storing:
                storing.cancel()
            await asyncio.gather(*self._storing, return_exceptions=True)
            for taken in self._taken:  # whose task was cancelled before it began
                await taken.close()

    async def _answered(self, answer: Awaitable[Answer | None]) -> Answer | None:
        """It, or what is told of its refusal."""
        try:
            return await answer
        except BadSyntax as error:
            self._log.warning("move.bad_request", backend=self._server, problem=error.text)
            return Refused(Code.CANNOT, f"that is no request: {error.text}")
        except Refusal as refusal:
            return Refused(refusal.code, refusal.text)

    async def _answer(self, words: Words) -> Answer | None:
        """Nothing for a batch: it is answered for when it has been stored."""
        request = await aside(parse_request, words)  # a few octets may stand for millions of UIDs
        if isinstance(request, Rows):
            await self._take_batch(request)
            return None
        await self._stored()
        match request:
            case Begin():
                return await self._begin(request)
            case Hold():
                return await self._hold(request)
            case Kept():
                return await self._take_kept(request)
            case Complete(name, portrait):
                return await self._complete(self._member(name), portrait)
            case AskSum(name):
                return await sum_of(self._backend, self._member(name))
            case Prepare():
                return await self._prepare(request)
            case Commit(move_id):
                return await self._commit(move_id)
            case Abort(move_id):
                return await self._abort(move_id)
            case Fate():
                return self._fate(request)
            case Compare():
                return await self._compare(request)

    @property
    def _now(self) -> Move:
        if self._move is None:
            raise Refusal(Code.CANNOT, "no move was begun")
        return self._move

    def _member(self, name: MailboxName) -> MailboxName:
        """A name of the tree that moves: nothing else is touched."""
        root = self._now.root
        if name != root and not is_below(name, root):
            raise Refusal(Code.CANNOT, f"{display(name)} is no part of {display(root)}")
        return name

    # --- what comes

    async def _begin(self, request: Begin) -> Answer:
        root = request.root
        if self._server != FROM_BACKUP:  # what had been deleted and rests may come back as that
            check_new_name(root)
        self._backend.check_partition(request.partition)
        if self._server == FROM_BACKUP:
            self._came_from = request.source
            if self._restorer is not None:
                self._restorer.audit(f"{self._backend.shown(root)} from {request.source}")
            await check_may_come_back(self._backend, root)
        else:
            await check_may_come(self._backend, root, self._server)
        move = self._journal.find(Side.IN, request.id)
        if move is None:
            move = Move(
                request.id,
                Side.IN,
                root,
                self._server,
                request.partition or self._backend.config.partition,
                started_at=time.time(),
            )
        if move.root != root or move.server != self._server:
            raise Refusal(Code.CANNOT, f"the move {move.id} is another's")
        # what is kept here is not let go of now; a try before this one may have left the tree locked
        async with alone_in(self._backend, move), alone_with(self._journal, move, ADDING_S) as move:
            if self._backend.mailboxes.find(root) is not None:
                raise Refusal(Code.ALREADY_EXISTS, f"{display(root)} is here already")
            self._move = await self._journal.save(
                move, only_from=ARRIVING | {State.ABORTED}, state=State.COPYING
            )
        for name in move.names:
            mailbox_id = await id_of(self._backend, name)
            if mailbox_id is not None and is_nobodys(self._backend, name):
                self._named[mailbox_id] = name
        for name in sorted(left_behind(self._journal, root)):
            if (mailbox_id := await id_of(self._backend, name)) is not None:
                self._left[mailbox_id] = name
        self._elsewhere.clear()
        self._looked_at.clear()
        await self._note_elsewhere()
        return Done()

    async def _hold(self, request: Hold) -> Answer:
        name, identity = self._member(request.name), request.identity
        self._were[name] = request.was
        if name not in self._now.names:
            await self._check_is_no_others(name)
            names = (*self._now.names, name)
            self._move = await self._journal.save(self._now, only_from=ARRIVING, names=names)
        await self._check_is_not_there(name, identity.mailbox_id)
        await self._have_as(name, identity.mailbox_id)
        held = await self._store.hold(name, self._now.partition, identity)
        self._named[identity.mailbox_id] = name
        move = self._journal.find(Side.IN, self._now.id)
        if move is None or move.state not in ARRIVING:  # given up meanwhile: nothing of it stays
            async with alone_in(self._backend, self._now):
                await remove(self._backend, self._journal, self._now, name)
            raise Refusal(Code.CANNOT, f"the move {self._now.id} has been given up")
        return Held(held.modseq, compress(held.uids), await self._kept(name))

    async def _check_is_no_others(self, name: MailboxName) -> None:
        """Raises Refusal where another move that has not ended has brought the only copy of what is called so here."""
        if await id_of(self._backend, name) is None:
            return
        for other in self._journal.moves():
            if other.id != self._now.id and name in other.names and may_be_only_here(other):
                text = f"{display(name)} has come by the move {other.id}, which has not ended"
                raise Refusal(Code.IN_USE, text)

    async def _note_elsewhere(self) -> None:
        """Which mailboxes other moves have brought, under which names, that have not ended: what has come since this was
        asked last is looked at."""
        turn = Turn()
        for other in self._journal.moves():
            is_there = other.side is Side.IN and other.state in ARRIVING | {State.ENDING}
            for name in other.names if is_there and other.id != self._now.id else ():
                if (other.id, name) in self._looked_at:
                    continue
                with suppress(Refusal):  # somebody else's that is damaged
                    if (mailbox_id := await id_of(self._backend, name)) is not None:
                        self._elsewhere[mailbox_id] = (name, other.id)
                        self._looked_at.add((other.id, name))
                if turn.is_over:
                    await turn.rest()

    async def _check_is_not_there(self, name: MailboxName, mailbox_id: str) -> None:
        """Raises Refusal where another move has brought this very mailbox, by a name that it had before, and has not ended:
        its source tells of that end soon."""
        await self._note_elsewhere()
        was, move_id = self._elsewhere.get(mailbox_id, (name, ""))
        if was == name or await id_of(self._backend, was) != mailbox_id:
            return
        other = self._journal.find(Side.IN, move_id)
        if other is not None and other.state in ARRIVING | {State.ENDING}:
            text = f"It has come as {display(was)} by the move {other.id}, which has not ended"
            raise Refusal(Code.IN_USE, text)

    async def _complete(self, name: MailboxName, portrait: Portrait) -> Answer:
        async with adding_to(self._journal, self._now):
            await self._check_has_come(name)
            await self._store.complete(name, portrait)
        return Done()

    async def _kept(self, name: MailboxName) -> Ranges | None:
        """What may come back here of what was expunged, of a mailbox that is here; None: nothing of that is taken."""
        if not isinstance(self._store, CarriesRetained) or not self._backend.config.expunged_keep_s:
            return None
        mailbox = await self._backend.store.open(name, owner_of(name) or "")
        uids: list[Uid] = []
        turn = Turn()
        try:
            if not isinstance(mailbox, TellsRetained):
                return None
            while page := await mailbox.retained(uids[-1] if uids else Uid(0), PAGE):
                uids += (kept.message.uid for kept in page)
                if turn.is_over:
                    await turn.rest()
        finally:
            mailbox.close()
        return compress(uids)

    async def _take_kept(self, request: Kept) -> Answer:
        """The answer is a digest of what came: what is over by the rules here may be gone the next moment."""
        name, store = self._member(request.name), self._store
        taken = Taken([(message, has_octets) for message, _, has_octets in request.rows])
        try:
            await taken.take(self._channel, self._backend.store.incoming)
            if not isinstance(store, CarriesRetained):
                raise Refusal(Code.CANNOT, "This server takes no expunged messages")
            await taken.write()
            came = [
                (carried.message, carried.incoming.octets() if carried.incoming else None)
                for carried in taken.carried
            ]
            sum_of_all = await behind(digest, came)
            sized = await with_sizes(taken.carried)
            kept = [
                CarriedRetained(carried.message, datetime.fromtimestamp(at, UTC), carried.incoming)
                for carried, (_, at, _) in zip(sized, request.rows, strict=True)
            ]
            async with adding_to(self._journal, self._now):
                await self._check_has_come(name)
                await store.receive_retained(name, Uid(request.after), Uid(request.up_to), kept)
            self._step("kept")
            return Stored(sum_of_all)
        finally:
            await taken.close()

    async def _has_come(self, name: MailboxName) -> bool:
        """Whether what the store has under this name is what came as that."""
        if not is_nobodys(self._backend, name):
            return False
        return self._named.get(await id_of(self._backend, name) or "") == name

    async def _check_has_come(self, name: MailboxName) -> None:
        check_is_nobodys(self._backend, name)
        if not await self._has_come(name):
            raise Refusal(Code.NONEXISTENT, f"{display(name)} was not received")

    async def _have_as(self, name: MailboxName, mailbox_id: str) -> None:
        """What has come of this mailbox, or is kept here since it left, has this name now; what came as that before, and
        has been deleted at the source meanwhile, or renamed and comes anew, is gone. Raises Refusal where a mailbox of this
        server is called so."""
        backend = self._backend
        called = self._named.get(mailbox_id) or self._left.get(mailbox_id) or name
        is_free = is_nobodys(backend, name) and called == name
        if is_free and await id_of(backend, name) in (None, mailbox_id):
            return
        async with alone_in(backend, self._now):
            check_is_nobodys(backend, name)
            other = await id_of(backend, name)
            if other is not None and other != mailbox_id:
                if self._named.get(other) == name:
                    del self._named[other]
                    await backend.store.delete(name)
                else:
                    await backend.announcer.make_room_for(name, mailbox_id, self._now.id)
            self._left.pop(mailbox_id, None)
            is_there = is_nobodys(backend, called) and await id_of(backend, called) == mailbox_id
            if called != name and is_there:
                await backend.store.rename(called, name)

    async def _take_batch(self, request: Rows) -> None:
        """Messages: their rows, then the octets of those that have some. While others come, this one is stored; not where
        somebody works here."""
        name, taken = self._member(request.name), Taken(list(request.rows))
        try:
            await taken.take(self._channel, self._backend.store.incoming)
            await self._stored(all_but=AHEAD - 2)
        except BaseException:
            await taken.close()
            raise
        before = self._storing[-1] if self._storing else None
        storing = asyncio.create_task(self._store_and_answer(name, taken, before))
        self._taken.append(taken)
        self._storing.append(storing)
        if self._others.are_at_work():
            await self._stored()

    async def _stored(self, all_but: int = 0) -> None:
        """What has come, but for so many batches, is in the store, and answered for. Raises UpstreamFailure."""
        while len(self._storing) > all_but:
            await self._storing.popleft()

    async def _store_and_answer(
        self, name: MailboxName, taken: Taken, before: "asyncio.Task[None] | None"
    ) -> None:
        try:
            answer = await self._answered(self._keep(name, taken))
        finally:
            await taken.close()
            self._taken = [other for other in self._taken if other is not taken]
        if before is not None:
            await before
        if answer is not None:
            await self._channel.send(format_answer(answer))

    async def _keep(self, name: MailboxName, taken: Taken) -> Answer:
        """The answer is a digest of what the store has now, not of what came."""
        await taken.write()
        sized = await with_sizes(taken.carried)
        async with adding_to(self._journal, self._now):
            await self._check_has_come(name)
            await self._store.receive(name, sized)
        self._step("received")
        self._move = replace(
            self._now,
            messages=self._now.messages + sum(has_octets for _, has_octets in taken.rows),
            octets=self._now.octets + taken.octets,
        )
        mailbox = await self._backend.store.open(name, owner_of(name) or "")
        try:
            with_octets = {message.uid: has_octets for message, has_octets in taken.rows}
            rows = await read(
                mailbox, await mailbox.messages(list(with_octets)), lambda row: with_octets[row.uid]
            )
            if self._restorer is not None:
                doer, was = self._restorer.doer, self._were.get(name)
                await trace_restore(doer, mailbox, self._came_from, was, rows)
            return Stored(await behind(digest, rows))
        finally:
            mailbox.close()

    # --- the end

    async def _prepare(self, request: Prepare) -> Answer:
        """Its tree is not locked here before it is to be shown, and shown it can be only where no move out of that tree has
        the lock, which would wait for this one's end at its target: of two that cross, the first one goes on."""
        move = self._now
        names = tuple(name for name, _ in request.rows)
        for name in names:
            if name not in move.names:
                raise Refusal(Code.CANNOT, f"{display(name)} was not received")
        keys = note_keys_of(names)
        for key, octets in request.notes.items():
            if key not in keys:
                raise Refusal(Code.CANNOT, "a note that belongs to no mailbox of the move")
            check_note(key, octets)
        prepared = json.dumps(format_prepared(request)).encode()
        async with alone_in(self._backend, move, PREPARE_WAIT_S):
            for name in names:
                check_is_nobodys(self._backend, name)
            gone = set(move.names) - set(names)  # deleted or renamed at the source meanwhile
            for name in sorted(gone, key=len, reverse=True):
                if await self._has_come(name):
                    await self._backend.store.delete(name)
            self._move = await self._journal.save(
                move, only_from=ARRIVING, prepared=prepared, names=names, state=State.PREPARED
            )
        self._step("prepared")
        return Done()

    async def _commit(self, move_id: str) -> Answer:
        move = self._journal.find(Side.IN, move_id)
        if move is None or move.server != self._server:
            raise Refusal(Code.NONEXISTENT, f"the move {move_id} is not known here")
        if self._server == FROM_BACKUP:  # first: who goes on behind a crash only shows it
            await self._backend.deliveries.forget_begun()
        await commit(self._backend, self._journal, move, self._step)
        if self._server == FROM_BACKUP:
            self._log.info("backup.restored", mailbox=display(move.root), source=self._came_from)
        return Done()

    async def _abort(self, move_id: str) -> Answer:
        move = self._journal.find(Side.IN, move_id)
        if move is not None and move.server == self._server:
            await abort(self._backend, self._journal, move, self._step)
        self._move = None
        return Done()

    async def _compare(self, request: Compare) -> Answer:
        """Of a move that came from there, and of nothing else."""
        move = self._journal.find(Side.IN, request.id)
        if move is None or move.server != self._server or move.root != request.root:
            raise Refusal(Code.NONEXISTENT, f"the move {request.id} is not known here")
        return await tell(self._backend, move, request)

    def _fate(self, request: Fate) -> Answer:
        """What became of a move from here to that server, which has not heard of it for long."""
        move = self._journal.find(Side.OUT, request.id)
        known = move is not None and move.server == self._server
        root = self._backend.mailboxes.find(request.root)
        return Known(move.state.value if move and known else "", root is not None)


async def check_may_come(backend: Backend, root: MailboxName, server: str) -> None:
    """Whether it is that server's to send: a stolen key of one backend takes nothing of what others have, and plants
    nothing. `server` is "" where the source is a Cyrus: its name in the list is not known. Raises Refusal,
    UpstreamFailure where the master cannot say."""
    master = backend.master
    if master is None:
        return
    try:
        entry = await master.find(root)
    except UpstreamFailure as failure:
        raise Refusal(Code.UNAVAILABLE, f"the master cannot be asked: {failure}") from failure
    if entry is None or (server and entry.server != server):
        raise Refusal(
            Code.NO_PERMISSION,
            f"{display(root)} is not at {server or 'the server it comes from'}, as the master says",
        )


async def check_may_come_back(backend: Backend, root: MailboxName) -> None:
    """What an operator restores is nowhere, or should be here and is not. Raises Refusal, UpstreamFailure as above."""
    if backend.master is None:
        return
    try:
        entry = await backend.master.find(root)
    except UpstreamFailure as failure:
        raise Refusal(Code.UNAVAILABLE, f"the master cannot be asked: {failure}") from failure
    if entry is not None and entry.server != backend.server_name:
        raise Refusal(Code.ALREADY_EXISTS, f"{display(root)} is at {entry.server}")
