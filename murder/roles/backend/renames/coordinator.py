"""The root's side of a RENAME, or a deletion, of a whole hierarchy, which may lie on several backends: all of it, or
nothing.

    prepare   written down here, the new names taken at the master; then every part does the same, at its own server
    decide    one commit: from here on it only goes on, whoever dies; the client is answered after it
    finish    every server renames its part and tells the master; OWED stays written down until all have said so

A part that does not hear the end asks (`fate`): what is not written down here was not decided.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.log import logger
from murder.model.entry import MailboxEntry
from murder.model.name import display
from murder.roles.backend.hierarchy.intent import (
    Intent,
    Operation,
    Stage,
    format_intent,
    owed_key,
    parse_intent,
)
from murder.roles.backend.renames.peer import Peer
from murder.roles.backend.renames.rows import Moves
from murder.roles.backend.renames.tree import Tree, act_of, carry_out
from murder.roles.backend.shared import Backend
from murder.roles.mupdate.database.change import PutIntent, RemoveIntent
from murder.wire.nodes.rename_words import Abort, Act, Commit, Fate, Prepare, Request

MAX_PARTS: Final = 100  # servers of one hierarchy: each is a connection while it is renamed
PREPARE_WAIT_S: Final = 40.0  # as long as a part may wait for its master, and a little more
COMMIT_WAIT_S: Final = 10.0  # a part that takes longer is late: the client has waited enough
TRIES: Final = 4  # of a question, while workers die
ABORT_WAIT_S: Final = 3.0  # likewise; who has not heard of it asks

OpenPeer = Callable[[str], Awaitable[Peer]]


class Master(Protocol):
    """The master as this room needs it."""

    async def find(self, name: bytes) -> MailboxEntry | None: ...

    async def below(self, name: bytes) -> list[MailboxEntry] | None: ...


@dataclass(frozen=True, slots=True)
class Wish:
    """Who wants what. `moves` are this server's mailboxes, `servers` the others that have some."""

    tree: Tree
    moves: Moves
    servers: tuple[str, ...]
    user: str
    is_admin: bool = False


def names_told(intent: Intent) -> dict[str, str]:
    """For log and operators; what is removed has no target."""
    old, new = intent.root or intent.moves[0]
    is_gone = act_of([(old, new)]) is Act.DELETE
    return {"mailbox": display(old), "target": "" if is_gone else display(new)}


