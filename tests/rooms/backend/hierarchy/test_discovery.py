"""Folders that other software makes in Maildirs while a backend serves them: seen by the next who comes near."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from murder.model.name import MailboxName
from plugins.store_maildir.store import MaildirStore, Settings
from tests.kit.dialogue import Player, Streams
from tests.kit.process import open_folder
from tests.plugins.test_store_maildir import Dovecot
from tests.rooms.backend.server import Running, maildir_store, running_backend

USERS = "maildir/maildir/users"  # below a test's folder, by default
Play = Callable[[str], Awaitable[None]]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Where Dovecot's own user may go."""
    with open_folder() as folder:
        yield folder


def playing(running: Running) -> Play:
    async def connect(_: str) -> Streams:
        return await asyncio.open_connection(*running.address)

    player = Player(connect)

    async def play(text: str) -> None:
        await player.play(text, keep=True)

    return play


def make(folder: Path) -> None:
    for name in ("tmp", "new", "cur"):
        (folder / name).mkdir(parents=True)


async def test_a_folder_made_by_others_is_in_the_next_list(tmp_path: Path) -> None:
    users = tmp_path / USERS

    async with running_backend(tmp_path, lambda: maildir_store(tmp_path)) as running:
        tree = users / "ana"
        play = playing(running)
        await play(
            'Ca= LOGIN ana secret\nCa= CREATE INBOX/ours\nCa: a1 LIST (SUBSCRIBED) "" *\nSa: a1 OK $_'
        )
        make(tree / ".theirs.deep")
        (tree / ".theirs.deep/new/1.x.host").write_bytes(b"Subject: x\n\nfrom others\n")
        await play(
            """
                Ca: a2 LIST "" INBOX/*
                Sa: * LIST (\\HasNoChildren) "/" INBOX/ours
                Sa: * LIST (\\Noselect \\HasChildren) "/" INBOX/theirs
                Sa: * LIST (\\HasNoChildren) "/" INBOX/theirs/deep
                Sa: a2 OK $_
                Ca: a3 MYRIGHTS INBOX/theirs/deep
                Sa: * MYRIGHTS INBOX/theirs/deep lrswipkxtecdan
                Sa: a3 OK $_
                """.replace(" " * 16, "")
        )
        # and by name, without a LIST
        for number, asked in enumerate(("STATUS INBOX/n0 (MESSAGES)", "SELECT INBOX/n1")):
            make(tree / f".n{number}")
            await play(f"Ca: b{number} {asked}\nSa~ b{number} OK $_")
        make(tree / ".n2")
        await play("Ca= APPEND INBOX/n2 {...}\nCa> one")
        # what is on its way in is none yet, and what we delete does not come back
        (tree / ".half" / "tmp").mkdir(parents=True)
        await play(
            "Ca= DELETE INBOX/ours\nCa= DELETE INBOX/n1\n"
            'Ca: c1 LIST "" INBOX/%\nSa: * LIST $_ INBOX/n0\nSa: * LIST $_ INBOX/n2\n'
            "Sa: * LIST $_ INBOX/theirs\nSa: c1 OK $_"
        )
        for name in ("new", "cur"):
            (tree / ".half" / name).mkdir()
        os.utime(tree)
        await play('Ca: c2 LIST "" INBOX/half\nSa: * LIST $_ INBOX/half\nSa: c2 OK $_')


async def test_a_maildir_made_by_others_is_its_users_inbox_when_they_log_in(tmp_path: Path) -> None:
    users = tmp_path / USERS

    async with running_backend(tmp_path, lambda: maildir_store(tmp_path)) as running:
        make(users / "eve")
        await playing(running)(
            'Ce= LOGIN eve secret\nCe: a1 LIST "" *\nSe: * LIST $_ INBOX\nSe: a1 OK $_\n'
            "Ce: a2 SELECT INBOX\nSe~ a2 OK [READ-WRITE] $_"
        )


async def test_a_folder_made_with_dovecot_is_in_the_next_list(tmp_path: Path) -> None:
    dovecot = Dovecot(tmp_path)
    settings = Settings(users=f"{tmp_path}/mail/%u/Maildir")

    async with running_backend(
        tmp_path, lambda: MaildirStore(settings, tmp_path / "store"), users=("ana",)
    ) as running:
        play = playing(running)
        await play('Ca= LOGIN ana secret\nCa: a1 LIST "" *\nSa: * LIST $_ INBOX\nSa: a1 OK $_')
        await asyncio.to_thread(
            dovecot.say, "CREATE made/there", ("APPEND made/there", b"Subject: x\r\n\r\nx\r\n")
        )
        await play('Ca: a2 LIST "" INBOX/made/*\nSa: * LIST $_ INBOX/made/there\nSa: a2 OK $_')
        await play(
            "Ca: a3 STATUS INBOX/made/there (MESSAGES)\nSa: * STATUS $_ (MESSAGES 1)\nSa: a3 OK $_"
        )
        assert running.backend.mailboxes.find(MailboxName(b"user.ana.made.there")) is not None
