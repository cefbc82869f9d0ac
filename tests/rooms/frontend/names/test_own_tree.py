"""Commands about all that a user has: nobody else waits until the walk through it is over, however much that is."""

from pathlib import Path

import pytest

from tests.kit.peer import Peer
from tests.kit.steps import Turns
from tests.rooms.frontend.server import running_frontend

OWN = 8000
MOST_LINES = 40_000  # of a turn: each mailbox took twenty and more, all in one


@pytest.mark.parametrize(
    "command",
    [
        'LIST "" INBOX',  # asks all backends that have some of the user's for special uses
        "NOTIFY SET (PERSONAL (MessageNew MessageExpunge))",
    ],
)
async def test_a_walk_through_all_own_mailboxes_holds_nobody_up(
    command: str, tmp_path: Path
) -> None:
    users = {"ana": "be1.test", **{f"ana/m{number}": "be1.test" for number in range(OWN)}}
    async with running_frontend(tmp_path, {}, users) as running:
        peer = await Peer.at("127.0.0.1", running.ports["imap"])
        await peer.until(b"* OK")
        await peer.ok("LOGIN ana secret")
        async with Turns() as turns:
            await peer.ask(b"t " + command.encode())
        assert turns.longest < MOST_LINES
        await peer.close()
