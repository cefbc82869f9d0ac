"""RENAMEs over several backends that are not over: each worker ends those that it began, or has taken on; worker 0 those
of dead processes, too. They tell the parts of what was decided, and ask about parts whose root's server is not heard."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from murder.errors import Code, Refusal, UpstreamFailure
from murder.log import logger
from murder.model.name import display
from murder.net.outgoing.upstream import Upstreams
from murder.net.seconds import look_again
from murder.roles.backend.hierarchy.intent import (
    Intent,
    Operation,
    Stage,
    is_alive,
    parse_intent,
)
from murder.roles.backend.renames.coordinator import Coordinator, Master, names_told
from murder.roles.backend.renames.part import Parts
from murder.roles.backend.renames.peer import Peer, open_peer
from murder.roles.backend.renames.tree import act_of
from murder.roles.backend.shared import Backend
from murder.wire.nodes.control_answers import ConflictShown
from murder.wire.nodes.rename_words import Act, Fate

LOOK_EVERY_S: Final = 2.0
QUIET_S: Final = 5.0  # one that is younger may well be under way
PAUSE_MIN_S: Final = 1.0  # of a server that cannot be reached; doubled up to:
PAUSE_MAX_S: Final = 30.0


class Renames:
    """See the module: what a worker has to do with them."""

    def __init__(
        self, backend: Backend, upstreams: Upstreams, master: Master | None, *, keeps_all: bool
    ) -> None:
        process = backend.announcer.process
        self._backend = backend
        self._upstreams = upstreams
        self._process = process
        self._keeps_all = keeps_all
        self._keeper: asyncio.Task[None] | None = None
        self._seen_at: dict[str, float] = {}  # by id; what was there at the first look is old
        self._is_first_look = True
        self._next_at: dict[str, float] = {}  # by server, or id: by what is waited for
        self._pause_s: dict[str, float] = {}
        self._log = logger(role="backend")
        self.coordinator = Coordinator(backend, self._open, master)
        self.parts = Parts(backend, self.coordinator)
        self.clock: Callable[[], float] = time.time

    def start(self) -> None:
        """Go on with what was begun; behind the start."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self.coordinator.stop()
        await self.parts.stop()

    async def _open(self, server: str) -> Peer:
        return await open_peer(self._upstreams, server)

    async def _keep(self) -> None:
        while True:
            await self.look()
            await look_again(LOOK_EVERY_S)

    # --- one round

    def _open_ones(self) -> list[Intent]:
        """All that are not over here, each once."""
        parsed = map(parse_intent, self._backend.mailboxes.list.intents().values())
        return [intent for intent in dict.fromkeys(parsed) if intent.rename_id]

    async def look(self) -> None:
        """Do what can be done now."""
        now, open_ones = self.clock(), self._open_ones()
        ids = {intent.rename_id for intent in open_ones}
        self._seen_at = {known_id: at for known_id, at in self._seen_at.items() if known_id in ids}
        for rename_id in ids:
            self._seen_at.setdefault(rename_id, now - 2 * QUIET_S if self._is_first_look else now)
        self._is_first_look = False
        waited_for = {server for intent in open_ones for server in _waits_for(intent)}
        self._heard_of(set(self._pause_s) - waited_for)
        await asyncio.gather(*(self._look_after(due) for due in open_ones if self._is_due(due)))

    def _is_due(self, intent: Intent) -> bool:
        if not self._is_mine(intent) or intent.rename_id in self.coordinator.running:
            return False
        if self.parts.is_ending(intent):
            return False
        now = self.clock()
        if intent.operation is Operation.PART and intent.stage is Stage.PREPARED:
            if now <= self._seen_at[intent.rename_id] + QUIET_S:
                return False  # its root's server may well be at it
        return any(now >= self._next_at.get(server, 0.0) for server in _waits_for(intent))

    def _is_mine(self, intent: Intent) -> bool:
        """Whether this worker ends it: who lives ends its own."""
        if intent.process == self._process:
            return True
        return self._keeps_all and not is_alive(intent.process)

    async def _look_after(self, intent: Intent) -> None:
        """One that cannot go on now does not keep the others from it."""
        try:
            await self._look_at(intent)
        except (UpstreamFailure, Refusal) as problem:
            self._put_off(_waits_for(intent))
            self._log.warning("rename.in_doubt", **_facts(intent), problem=str(problem))
        except Exception as error:  # noqa: BLE001 - the end of a round of a task
            self._put_off(_waits_for(intent))
            self._log.error("rename.crashed", rename=intent.rename_id, exc_info=error)

    async def _look_at(self, intent: Intent) -> None:
        match intent.operation:
            case Operation.JOINT:
                await self.coordinator.resume(intent)
                self._log.warning("rename.resumed", **_facts(intent), outcome=_outcome(intent))
            case Operation.OWED:
                late = await self.coordinator.tell_parts(intent)
                self._heard_of(set(intent.peers) - set(late))
                self._put_off(late)
                if not late:
                    self._log.info("rename.done", **_facts(intent))
            case Operation.PART if intent.stage is Stage.PREPARED:
                await self._ask_about(intent)
            case Operation.PART:
                await self.parts.end(intent, intent.stage)
            case _:
                pass

    async def _ask_about(self, intent: Intent) -> None:
        (server,) = intent.peers
        peer = await self._open(server)
        try:
            fate = await peer.fate(intent.rename_id)
        finally:
            peer.close()
        self._heard_of([server])
        if fate is not Fate.OPEN:
            await self.parts.end(intent, Stage(fate.value))

    def _heard_of(self, servers: Iterable[str]) -> None:
        for server in servers:
            self._next_at.pop(server, None)
            self._pause_s.pop(server, None)

    def _put_off(self, waited_for: Iterable[str]) -> None:
        for server in waited_for:
            pause = min(2 * self._pause_s.get(server, PAUSE_MIN_S / 2), PAUSE_MAX_S)
            self._pause_s[server], self._next_at[server] = pause, self.clock() + pause

    # --- what operators see and do

    def in_doubt(self) -> list[ConflictShown]:
        """For `murder ctl conflicts`: those that wait for another server, and not only since now."""
        now, own = self.clock(), self._backend.server_name
        showns: list[ConflictShown] = []
        for intent in self._open_ones():
            seen_at = self._seen_at.get(intent.rename_id, now)
            is_part = intent.operation is Operation.PART and intent.stage is Stage.PREPARED
            if now < seen_at + QUIET_S or not (is_part or intent.operation is Operation.OWED):
                continue
            first, _ = intent.moves[0]
            target = "" if act_of(intent.moves) is Act.DELETE else display(intent.moves[0][1])
            showns += [
                ConflictShown(
                    display(first),
                    "RENAME" if is_part else "RENAMED",
                    claimant=own if is_part else server,
                    at=seen_at,
                    holder=server if is_part else own,
                    target=target,
                    rename=intent.rename_id,
                )
                for server in intent.peers
            ]
        return showns

    async def decide_by_hand(self, rename_id: str, stage: Stage) -> None:
        """An operator says what became of it, because the root's server never will. Raises Refusal."""
        intent = self.parts.find(rename_id)
        if intent is None:
            raise Refusal(Code.NONEXISTENT, f"No RENAME {rename_id} is in doubt here")
        await self.parts.end(intent, stage)
        self._log.warning("rename.decided", **_facts(intent), outcome=stage.value)


def _waits_for(intent: Intent) -> tuple[str, ...]:
    """Servers, where another must be heard; else only what is here can hinder it."""
    is_prepared = intent.operation is Operation.PART and intent.stage is Stage.PREPARED
    is_over_here = intent.operation is Operation.OWED
    return intent.peers if is_prepared or is_over_here else (intent.rename_id,)


def _facts(intent: Intent) -> dict[str, str]:
    return {
        "rename": intent.rename_id,
        **names_told(intent),
        "backends": ", ".join(intent.peers),
    }


def _outcome(intent: Intent) -> str:
    return "commit" if intent.stage is Stage.COMMIT else "abort"
