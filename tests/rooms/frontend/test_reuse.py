"""A backend's connection serves one user after the other (RFC 8437), and nothing of the one before comes to the next."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.untagged import Manner
from tests.kit.dialogue import Player
from tests.kit.waiting import until_soon
from tests.rooms.frontend.cluster import Cluster, running_cluster

# What the first user does, and what the second one must see
KINDS = {
    "selected": (
        "C1= SELECT INBOX",
        "C2: a1 STATUS INBOX (MESSAGES)\nS2: * STATUS INBOX (MESSAGES 1)\nS2: a1 OK Completed",
    ),
    "enable": (
        "C1= ENABLE QRESYNC\nC1= SELECT INBOX",
        "C2= SELECT INBOX\nC2: a1 STORE 1 +FLAGS (\\Seen)\nS2: * 1 FETCH (FLAGS (\\Recent \\Seen))\n"
        "S2: a1 OK Completed\nC2: a2 SELECT INBOX (QRESYNC (1 1))\nS2~ a2 BAD $_",
    ),
    "rev2": (
        'C1= ENABLE IMAP4rev2 UTF8=ACCEPT\nC1= CREATE "INBOX/Entwürfe"',
        'C2= CREATE INBOX/Entw&APw-rfe\nC2: a1 LIST "" INBOX/%\n'
        'S2: * LIST (\\HasNoChildren) "/" INBOX/Entw&APw-rfe\nS2: a1 OK Completed\n'
        "C2: a2 SELECT INBOX\nS2~ * 1 RECENT\nS2~ a2 OK $_",
    ),
    "uidonly": (
        "C1= ENABLE UIDONLY\nC1= SELECT INBOX",
        "C2= SELECT INBOX\nC2: a1 FETCH 1 UID\nS2: * 1 FETCH (UID 1)\nS2: a1 OK Completed",
    ),
    "searchres": (
        "C1= SELECT INBOX\nC1= SEARCH RETURN (SAVE) ALL",
        "C2= SELECT INBOX\nC2: a1 FETCH $$ UID\nS2: a1 OK Completed",
    ),
    "context": (
        "C1= SELECT INBOX\nC1= SEARCH RETURN (UPDATE) ALL",
        "C2= SELECT INBOX\nC2: a1 STORE 1 FLAGS.SILENT (\\Seen)\nS2: a1 OK Completed",
    ),
    "compress": (
        "C1= COMPRESS DEFLATE",
        "C2= COMPRESS DEFLATE",
    ),
    "notify": (
        "C1= NOTIFY SET (PERSONAL (MessageNew MessageExpunge)) (SUBTREE INBOX (MailboxName))",
        "C3= LOGIN ana secret\nC3= CREATE INBOX/other\nC2: a1 IDLE\nS2: + idling\n"
        "C3= APPEND INBOX/other {...}\nC3> hello\nC2: DONE\nS2: a1 OK Completed",
    ),
    "id": ('C1= ID ("name" "first")', "C2= NOOP"),
}


def one_backend(folder: Path, **settings: Any) -> AbstractAsyncContextManager[Cluster]:
    """With both users."""
    return running_cluster(folder, {"be1.test": ("ana", "bob")}, **settings)


async def given_back(cluster: Cluster) -> None:
    """Until the frontend has a connection that waits."""
    await until_soon(lambda: len(cluster.frontends[0].frontend.pool))


def session_at(cluster: Cluster) -> BackendImap:
    """The only IMAP session of the backend."""
    (session,) = cluster.backends["be1.test"].backend.sessions
    assert isinstance(session, BackendImap)
    return session


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_of_one_user_comes_to_the_next(kind: str, tmp_path: Path) -> None:
    does, sees = KINDS[kind]
    letter = "APPEND INBOX {...}\n{}> Subject: hello\n{}>\n{}> hello"

    async with one_backend(tmp_path) as cluster:
        for number, user in enumerate(("ana", "bob"), 1):
            first = Player(cluster.connect)
            said = letter.replace("{}", f"C{number}")
            await first.play(
                f"C{number}= LOGIN {user} secret\nC{number}= {said}\nC{number}= NOOP\n"
            )
            await given_back(cluster)
        used = session_at(cluster)
        player = Player(cluster.connect)
        await player.play(f"C1= LOGIN ana secret\n{does}\n")
        await given_back(cluster)
        assert session_at(cluster) is used, "the connection was not used again"
        assert used.login is None and used.view is None and used.client_id == {}
        assert used.manner == Manner() and not used.enabled and not used.saved
        await Player(cluster.connect).play(f"C2= LOGIN bob secret\n{sees}\n")
        await given_back(cluster)
        assert session_at(cluster) is used


async def test_a_connection_that_the_backend_has_closed_is_not_used(tmp_path: Path) -> None:
    async with one_backend(tmp_path) as cluster:
        await Player(cluster.connect).play("C1= LOGIN ana secret\nC1= SELECT INBOX")
        await given_back(cluster)
        session_at(cluster).say_bye("Going down")
        await Player(cluster.connect).play("C2= LOGIN bob secret\nC2= SELECT INBOX")
        await given_back(cluster)


async def test_an_administrators_connection_is_nobody_elses(tmp_path: Path) -> None:
    async with one_backend(tmp_path) as cluster:
        sessions = cluster.backends["be1.test"].backend.sessions
        await Player(cluster.connect).play("C1= LOGIN admin secret\nC1= GETACL user/ana")
        await until_soon(lambda: not sessions)
        assert not len(cluster.frontends[0].frontend.pool)


async def test_no_more_wait_than_the_configuration_allows(tmp_path: Path) -> None:
    async with one_backend(tmp_path, max_upstreams_idle=0) as cluster:
        sessions = cluster.backends["be1.test"].backend.sessions
        await Player(cluster.connect).play("C1= LOGIN ana secret\nC1= SELECT INBOX")
        await until_soon(lambda: not sessions)
