"""The dialogues of the backend's transcripts through a frontend: the same octets as direct."""

from pathlib import Path

import pytest

from tests.backend.server import USERS
from tests.backend.test_transcripts import FILES, NAMESPACES, USERS_OF
from tests.frontend.cluster import running_cluster
from tests.kit.dialogue import Player


@pytest.mark.parametrize("backends", [1, 2])
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
async def test_a_frontend_says_what_the_transcript_says(
    file: Path, backends: int, tmp_path: Path
) -> None:
    text = file.read_text(encoding="utf-8")
    users = USERS_OF.get(file.parent.name, USERS)
    homes = {f"be{n + 1}.test": users[n::backends] for n in range(backends)}

    namespace = NAMESPACES[file.parent.name]
    async with running_cluster(tmp_path, homes, namespace=namespace) as cluster:
        await Player(cluster.connect).play(text)
