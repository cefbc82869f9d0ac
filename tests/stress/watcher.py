"""A client that watches mailboxes with NOTIFY and selects none: in the end it must have been told how each is."""

import asyncio
import re

from tests.kit.waiting import pause_here
from tests.stress.client import Client

STATUS = re.compile(r'\* STATUS "?([^" ]+)"? \((.*)\)$')
ASKED = "MESSAGES UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ"
LIMIT_S = 60.0


class Watcher(Client):
    """`told` is what STATUS responses have told of each mailbox."""

    async def open(self, select: str = "") -> None:
        self.told: dict[str, dict[str, int]] = {}
        self.reader, self.writer = await self._connect()
        await self._line()
        await self.ask("LOGIN ana secret")
        await self.ask("ENABLE CONDSTORE")
        await self.ask("NOTIFY SET STATUS (personal (MessageNew MessageExpunge FlagChange))")

    def _hear(self, line: str, *, removals: bool) -> None:
        if match := STATUS.match(line):
            words = match[2].split()
            told = dict(zip(words[::2], map(int, words[1::2]), strict=True))
            self.told.setdefault(match[1], {}).update(told)

    async def settle_with(self, other: Client, names: tuple[str, ...]) -> None:
        """What `other` finds by STATUS must have been told here, or be told soon."""
        for name in names:
            before = len(other.said)
            await other.ask(f"STATUS {name} ({ASKED})")
            found = [STATUS.match(line.removeprefix("S: ")) for line in other.said[before:]]
            words = next((one for one in found if one is not None), None)
            assert words is not None, other.said[before:]
            pairs = words[2].split()
            truth = dict(zip(pairs[::2], map(int, pairs[1::2]), strict=True))
            async with asyncio.timeout(LIMIT_S):
                while self.told.get(name) != truth:
                    await self.ask("NOOP")
                    await pause_here(0.001, "the other worker's news may be on their way")
