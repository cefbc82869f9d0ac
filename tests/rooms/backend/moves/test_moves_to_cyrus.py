"""What a Cyrus backend is told of a mailbox that moves there."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from murder.model.carried import CarriedIdentity, Portrait
from murder.model.entry import EntryState, MailboxEntry
from murder.model.message import Message, ModSeq, Uid, UidValidity
from murder.model.name import MailboxName, inbox_of
from murder.net.octets import OctetChannel
from murder.roles.backend.moves.journal import Move, Side, State
from murder.roles.backend.moves.loose import LooseEnds
from murder.roles.backend.moves.to_cyrus import PIECE_OCTETS, CyrusTarget
from murder.wire.dlist import parse_values
from murder.wire.nodes.carry_words import Complete, Hold, Rows
from tests.rooms.backend.server import running_backend, spool_store

ROOT = inbox_of("zoe")


class Taking:
    """It says OK to all, and remembers it."""

    def __init__(self, *answers: bytes) -> None:
        """`answers`: before the next OK."""
        self.said: list[bytes] = []  # commands
        self.longest = 0  # octets of what was sent at once
        self._answers = list(answers)
        self._command = bytearray()

    async def send(self, octets: bytes) -> None:
        self.longest = max(self.longest, len(octets))
        self._command += octets

    async def line(self, most: int) -> bytes:
        del most
        if self._command:
            self.said.append(bytes(self._command))
            self._command.clear()
        return self._answers.pop(0) if self._answers else self.said[-1].split()[0] + b" OK done"


async def test_records_are_told_in_the_order_of_uids() -> None:
    """A Cyrus passes over those that are not. A round may have come no further than to some, and others have changed
    since."""
    wire = Taking()
    target = CyrusTarget(cast(OctetChannel, wire), "cyrus.test", lambda: None, lambda _: b"")
    portrait = Portrait(CarriedIdentity("id", UidValidity(7)), Uid(60), ModSeq(9))
    await target.hold(Hold(ROOT, portrait))
    moment = datetime.fromtimestamp(0, UTC)
    for uid in (50, 10):
        message = Message(Uid(uid), frozenset(), moment, 1, ModSeq(9), moment, f"M{uid}")
        await target.send_rows(Rows(ROOT, [(message, True)]))
        await target.send_octets(b"x")
        await target.stored()
    await target.do(Complete(ROOT, portrait))
    told = wire.said[-1]
    assert 0 < told.index(b"UID 10 ") < told.index(b"UID 50 ")


class Noting(list[Any]):
    """Rows, and in which threads they were gone through."""

    def __init__(self, *rows: Any) -> None:
        super().__init__(rows)
        self.threads: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        self.threads.append(threading.get_ident())
        return super().__iter__()


class Line(bytes):
    """A line, and in which threads it was looked through."""

    threads: list[int]

    def partition(self, separator: Any, /) -> Any:
        self.threads.append(threading.get_ident())
        return super().partition(separator)


async def test_of_much_mail_others_do_not_wait_while_a_cyrus_is_told() -> None:
    """The records of 20,000 messages took 240 ms, in which nobody there was answered; and a batch of 4 MB took 8."""
    wire = Taking()
    target = CyrusTarget(cast(OctetChannel, wire), "cyrus.test", lambda: None, lambda _: b"")
    portrait = Portrait(CarriedIdentity("id", UidValidity(7)), Uid(60), ModSeq(9))
    await target.hold(Hold(ROOT, portrait))
    moment = datetime.fromtimestamp(0, UTC)
    large = b"x" * (3 * PIECE_OCTETS)
    for first in range(1, 1001, 250):
        messages = [
            Message(Uid(uid), frozenset(), moment, 1, ModSeq(9), moment, f"M{uid}")
            for uid in range(first, first + 250)
        ]
        rows = Noting(*((message, True) for message in messages))
        await target.send_rows(Rows(ROOT, rows))
        for message in messages:
            await target.send_octets(large if message.uid == 1 else b"y")
        await target.stored()
        assert rows.threads and threading.get_ident() not in rows.threads
    await target.do(Complete(ROOT, portrait))
    assert wire.longest < 2 * PIECE_OCTETS
    files, told = wire.said[0], wire.said[-1]
    assert files.count(large) == 1 and files.endswith(b"}\r\ny)\r\n")
    (values,) = parse_values([told.split(b" ", 3)[3]])
    assert isinstance(values, dict)
    records = cast(list[dict[str, bytes]], values["RECORD"])
    assert [int(record["UID"]) for record in records] == list(range(1, 1001))


async def test_what_a_cyrus_says_of_much_mail_is_read_in_a_thread() -> None:
    """Of 20,000 messages it took half a second, in which nobody there was answered."""
    told = Line(
        b"* MAILBOX %(LAST_UID 9 UIDVALIDITY 7 HIGHESTMODSEQ 8 RECORD (%(UID 4 FLAGS (\\Seen) SIZE 30) "
        b"%(UID 5 FLAGS (\\Expunged) SIZE 40) %(UID 6 FLAGS (\\Deleted) SIZE 50)))"
    )
    told.threads = []
    wire = cast(OctetChannel, Taking(told))
    target = CyrusTarget(wire, "cyrus.test", lambda: None, lambda _: b"")
    said = await target.sum(ROOT)
    assert (said.messages, said.unseen, said.deleted, said.octets, said.uid_next) == (
        2,
        1,
        1,
        80,
        10,
    )
    assert told.threads and threading.get_ident() not in told.threads


async def test_what_is_made_anew_at_a_cyrus_is_not_removed_with_a_move_that_was_given_up(
    tmp_path: Path,
) -> None:
    """It was deleted where it came from, which is why that was given up; and a Cyrus removes what is called so."""
    box, wire = MailboxName(ROOT + b".box"), Taking()

    async def open_target(server: str) -> CyrusTarget:
        return CyrusTarget(cast(OctetChannel, wire), server, lambda: None, lambda _: b"")

    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        await one.mover.stop()

        class Master:
            async def find(self, name: MailboxName) -> MailboxEntry | None:
                entry = MailboxEntry(name, EntryState.ACTIVE, b"cyrus.test!default", b"")
                return entry if name == ROOT else None

        one.backend.master = cast(Any, Master())
        move = Move("b1", Side.OUT, ROOT, "cyrus.test", state=State.ABORTED, names=(ROOT, box))
        await LooseEnds(one.backend, one.mover.journal, open_target).settle("cyrus.test", [move])
        one.backend.master = None
    assert [line for line in wire.said if b"UNMAILBOX" in line] == [
        b"M1 SYNCAPPLY LOCAL_UNMAILBOX " + bytes(box) + b"\r\n"
    ]
