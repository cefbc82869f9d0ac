"""Several sessions, at two frontends, take the same messages elsewhere at the same instant: each is in one place then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.kit.dialogue import Player
from tests.rooms.backend.server import memory_store
from tests.rooms.frontend.cluster import Cluster, running_cluster
from tests.rooms.frontend.names.test_list import Peer, logged_in

MESSAGES = 20
ROUNDS = 4
TARGETS = ("user/bob/t0", "user/bob/t1", "INBOX/t2")  # two across, one within the backend

XREMOVE = r"""
Cbe1= LOGIN ana secret
Cbe1= APPEND INBOX {...}
Cbe1> one
Cbe1= APPEND INBOX (\Deleted) {...}
Cbe1> two
Cbe1: a0 UID XREMOVE 1
Sbe1~ a0 BAD $_
Cbe1= EXAMINE INBOX
Cbe1: a1 UID XREMOVE 1
Sbe1: a1 NO [READ-ONLY] $_
Cbe1= SELECT INBOX
Cbe1: a2 UID XREMOVE 1,7
Sbe1: * 1 EXPUNGE
Sbe1: * 1 RECENT
Sbe1: a2 OK [X-REMOVED $first 1] Completed
Cbe1: a3 UID XREMOVE 1
Sbe1: a3 OK [X-REMOVED $first] Completed
Cbe1: a4 UID XREMOVE 1:*
Sbe1: * 1 EXPUNGE
Sbe1: * 0 RECENT
Sbe1: a4 OK [X-REMOVED $_ 2] Completed
"""


@asynccontextmanager
async def two_frontends(folder: Path, how: str) -> AsyncIterator[Cluster]:
    """Before two backends, the first one as it is or (`claim`) without UID XREMOVE."""
    suppressed = ("X-REMOVE",) if how == "claim" else ()
    async with running_cluster(folder, {}, frontends=0) as cluster:
        for name, user in (("be1.test", "ana"), ("be2.test", "bob")):
            await cluster.add_backend(name, (user,), memory_store, suppress_capabilities=suppressed)
        for _ in range(2):
            await cluster.add_frontend()
        yield cluster


async def prepare(cluster: Cluster) -> Peer:
    ana = await logged_in(cluster.address, "ana")
    bob = await logged_in(cluster.address, "bob")
    for target in TARGETS[:2]:
        name = target.replace("user/bob", "INBOX")
        await bob.ok(f"CREATE {name}")
        await bob.ok(f"SETACL {name} ana lrswipkxte")
    await ana.ok(f"CREATE {TARGETS[2]}")
    return ana


async def rivals(cluster: Cluster, count: int) -> list[Peer]:
    """So many at either frontend, with INBOX selected."""
    found = []
    for frontend in cluster.frontends:
        for _ in range(count):
            peer = await logged_in(frontend.address, "ana")
            await peer.ok("SELECT INBOX")
            found.append(peer)
    return found


async def subjects(peer: Peer, mailbox: str) -> list[str]:
    await peer.ok(f"EXAMINE {mailbox}")
    answer = await peer.ask("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    return [line[9:].decode() for line in answer.splitlines() if line[:9] == b"Subject: "]


@pytest.mark.parametrize("how", ["remove", "claim"])
@pytest.mark.parametrize("by", ["UID MOVE", "REPLACE"])
async def test_each_message_is_taken_once(by: str, how: str, tmp_path: Path) -> None:
    # a MOVE within a backend knows nothing of a claim
    targets = TARGETS if how == "remove" else TARGETS[:2]

    async def take(peer: Peer, number: int) -> bytes:
        target = targets[number % len(targets)]
        if by == "UID MOVE":
            return await peer.ask(f"UID MOVE 1:* {target}")
        return await peer.ask(f"REPLACE 1 {target} {{14+}}\r\nSubject: 0\r\n\r\n")

    async with two_frontends(tmp_path, how) as cluster:
        ana = await prepare(cluster)
        expected = []
        for number in range(ROUNDS):
            names = [f"{number}-{at}" for at in range(MESSAGES if by == "UID MOVE" else 1)]
            expected += names if by == "UID MOVE" else ["0"]
            for name in names:
                octets = f"Subject: {name}\r\n\r\n"
                marks = "(\\Deleted) " if name.endswith("7") else ""
                await ana.ok(f"APPEND INBOX {marks}{{{len(octets)}+}}\r\n{octets}")
            peers = await rivals(cluster, len(targets))
            answers = await asyncio.gather(*(take(peer, at) for at, peer in enumerate(peers)))
            assert any(b"t OK" in answer for answer in answers), answers
            for peer in peers:
                await peer.ok("LOGOUT")
        found = [name for target in TARGETS for name in await subjects(ana, target)]
        assert sorted(found) == sorted(expected)
        assert await subjects(ana, "INBOX") == []


async def test_xremove_says_what_it_has_removed(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await Player(cluster.connect).play(XREMOVE)
