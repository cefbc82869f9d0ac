"""What a Cyrus backend is told of a mailbox that moves there."""

from datetime import UTC, datetime
from typing import cast

from murder.model.carried import CarriedIdentity, Portrait
from murder.model.message import Message, ModSeq, Uid, UidValidity
from murder.model.name import inbox_of
from murder.net.octets import OctetChannel
from murder.roles.backend.moves.to_cyrus import CyrusTarget
from murder.wire.nodes.carry_words import Complete, Hold, Rows

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
    target = CyrusTarget(cast(OctetChannel, wire), "cyrus.test", lambda: None)
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
