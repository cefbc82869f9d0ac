"""A master that has lost its list: what a frontend says of names that it does not have just now."""

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from murder.errors import UpstreamFailure
from murder.roles.mupdate.database.change import RemoveEntry
from murder.roles.mupdate.database.lacking import mark_lacking
from murder.roles.mupdate.remote.dump import FOLLOWED
from tests.kit.engine import is_shared
from tests.kit.peer import Peer
from tests.kit.waiting import LIMIT_S, until_soon
from tests.rooms.frontend.cluster import running_cluster
from tests.rooms.frontend.server import Running, named, running_frontend

GRACE_S = 600.0


def lose(running: Running, *users: str, ago_s: float = 0.0) -> None:
    """As a replica does that takes the list of a master without these."""
    gone = [RemoveEntry(named(user)) for user in users]
    running.mailboxes.commit([*gone, mark_lacking(len(users), time.time() - ago_s)])


async def answer_to_rcpt(running: Running, user: str) -> bytes:
    client = await Peer.at(running.ports["lmtp"])
    await client.reply()
    await client.replied(b"LHLO mta.test\r\n")
    await client.replied(b"MAIL FROM:<a@example.org>\r\n")
    answer = await client.replied(b"RCPT TO:<%b@x>\r\n" % user.encode())
    client.writer.close()
    return answer


async def test_mail_for_whom_the_list_has_lost_waits_and_is_refused_when_the_time_is_over(
    tmp_path: Path,
) -> None:
    async with running_frontend(tmp_path, {}, {"ana": "be1", "bob": "be1"}) as running:
        assert (await answer_to_rcpt(running, "nobody")).startswith(b"550 5.1.1 ")
        lose(running, "ana")
        assert (await answer_to_rcpt(running, "ana")).startswith(b"451 4.")
        assert (await answer_to_rcpt(running, "nobody")).startswith(b"451 4.")
        lose(running, ago_s=GRACE_S + 1)
        assert (await answer_to_rcpt(running, "ana")).startswith(b"550 5.1.1 ")
        lose(running, "bob")
        assert (await answer_to_rcpt(running, "bob")).startswith(b"451 4.")


async def test_imap_is_unavailable_to_whom_the_list_has_lost_and_makes_them_nothing_new(
    tmp_path: Path,
) -> None:
    met: list[str] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append("be2")

    users = {"ana": "be1", "ana/Archive": "be2", "bob": "be2"}
    backends = {"be2": ("imap", speak)}
    async with running_frontend(tmp_path, backends, users) as running:
        before = await Peer.at(running.ports["imap"])
        await before.line()
        assert (await before.ask(b"a LOGIN ana secret"))[-1].startswith(b"a OK ")
        assert (await before.ask(b'a LIST "" INBOX'))[-1].startswith(b"a OK ")
        lose(running, "ana")
        met.clear()
        for command in (
            b"SELECT INBOX",
            b"STATUS INBOX (MESSAGES)",
            b'LIST "" *',
            b"CREATE INBOX",
            b"CREATE Projects",
            b"SELECT user/bob",  # whose backend might make ana an INBOX, too
            b"SELECT INBOX/Archive",
        ):
            answer = await before.ask(b"b " + command)
            assert len(answer) == 1, answer
            assert answer[-1].startswith(b"b NO [UNAVAILABLE] "), (command, answer)
        assert not met
        client = await Peer.at(running.ports["imap"])
        await client.line()
        refused = await client.ask(b"a LOGIN ana secret")
        assert refused[-1].startswith(b"a NO [UNAVAILABLE] "), refused
        other = await Peer.at(running.ports["imap"])
        await other.line()
        assert (await other.ask(b"a LOGIN bob secret"))[-1].startswith(b"a OK ")
        lose(running, ago_s=GRACE_S + 1)
        assert (await client.ask(b"a LOGIN ana secret"))[-1].startswith(b"a OK ")
        assert (await before.ask(b"b SELECT INBOX"))[-1].startswith(b"b NO [NONEXISTENT]")
        for peer in (before, client, other):
            peer.writer.close()


async def test_nor_does_an_administrator_who_names_the_server(tmp_path: Path) -> None:
    met: list[bytes] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(b"")

    backends = {"be2": ("imap", speak)}
    users = {"ana": "be1", "bob": "be2"}
    async with running_frontend(tmp_path, backends, users, admins=("admin",)) as running:
        admin = await Peer.at(running.ports["imap"])
        await admin.line()
        assert (await admin.ask(b"a LOGIN admin secret"))[-1].startswith(b"a OK ")
        lose(running, "ana")
        met.clear()
        for command in (b"CREATE user/ana be2", b"CREATE Team be2!default"):
            answer = await admin.ask(b"b " + command)
            assert answer[-1].startswith(b"b NO [UNAVAILABLE] "), (command, answer)
        assert not met
        lose(running, ago_s=GRACE_S + 1)
        await admin.ask(b"b CREATE user/ana be2")
        assert met
        admin.writer.close()


async def test_pop3_is_to_be_tried_again_by_whom_the_list_has_lost(tmp_path: Path) -> None:
    async with running_frontend(tmp_path, {}, {"ana": "be1"}) as running:
        lose(running, "ana")
        client = await Peer.at(running.ports["pop3"])
        await client.line()
        client.send(b"USER ana\r\n")
        await client.line()
        client.send(b"PASS secret\r\n")
        assert (await client.line()).startswith(b"-ERR [SYS/TEMP] ")
        client.writer.close()


async def test_whether_there_is_such_a_user_is_not_known_of_whom_the_list_has_lost(
    tmp_path: Path,
) -> None:
    """As it is asked for who comes for them: a proxy, a master user."""
    async with running_frontend(tmp_path, {}, {"ana": "be1", "bob": "be1"}) as running:
        assert running.role.has_inbox("ana")
        lose(running, "ana")
        assert running.role.has_inbox("bob")
        with pytest.raises(UpstreamFailure):
            running.role.has_inbox("ana")
        lose(running, ago_s=GRACE_S + 1)
        assert not running.role.has_inbox("ana")


@pytest.mark.skipif(is_shared(), reason="a master on etcd has its list there, not in its folder")
async def test_a_master_that_begins_empty_is_told_all_again_and_nobody_is_unknown_meanwhile(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path) as cluster:
        frontend, master = cluster.frontends[0].frontend, cluster.master
        ana = await Peer.at(*cluster.address)
        await ana.line()
        await ana.ask(b"a LOGIN ana secret")
        rows = {entry.name: entry.server for entry in frontend.mailboxes.walk()}
        assert rows
        await master.stop()
        shutil.rmtree(master.folder)
        await master.start()

        async def is_back() -> bool:
            answer = (await ana.ask(b"b STATUS INBOX (MESSAGES)"))[-1]
            assert answer.startswith((b"b OK ", b"b NO [UNAVAILABLE] ")), answer
            followed = (frontend.mailboxes.note(FOLLOWED) or b"").decode()
            return answer.startswith(b"b OK ") and followed.startswith(master.mailboxes.epoch)

        async with asyncio.timeout(LIMIT_S):
            while not await is_back():
                pass
        await until_soon(
            lambda: rows == {entry.name: entry.server for entry in frontend.mailboxes.walk()}
        )
        for name, backend in cluster.backends.items():
            own = [entry.name for entry in backend.backend.mailboxes.list.walk()]
            assert [row for row in rows if rows[row] == name] == own
        ana.writer.close()
