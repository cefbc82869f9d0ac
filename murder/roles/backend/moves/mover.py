"""All moves of a worker: begun by XFER, gone on with after a crash, aborted, and what has left let go of in the end.

Worker 0 goes on with the moves of workers that are no more, and of this server before its last start.
"""

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from murder.api import CarriesMailboxes
from murder.api.disk import DamagedError, disk_error
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.log import logger
from murder.model.name import MailboxName, display, is_below, no_such_mailbox
from murder.net.frames import FrameChannel
from murder.net.outgoing.upstream import Upstreams
from murder.net.seconds import look_again
from murder.roles.backend.hierarchy.intent import is_alive, this_process
from murder.roles.backend.moves.alone import BeingEnded
from murder.roles.backend.moves.arriving import Arriving, Restorer
from murder.roles.backend.moves.compare import Compared
from murder.roles.backend.moves.ending import abort, commit
from murder.roles.backend.moves.from_cyrus import FromCyrus
from murder.roles.backend.moves.journal import (
    ABORTABLE,
    ARRIVING,
    CYRUS,
    FROM_BACKUP,
    RUNNING,
    Move,
    Side,
    State,
)
from murder.roles.backend.moves.loose import LooseEnds
from murder.roles.backend.moves.outgoing import Outgoing, Pace, Progress, thaw
from murder.roles.backend.moves.peer import Peer
from murder.roles.backend.moves.target import Target, open_target
from murder.roles.backend.moves.verify import Verification, changed_since
from murder.roles.backend.shared import Backend

RETRIES: Final = 100  # of a move that the source still owns; later steps are tried for ever
# of one that its target has never heard of, where nobody says that there is such a server, and none of the moves that are
# remembered went there or came from there: a name with a slip in it may be some other host's
RETRIES_OF_STRANGERS: Final = 3
RETRY_MIN_S: Final = 0.2
RETRY_MAX_S: Final = 3.0
LOOK_EVERY_S: Final = 2.0  # for moves that nobody drives, and what is to be let go of


class _NotBegun(Refusal):
    """The target has refused the move before anything was sent, or is nowhere."""


