"""The dialogues of the backend's transcripts through a frontend: the same octets as direct."""

from pathlib import Path

import pytest

from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.lobby import Lobby
from tests.kit.dialogue import Player
from tests.kit.peer import Peer
from tests.kit.waiting import until_soon
from tests.rooms.backend.server import USERS
from tests.rooms.backend.test_transcripts import FILES, NAMESPACES, USERS_OF, layout_of, name_of
from tests.rooms.frontend.cluster import Cluster, running_cluster

WAITING = 3  # connections to each backend


@pytest.mark.parametrize(
    ("backends", "path"), [(1, "at once"), (2, "at once"), (2, "by the dialogue")]
)
@pytest.mark.parametrize("file", FILES, ids=name_of)
async def test_a_frontend_says_what_the_transcript_says(
    file: Path, backends: int, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path == "by the dialogue":
        monkeypatch.setattr(Lobby, "received", FrontendImap.received)
    text = file.read_text(encoding="utf-8")
    users = USERS_OF.get(layout_of(file), USERS)
    homes = {f"be{n + 1}.test": users[n::backends] for n in range(backends)}

    namespace = NAMESPACES[layout_of(file)]
    async with running_cluster(tmp_path, homes, namespace=namespace) as cluster:
        if path == "at once" and backends == 1:
            await wait_in_pool(cluster, users[0])
        await Player(cluster.connect).play(text)


async def wait_in_pool(cluster: Cluster, user: str) -> None:
    """Connections to the backend of this user wait for the next ones."""
    pool = cluster.frontends[0].frontend.pool
    before = len(pool)
    peers = [await Peer.at(*cluster.address) for _ in range(WAITING)]
    for peer in peers:
        await peer.until(b"* OK")
        await peer.ok(f"LOGIN {user} secret")
        await peer.ok("SELECT INBOX")
    for peer in peers:
        assert (await peer.command("LOGOUT"))[0].startswith(b"* BYE")
        await peer.close()
    await until_soon(lambda: len(pool) >= before + WAITING)
