"""Whether messages fulfil search criteria, with their content looked at where only that can tell, in fair turns.

Knows the session's view and no command: SEARCH and the searches that are kept up to date both judge so.
"""

from collections.abc import Iterable

from murder.model.message import Message
from murder.model.query.search import SearchKey
from murder.net.turns import Turn
from murder.roles.backend.changes.updates import View
from murder.roles.backend.imap.mail.content import read_content, sized
from murder.roles.backend.imap.search.criteria import Candidate, Scene, compile_key, texts_in


class Judge:
    """Of one search. `turn` is that of the command it is part of."""

    def __init__(self, view: View, key: SearchKey, scene: Scene, turn: Turn) -> None:
        self._view = view
        self._test = compile_key(key, scene)
        self._wanted = texts_in(key)
        self._turn = turn

    async def fulfils(self, message: Message) -> bool:
        """False also for what the client has not been told of, or is just expunged."""
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
        content = await read_content(self._view.mailbox, message, self._wanted, self._turn)
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
