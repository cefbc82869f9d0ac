"""A transaction with one backend, by itself: a backend that takes the text slowly holds it up, and no longer."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from murder.roles.frontend.lmtp import Forwarding
from murder.roles.frontend.lmtp_transaction import Connects, LmtpTransaction
from murder.wire.lmtp import Envelope

PIECES = 5


class Slow:
    """A backend that has to be waited for after each piece that goes to it directly."""

    def __init__(self) -> None:
        self.connection = self
        self.server, self.was_used, self.timeout_s = "be1", False, 0.0
        self.writing_paused = False
        self.drained = asyncio.Event()
        self.taken = b""

    def send(self, octets: bytes) -> None:
        self.taken += octets

    def gather(self, octets: bytes) -> None:
        self.taken += octets
        self.writing_paused = True
        self.drained.clear()
        asyncio.get_running_loop().call_soon(self.take)

    def take(self) -> None:
        self.writing_paused = False
        self.drained.set()

    async def drain(self) -> None:
        if self.writing_paused:
            await self.drained.wait()

    async def replies(self) -> list[bytes]:
        await asyncio.sleep(0)
        return [b"354 go on" if self.taken.endswith(b"DATA\r\n") else b"250 Ok"]


async def test_a_text_goes_on_when_the_backend_takes_again_what_went_there_directly(
    tmp_path: Path,
) -> None:
    slow = Slow()

    async def upstream(server: str) -> Slow:
        return slow

    transaction = LmtpTransaction(
        cast(Connects, SimpleNamespace(upstream=upstream, takes=lambda *_: False)),
        "be1",
        Envelope(b"a@b", {}),
        answer_timeout_s=1,
        timeout_s=1,
        folder=tmp_path,
    )
    answer = transaction.recipient(b"ana")
    await answer
    forwarding = Forwarding([transaction], [(transaction, b"ana", answer)], lambda *_: None)
    for _ in range(PIECES):
        await asyncio.sleep(0)
    assert transaction._takes_text
    for _ in range(PIECES):
        await forwarding.write(b"x\r\n")
    said: list[bytes] = []
    await forwarding.finish(said.append)
    assert said == [b"250 Ok\r\n"]
    assert slow.taken.endswith(b"DATA\r\n" + b"x\r\n" * PIECES + b".\r\n")
