"""What exists and is not yours looks like what does not exist, whatever is asked, also where its backend is away."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName, inbox_of
from murder.roles.mupdate.database.change import PutEntry
from tests.rooms.frontend.cluster import Cluster, running_cluster

COMMANDS = (
    *("SELECT {}", "EXAMINE {}", "STATUS {} (MESSAGES)", "GETACL {}", "MYRIGHTS {}"),
    *("LISTRIGHTS {} ana", "SETACL {} ana lr", "DELETEACL {} ana", "GETQUOTAROOT {}"),
    *("GETQUOTA {}", "GETMETADATA {} /shared/comment", 'SETMETADATA {} (/shared/comment "x")'),
    *("DELETE {}", "RENAME {} INBOX/stolen", "RENAME {} {}2", "CREATE {}", "CREATE {}/sub"),
    *("RENAME INBOX/own {}/sub", "RENAME INBOX/own {}", "COPY 1 {}", "MOVE 1 {}", "UID COPY 1 {}"),
    *("XFER {} be2.test", "RESETKEY {}", "APPEND {} {{3+}}\r\nabc", 'LIST "" {}', 'LIST "" {}/*'),
    'LIST (SUBSCRIBED) "" {} RETURN (STATUS (MESSAGES))',
    "NOTIFY SET STATUS (MAILBOXES {} (MessageNew MessageExpunge))",
    'GENURLAUTH "imap://ana@fe.test/{};UID=1;URLAUTH=anonymous" INTERNAL',
    'GENURLAUTH "imap://bob@fe.test/INBOX/secret;UID=1;URLAUTH=anonymous" INTERNAL',
    'APPEND INBOX CATENATE (URL "/{}/;UID=1")',
    "UID REPLACE 1 {} {{3+}}\r\nabc",
)
PAIRS = (("user/bob/secret", "user/bob/nosuch"), ("user/bob", "user/nob"))


async def say(cluster: Cluster, *commands: str) -> str:
    """One connection; all that is answered."""
    reader, writer = await cluster.connect("ana")
    writer.write(b"L LOGIN ana secret\r\n")
    for number, command in enumerate(commands):
        writer.write(f"A{number} {command}\r\n".encode())
    writer.write(b"Z LOGOUT\r\n")
    said = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return said.decode("latin-1")


async def differences(
    cluster: Cluster,
    before: str = "NOOP",
    pairs: Sequence[tuple[str, str]] = PAIRS,
    commands: Sequence[str] = COMMANDS,
) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for pair in pairs:
        for command in commands:
            told = []
            for name in pair:
                said = await say(cluster, before, "SELECT INBOX/own", command.format(name, name))
                assert "A2 " in said, said
                told.append(said.partition("A2 ")[2].replace(name, "NAME"))
            if told[0] != told[1]:
                found.append((command, told[0], told[1]))
    return found


@pytest.mark.limit_s(240)
async def test_what_is_not_yours_is_not_there(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        reader, writer = await cluster.connect("bob")
        writer.write(b"a LOGIN bob secret\r\nb CREATE INBOX/secret\r\nc LOGOUT\r\n")
        assert b"b OK" in await reader.read()
        writer.close()
        await say(cluster, "CREATE INBOX/own", "APPEND INBOX/own {3+}\r\nabc")
        assert await differences(cluster) == []
        assert await differences(cluster, 'RLIST "" ""') == []
        for name in ("be1.test", "be2.test"):
            home = cluster.backends[name]
            if home.backend.mailboxes.list.find(inbox_of("bob")) is None:
                continue
            home.listener.stop_accepting()
            for session in list(home.backend.sessions):
                session.connection.abort()
        assert await differences(cluster) == []


MAKING = (("user/bob/reserved", "user/bob/nosuch"), ("shared/reserved", "shared/nosuch"))
OF_A_TOKEN = (
    "URLFETCH imap://bob@fe.test/INBOX/{};UID=1;URLAUTH=anonymous:internal:" + "91" * 16,
    'APPEND INBOX CATENATE (URL "imap://bob@fe.test/{};UID=1;URLAUTH=anonymous:internal:'
    + "91" * 16
    + '")',
)


@pytest.mark.limit_s(240)
async def test_what_is_being_made_is_not_there_but_for_who_will_see_it(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await say(cluster, "CREATE INBOX/own", "APPEND INBOX/own {3+}\r\nabc")
        names = [b"user.bob.reserved", b"shared.reserved", b"user.ana.reserved"]
        for frontend in cluster.frontends:
            frontend.frontend.mailboxes.commit(
                [
                    PutEntry(
                        MailboxEntry(MailboxName(name), EntryState.RESERVED, b"be1.test!default")
                    )
                    for name in names
                ]
            )

        assert await differences(cluster, pairs=MAKING, commands=[*COMMANDS, *OF_A_TOKEN]) == []
        for pair in MAKING:
            told = [
                (await say(cluster, f"SUBSCRIBE {name}", f'LSUB "" {name}')).replace(name, "NAME")
                for name in pair
            ]
            assert (
                told[0].partition("A1 ")[0].partition("A0 ")[2]
                == (told[1].partition("A1 ")[0].partition("A0 ")[2])
            )
        assert "NO [UNAVAILABLE]" in await say(cluster, "SELECT INBOX/reserved")
