"""Deleting a user whose mailboxes lie on several backends, where the INBOX's (a Cyrus) asks no others: what is elsewhere
goes first, one by one. As one act as far as they allow: nothing is begun while one of them is away, and where one of them
refuses, what has gone comes back from where deleted mailboxes rest (Cyrus' `delete_mode: delayed`).
"""

import contextlib
from collections.abc import Sequence

from murder.errors import Code, Refusal, UpstreamFailure
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, above_deleted, before_deletion, display
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.internal import execute, refusal_of
from murder.wire.token import client_astring


class DeletedApart:
    """What has been deleted so far."""

    def __init__(self, dialogue: FrontendImap) -> None:
        self._dialogue = dialogue
        self._gone: list[MailboxEntry] = []

    async def delete(self, rows: Sequence[MailboxEntry]) -> None:
        """All of them, or none. Raises Refusal, UpstreamFailure."""
        dialogue = self._dialogue
        for server in sorted({row.server for row in rows}):
            await execute(dialogue, await dialogue.upstream(server), b"NOOP")
        for row in sorted(rows, key=lambda entry: len(entry.name), reverse=True):
            try:
                await self._ask(row.server, b"DELETE " + self._external(row.name))
            except (Refusal, UpstreamFailure) as problem:
                await self.take_back(problem)
                raise
            self._gone.append(row)

    async def take_back(self, problem: Exception) -> None:
        """The rest has failed for that reason. Raises Refusal where something stays deleted."""
        dialogue, lost = self._dialogue, []
        if self._gone:
            await dialogue.catch_up()
        for row in reversed(self._gone):
            try:
                rests = self._resting(row)
                words = self._external(rests), self._external(row.name)
                await self._ask(row.server, b"RENAME %s %s" % words)
            except (Refusal, UpstreamFailure):
                lost.append(row.name)
        if self._gone:  # the client's next LIST has them again
            with contextlib.suppress(UpstreamFailure):
                await dialogue.catch_up()
        self._gone.clear()
        if lost:
            text = f"{' and '.join(map(display, lost))} stay deleted, the others are there"
            raise Refusal(Code.CANNOT, f"{problem}; {text}", names=tuple(lost)) from problem

    def _resting(self, row: MailboxEntry) -> MailboxName:
        """Where it rests. Raises Refusal."""
        deletions = [
            (was[1], other.name)
            for other in self._dialogue.frontend.mailboxes.heads_below(above_deleted(row.name))
            if (was := before_deletion(other.name)) is not None
            and was[0] == row.name
            and other.server == row.server
        ]
        if not deletions:
            raise Refusal(Code.NONEXISTENT, "It is not among the deleted mailboxes of any server")
        return max(deletions)[1]

    async def _ask(self, server: str, octets: bytes) -> None:
        dialogue = self._dialogue
        reply = await execute(dialogue, await dialogue.upstream(server), octets)
        if not reply.is_ok:
            raise refusal_of(reply)

    def _external(self, name: MailboxName) -> bytes:
        return client_astring(self._dialogue.external(name))
