"""The way from an operator's program to a backend that it backs up or restores: questions and answers in frames."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from murder.admin.operate.backup.vault import Draft
from murder.admin.operate.reach import Reach
from murder.errors import UpstreamFailure, UpstreamKind
from murder.model.carried import digest_line
from murder.model.message import Message, ModSeq, Uid
from murder.model.name import MailboxName
from murder.net.frames import FrameChannel, answer_on
from murder.wire.nodes import backup_words as words
from murder.wire.nodes.carry import OCTETS, Words
from murder.wire.nodes.carry_answers import (
    Held,
    Sum,
    parse_done,
    parse_held,
    parse_stored,
    parse_sum,
)
from murder.wire.nodes.carry_words import Act, AskSum, Hold, Rows, format_request

READ: Final = b"XBACKUP"
WRITE: Final = b"XTAKE"

T = TypeVar("T")


class Link:
    """One connection. Methods that wait raise Refusal where the backend refuses, UpstreamFailure."""

    def __init__(self, channel: FrameChannel, server: str) -> None:
        self._channel = channel
        self.server = server

    async def _ask(self, request: Words, parse: Callable[[Words], T]) -> T:
        await self._channel.send(request)
        return await answer_on(self._channel, self.server, parse)

    def close(self) -> None:
        self._channel.close()

    # --- reading

    async def look(self, name: MailboxName, since: ModSeq) -> words.Looked:
        return await self._ask(words.format_request(words.Look(name, since)), words.parse_looked)

    async def page(self, name: MailboxName, since: ModSeq, after: Uid) -> list[Message]:
        return await self._ask(
            words.format_request(words.Page(name, since, after)), words.parse_page
        )

    async def count(self, name: MailboxName) -> words.Counted:
        return await self._ask(words.format_request(words.Count(name)), words.parse_counted)

    async def subscriptions(self, user: str) -> Sequence[MailboxName]:
        request = words.format_request(words.AskUser(user))
        return await self._ask(request, words.parse_subscribed)

    async def ask_octets(self, name: MailboxName, uids: Sequence[Uid]) -> None:
        """Of each of them `octets` follows."""
        await self._channel.send(words.format_request(words.Fetch(name, uids)))

    async def octets(self, draft: Callable[[], Draft]) -> tuple[words.Octets, str]:
        """The next message, kept, and its digest; "" where it has gone or cannot be read."""
        answer = await answer_on(self._channel, self.server, words.parse_octets)
        if answer.is_gone or answer.problem:
            return answer, ""
        kept, left = draft(), answer.size
        try:
            while left:
                frame = await self._channel.receive()
                left -= len(frame.octets)
                if frame.kind != OCTETS or left < 0 or not frame.octets:
                    text = f"message {answer.uid} has other octets than it was told"
                    raise UpstreamFailure(UpstreamKind.PROTOCOL, self.server, text)
                kept.write(frame.octets)
        except BaseException:
            kept.drop()
            raise
        return answer, kept.finish()

    # --- writing

    async def do(self, request: Act) -> None:
        await self._ask(format_request(request), parse_done)

    async def hold(self, request: Hold) -> Held:
        return await self._ask(format_request(request), parse_held)

    async def sum(self, name: MailboxName) -> Sum:
        return await self._ask(format_request(AskSum(name)), parse_sum)

    async def store(self, name: MailboxName, batch: Sequence[tuple[Message, bytes | None]]) -> bool:
        """Messages with the octets that are not there yet. Whether what the backend then reads back is the same."""
        rows = [(message, octets is not None) for message, octets in batch]
        await self._channel.send(format_request(Rows(name, rows)))
        for _, octets in batch:
            if octets is not None:
                await self._channel.send_octets(octets)
        answer = await answer_on(self._channel, self.server, parse_stored)
        return answer.digest == await asyncio.to_thread(_digest, batch)


def _digest(batch: Sequence[tuple[Message, bytes | None]]) -> str:
    """As the backend makes it of what it reads back."""
    whole = hashlib.sha256()
    for message, octets in batch:
        whole.update(digest_line(message))
        if octets is not None:
            whole.update(octets)
    return whole.hexdigest()


class Links:
    """Connections to backends for one task, opened on first use."""

    def __init__(self, reach: Reach, command: bytes) -> None:
        self._reach = reach
        self._command = command
        self._open: dict[str, Link] = {}

    async def to(self, server: str) -> Link:
        """Raises Refusal, UpstreamFailure."""
        link = self._open.get(server)
        if link is None:
            channel = await self._reach.frames(server, self._command)
            link = self._open[server] = Link(channel, server)
        return link

    def drop(self, server: str) -> None:
        """It has failed, or its answers are out of step: the next use opens another."""
        link = self._open.pop(server, None)
        if link is not None:
            link.close()

    def close(self) -> None:
        for server in list(self._open):
            self.drop(server)
