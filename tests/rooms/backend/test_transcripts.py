"""Dialogues with a backend, as tests/transcripts/backend tells them, on every store."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from murder.api.store import MailboxStore
from murder.config.sections import NamespaceConfig
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.express import Express
from tests.kit.dialogue import Player, Streams
from tests.rooms.backend.server import (
    USERS,
    config_in,
    maildir_store,
    memory_store,
    running_backend,
    spool_store,
)

TRANSCRIPTS = Path(__file__).parent.parent.parent / "transcripts"
STORES: dict[str, Callable[[Path], MailboxStore]] = {
    "memory": lambda _: memory_store(),
    "spool": spool_store,
    "maildir": maildir_store,
}
NAMESPACES = {
    "backend": NamespaceConfig(),
    "backend-alternative": NamespaceConfig(alternative=True),
    "backend-alternative-dots": NamespaceConfig(alternative=True, unix_hierarchy=False),
    "backend-domains": NamespaceConfig(domains=True),
    "backend-dots": NamespaceConfig(unix_hierarchy=False),
}
USERS_OF = {"backend-domains": ("ana@x.org", "bob@x.org", "ana@y.org")}
FILES = [file for folder in NAMESPACES for file in sorted((TRANSCRIPTS / folder).rglob("*.txt"))]


def layout_of(file: Path) -> str:
    """Which of NAMESPACES a transcript is for."""
    return file.relative_to(TRANSCRIPTS).parts[0]


def name_of(file: Path) -> str:
    """Of a transcript, for pytest."""
    return f"{layout_of(file)}-{file.stem}"


@pytest.mark.parametrize(
    ("store", "path"),
    [(store, "in few steps") for store in STORES] + [("spool", "by the dialogue")],
)
@pytest.mark.parametrize("file", FILES, ids=name_of)
async def test_a_backend_says_what_the_transcript_says(
    file: Path, store: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path == "by the dialogue":
        monkeypatch.setattr(Express, "received", BackendImap.received)
    text = file.read_text(encoding="utf-8")
    users = USERS_OF.get(layout_of(file), USERS)

    config = config_in(tmp_path, namespace=NAMESPACES[layout_of(file)])
    async with running_backend(tmp_path, lambda: STORES[store](tmp_path), users, config) as running:

        async def connect(_: str) -> Streams:
            return await asyncio.open_connection(*running.address)

        await Player(connect).play(text)
