"""What a command costs a backend in Python calls, which no neighbour on the machine disturbs. SQLite and the event loop are
left out."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from types import FrameType
from typing import Final

import pytest

from murder.net import dialogue
from murder.net.turns import Turn
from tests.kit.steps import Profiled, counting_calls
from tests.rooms.backend.server import USERS, running_backend, spool_store

TIMES: Final = 20
TRIES: Final = 6  # a timer of the backend's may be due just then, or octets come in more pieces
MOST: Final = {  # Python calls of ours: where nothing has changed since the command before
    b"NOOP": 16,
    b'LIST "" "*"': 17,
    b"STATUS INBOX (MESSAGES UIDNEXT UNSEEN)": 20,
    b"FETCH 1:* FLAGS": 21,
    # as Thunderbird spells it
    b"noop": 16,
    b'list "" "*"': 17,
    b"status INBOX (MESSAGES UIDNEXT UNSEEN)": 20,
    b"UID fetch 1:* (FLAGS)": 21,
    # and by the dialogue, which looks into the store each time
    b"Noop": 62,
    b'List "" "*"': 105,
    b"Status INBOX (MESSAGES UIDNEXT UNSEEN)": 165,
    b"Fetch 1:* FLAGS": 120,
    b"FETCH 1:5 BODY.PEEK[]": 165,
    b"UID SEARCH UNSEEN": 155,
    b"SEARCH TEXT zebra": 430,
    b"SEARCH BODY zebra": 375,
    b"SEARCH SUBJECT zebra": 360,
    b"SEARCH FROM zebra": 350,
    b"SELECT INBOX": 210,
    b"UID FETCH 2 (UID FLAGS RFC822.SIZE)": 122,
    # `?`: + and - in turn, so that each is a change
    b"UID STORE 2 ?FLAGS (\\Seen)": 165,
    b"STORE 2 ?FLAGS.SILENT (\\Flagged)": 148,
}
CHANGED: Final = 35  # of a STATUS of a mailbox that a message has come to
OTHER_PATTERN: Final = 115  # of a LIST, when another one has told all there is
NEW: Final = 60  # of a STATUS of a mailbox that nobody has asked for


@pytest.fixture(autouse=True)
def _turns_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: each rest, and what goes on behind it, is a dozen calls more."""
    monkeypatch.setattr(Turn, "is_over", False)
    monkeypatch.setattr(dialogue, "TURN_S", 600.0)


_signs: Final = cycle(b"+ -".split())


Ask = Callable[[bytes], Awaitable[None]]


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> None:
    if b"?" in line:
        line = line.replace(b"?", next(_signs))
    writer.write(b"x " + line + b"\r\n")
    while not (said := await reader.readline()).startswith(b"x "):
        assert said
    assert said.startswith(b"x OK"), said


@asynccontextmanager
async def sessions(folder: Path, count: int = 1) -> AsyncIterator[list[Ask]]:
    """How each of so many, of one user at one backend, asks for something that succeeds."""
    async with running_backend(folder, partial(spool_store, folder)) as running:
        streams = [await asyncio.open_connection(*running.address) for _ in range(count)]
        asks = [partial(ask, reader, writer) for reader, writer in streams]
        for (reader, _), one in zip(streams, asks, strict=True):
            await reader.readline()
            await one(b"LOGIN %b secret" % USERS[0].encode())
        yield list(asks)
        for _, writer in streams:
            writer.close()


async def test_a_command_is_so_many_calls(tmp_path: Path) -> None:
    calls: Counter[str] = Counter()
    async with sessions(tmp_path) as (tell,):
        for _ in range(5):
            await tell(b"APPEND INBOX {4+}\r\na: b")
        await tell(b"SELECT INBOX")
        for command, most in MOST.items():
            for _ in range(2):  # what is kept is so from then on
                await tell(command)
            for _ in range(TRIES):
                calls.clear()
                with counting_calls(calls):
                    for _ in range(TIMES):
                        await tell(command)
                found = sum(calls.values()) / TIMES
                if found <= most:
                    break
            assert found <= most, f"{found} calls of {command!r}: {calls}"


async def test_a_status_of_what_has_changed_is_no_walk(tmp_path: Path) -> None:
    """The counters stand in one row: nothing but that is read anew."""
    calls: Counter[str] = Counter()
    async with sessions(tmp_path, 2) as (tell, other):
        status = b"STATUS INBOX (MESSAGES UIDNEXT UNSEEN)"
        await tell(status)
        for _ in range(TIMES):
            await other(b"APPEND INBOX {4+}\r\na: b")
            with counting_calls(calls):
                await tell(status)
        assert sum(calls.values()) / TIMES <= CHANGED, calls


async def test_a_status_of_a_mailbox_that_was_not_asked_for_is_few_calls(tmp_path: Path) -> None:
    """Its row of the list and its row of counters are read, and no mailbox is opened."""
    calls: Counter[str] = Counter()
    async with sessions(tmp_path) as (tell,):
        for number in range(TIMES):
            await tell(b"CREATE INBOX/%d" % number)
        fewest = NEW + 1.0
        for items in (b"MESSAGES", b"UIDNEXT UNSEEN", b"MESSAGES RECENT UNSEEN"):
            calls.clear()
            with counting_calls(calls):
                for number in range(TIMES):
                    await tell(b"STATUS INBOX/%d (%b)" % (number, items))
            fewest = min(fewest, sum(calls.values()) / TIMES)
        assert fewest <= NEW, calls


async def test_a_list_by_another_pattern_is_no_walk(tmp_path: Path) -> None:
    """All that the user may see is known from the LIST before."""
    calls: Counter[str] = Counter()
    async with sessions(tmp_path) as (tell,):
        for number in range(5):
            await tell(b"CREATE INBOX/%d" % number)
        fewest = OTHER_PATTERN + 1.0
        for attempt in range(TRIES):  # whatever is written into the list is a reason to look
            pattern = (b"INBOX*%d", b"I%%%d", b"INBOX/%%/%d")[attempt % 3]
            await tell(b'LIST "" *')
            calls.clear()
            with counting_calls(calls):
                for number in range(TIMES):
                    await tell(b'LIST "" ' + pattern % (TIMES * attempt + number))
            fewest = min(fewest, sum(calls.values()) / TIMES)
            if fewest <= OTHER_PATTERN:
                break
        assert fewest <= OTHER_PATTERN, calls


async def test_no_command_looks_through_a_protocol_for_what_a_mailbox_can_do(
    tmp_path: Path,
) -> None:
    """`isinstance` of one takes as long as a small command: each class of mailboxes is asked once."""
    asked: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "__instancecheck__":
            asked[frame.f_locals["cls"].__name__] += 1

    async with sessions(tmp_path) as (tell,):
        await tell(b"APPEND INBOX {4+}\r\na: b")
        for _ in range(2):  # what is kept is so from then on
            asked.clear()
            with Profiled(note):
                for command in (b"SELECT INBOX", *MOST, b"FETCH 1 (ENVELOPE)", b"SELECT INBOX"):
                    await tell(command.replace(b" 2 ", b" 1 ").replace(b"1:5", b"1"))
    assert not asked
