"""What a shared mailbox's script at another backend files here: as anybody's mail, with the right `p`."""

import asyncio
import base64
from dataclasses import replace
from pathlib import Path

from murder.model.name import MailboxName
from tests.kit.dialogue import Player, Streams
from tests.rooms.backend.server import config_in, running_backend, subjects_of


def as_nobody(connection: int, proxy: str = "be2", how: str = "1") -> str:
    """A node is in, for a script of nobody's."""
    secret = base64.b64encode(f"anonymous\0{proxy}\0secret".encode()).decode()
    return (
        f'C{connection}: i ID ("name" "murder" "x-by-script" "{how}")\nS{connection}~ i OK $_\n'
        f"C{connection}: l AUTHENTICATE PLAIN {secret}\nS{connection}~ l OK $_\n"
    )


def append(tag: str, mailbox: str, subject: str) -> str:
    number = tag[0]
    return (
        f"C{number}: a{tag} APPEND {mailbox} (\\Seen $Sorted) {{...}}\n"
        f"C{number}> Subject: {subject}\nC{number}> Message-ID: <{subject}@x>\n"
        f"C{number}> \nC{number}> Hello\n"
    )


async def test_a_script_of_nobody_needs_the_right_to_post_and_sets_flags(tmp_path: Path) -> None:
    config = config_in(tmp_path, proxies=("be2",), create_inbox=True)
    async with running_backend(tmp_path, config=config) as running:
        backend = running.backend
        for name, rights in ((b"open", b"p"), (b"closed", b"lrsi"), (b"user.ana.Open", b"p")):
            await backend.announcer.create(MailboxName(name), b"anyone\t" + rights + b"\t")

        async def connect(_: str) -> Streams:
            return await asyncio.open_connection(*running.address)

        await Player(connect).play(
            as_nobody(1)
            + append("1", "open", "one")
            + "S1~ a1 OK [APPENDUID $_ 1] $_\n"
            + append("1b", "user/ana", "two")
            + "S1~ a1b OK [APPENDUID $_ 1] $_\n"
            + append("1c", "user/ana/Open", "three")
            + "S1~ a1c OK [APPENDUID $_ 1] $_\n"
            + append("1d", "closed", "four")
            + "S1~ a1d NO [NOPERM] $_\n"
            + append("1e", "none", "five")
            + "S1~ a1e NO [NOPERM] $_\n"
            + "C1: s SELECT open\nS1~ s NO $_\n"  # it may put there, and read nothing
        )
        assert await subjects_of(backend, "ana", "") == [("two", ["$Sorted", "\\Seen"])]
        assert await subjects_of(backend, "ana", "Open") == [("three", ["$Sorted", "\\Seen"])]
        assert backend.mailboxes.find(MailboxName(b"user.anonymous")) is None


async def test_what_was_put_before_a_crash_is_not_put_again(tmp_path: Path) -> None:
    config = config_in(tmp_path, proxies=("be2",))
    async with running_backend(tmp_path, config=config) as running:

        async def connect(_: str) -> Streams:
            return await asyncio.open_connection(*running.address)

        await Player(connect).play(
            as_nobody(1)
            + append("1", "user/ana", "one")
            + "S1~ a1 OK $_\n"
            + append("1b", "user/ana", "one")  # another one of the same name
            + "S1~ a1b OK $_\n"
            + as_nobody(2, how="again")
            + append("2", "user/ana", "one")
            + "S2~ a2 OK Completed\n"
            + append("2b", "user/ana", "two")
            + "S2~ a2b OK [APPENDUID $_ 3] $_\n"
        )
        subjects = [subject for subject, _ in await subjects_of(running.backend, "ana", "")]
        assert subjects == ["one", "one", "two"]


async def test_who_is_no_node_of_the_murder_posts_nothing(tmp_path: Path) -> None:
    config = replace(config_in(tmp_path, proxies=("be2",)))
    async with running_backend(tmp_path, config=config) as running:
        name = MailboxName(b"open")
        await running.backend.announcer.create(name, b"anyone\tp\t")

        async def connect(_: str) -> Streams:
            return await asyncio.open_connection(*running.address)

        secret = base64.b64encode(b"\0anonymous\0secret").decode()  # a user of that name
        await Player(connect).play(
            'C1: i ID ("x-by-script" "1")\nS1~ i OK $_\n'
            f"C1: l AUTHENTICATE PLAIN {secret}\nS1~ l OK $_\n"
            + append("1", "open", "one")
            + "S1~ a1 NO $_\n"
        )
