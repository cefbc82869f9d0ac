"""What a move has left at the other end while that could not be reached: a source tells of what it gave up, a target asks
what became of what came and never ended. Nothing is removed that is not certain to be the source's still.

Each server is spoken to by a task of its own, so that one that is away keeps nobody waiting.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Final

from murder.errors import Refusal, UpstreamFailure
from murder.log import logger
from murder.model.name import MailboxName, display
from murder.roles.backend.moves.ending import abort
from murder.roles.backend.moves.journal import (
    ARRIVING,
    CYRUS,
    FROM_BACKUP,
    Journal,
    Move,
    Side,
    State,
)
from murder.roles.backend.moves.target import Target
from murder.roles.backend.moves.to_cyrus import CyrusTarget
from murder.roles.backend.shared import Backend
from murder.wire.nodes.carry_words import Abort, Fate

ASK_EVERY_S: Final = 30.0  # about a move that is not over; it may well be under way
LEAVE_EVERY_S: Final = 2.0  # on a full disk
PAUSE_MIN_S: Final = 1.0  # of a server that cannot be reached; doubled up to:
PAUSE_MAX_S: Final = 60.0


class LooseEnds:
    """See the module. `open_target` connects to a server; `step` is called between steps (tests stop there)."""

    def __init__(
        self,
        backend: Backend,
        journal: Journal,
        open_target: Callable[[str], Awaitable[Target]],
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._backend = backend
        self._journal = journal
        self._open_target = open_target
        self._step = step
        self._began = time.time()
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by server
        self._leaving: set[asyncio.Task[None]] = set()
        self._next_at: dict[str, float] = {}
        self._pause_s: dict[str, float] = {}
        self._asked_at: dict[str, float] = {}  # by move
        self._log = logger(role="backend")

    @property
    def tasks(self) -> Collection["asyncio.Task[None]"]:
        return [*self._tasks.values(), *self._leaving]

    async def leave(self, move: Move) -> None:
        """Have the journal say that nobody here is at it any more, on a full disk as soon as that takes it: this process
        lives on, and who looks after moves would wait for it."""
        if await self._has_left(move):
            return
        task = asyncio.get_running_loop().create_task(self._leave_later(move))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave_later(self, move: Move) -> None:
        has_left = False
        while not has_left:
            await asyncio.sleep(LEAVE_EVERY_S)
            has_left = await self._has_left(move)

    async def _has_left(self, move: Move) -> bool:
        try:
            with suppress(Refusal):  # others have ended it meanwhile
                await self._journal.save(move, only_from={State.COPYING}, process="")
        except OSError:
            return False
        return True

    def look_at(self, moves: Sequence[Move]) -> None:
        """Begin what is due."""
        now = time.time()
        due: dict[str, list[Move]] = {}
        for move in moves:
            if now >= self._next_at.get(move.server, 0.0) and self._is_due(move, now):
                due.setdefault(move.server, []).append(move)
        for server, some in due.items():
            if server not in self._tasks:
                task = asyncio.get_running_loop().create_task(self._try(server, some))
                self._tasks[server] = task
                task.add_done_callback(lambda _, server=server: self._tasks.pop(server))  # type: ignore[misc] # its default

    def _is_due(self, move: Move, now: float) -> bool:
        if move.side is Side.OUT:
            return move.owes_abort
        if move.state not in ARRIVING or move.by == CYRUS or move.server == FROM_BACKUP:
            self._asked_at.pop(move.id, None)
            return False
        is_left_over = move.started_at < self._began and move.id not in self._asked_at
        last = max(move.started_at, self._asked_at.get(move.id, 0.0))
        return is_left_over or now > last + ASK_EVERY_S

    async def _try(self, server: str, moves: Sequence[Move]) -> None:
        try:
            await self.settle(server, moves)
            self._pause_s.pop(server, None)
        except (UpstreamFailure, Refusal) as problem:
            pause = min(2 * self._pause_s.get(server, PAUSE_MIN_S / 2), PAUSE_MAX_S)
            self._pause_s[server], self._next_at[server] = pause, time.time() + pause
            self._log.info("move.peer_away", backend=server, problem=str(problem))
        except Exception as error:  # noqa: BLE001 - the end of a task
            self._next_at[server] = time.time() + PAUSE_MAX_S
            self._log.error("move.crashed", backend=server, exc_info=error)

    async def settle(self, server: str, moves: Sequence[Move]) -> None:
        """Tell, and ask. Raises Refusal, UpstreamFailure: then it is to be done again."""
        peer = await self._open_target(server)
        try:
            for move in moves:
                if move.side is Side.OUT:
                    peer.names = await self._ours(move, peer)
                    await peer.do(Abort(move.id))
                    self._step("told")
                    await self._journal.save(move, owes_abort=False)
                else:
                    await self._ask(peer, move)
                    self._asked_at[move.id] = time.time()
        finally:
            peer.close()

    async def _ours(self, move: Move, peer: Target) -> Sequence[MailboxName]:
        """Its names, but for those that are other mailboxes there since: a Cyrus removes what is called so. Raises Refusal,
        UpstreamFailure."""
        master = self._backend.master
        if not isinstance(peer, CyrusTarget) or master is None:
            return move.names
        entries = [await master.find(name) for name in move.names]
        theirs = {entry.name for entry in entries if entry and entry.server == move.server}
        return [name for name in move.names if name not in theirs]

    async def _ask(self, peer: Target, move: Move) -> None:
        """End it here if its source says so, or has the mailboxes and knows of no such move."""
        fate = await peer.fate(Fate(move.id, move.root))
        is_unknown = fate.state == "" and fate.has_root
        if fate.state == State.ABORTED.value or is_unknown:
            kept = self._journal.find(Side.IN, move.id)
            if kept is not None and kept.state in ARRIVING:
                await abort(self._backend, self._journal, kept, self._step)
                self._log.info("move.aborted", move=move.id, mailbox=display(move.root))
        elif fate.state in ("", State.REMOVED.value, State.UNDONE.value):
            self._log.warning(
                "move.interrupted",
                move=move.id,
                problem=f"{move.server} knows it as {fate.state or 'nothing'}; it is kept here",
            )
