"""The other side of a RENAME or a deletion over several backends: what this server has below a root that is another's.

What is prepared stays so until the root's server has said what became of it, over every crash. Nothing is changed before.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final, assert_never

from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure, UpstreamKind
from murder.log import logger
from murder.model.name import MailboxName, check_new_name, display
from murder.net.frames import FrameChannel
from murder.roles.backend.hierarchy.intent import (
    Intent,
    Operation,
    Stage,
    is_alive,
    parse_intent,
    tree_of,
)
from murder.roles.backend.hierarchy.limits import check_depth, check_room_for
from murder.roles.backend.renames.coordinator import Coordinator, Master, names_told
from murder.roles.backend.renames.rows import Moves
from murder.roles.backend.renames.tree import Tree, carry_out
from murder.roles.backend.shared import Backend
from murder.wire.nodes.carry import JSON, Frame
from murder.wire.nodes.rename_words import (
    Abort,
    Act,
    Answer,
    AskFate,
    Commit,
    Done,
    Prepare,
    Refused,
    Told,
    format_answer,
    parse_request,
)

# For who is in these trees. Of two RENAMEs that wait for each other, one gives up first, and the other one goes on.
WAIT_S: Final = (1.0, 4.0)


class Parts:
    """See the module: all of this worker's."""

    def __init__(self, backend: Backend, coordinator: Coordinator) -> None:
        self._backend = backend
        self._announcer = backend.announcer
        self._coordinator = coordinator
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._log = logger(role="backend")
        self.step: Callable[[str], None] = lambda _: None

    @property
    def _master(self) -> Master | None:
        return self._coordinator.master

    async def stop(self) -> None:
        tasks = list(self._ending.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def serve(self, channel: FrameChannel, server: str) -> None:
        """Answer until the other one has gone; `server` is whose certificate it has shown. Raises UpstreamFailure where it
        goes before it was answered, or says nothing."""
        while True:
            try:
                frame = await channel.receive()
            except UpstreamFailure as failure:
                if failure.kind is UpstreamKind.LOST:
                    return
                raise
            answer = await self._answered(frame, server)
            self.step("answering")
            await channel.send(format_answer(answer))

    async def _answered(self, frame: Frame, server: str) -> Answer:
        try:
            if frame.kind != JSON:
                raise BadSyntax("a JSON frame was expected, octets came")
            request = parse_request(frame.octets)
            match request:
                case Prepare():
                    await self._prepare(request, server)
                case Commit(rename_id):
                    await self._end(rename_id, server, Stage.COMMIT)
                case Abort(rename_id):
                    await self._end(rename_id, server, Stage.ABORT)
                case AskFate(rename_id):
                    return Told(self._coordinator.fate(rename_id, server))
                case _:
                    assert_never(request)
            return Done()
        except BadSyntax as error:
            self._log.warning("rename.bad_request", backend=server, problem=error.text)
            return Refused(Code.CANNOT, f"that is no request: {error.text}")
        except Refusal as refusal:
            names = tuple(MailboxName(name) for name in refusal.names)
            return Refused(refusal.code, refusal.text, names)
        except UpstreamFailure as failure:
            return Refused(Code.UNAVAILABLE, f"{failure.server}: {failure.kind.reply}")

    # --- the first half

    async def _prepare(self, request: Prepare, server: str) -> None:
        """Raises Refusal, UpstreamFailure: then nothing has changed."""
        await self._check_root(request, server)
        earlier = self.find(request.id)
        if earlier is not None and is_alive(earlier.process):
            return  # asked once more
        if earlier is not None and earlier.stage is Stage.PREPARED:
            await self._announcer.withdraw_rename(earlier)  # its worker may not have got to the end
        tree = Tree(request.act, request.old, request.new)
        moves = await tree.moves_at(self._backend)
        if not moves:
            raise tree.changed_meanwhile()
        if tree.act is Act.RENAME:
            await self._check_limits(request, moves)
        intent = Intent(
            Operation.PART,
            tuple(moves),
            self._announcer.process,
            rename_id=request.id,
            peers=(server,),
            root=(request.old, request.new),
        )
        await self._announcer.prepare_rename(intent, random.uniform(*WAIT_S))
        if await tree.names_at(self._backend) != [name for name, _ in moves]:
            await self._announcer.withdraw_rename(intent)
            raise tree.changed_meanwhile()
        self.step("part prepared")

    async def _check_root(self, request: Prepare, server: str) -> None:
        """Whether it is that server's to rename: a stolen key of one backend renames nothing that others have alone."""
        root = await self._master.find(request.old) if self._master is not None else None
        if root is None or not root.is_active or root.server != server:
            text = f"{display(request.old)} is not at {server}, as the master says"
            raise Refusal(Code.NO_PERMISSION, text, names=(request.old,))

    async def _check_limits(self, request: Prepare, moves: Moves) -> None:
        for _, name in moves:
            check_new_name(name)
            if not request.is_admin:
                check_depth(self._backend, name)
        if not request.is_admin and tree_of(request.old) != tree_of(request.new):
            await check_room_for(self._backend, [name for _, name in moves])

    # --- the second half

    def is_ending(self, intent: Intent) -> bool:
        """Whether this worker is at it."""
        return intent.operation is Operation.PART and intent.rename_id in self._ending

    def find(self, rename_id: str) -> Intent | None:
        """A part that is prepared here, and not ended."""
        for octets in self._backend.mailboxes.list.intents().values():
            intent = parse_intent(octets)
            if intent.operation is Operation.PART and intent.rename_id == rename_id:
                return intent
        return None

    async def _end(self, rename_id: str, server: str, stage: Stage) -> None:
        intent = self.find(rename_id)
        if intent is None:
            return  # that is done
        if server not in intent.peers:
            raise Refusal(Code.NO_PERMISSION, f"The RENAME {rename_id} is another's")
        await self.end(intent, stage)

    async def end(self, intent: Intent, stage: Stage) -> None:
        """As it was decided: rename, or give back. Raises Refusal where it is being ended otherwise, and what the store
        raises."""
        task = self._ending.get(intent.rename_id)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._do_end(intent, stage))
            self._ending[intent.rename_id] = task
            task.add_done_callback(lambda _: self._ending.pop(intent.rename_id, None))
        await asyncio.shield(task)

    async def _do_end(self, intent: Intent, stage: Stage) -> None:
        if intent.stage not in (Stage.PREPARED, stage):
            raise Refusal(Code.CANNOT, f"The RENAME has been ended otherwise: {intent.stage.value}")
        is_anothers = intent.process != self._announcer.process and is_alive(intent.process)
        if intent.stage is stage and is_anothers:
            raise Refusal(Code.IN_USE, "Another worker is ending this RENAME")
        intent = await self._announcer.advance(intent, stage)
        self.step(f"part {stage.value}")
        if stage is Stage.COMMIT:
            await carry_out(self._backend, intent)
        else:
            await self._announcer.withdraw_rename(intent)
        self._log.info(
            "rename.part_ended",
            rename=intent.rename_id,
            **names_told(intent),
            outcome=stage.value,
        )
