"""SUBSCRIBE and what LSUB tells of it: names are judged by what a client reads, which its own user's is not."""

from base64 import b64encode
from pathlib import Path

import pytest

from tests.kit.peer import Peer
from tests.rooms.backend.server import running_backend, spool_store


@pytest.mark.parametrize("user", ["josé", "r&d"])
async def test_who_is_called_otherwise_than_in_ascii_subscribes_to_their_own(
    user: str, tmp_path: Path
) -> None:
    async with running_backend(tmp_path, lambda: spool_store(tmp_path), (user,)) as running:
        peer = await Peer.at(*running.address)
        await peer.until(b"* OK")
        words = b64encode(f"\0{user}\0secret".encode())
        await peer.ok(b"AUTHENTICATE PLAIN " + words)
        await peer.ok("SUBSCRIBE INBOX")
        await peer.ok("SUBSCRIBE INBOX/elsewhere")
        for name in ("INBOX/a&b", "{8+}\r\nINBOX/é"):
            assert not (await peer.command(f"SUBSCRIBE {name}"))[-1].startswith(b"t OK")
        assert [line.split()[-1] for line in await peer.ok('LSUB "" *')] == [
            b"INBOX",
            b"INBOX/elsewhere",
        ]
        await peer.close()