class Mover:
    """See the module. `step` is called at every step of every move (tests stop there)."""

    def __init__(self, backend: Backend, upstreams: Upstreams, *, keeps_all: bool) -> None:
        self.backend = backend
        self.journal = journal = backend.journal
        self.upstreams = upstreams
        self._keeps_all = keeps_all
        self._process = this_process()
        self._running: dict[str, asyncio.Task[Move]] = {}
        self._listeners: dict[str, list[Progress]] = {}
        self._places = asyncio.Semaphore(backend.config.moves_parallel)
        self._keeper: asyncio.Task[None] | None = None
        self._ends = LooseEnds(backend, journal, self._open, lambda step: self.step(step))
        # from what a move's file says until it says what follows from it
        self._deciding = asyncio.Lock()
        self._log = logger(role="backend")
        self.step: Callable[[str], None] = lambda _: None

    def start(self) -> None:
        """Go on with what was begun; behind the start."""
        if self._keeps_all:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Moves stop where they are; a later start goes on."""
        keeper = [self._keeper] if self._keeper else []
        tasks = [*self._running.values(), *self._ends.tasks, *keeper]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # --- beginning, and waiting for the end

    async def move(
        self, root: MailboxName, server: str, partition: str, by: str, progress: Progress
    ) -> Move:
        """Move a tree; returns when it is over, as it then is. Who waits may go: the move goes on.

        Raises Refusal where it cannot begin, or did not come about (the text says why).
        """
        backend = self.backend
        if not server:
            raise Refusal(Code.CANNOT, "A move needs the name of a server")
        if backend.mailboxes.find(root) is None:
            raise no_such_mailbox(root)
        if server == backend.server_name:
            raise Refusal(Code.CANNOT, f"{display(root)} is at {server} already", names=(root,))
        if not isinstance(backend.store, CarriesMailboxes):
            raise Refusal(
                Code.CANNOT,
                f"The store {backend.config.store} cannot move mailboxes to other servers",
            )
        async with self._deciding:
            begun = self._begun(root, server)
            if begun is None:
                now = time.time()
                new = Move(secrets.token_hex(6), Side.OUT, root, server, partition, started_at=now)
                try:
                    move = await self.journal.save(new, process=self._process, by=by)
                except OSError as error:  # a full disk, of all things, is a reason to move
                    raise disk_error(error, self.journal.folder) from error
        if begun is not None:
            return await self.resume(begun.id, progress)
        self._log.info("move.begun", move=move.id, mailbox=display(root), target=server, user=by)
        return await self._attend(move, progress)

    def _begun(self, root: MailboxName, server: str) -> Move | None:
        """This very move, begun before. Raises Refusal(IN_USE) where it would meet another."""
        for other in self.journal.moves():
            busy = other.side is Side.OUT and other.state in RUNNING | {State.FAILED}
            if busy and (other.holds(root) or is_below(other.root, root)):
                if other.root == root and other.server == server:
                    return other
                raise Refusal(
                    Code.IN_USE, f"The move {other.id} of it is {other.state.value}: abort it first"
                )
        return None

    async def resume(self, move_id: str, progress: Progress = lambda _: None) -> Move:
        """Go on with one that failed, or wait for one that runs here. Raises as `move`."""
        return await self._attend(await self._take_over(move_id), progress)

    async def _take_over(self, move_id: str) -> Move:
        """This worker drives it from here on. Raises Refusal."""
        async with self._deciding:
            move = self._known(move_id)
            if move_id not in self._running:
                if move.state not in RUNNING | {State.FAILED}:
                    raise Refusal(Code.CANNOT, f"The move {move_id} is {move.state.value}")
                if move.process != self._process and is_alive(move.process):
                    if move.state is not State.FAILED:
                        raise Refusal(
                            Code.IN_USE, f"The move {move_id} is under way in another worker"
                        )
                state = State.COPYING if move.state is State.FAILED else move.state
                move = await self.journal.save(move, state=state, process=self._process, problem="")
            self._run(move)
        return move

    def _known(self, move_id: str) -> Move:
        move = self.journal.find(Side.OUT, move_id)
        if move is None:
            raise Refusal(Code.NONEXISTENT, f"No move {move_id} begins here")
        return move

    async def _attend(self, move: Move, progress: Progress) -> Move:
        self._listeners.setdefault(move.id, []).append(progress)
        try:
            ended = await self._ended(move)
        finally:
            listeners = self._listeners.get(move.id, [])
            if progress in listeners:
                listeners.remove(progress)
        if ended.state is not State.DONE:
            code = Code.UNAVAILABLE
            if ended.state is State.ABORTED and ended.problem:  # it will be no better another time
                code = Code.CANNOT
            text = ended.problem or f"The move is {ended.state.value}"
            named = tuple(name for name in {ended.root, *ended.names} if display(name) in text)
            raise Refusal(code, text, names=named)
        return ended

    async def _ended(self, move: Move) -> Move:
        """As it is when nobody here is at it any more: also where it has been given up, or this node stops."""
        while True:
            task = self._run(move)
            await asyncio.wait([task])
            if not task.cancelled():
                return task.result()
            async with self._deciding:  # whoever has stopped it writes down what becomes of it
                move = self._known(move.id)
                if move.id not in self._running:
                    return move

    def _run(self, move: Move) -> asyncio.Task[Move]:
        task = self._running.get(move.id)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._drive(move))
            self._running[move.id] = task
            task.add_done_callback(lambda _: self._running.pop(move.id, None))
        return task

    def _tell(self, move: Move) -> None:
        for listener in self._listeners.get(move.id, []):
            listener(move)

    # --- driving one

    async def _drive(self, move: Move) -> Move:
        pause, tries = RETRY_MIN_S, 0
        while True:
            problem: Exception
            try:
                async with self._places:
                    return await self._once(move)
            except (UpstreamFailure, Refusal) as error:
                problem = error
            except Exception as error:  # noqa: BLE001 - the end of a task
                if not isinstance(disk_error(error, self.journal.folder), Refusal):
                    self._log.error("move.crashed", move=move.id, exc_info=error)
                problem = error
            tries += 1
            try:
                move, is_over = await self._decide(move, problem, tries)
            except OSError as error:  # a full disk, say: it is written down when that takes it
                failure = disk_error(error, self.journal.folder)
                self._log.warning("move.interrupted", move=move.id, problem=str(failure))
            else:
                if is_over:
                    return move
                self._tell(move)
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))
            pause = min(2 * pause, RETRY_MAX_S)

    async def _decide(self, move: Move, problem: Exception, tries: int) -> tuple[Move, bool]:
        """What becomes of a move that could not go on, and whether that is its end; durable on return. Raises OSError."""
        kept = self.journal.find(Side.OUT, move.id)
        if kept is None or kept.state is State.ABORTED:
            return kept or move, True
        move = kept
        lasting = isinstance(problem, Refusal) and (
            problem.code not in (Code.IN_USE, Code.UNAVAILABLE) or isinstance(problem, DamagedError)
        )
        if self._is_nowhere(move, problem, tries):
            problem = _NotBegun(Code.CANNOT, str(problem))
        if isinstance(problem, _NotBegun):
            return await self._give_up(move, problem), True
        if move.state in ABORTABLE and self._is_gone(move.root):
            # deleted, or renamed: nobody could resume it, and what has come is in the way of the new name
            return await self._give_up(move, no_such_mailbox(move.root), owes_abort=True), True
        has_stopped = move.state in (State.HANDING, State.STOPPED)  # nobody can write there
        if not has_stopped and (lasting or tries > RETRIES):
            self._log.error("move.failed", move=move.id, problem=str(problem))
            return await self.journal.save(
                move, state=State.FAILED, problem=str(problem), finished_at=time.time()
            ), True
        self._log.warning("move.interrupted", move=move.id, problem=str(problem))
        return await self.journal.save(move, problem=str(problem)), False

    def _is_gone(self, root: MailboxName) -> bool:
        """For certain: what this server has lost with a disk may be at the target only."""
        mailboxes = self.backend.mailboxes
        try:
            mailboxes.check_has_not_left(root)
        except Refusal:
            return False
        return mailboxes.find(root) is None

    def _is_nowhere(self, move: Move, problem: Exception, tries: int) -> bool:
        """Whether what this name leads to is no server of this murder, as far as can be told from here."""
        is_new = move.state is State.COPYING and not move.names
        if not is_new or not isinstance(problem, UpstreamFailure) or tries <= RETRIES_OF_STRANGERS:
            return False
        return not self.upstreams.is_named(move.server) and not self._has_carried(move.server)

    def _has_carried(self, server: str) -> bool:
        """Whether a move has come as far as mailboxes with that one: it is a server, and may be on its way up."""
        return any(move.server == server and move.names for move in self.journal.moves())

    async def _give_up(self, move: Move, problem: Refusal, *, owes_abort: bool = False) -> Move:
        """Nothing is to be resumed, and in nobody's way. `owes_abort`: the target may have some of it."""
        self._log.error("move.failed", move=move.id, problem=problem.text)
        return await self.journal.save(
            move,
            state=State.ABORTED,
            problem=problem.text,
            finished_at=time.time(),
            owes_abort=owes_abort,
        )

    async def _open_for(self, move: Move) -> Target:
        """Raises Refusal, UpstreamFailure; _NotBegun where there is no such server, and never was one for this move."""
        try:
            return await self._open(move.server)
        except UpstreamFailure as failure:
            if failure.kind is not UpstreamKind.RESOLVE or move.names:
                raise
            raise _NotBegun(Code.CANNOT, str(failure)) from failure

    async def _once(self, move: Move) -> Move:
        if move.state is State.STOPPED:  # by a crash: people work on, also while the target is away
            await thaw(self.backend, move)
            move = await self.journal.save(move, state=State.COPYING)
        peer = await self._open_for(move)
        move = replace(move, problem="")  # what it waited for is there
        peer.names = move.names
        try:
            pace = Pace(self.backend.config.move_bytes_per_s)
            listeners = self._listeners.setdefault(move.id, [])
            outgoing = Outgoing(self.backend, self.journal, move, peer, pace, listeners, self.step)
            await outgoing.run()
        except Refusal as refusal:
            is_new = move.state is State.COPYING and not move.names and not outgoing.has_begun
            if not is_new or refusal.code in (Code.IN_USE, Code.UNAVAILABLE):
                raise
            raise _NotBegun(refusal.code, refusal.text) from refusal
        finally:
            peer.close()
        return outgoing.move

    def _acl_of(self, name: MailboxName) -> bytes:
        entry = self.backend.mailboxes.find(name)
        return entry.raw_acl if entry is not None else b""

    async def _open(self, server: str) -> Target:
        largest = self.backend.config.max_message_bytes
        return await open_target(self.upstreams, server, largest, self._acl_of)

    # --- what an operator asks for

    async def abort(self, move_id: str) -> Move:
        """Give it up while this server still owns the mailboxes. Raises Refusal."""
        async with self._deciding:
            move = self._known(move_id)
            if move.state not in ABORTABLE:
                raise Refusal(
                    Code.CANNOT, f"The move {move_id} is {move.state.value}: it is too late"
                )
            task = self._running.get(move_id)
            if task is None and move.state is not State.FAILED and is_alive(move.process):
                raise Refusal(
                    Code.IN_USE, "Another worker moves it: try again at another connection"
                )
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
                move = self._known(move_id)
                if move.state not in ABORTABLE:
                    if move.state in RUNNING:
                        self._run(move)  # it had just been handed over
                    raise Refusal(
                        Code.CANNOT, f"The move {move_id} is {move.state.value}: too late"
                    )
            is_over = False
            try:
                await thaw(self.backend, move)
                move = await self.journal.save(
                    move, state=State.ABORTED, owes_abort=True, finished_at=time.time()
                )
                is_over = True
            except OSError as error:
                raise disk_error(error, self.journal.folder) from error
            finally:
                # else nobody would be at it until the next start
                if task is not None and not is_over:
                    self._run(move)
        self._log.info("move.aborted", move=move.id, mailbox=display(move.root))
        self.step("aborted")
        with contextlib.suppress(UpstreamFailure, Refusal):  # then it is told later
            await self._ends.settle(move.server, [move])
        return self._known(move_id)

    async def verify(self, move_id: str) -> AsyncIterator[Compared]:
        """Compare both ends, mailbox by mailbox. Raises Refusal, UpstreamFailure."""
        move = self._known(move_id)
        peer = await self._open(move.server)
        try:
            if not isinstance(peer, Peer):
                raise Refusal(
                    Code.CANNOT, f"{move.server} is a Cyrus: it is compared as the move ends"
                )
            async for compared in Verification(self.backend, self.journal, move, peer).run():
                yield compared
        finally:
            peer.close()

    async def end_arriving(self, move: Move) -> Move:
        """Remove what has come, as an operator asks for: its source may never come back. While nothing is prepared here,
        the source has let go of nothing. Raises Refusal."""
        if move.by == CYRUS and move.state is State.COPYING and is_alive(move.process):
            raise Refusal(Code.IN_USE, f"The move {move.id} is under way")
        is_backups = move.server == FROM_BACKUP
        if move.state is State.PREPARED and move.by != CYRUS and not is_backups:
            await self._ends.settle(move.server, [move])
        if self.journal.find(Side.IN, move.id) == move:
            if move.state not in (ARRIVING if is_backups else {State.COPYING}):
                raise Refusal(
                    Code.CANNOT,
                    f"The move {move.id} is {move.state.value}: only {move.server} can end it",
                )
            await abort(self.backend, self.journal, move)
        ended = self.journal.find(Side.IN, move.id)
        assert ended is not None
        return ended

    async def show_arriving(self, move: Move) -> Move:
        """An operator says that the Cyrus backend that has sent it has it no more: show what has come. Raises Refusal,
        UpstreamFailure."""
        if move.by != CYRUS:
            raise Refusal(Code.CANNOT, f"The move {move.id} goes on from {move.server} only")
        if is_alive(move.process) and move.state is State.COPYING:
            raise Refusal(Code.IN_USE, f"The move {move.id} is under way")
        if move.state is State.COPYING:
            move = await self.journal.save(move, only_from=ARRIVING, state=State.PREPARED)
        await commit(self.backend, self.journal, move)
        return self.journal.find(Side.IN, move.id) or move

    async def take(
        self,
        channel: FrameChannel,
        server: str,
        restorer: Restorer | None = None,
    ) -> None:
        """Serve the source of a move. Raises Refusal, UpstreamFailure when it has gone."""
        await Arriving(self.backend, self.journal, channel, server, self.step, restorer).serve()

    def take_from_cyrus(self, server: str) -> FromCyrus:
        """The taking side for a Cyrus backend that sends by XFER. Raises Refusal."""
        words = self.backend, self.journal, server, self._process, self.step
        return FromCyrus(*words, self._ends.leave)

    # --- what the store still has

    async def forget(self, move: Move) -> Move:
        """Remove what has left; nothing that the list shows, or that has left again since and is kept for that. Raises
        Refusal(IN_USE) while it is on its way back: what is kept is then part of what arrives."""
        # `begin` of an arriving move takes it too
        async with self.backend.announcer.locked(move.root):
            if self._is_coming_back(move):
                raise Refusal(Code.IN_USE, f"What the move {move.id} keeps is on its way back")
            find = self.backend.mailboxes.list.find
            others = self.journal.kept_for_others(move)
            back = find(move.root) is not None or move.root in others
            for name in sorted(move.names, key=len, reverse=True):
                if find(name) is None and name not in others:
                    await self.backend.store.delete(name)
            state = State.UNDONE if back else State.REMOVED
            move = await self.journal.save(move, state=state)
            self.journal.forget_handed(move)
        self._log.info("move.forgotten", move=move.id, mailbox=display(move.root), back=back)
        return move

    def _is_coming_back(self, move: Move) -> bool:
        return _is_coming_back(move, _arriving(self.journal.moves()))

    async def _keep(self) -> None:
        while True:
            try:
                moves = list(self.journal.moves())
                self.journal.forget_old()
            except (Refusal, OSError) as error:  # a file that cannot be read: somebody has to look
                self._log.error("move.crashed", problem=str(error))
                moves = []
            coming = _arriving(moves)
            for move in moves:
                await self._look_after(move, coming)
            self._ends.look_at(moves)
            await look_again(LOOK_EVERY_S)

    async def _look_at_cyrus(self, move: Move) -> None:
        """A Cyrus backend has broken off. Told to show what it sent, we go on; else it goes only when the master says
        that the source has taken it back, for the source may have removed it."""
        if move.state is State.PREPARED:
            await commit(self.backend, self.journal, move)
            return
        if move.state is not State.COPYING or self.backend.master is None:
            return
        entry = await self.backend.master.find(move.root)
        if entry is not None and entry.is_active and entry.server != self.backend.server_name:
            ending = await self.journal.save(move, only_from={State.COPYING}, state=State.ENDING)
            await abort(self.backend, self.journal, ending)
            self._log.info("move.aborted", move=move.id, mailbox=display(move.root))

    async def _look_after(self, move: Move, coming: Sequence[Move] | None = None) -> None:
        """One that cannot go on now does not keep the others from it."""
        try:
            await self._look_at(move, _arriving(self.journal.moves()) if coming is None else coming)
        except (UpstreamFailure, Refusal, OSError) as error:
            self._log.warning("move.interrupted", move=move.id, problem=str(error))
        except Exception as error:  # noqa: BLE001 - the end of a round of a task
            self._log.error("move.crashed", move=move.id, exc_info=error)

    async def _look_at_arriving(self, move: Move) -> None:
        with contextlib.suppress(BeingEnded):  # who is at it lives
            # shown, and the master has not been told
            if move.state is State.COMMITTED or self._is_shown(move):
                await commit(self.backend, self.journal, move)
            elif move.state is State.ENDING:
                await abort(self.backend, self.journal, move)
            elif move.by == CYRUS and (
                move.state is State.PREPARED or not is_alive(move.process)
            ):  # a process that lives may have failed to show it, and to say so: on a full disk
                await self._look_at_cyrus(move)

    def _is_shown(self, move: Move) -> bool:
        """Of a restore, whose end nobody may ask for again: only that could not be written down."""
        is_prepared = move.server == FROM_BACKUP and move.state is State.PREPARED
        return is_prepared and self.backend.mailboxes.find(move.root) is not None

    async def _look_at(self, move: Move, coming: Sequence[Move]) -> None:
        if move.side is Side.IN:
            return await self._look_at_arriving(move)
        if move.state in RUNNING:
            if move.id not in self._running and not is_alive(move.process):
                await self._take_over(move.id)
            return
        is_old = time.time() > move.finished_at + self.backend.config.move_grace_s
        if move.state is State.FAILED and is_old:  # else the target would keep what came for ever
            await self.abort(move.id)
        elif move.state is State.DONE and not _is_coming_back(move, coming):
            is_back = self.backend.mailboxes.list.find(move.root) is not None
            if is_back or (is_old and await self._is_as_it_left(move)):
                await self.forget(move)

    async def _is_as_it_left(self, move: Move) -> bool:
        """What has changed here since is nowhere else: then somebody has to look, and is told once."""
        if move.problem:
            return False
        if self.journal.has_left_again(move):  # the later move knows how it left
            return True
        handed = self.journal.handed(move)
        changed = await changed_since(self.backend, handed) if handed is not None else None
        if changed is None:
            return True
        problem = f"{display(changed)} has changed here since it left: it is kept until `forget`"
        await self.journal.save(move, problem=problem)
        self._log.warning("move.source_modified", move=move.id, mailbox=display(changed))
        return False


def _arriving(moves: Iterable[Move]) -> list[Move]:
    """Those that come here now: few, of a history that may be long."""
    states = (State.COPYING, State.PREPARED, State.COMMITTED)
    return [move for move in moves if move.side is Side.IN and move.state in states]


def _is_coming_back(move: Move, coming: Sequence[Move]) -> bool:
    """Whether what this move took away is part of what comes."""
    return any(other.holds(move.root) or move.holds(other.root) for other in coming)
