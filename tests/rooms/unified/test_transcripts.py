"""The dialogues of the backend's transcripts at unified nodes: the same octets, wherever the mailboxes are."""

from pathlib import Path

import pytest

from tests.kit.dialogue import Player
from tests.rooms.backend.server import USERS
from tests.rooms.backend.test_transcripts import FILES, NAMESPACES, USERS_OF, layout_of, name_of
from tests.rooms.unified.nodes import running_nodes


@pytest.mark.parametrize("file", FILES, ids=name_of)
async def test_two_unified_nodes_say_what_the_transcript_says(file: Path, tmp_path: Path) -> None:
    users = USERS_OF.get(layout_of(file), USERS)
    homes = {f"be{number + 1}.test": users[number::2] for number in range(2)}
    async with running_nodes(tmp_path, homes, namespace=NAMESPACES[layout_of(file)]) as nodes:
        await Player(nodes.connect).play(file.read_text(encoding="utf-8"))
