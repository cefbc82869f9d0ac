"""A set of thousands of numbers, or an item named thousands of times, is taken apart aside, whatever the command."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from murder.net import turns
from murder.roles.backend.imap import message_sets
from murder.serve import arguments
from plugins.store_memory import MemoryStore
from tests.kit.dialogue import Player, Streams
from tests.rooms.backend.server import running_backend

SINGLES = ",".join(str(at) for at in range(3, 10_003, 2))  # 5,000 numbers, of which one message is
RANGES = ",".join(f"{at}:{at + 1}" for at in range(10_000, 3, -3)) + ",2:3"

START = """
Ca= LOGIN ana secret
Ca= ENABLE QRESYNC
Ca= CREATE INBOX/there
Ca= APPEND INBOX {...}
Ca> one
Ca= APPEND INBOX {...}
Ca> two
Ca= APPEND INBOX {...}
Ca> three
Ca: s1 SELECT INBOX
Sa~ * OK [UIDVALIDITY $validity] $_
Sa~ s1 OK [READ-WRITE] $_
"""

# what is asked, the function that is called aside to parse it, and whether the set is then looked up aside
ASKED = [
    ("UID FETCH {set} (UID)", "parse_fetch", True),
    ("UID STORE {set} +FLAGS (\\Flagged)", "parse_store", True),
    ("UID COPY {set} INBOX/there", "parse_copy", True),
    ("UID MOVE {set} INBOX/there", "parse_copy", True),
    ("UID EXPUNGE {set}", "parse_uid_expunge", True),
    ("UID XREMOVE {set}", "parse_uid_expunge", True),
    ("UID SEARCH UID {set}", "parse_search", False),
    ("UID SORT (ARRIVAL) UTF-8 UID {set}", "parse_sort", False),
    ("UID THREAD REFERENCES UTF-8 UID {set}", "parse_thread", False),
    ("SELECT INBOX (QRESYNC ($validity 1 {set}))", "parse_select", False),
    ("STATUS INBOX ({many})", "parse_status", False),
    ('LIST "" * RETURN (STATUS ({many}))', "parse_list", False),
    ("NOTIFY SET (SELECTED (MessageNew ({items}) MessageExpunge))", "parse_notify", False),
]


@pytest.mark.parametrize("numbers", [SINGLES, RANGES], ids=["singles", "ranges"])
@pytest.mark.parametrize(("command", "parser", "looks_up"), ASKED)
async def test_what_is_long_is_done_aside(
    command: str,
    parser: str,
    looks_up: bool,
    numbers: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: Counter[str] = Counter()

    async def noting(function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        done[function.__name__] += 1
        return await turns.aside(function, *given, **named)

    async def noting_if(is_much: bool, function: Callable[..., Any], *given: Any) -> Any:
        return await noting(function, *given) if is_much else function(*given)

    monkeypatch.setattr(arguments, "aside", noting)
    monkeypatch.setattr(message_sets, "aside_if", noting_if)
    octets = (
        command.replace("{set}", numbers)
        .replace("{many}", " ".join(["MESSAGES"] * 2000))
        .replace("{items}", " ".join(["FLAGS"] * 3000))
    )

    async with running_backend(tmp_path, MemoryStore) as running:

        async def connect(_: str) -> Streams:
            return await asyncio.open_connection(*running.address)

        # more items than there are names are refused, but they are read until then: aside, as the sets are
        asked = f"Ca: s2 {octets}\nSa~ s2 BAD $_\n" if "{many}" in command else f"Ca= {octets}\n"
        await Player(connect).play(START + asked + "Ca= NOOP\n")
    assert done[parser] == 1
    assert done["_uids_of"] == looks_up
