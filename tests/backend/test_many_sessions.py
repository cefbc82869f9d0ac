"""Several sessions on one mailbox, at random: every client's sequence numbers stay what it was told (RFC 3501 §5.5)."""

import asyncio
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from murder.api.store import MailboxStore
from tests.backend.server import Running, memory_store, running_backend, spool_store

CLIENTS = 4
COMMANDS = 120
STORES: dict[str, Callable[[Path], MailboxStore]] = {
    "memory": lambda _: memory_store(),
    "spool": spool_store,
}


class Client:
    """A client that believes exactly what it is told."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seed: int
    ) -> None:
        self.reader, self.writer = reader, writer
        self.random = random.Random(seed)
        self.uids: list[int | None] = []  # by sequence number; None: not known yet
        self.tag = 0

    async def ask(self, command: str, *, removals: bool = True) -> list[str]:
        """Say it; the untagged lines. What they tell is believed, and checked against what is known."""
        self.tag += 1
        tag = f"t{self.tag}"
        self.writer.write(f"{tag} {command}\r\n".encode())
        lines: list[str] = []
        while True:
            line = (await asyncio.wait_for(self.reader.readline(), 10)).decode().rstrip("\r\n")
            if line.startswith(f"{tag} "):
                assert line.startswith((f"{tag} OK", f"{tag} NO")), line
                return lines
            assert line, "the server has closed"
            lines.append(line)
            self.believe(line, removals)

    def believe(self, line: str, removals: bool) -> None:
        if match := re.match(r"\* (\d+) EXISTS", line):
            exists = int(match.group(1))
            assert exists >= len(self.uids), f"{line}: only EXPUNGE takes messages away"
            self.uids += [None] * (exists - len(self.uids))
        elif match := re.match(r"\* (\d+) EXPUNGE", line):
            assert removals, f"{line} during a command that must not tell it"
            assert 1 <= int(match.group(1)) <= len(self.uids), line
            del self.uids[int(match.group(1)) - 1]
        elif match := re.match(r"\* (\d+) FETCH", line):
            number = int(match.group(1))
            assert 1 <= number <= len(self.uids), line
            if uid := re.search(r"UID (\d+)", line):
                known = self.uids[number - 1]
                assert known in (None, int(uid.group(1))), f"{line}: {number} was {known}"
                self.uids[number - 1] = int(uid.group(1))

    async def select(self) -> None:
        self.uids = []
        await self.ask("SELECT INBOX")

    async def act(self) -> None:
        """One random command."""
        count = len(self.uids)
        number = self.random.randint(1, max(1, count))
        flag = self.random.choice(["\\Deleted", "\\Seen", "\\Flagged", "Work"])
        match self.random.randint(0, 9):
            case 0 | 1:
                await self.ask("APPEND INBOX {4+}\r\nmail")
            case 2 | 3 if count:
                sign = self.random.choice("+-")
                await self.ask(f"STORE {number} {sign}FLAGS ({flag})", removals=False)
            case 4 if count:
                await self.ask(f"STORE {number} +FLAGS.SILENT (\\Deleted)", removals=False)
            case 5:
                await self.ask("EXPUNGE")
            case 6 if count:
                await self.ask("FETCH 1:* (UID FLAGS)", removals=False)
            case 7:
                await self.ask("UID FETCH 1:* (FLAGS)")
            case 8:
                await self.ask("SEARCH UNSEEN", removals=False)
            case 9 if count and self.random.random() < 0.3:
                await self.ask(f"MOVE {number} INBOX/other")
            case _:
                await self.ask("NOOP")


async def connected(running: Running, seed: int) -> Client:
    client = Client(*await asyncio.open_connection(*running.address), seed)
    await client.reader.readline()
    await client.ask("LOGIN ana secret")
    return client


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("seed", range(3))
def test_sequence_numbers_stay_what_each_client_was_told(
    seed: int, store: str, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with running_backend(tmp_path, lambda: STORES[store](tmp_path)) as running:
            clients = [await connected(running, seed * 100 + at) for at in range(CLIENTS)]
            await clients[0].ask("CREATE INBOX/other")
            for client in clients:
                await client.select()

            async def live(client: Client) -> None:
                for _ in range(COMMANDS):
                    await client.act()

            async with asyncio.TaskGroup() as group:
                for client in clients:
                    group.create_task(live(client))
            views = []
            for client in clients:
                await client.ask("NOOP")
                await client.ask("FETCH 1:* (UID)" if client.uids else "NOOP")
                views.append(client.uids)
            assert all(view == views[0] for view in views)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scene(), 50))
