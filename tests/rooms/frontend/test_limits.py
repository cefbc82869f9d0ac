"""Limits at a frontend: connections of one user over its protocols, and the PROXY header to a backend."""

import asyncio
import base64
from pathlib import Path

from murder.net.dialogue import Dialogue
from murder.net.sweep import SLOT_S
from tests.kit.peer import Peer
from tests.kit.waiting import until_soon
from tests.rooms.frontend.server import Speak, running_frontend


async def pop3(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"+OK here\r\n")
    while line := await reader.readline():
        writer.write(b"+OK\r\n.\r\n" if line == b"CAPA\r\n" else b"+OK\r\n")


async def test_a_user_beyond_their_connections_is_told_and_let_go(tmp_path: Path) -> None:
    backends: dict[str, tuple[str, Speak]] = {"be1": ("pop3", pop3)}
    async with running_frontend(
        tmp_path, backends, {"ana": "be1"}, max_connections_per_user=2
    ) as running:
        imap, post = running.ports["imap"], running.ports["pop3"]
        first = await Peer.at(imap)
        await first.line()
        first.send(b"a LOGIN eve secret\r\n")
        assert (await first.line()).startswith(b"a OK")
        peers = [await Peer.at(post), await Peer.at(post)]
        for peer in peers:
            await peer.line()
            peer.send(b"USER ana\r\nPASS secret\r\n")
            await peer.line()
            assert (await peer.line()).startswith(b"+OK")
        third = await Peer.at(post)
        await third.line()
        third.send(b"USER ana\r\nPASS secret\r\n")
        await third.line()
        assert (await third.line()).startswith(b"-ERR [SYS/TEMP] ana has 2 connections")
        assert await third.line() == b""
        fourth = await Peer.at(imap)
        await fourth.line()
        fourth.send(b"a LOGIN ana secret\r\n")
        assert (await fourth.line()).startswith(b"a NO [LIMIT]")
        assert (await fourth.line()).startswith(b"* BYE")
        peers[0].writer.close()
        await until_soon(lambda: len(running.listeners[1].connections) <= 1)
        fifth = await Peer.at(imap)
        await fifth.line()
        fifth.send(b"a LOGIN ana secret\r\n")
        assert (await fifth.line()).startswith(b"a OK")


async def test_who_has_unauthenticated_is_a_stranger_again(tmp_path: Path) -> None:
    async with running_frontend(tmp_path, {}, {}, max_connections_per_user=1) as running:
        first = await Peer.at(running.ports["imap"])
        await first.line()
        frontend = running.role.frontend
        assert frontend is not None
        (dialogue,) = frontend.sessions
        assert isinstance(dialogue, Dialogue)
        for _ in range(3):
            first.send(b"a LOGIN ana secret\r\n")
            assert (await first.line()).startswith(b"a OK")
            assert dialogue.activity_counts
            assert dialogue.time_left_s > running.config.frontend.login_timeout_s
            first.send(b"b UNAUTHENTICATE\r\n")
            assert (await first.line()).startswith(b"b OK")
            assert not dialogue.activity_counts
            assert dialogue.time_left_s <= running.config.frontend.login_timeout_s
            assert dialogue.sweep_slot
            due_s = dialogue.sweep_slot * SLOT_S - asyncio.get_running_loop().time()
            assert due_s <= running.config.frontend.login_timeout_s + SLOT_S
        second = await Peer.at(running.ports["imap"])
        await second.line()
        second.send(b"a LOGIN ana secret\r\n")
        assert (await second.line()).startswith(b"a OK")


async def test_a_master_user_comes_to_the_mailbox_of_whom_they_act_for(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK here\r\n")
        while line := await reader.readline():
            seen.append(line)
            writer.write(b"+OK\r\n.\r\n" if line == b"CAPA\r\n" else b"+OK\r\n")

    backends: dict[str, tuple[str, Speak]] = {"be1": ("pop3", noting)}
    async with running_frontend(
        tmp_path, backends, {"ana": "be1"}, proxies=("migration",)
    ) as running:
        peer = await Peer.at(running.ports["pop3"])
        await peer.line()
        for user, answer in ((b"eve", b"-ERR [AUTH]"), (b"migration", b"+OK")):
            initial = base64.b64encode(b"ana\0" + user + b"\0secret")
            peer.send(b"AUTH PLAIN " + initial + b"\r\n")
            assert (await peer.line()).startswith(answer)
        (asked,) = [line for line in seen if line.startswith(b"AUTH PLAIN ")]
        assert base64.b64decode(asked.split()[2]) == b"ana\0murder\0secret"


async def test_a_backend_is_told_the_clients_address_where_it_wants_a_proxy_header(
    tmp_path: Path,
) -> None:
    seen: list[bytes] = []

    async def proxied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readline())
        await pop3(reader, writer)

    backends: dict[str, tuple[str, Speak]] = {"be1": ("pop3", proxied)}
    async with running_frontend(
        tmp_path, backends, {"ana": "be1"}, upstream_proxy_protocol="v1"
    ) as running:
        peer = await Peer.at(running.ports["pop3"])
        await peer.line()
        peer.send(b"USER ana\r\nPASS secret\r\n")
        await peer.line()
        assert (await peer.line()).startswith(b"+OK")
        port = peer.writer.get_extra_info("sockname")[1]
        assert seen[0].startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 %d " % port)