class Coordinator:
    """See the module. `step` is called between steps (tests stop there)."""

    def __init__(self, backend: Backend, open_peer: OpenPeer, master: Master | None) -> None:
        self._backend = backend
        self._announcer = backend.announcer
        self._open_peer = open_peer
        self._log = logger(role="backend")
        self._tasks: set[asyncio.Task[tuple[str, ...]]] = set()
        self.running: set[str] = set()  # their ids
        self.master = master
        self.step: Callable[[str], None] = lambda _: None

    async def stop(self) -> None:
        """They stop where they are; a later start goes on."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- what lies elsewhere

    async def servers_below(self, tree: Tree, named: Iterable[str] = ()) -> tuple[str, ...]:
        """The other servers that have something below it: the master says so; one that cannot (Cyrus) is not asked for its
        whole list, then it is those that the frontend has named. Raises Refusal, UpstreamFailure."""
        own = self._backend.server_name
        if self.master is None:
            return ()
        rows = await self.master.below(tree.above)
        if rows is None:
            servers = set(named) - {own}
        else:
            others = [row for row in rows if row.server != own and row.name != tree.old]
            others = [row for row in others if tree.has(row.name)]
            for row in others:
                if not row.is_active:
                    text = f"{display(row.name)} is being created, moved or renamed at {row.server}: try again"
                    raise Refusal(Code.IN_USE, text, names=(row.name,))
            servers = {row.server for row in others}
        if len(servers) > MAX_PARTS:
            text = f"It is on {len(servers)} servers; at most {MAX_PARTS} can be changed together"
            raise Refusal(Code.LIMIT, text)
        return tuple(sorted(servers))

    # --- one of them

    async def rename(self, wish: Wish) -> tuple[str, ...]:
        """Returns when it is decided, durable, and done as far as can be waited for; the servers that are late. Who waits
        may go: it goes on. Raises Refusal, UpstreamFailure: then nothing has changed."""
        task = asyncio.get_running_loop().create_task(self._run(wish))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _run(self, wish: Wish) -> tuple[str, ...]:
        rename_id, tree = secrets.token_hex(6), wish.tree
        intent = Intent(
            Operation.JOINT,
            tuple(wish.moves),
            self._announcer.process,
            rename_id=rename_id,
            peers=wish.servers,
            root=(tree.old, tree.new),
        )
        facts = {"rename": rename_id, "mailbox": display(tree.old), "target": tree.target}
        self._log.info("rename.begun", **facts, user=wish.user, backends=", ".join(wish.servers))
        self.running.add(rename_id)
        try:
            await self._announcer.prepare_rename(intent)
            self.step("root prepared")
            try:
                await self._prepare_parts(wish, intent)
                self.step("parts prepared")
                decided = await self._decide(intent)
            except Exception as error:
                self._log.info("rename.refused", **facts, problem=str(error))
                await self._give_up(intent)
                raise
            self.step("decided")
            return await self.finish(decided)
        finally:
            self.running.discard(rename_id)

    async def _prepare_parts(self, wish: Wish, intent: Intent) -> None:
        """All of them, and nothing that is new below it meanwhile. Raises Refusal, UpstreamFailure."""
        tree = wish.tree
        if await tree.names_at(self._backend) != [name for name, _ in wish.moves]:
            raise tree.changed_meanwhile()
        if not wish.servers and self.master is None:
            return
        prepare = Prepare(intent.rename_id, tree.old, tree.new, wish.user, wish.is_admin, tree.act)
        outcomes = await self._ask_all(wish.servers, prepare, PREPARE_WAIT_S)
        for server, problem in outcomes.items():
            if isinstance(problem, UpstreamFailure):
                text = f"{server} has a part of it, and {problem.kind.reply}: nothing has changed"
                raise Refusal(Code.UNAVAILABLE, text) from problem
            if problem is not None:
                raise problem
        assert self.master is not None
        for row in await self.master.below(tree.above) or ():
            if not row.is_active or not tree.has(row.name):
                continue
            if row.server not in (self._backend.server_name, *wish.servers):
                raise tree.changed_meanwhile()

    async def _ask_all(
        self, servers: Iterable[str], request: Request, within_s: float
    ) -> dict[str, Exception | None]:
        """At once; what each has answered, None where it is done."""
        named = list(servers)
        outcomes = await asyncio.gather(
            *(self._ask(server, request, within_s) for server in named), return_exceptions=True
        )
        by_server: dict[str, Exception | None] = {}
        for server, outcome in zip(named, outcomes, strict=True):
            if outcome is not None and not isinstance(outcome, Exception):
                raise outcome  # cancelled, or the process is ending
            by_server[server] = outcome
        return by_server

    async def _ask(self, server: str, request: Request, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                for tries_left in reversed(range(TRIES)):
                    try:
                        await self._ask_once(server, request)
                        break
                    except UpstreamFailure as failure:  # a worker has died; any takes it up
                        if failure.kind is not UpstreamKind.LOST or not tries_left:
                            raise
        except TimeoutError:
            text = f"no answer in {within_s:g} s"
            raise UpstreamFailure(UpstreamKind.TIMEOUT, server, text) from None
        self.step(f"{type(request).__name__.lower()} answered")

    async def _ask_once(self, server: str, request: Request) -> None:
        peer = await self._open_peer(server)
        try:
            await peer.ask(request)
        finally:
            peer.close()

    async def _decide(self, intent: Intent) -> Intent:
        owed = replace(intent, operation=Operation.OWED, stage=Stage.COMMIT)
        notes = [PutIntent(owed_key(intent.rename_id), format_intent(owed))] if owed.peers else []
        return await self._announcer.advance(intent, Stage.COMMIT, notes)

    async def _give_up(self, intent: Intent) -> None:
        await self._announcer.withdraw_rename(intent)
        self.step("withdrawn")
        await self._ask_all(intent.peers, Abort(intent.rename_id), ABORT_WAIT_S)

    async def finish(self, decided: Intent) -> tuple[str, ...]:
        """From the decision on; the servers that have not done their part. It does not fail any more: what cannot be done
        now is done by whoever looks after it."""
        own, parts = await asyncio.gather(
            carry_out(self._backend, decided), self.tell_parts(decided), return_exceptions=True
        )
        late = decided.peers if isinstance(parts, BaseException) else parts
        if isinstance(own, BaseException):
            late = (self._backend.server_name, *late)
        for problem in (own, parts):
            if isinstance(problem, Exception):
                self._log.error("rename.crashed", rename=decided.rename_id, exc_info=problem)
            elif isinstance(problem, BaseException):
                raise problem
        if not late:
            self._log.info("rename.done", rename=decided.rename_id, **names_told(decided))
        return late

    async def tell_parts(self, decided: Intent) -> tuple[str, ...]:
        """That it is decided; those that have not done theirs: only they are owed it from now on."""
        outcomes = await self._ask_all(decided.peers, Commit(decided.rename_id), COMMIT_WAIT_S)
        late = {server: problem for server, problem in outcomes.items() if problem is not None}
        for server, problem in late.items():
            self._log.warning(
                "rename.in_doubt", rename=decided.rename_id, backend=server, problem=str(problem)
            )
        key = owed_key(decided.rename_id)
        if not late:
            if decided.peers:
                await self._announcer.commit([RemoveIntent(key)])
            self.step("all told")
        elif len(late) < len(decided.peers):
            owed = replace(decided, operation=Operation.OWED, peers=tuple(late))
            await self._announcer.commit([PutIntent(key, format_intent(owed))])
        return tuple(late)

    async def resume(self, intent: Intent) -> None:
        """One that its process has left: undone, or finished. Raises what the store raises, Refusal(IN_USE) where somebody
        else is at it."""
        if intent.stage is Stage.COMMIT:
            decided = await self._announcer.advance(intent, Stage.COMMIT)
            await carry_out(self._backend, decided)
        else:
            await self._announcer.withdraw_rename(
                await self._announcer.advance(intent, Stage.ABORT)
            )

    def fate(self, rename_id: str, server: str) -> Fate:
        """For a part of it at that server."""
        for octets in self._backend.mailboxes.list.intents().values():
            intent = parse_intent(octets)
            if intent.rename_id != rename_id or server not in intent.peers:
                continue
            if intent.stage is Stage.COMMIT and intent.operation is not Operation.PART:
                return Fate.COMMIT
            if intent.operation is Operation.JOINT and intent.stage is Stage.PREPARED:
                return Fate.OPEN
        return Fate.ABORT
