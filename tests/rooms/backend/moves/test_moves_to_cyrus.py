"""What a Cyrus backend is told of a mailbox that moves there."""

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
from murder.roles.backend.moves.to_cyrus import CyrusTarget
from murder.wire.nodes.carry_words import Complete, Hold, Rows
from tests.rooms.backend.server import running_backend, spool_store

ROOT = inbox_of("zoe")


class Taking:
    """It says OK to all, and remembers it."""

    def __init__(self) -> None:
        self.said: list[bytes] = []

    async def send(self, octets: bytes) -> None:
        self.said.append(octets)

    async def line(self, most: int) -> bytes:
        del most
        return self.said[-1].split()[0] + b" OK done"


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
