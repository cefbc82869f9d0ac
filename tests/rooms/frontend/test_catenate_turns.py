"""A CATENATE of thousands of URLs leaves others their turns."""

import asyncio
from types import SimpleNamespace
from typing import Any

from murder.roles.frontend.imap.mail.catenate import Texts


def test_others_go_on_while_the_urls_of_a_line_are_looked_at() -> None:
    async def looked_at() -> tuple[bytes, int]:
        dialogue: Any = SimpleNamespace(selected=None)  # all that a relative URL asks for
        texts = Texts(dialogue, "be1.test")
        segment = b" CATENATE (" + b"URL ;UID=1 " * 20_000 + b"URL ;UID=1)\r\n"
        passed = asyncio.ensure_future(through(texts, segment))
        turns = 0
        while not passed.done():
            turns += 1
            await asyncio.sleep(0)
        return passed.result(), turns

    async def through(texts: Texts, segment: bytes) -> bytes:
        return b"".join([octets async for octets in texts.through(segment, 0)])

    passed, turns = asyncio.run(looked_at())
    assert passed.count(b"URL ;UID=1") == 20_001
    assert turns > 20
