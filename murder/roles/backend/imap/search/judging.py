"""Whether messages fulfil search criteria, with their content looked at where only that can tell, in fair turns.

Knows the session's view and no command: SEARCH and the searches that are kept up to date both judge so.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from murder.mime.text import Needs
from murder.model.message import Message, Uid
from murder.model.query.search import SearchKey
from murder.net.turns import Turn
from murder.roles.backend.changes.powers import TELLS_SUMMARIES
from murder.roles.backend.changes.updates import View
from murder.roles.backend.imap.search.criteria import Candidate, Scene, compile_key, texts_in
from murder.roles.backend.messages.content import FEW_OCTETS, read_content, sized

AT_ONCE: Final = 50  # summaries asked of the store
NO_SUMMARIES: Final[Mapping[Uid, bytes]] = {}


class Judge:
    """Of one search. `turn` is that of the command it is part of."""

    def __init__(self, view: View, key: SearchKey, scene: Scene, turn: Turn) -> None:
        self._view = view
        self._test = compile_key(key, scene)
        self._wanted = texts_in(key)
        self._turn = turn
        uses_summaries = self._wanted.is_in_envelope or self._wanted.needs is not Needs.HEADER
        self._summing = TELLS_SUMMARIES.of(view.mailbox) if uses_summaries else None

    async def chosen(self, messages: Sequence[Message]) -> list[Message]:
        """Those that fulfil the criteria."""
        chosen: list[Message] = []
        unknown = None if self._summing is None else b""
        for at in range(0, len(messages), AT_ONCE):
            some = messages[at : at + AT_ONCE]
            summaries = await self._summaries(some)
            for message in some:
                if await self.fulfils(message, summaries.get(message.uid, unknown)):
                    chosen.append(message)
        return chosen

    async def _summaries(self, messages: Sequence[Message]) -> Mapping[Uid, bytes]:
        """What is kept of those whose content decides, and which are not sooner taken apart."""
        if self._summing is None:
            return NO_SUMMARIES
        if not self._wanted.is_in_envelope:
            messages = [message for message in messages if message.size > FEW_OCTETS]
        recent, seq_of, test = self._view.recent, self._view.seq_of, self._test
        undecided: list[Uid] = []
        for message in messages:
            seq = seq_of(message.uid)
            if seq is not None and test(Candidate(seq, message, message.uid in recent)) is None:
                undecided.append(message.uid)
            if self._turn.is_over:  # of thousands of criteria
                await self._turn.rest()
        return await self._summing.summaries(undecided) if undecided else NO_SUMMARIES

    async def fulfils(self, message: Message, summary: bytes | None = None) -> bool:
        """False also for what the client has not been told of, or is just expunged. `summary` as `Reader` has it."""
        seq = self._view.seq_of(message.uid)
        if seq is None:
            return False
        if message.told_size < 0:
            message = await sized(self._view.mailbox, message)
        is_recent = message.uid in self._view.recent
        verdict = self._test(Candidate(seq, message, is_recent))
        if self._turn.is_over:
            await self._turn.rest()
        if verdict is not None:
            return verdict
        content = await read_content(self._view.mailbox, message, self._wanted, self._turn, summary)
        if content is None:
            return False
        candidate = Candidate(seq, message, is_recent, content)
        for steps in (content.in_header(), content.in_body()):
            if content.is_short:
                for _ in steps:
                    pass
            else:
                await self._walk(steps)
            verdict = self._test(candidate)
            if verdict is not None:
                break
        return bool(verdict)

    async def _walk(self, steps: Iterable[None]) -> None:
        for _ in steps:
            if self._turn.is_over:
                await self._turn.rest()
