"""A store at work in a process of its own: `python -m tests.faults.storing KIND FOLDER PORT STEPS SEED STATES`.

Several streams change mailboxes of their own, one step after the other. What each mailbox holds after each step goes
into the file STATES; "done STREAM" is said on connections to PORT when the step has returned. `… KIND FOLDER move` and
`… KIND FOLDER rename` take one step from root to root, and say nothing.
"""

import asyncio
import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Final

from murder.api import FlagChange, Mailbox, MailboxStore, NewMessage
from murder.model.name import MailboxName
from plugins.store_maildir.store import MaildirStore
from plugins.store_maildir.store import Settings as MaildirSettings
from plugins.store_spool.store import Settings as SpoolSettings
from plugins.store_spool.store import SpoolStore

STREAMS: Final = (
    (b"user.ana", b"user.ana.sub"),  # within one root
    (b"user.bob", b"shared.x"),  # from root to root
    (b"user.cem",),
)
READER: Final = "ana"
FLAGS: Final = ("\\Seen", "\\Flagged", "word")
State = dict[str, dict[str, list[object]]]  # mailbox -> UID -> digest and flags


def make(kind: str, folder: Path) -> MailboxStore:
    if kind == "maildir":
        return MaildirStore(MaildirSettings(), folder)
    return SpoolStore(SpoolSettings(inline_bytes=600), folder)


async def state_of(store: MailboxStore, names: tuple[bytes, ...]) -> State:
    """What the mailboxes hold; each message is read whole."""
    state: State = {}
    for name in names:
        box = await store.open(MailboxName(name), READER)
        rows = await box.messages()
        held: dict[str, list[object]] = {}
        for row in rows:
            octets = bytes(await box.octets(row.uid))
            assert len(octets) == row.size
            held[str(row.uid)] = [hashlib.sha256(octets).hexdigest()[:12], sorted(row.flags)]
        status = await box.status()
        assert (status.messages, status.size) == (len(rows), sum(row.size for row in rows))
        state[name.decode()] = held
        box.close()
    return state


async def append(store: MailboxStore, box: Mailbox, choose: random.Random) -> None:
    incomings = []
    for _ in range(choose.choice((1, 1, 1, 3))):
        incoming = store.incoming()
        await incoming.write(
            b"Subject: x\r\n\r\n" + choose.randbytes(choose.choice((40, 2000))).hex().encode()
        )
        incomings.append(incoming)
    flags = frozenset(choose.sample(FLAGS, choose.randint(0, 2)))
    await box.append([NewMessage(incoming, flags) for incoming in incomings])
    for incoming in incomings:
        await incoming.close()


async def step(store: MailboxStore, boxes: list[Mailbox], choose: random.Random) -> None:
    """One change."""
    box, other = choose.choice(boxes), choose.choice(boxes)
    uids = list(await box.uids())
    some = choose.sample(uids, min(len(uids), choose.randint(1, 3)))
    action = choose.choice(("append", "append", "flags", "expunge", "copy", "move"))
    if action == "append" or not some:
        await append(store, box, choose)
    elif action == "flags":
        change = choose.choice((FlagChange.ADD, FlagChange.REMOVE))
        await box.change_flags(some, change, frozenset({choose.choice(FLAGS)}))
    elif action == "expunge":
        await box.expunge(some)
    elif action == "copy":
        await box.copy(some, other)
    elif box is not other:
        await box.move(some, other)


async def stream(store: MailboxStore, number: int, port: int, steps: int, seed: int) -> list[State]:
    """The stream's states: one more than steps."""
    names, choose = STREAMS[number], random.Random(seed + number)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    boxes = [await store.open(MailboxName(name), READER) for name in names]
    states = [await state_of(store, names)]
    for _ in range(steps):
        await step(store, boxes, choose)
        writer.write(b"done %d\n" % number)
        states.append(await state_of(store, names))
    return states


async def work(kind: str, folder: Path, port: int, steps: int, seed: int) -> list[list[State]]:
    store = make(kind, folder)
    await store.start()
    for names in STREAMS:
        for name in names:
            await store.create(MailboxName(name), "default")
    return await asyncio.gather(
        *(stream(store, number, port, steps, seed) for number in range(len(STREAMS)))
    )


async def prepare(kind: str, folder: Path) -> State:
    """Mailboxes of two roots, mail in the first; what they hold."""
    store = make(kind, folder)
    await store.start()
    for name in STREAMS[1]:
        await store.create(MailboxName(name), "default")
    box = await store.open(MailboxName(STREAMS[1][0]), READER)
    await append(store, box, random.Random(1))
    await append(store, box, random.Random(3))
    box.close()
    state = await state_of(store, STREAMS[1])
    await store.stop()
    return state


async def cross(kind: str, folder: Path, what: str) -> None:
    """One step from root to root."""
    store = make(kind, folder)
    await store.start()
    source, target = (MailboxName(name) for name in STREAMS[1])
    if what == "rename":
        await store.rename(source, MailboxName(target + b".come"))
        return
    box, other = await store.open(source, READER), await store.open(target, READER)
    await box.move(await box.uids(), other)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        asyncio.run(cross(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
        sys.exit()
    kind, folder, port, steps, seed, told = sys.argv[1:]
    found = asyncio.run(work(kind, Path(folder), int(port), int(steps), int(seed)))
    Path(told).write_text(json.dumps(found), encoding="utf-8")
