"""A power cut under a store: all that was acknowledged is there, and of the rest the whole or nothing.

The disk drops, tears and reorders what was not fsynced (tests/kit/powercut.py). `POWER_CUTS` makes it cut more often.
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
from murder.model.name import MailboxName
from tests.faults.storing import READER, STREAMS, State, make, prepare, state_of
from tests.kit.powercut import MISSING, Bare, Story
from tests.kit.process import ROOT

CUTS = int(os.environ.get("POWER_CUTS", "16"))
STEPS = 40
SEED = 7


def worked(kind: str, folder: Path, story: Story) -> tuple[str, list[list[State]]]:
    """Let a process work on the disk; where it says what is done, and each stream's states."""
    told = folder / "states"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

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


@pytest.mark.parametrize("kind", ["spool", "maildir"])
@pytest.mark.parametrize("what", ["move", "rename"])
def test_what_crosses_roots_is_whole_after_a_cut_behind_any_sync(
    kind: str, what: str, tmp_path: Path
) -> None:
    """Of what was not fsynced nothing is left, so what one step relies on has to be fsynced before the next."""
    if MISSING and os.environ.get("CI") != "true":
        pytest.skip(MISSING)
    (tmp_path / "disk").mkdir()
    mail = asyncio.run(prepare(kind, tmp_path / "disk"))[STREAMS[1][0].decode()]
    story = Story(tmp_path / "disk")
    command = [sys.executable, "-m", "tests.faults.storing", kind, str(tmp_path / "disk"), what]
    subprocess.run(story.traced(command), check=True, cwd=ROOT, timeout=60)

    async def look() -> list[int]:
        """How much mail is in each mailbox after a start."""
        store = make(kind, tmp_path / "copy")
        await store.start()
        try:
            assert isinstance(store, CanCheck)
            assert not await store.check(False)
            names = {bytes(one.name): one.name for one in await store.mailboxes()}
            held = {}
            for name in names.values():
                box = await store.open(MailboxName(name), READER)
                held[bytes(name)] = [len(await box.octets(uid)) for uid in await box.uids()]
                box.close()
            return [
                len(held.get(one, [])) for one in (STREAMS[1][0], b"shared.x", b"shared.x.come")
            ]
        finally:
            await store.stop()

    seen = []
    for disk in story.syncs():
        disk.write_to(tmp_path / "copy", Bare())
        seen.append(asyncio.run(look()))
    before, after = [len(mail), 0, 0], [0, 0, 0]
    after[1 if what == "move" else 2] = len(mail)
    assert seen[0] == before
    assert seen == [before] * seen.count(before) + [after] * seen.count(after)
    assert seen[-1] == after
