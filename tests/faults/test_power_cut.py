"""A power cut under a store: all that was acknowledged is there, and of the rest the whole or nothing.

The disk drops, tears and reorders what was not fsynced (tests/powercut.py). `POWER_CUTS` makes it cut more often.
"""

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from murder.api import CanCheck
from tests.demo import ROOT
from tests.faults.storing import STREAMS, State, make, state_of
from tests.powercut import MISSING, Story

CUTS = int(os.environ.get("POWER_CUTS", "16"))
STEPS = 40
SEED = 7


def worked(kind: str, folder: Path, story: Story) -> tuple[str, list[list[State]]]:
    """Let a process work on the disk; where it says what is done, and each stream's states."""
    told = folder / "states"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted = []

        def accept() -> None:
            accepted.extend(listener.accept()[0] for _ in STREAMS)

        thread = threading.Thread(target=accept)
        thread.start()
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "tests.faults.storing", kind, str(folder / "disk")]
        done = subprocess.run(
            story.traced([*command, str(port), str(STEPS), str(SEED), str(told)]),
            check=False,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        thread.join()
        for peer in accepted:
            peer.close()
    return f"127.0.0.1:{port}", json.loads(told.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["spool", "maildir"])
def test_a_store_has_all_it_acknowledged(kind: str, tmp_path: Path) -> None:
    if MISSING and os.environ.get("CI") != "true":
        pytest.skip(MISSING)
    (tmp_path / "disk").mkdir()
    story = Story(tmp_path / "disk")
    address, streams = worked(kind, tmp_path, story)
    choose = random.Random(SEED)

    async def look(number: int, answered: list[int]) -> None:
        store = make(kind, tmp_path / "copy")
        await store.start()
        try:
            assert isinstance(store, CanCheck)
            found = await store.check(False)
            # a file whose message was not acknowledged may outlive the note of it: no file system we know does that
            assert all(fault.endswith("is in no mailbox") for fault in found), found
            await store.check(True)
            assert not await store.check(False)
            there = {bytes(one.name) for one in await store.mailboxes()}
            for names, count, states in zip(STREAMS, answered, streams, strict=True):
                if not count and not there.issuperset(names):
                    continue  # the cut came before its mailboxes were made
                seen = await state_of(store, names)
                allowed = states[count : count + 2]
                assert seen in allowed, f"cut {number}, {count} answered: {seen}\nnot in {allowed}"
        finally:
            await store.stop()

    moments = set()
    for number, disk in enumerate(story.cuts(choose, CUTS)):
        sent = disk.sent.get(address, b"")
        answered = [sent.count(b"done %d\n" % stream) for stream in range(len(STREAMS))]
        moments.add(tuple(answered))
        disk.write_to(tmp_path / "copy", choose)
        asyncio.run(look(number, answered))
    assert len(moments) > CUTS // 3
    assert answered == [STEPS] * len(STREAMS)
