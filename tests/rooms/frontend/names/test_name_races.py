"""Mailboxes come, go and are renamed while others have them selected: a frontend says what one server would say."""

import asyncio
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName
from murder.net.connection import Connection
from murder.roles.frontend.imap.mailboxes import mailbox
from tests.kit.dialogue import Player
from tests.rooms.frontend.cluster import running_cluster

NAMES = [f"INBOX/r{number}" for number in range(3)]
STEPS = 60
SESSIONS = 6
# what two sessions that race for a name may be told; everything else is a fault of the server's
FAIR = re.compile(rb"(t OK|t NO \[(NONEXISTENT|ALREADYEXISTS|TRYCREATE)\]|\* BYE \[NONEXISTENT\])")


class Racer:
    """One client. It logs in again when it has been told BYE."""

    def __init__(self, address: tuple[str, int], seed: int) -> None:
        self.address = address
        self.random = random.Random(seed)
        self.ends: Counter[bytes] = Counter()
        self.unfair: list[tuple[str, bytes]] = []

    async def run(self) -> None:
        done = 0
        while done < STEPS:
            reader, writer = await asyncio.open_connection(*self.address)
            await reader.readline()
            writer.write(b"l LOGIN ana secret\r\n")
            while not (await reader.readline()).startswith(b"l OK"):
                pass
            done += await self._until_bye(reader, writer, STEPS - done)
            writer.close()

    async def _until_bye(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, steps: int
    ) -> int:
        for step in range(steps):
            command = self._command()
            writer.write(b"t " + command.encode() + b"\r\n")
            while True:
                line = await asyncio.wait_for(reader.readline(), 20)
                if line.startswith((b"t ", b"* BYE")) or not line:
                    break
            found = FAIR.match(line)
            self.ends[found[1] if found else line] += 1
            if not found:
                self.unfair.append((command, line))
            if not line.startswith(b"t "):
                return step + 1
        return steps

    def _command(self) -> str:
        name, other = self.random.sample(NAMES, 2)
        return self.random.choice(
            (
                f"SELECT {name}",
                f"SELECT {name}",
                f"CREATE {name}",
                f"CREATE {name}",
                f"DELETE {name}",
                f"RENAME {name} {other}",
                f"STATUS {name} (MESSAGES)",
                "NOOP",
            )
        )


@pytest.mark.parametrize("place", ["backend", "frontend"])
async def test_races_for_names_are_told_as_such(place: str, tmp_path: Path) -> None:
    with capture_logs() as logged:
        async with running_cluster(tmp_path) as cluster:
            backend = cluster.backends["be1.test"].address
            address = backend if place == "backend" else cluster.address
            racers = [Racer(address, seed) for seed in range(SESSIONS)]
            async with asyncio.TaskGroup() as group:
                for racer in racers:
                    group.create_task(racer.run())
    assert not [unfair for racer in racers for unfair in racer.unfair]
    told = sum((racer.ends for racer in racers), Counter[bytes]())
    assert told[b"t OK"] and told[b"* BYE [NONEXISTENT]"], told
    assert not [line for line in logged if line["log_level"] in ("warning", "error")]


async def test_a_change_is_answered_before_the_end_of_what_was_selected(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        for one, two in (("C1", "C2"), ("Cbe1", "Cbe1x")):
            server = one.replace("C", "S")
            await Player(cluster.connect).play(
                f"""
{one}= LOGIN ana secret
{two}= LOGIN ana secret
{one}= CREATE INBOX/a
{one}= SELECT INBOX/a
{two}= DELETE INBOX/a
{two}= CREATE INBOX/a
{one}: c1 CREATE INBOX/b
{server}: c1 OK $_
{server}: * BYE [NONEXISTENT] The selected mailbox has been deleted
{two}= DELETE INBOX/a
{two}= DELETE INBOX/b
"""
            )


CHANGES = {
    "CREATE INBOX/new": "stored",
    "DELETE INBOX/there": "moved",
    "RENAME INBOX/there INBOX/else": "moved",
    "RENAME INBOX INBOX/old": "filled",
    "SETACL INBOX/there bob lr": "activated",
}


@pytest.mark.parametrize("command", CHANGES)
async def test_a_change_whose_worker_goes_is_asked_for_once_more(
    command: str, tmp_path: Path
) -> None:
    async with running_cluster(tmp_path) as cluster:
        player = Player(cluster.connect)
        await player.play(
            "C1= LOGIN ana secret\nC1= CREATE INBOX/there\nC1= SELECT INBOX/there", keep=True
        )
        backend = cluster.backends["be1.test"].backend
        steps: list[str] = []

        def step(name: str) -> None:
            if name == CHANGES[command] and not steps:
                steps.append(name)
                for session in list(backend.sessions):
                    session.connection.abort()

        backend.announcer.step = step
        await player.play(
            f"""
C1: c1 {command}
S1: * OK [CLOSED] $_
S1: c1 OK Completed
C1: c2 LIST "" "*"
S1~ c2 OK $_
"""
        )
        assert steps


@pytest.mark.parametrize("for_good", [False, True])
async def test_a_change_that_the_master_has_not_heard_of_is_waited_for(
    tmp_path: Path, for_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker has ended it: the mailbox is in the way, and the list does not have it yet."""
    async with running_cluster(tmp_path) as cluster:
        player = Player(cluster.connect)
        await player.play("C1= LOGIN ana secret\nC1= CREATE INBOX/there", keep=True)
        backend = cluster.backends["be1.test"].backend
        locator = cluster.frontends[0].frontend.locator
        known, before = locator.known, locator.known(MailboxName(b"user.ana.there"))
        assert before is not None
        asked: list[MailboxName] = []
        aborted: list[Connection] = []

        def step(name: str) -> None:
            if name == "moved":
                aborted.extend(session.connection for session in backend.sessions)
                for connection in aborted:
                    connection.abort()

        def late(name: MailboxName) -> MailboxEntry | None:
            if aborted and (for_good or len(asked) < 3):
                asked.append(name)
                return before if name == before.name else None
            return known(name)

        backend.announcer.step = step
        monkeypatch.setattr(locator, "known", late)
        if for_good:
            monkeypatch.setattr(mailbox, "ENDED_S", 0.0)
            told = "NO [UNAVAILABLE] be1.test has begun it, and may end it later: $_"
        else:
            told = "OK Completed"
        await player.play(f"C1: c1 RENAME INBOX/there INBOX/else\nS1: c1 {told}")
        assert asked


async def test_a_change_that_cannot_be_asked_for_once_more_is_not_available(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path) as cluster:
        player = Player(cluster.connect)
        await player.play("C1= LOGIN ana secret\nC1= CREATE INBOX/there", keep=True)
        running = cluster.backends["be1.test"]

        def step(_: str) -> None:
            running.listener.stop_accepting()
            for session in list(running.backend.sessions):
                session.connection.abort()

        running.backend.announcer.step = step
        await player.play(
            "C1: c1 DELETE INBOX/there\nS1: c1 NO [UNAVAILABLE] be1.test has begun it, $_ (it cannot be reached)"
        )
