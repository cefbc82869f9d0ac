"""A message on its way into the store: one `Incoming` for all its recipients: the store keeps one copy where it can."""

import asyncio
from collections.abc import Sequence
from typing import Final

from murder.api.store import Incoming, NewMessage
from murder.errors import Refusal
from murder.net.turns import in_turns, line_up
from murder.roles.backend.delivery.addressee import Addressee
from murder.roles.backend.delivery.recipient import deliver
from murder.roles.backend.messages.content import size_told
from murder.roles.backend.shared import Backend
from murder.serve.lmtp import LmtpDialogue, Say

BEGUN_AT_ONCE: Final = 16  # copies, some 0.1 ms each; then all others have a turn

# of abandoned messages; the loop alone would lose them
_CLOSING: Final[set["asyncio.Task[None]"]] = set()


class Arrival:
    """A `murder.serve.lmtp.Delivery`."""

    def __init__(
        self, dialogue: LmtpDialogue, backend: Backend, addressees: Sequence[Addressee]
    ) -> None:
        self._dialogue = dialogue
        self._backend = backend
        self._addressees = addressees
        self._incoming: Incoming | None = None
        self._error: Exception | None = None
        try:
            self._incoming = backend.store.incoming()
        except (Refusal, OSError) as error:
            self._error = error

    async def write(self, octets: bytes) -> None:
        if self._incoming is None or self._error is not None:
            return
        try:
            await self._incoming.write(octets)
        except (Refusal, OSError) as error:
            self._error = error

    async def finish(self, say: Say) -> None:
        answers = await self._answers()
        if self._incoming is not None:
            incoming, self._incoming = self._incoming, None
            await self._close(incoming)  # what it says of that changes no answer
        rests = say(answers)
        if rests is not None:
            await rests

    async def _answers(self) -> bytes:
        if self._incoming is None or self._error is not None:
            error = self._error or OSError("no room for the message")
            answer = self._dialogue.reply_for(error)
            async for addressee in in_turns(self._addressees):
                self._dialogue.note_refused(addressee.address, answer)
            return answer * len(self._addressees)
        size = await size_told(self._incoming.octets())
        message = NewMessage(self._incoming, told_size=size)
        if len(self._addressees) == 1:  # mostly; a task of its own costs as much as all else here
            return await deliver(self._dialogue, self._backend, self._addressees[0], message)
        answers: list[asyncio.Task[bytes]] = []
        async with asyncio.TaskGroup() as copies:
            for number, addressee in enumerate(self._addressees, 1):
                delivering = deliver(self._dialogue, self._backend, addressee, message)
                answers.append(copies.create_task(delivering))
                if not number % BEGUN_AT_ONCE:
                    await line_up()
        return b"".join(answer.result() for answer in answers)

    def abandon(self) -> None:
        if self._incoming is not None:
            closing = asyncio.get_running_loop().create_task(self._close(self._incoming))
            _CLOSING.add(closing)
            closing.add_done_callback(_CLOSING.discard)
            self._incoming = None

    async def _close(self, incoming: Incoming) -> None:
        try:
            await incoming.close()
        except (Refusal, OSError) as error:
            self._dialogue.reply_for(error)  # into the log alone
