"""A mailbox that is just being moved is nowhere for a moment: LIST waits for it, or clients would drop what they have."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.model.name import MailboxName, collation_key, inbox_of
from murder.net.outgoing.relay import ImapUpstream
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.mailboxes import list as murder_list
from murder.roles.frontend.imap.patience import Patience
from murder.roles.mupdate.database import visibility
from murder.roles.mupdate.remote.client import MasterClient
from tests.kit.peer import Peer
from tests.kit.waiting import until_soon
from tests.rooms.frontend.cluster import running_cluster

INBOX = inbox_of("ana")
BOX = MailboxName(INBOX + b".box")
COMMANDS = ('LIST "" *', 'LIST "" (INBOX INBOX/%) RETURN (SUBSCRIBED)', 'RLIST "" *')


@pytest.mark.parametrize("moving", [INBOX, BOX])
async def test_list_waits_for_what_is_being_moved(
    moving: MailboxName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = asyncio.Event()
    pause = Patience.pause

    async def look(self: Patience) -> bool:
        waits.set()
        return await pause(self)

    monkeypatch.setattr(Patience, "pause", look)
    async with running_cluster(tmp_path) as cluster, asyncio.timeout(30):
        mailboxes = cluster.frontends[0].frontend.mailboxes
        peer = await Peer.at(*cluster.address)
        await peer.until(b"* OK")
        await peer.ok("LOGIN ana secret")
        await peer.ok("CREATE INBOX/box")
        row = mailboxes.find(moving)
        assert row is not None
        master = MasterClient(cluster.master.target)

        def is_on_its_way() -> bool:
            now = mailboxes.find(moving)
            return now is not None and not now.is_active

        for command in COMMANDS:
            await master.deactivate(moving, row.raw_location)
            await until_soon(is_on_its_way)
            waits.clear()
            asked = asyncio.create_task(peer.ok(command))
            begun = asyncio.create_task(waits.wait())
            await asyncio.wait((asked, begun), return_when=asyncio.FIRST_COMPLETED)
            await master.activate(moving, row.raw_location, row.raw_acl)
            told = {line.rpartition(b" ")[2] for line in await asked if b" LIST " in line}
            assert told == {b"INBOX", b"INBOX/box"}, command
            assert await begun
        await master.close()
        await peer.close()


@pytest.mark.parametrize("moving", [(INBOX,), (BOX,), (INBOX, BOX)])
async def test_what_stays_on_its_way_is_listed(
    moving: tuple[MailboxName, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a backend has died in the middle of a move: a client that does not see its folders drops what it has."""
    monkeypatch.setattr("murder.roles.frontend.imap.patience.ON_ITS_WAY_S", 0.0)
    monkeypatch.setattr(Patience.__init__, "__defaults__", (0.0,))
    async with running_cluster(tmp_path) as cluster, asyncio.timeout(30):
        mailboxes = cluster.frontends[0].frontend.mailboxes
        peer = await Peer.at(*cluster.address)
        await peer.until(b"* OK")
        await peer.ok("LOGIN ana secret")
        for external in ("box", "box/below", "other"):
            await peer.ok(f"CREATE INBOX/{external}")
        before = {command: await peer.ok(command) for command in COMMANDS}
        master = MasterClient(cluster.master.target)
        for name in moving:
            row = mailboxes.find(name)
            assert row is not None
            await master.deactivate(name, row.raw_location)
        await until_soon(
            lambda: not any(row.is_active for name in moving if (row := mailboxes.find(name)))
        )
        for command in COMMANDS:
            told = await peer.ok(command)
            assert [line for line in told if b" LIST " in line] == [
                line for line in before[command] if b" LIST " in line
            ]
        other = await Peer.at(*cluster.address)
        await other.until(b"* OK")
        await other.ok("LOGIN bob secret")
        assert not any(b"ana" in line for line in await other.ok('LIST "" *'))
        await other.close()
        await master.close()
        await peer.close()


@pytest.mark.parametrize("moving", [INBOX, BOX])
async def test_what_begins_to_move_while_backends_are_asked_is_listed(
    moving: MailboxName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = murder_list._special_uses
    async with running_cluster(tmp_path) as cluster, asyncio.timeout(30):
        mailboxes = cluster.frontends[0].frontend.mailboxes
        peer = await Peer.at(*cluster.address)
        await peer.until(b"* OK")
        await peer.ok("LOGIN ana secret")
        await peer.ok("CREATE INBOX/box")
        master = MasterClient(cluster.master.target)
        row = mailboxes.find(moving)
        assert row is not None
        raw_location = row.raw_location

        def is_on_its_way() -> bool:
            now = mailboxes.find(moving)
            return now is not None and not now.is_active

        async def begin_to_move(
            dialogue: FrontendImap, home: ImapUpstream
        ) -> dict[MailboxName, tuple[str, ...]]:
            uses = await ask(dialogue, home)
            await master.deactivate(moving, raw_location)
            await until_soon(is_on_its_way)
            return uses

        monkeypatch.setattr(murder_list, "_special_uses", begin_to_move)
        told = [line.split()[-1] for line in await peer.ok('LIST "" *') if b" LIST " in line]
        assert told == [b"INBOX", b"INBOX/box"]
        await master.close()
        await peer.close()


async def test_nor_is_what_follows_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A move takes what is below first; the INBOX goes when that has been looked at."""
    monkeypatch.setattr(Patience.__init__, "__defaults__", (0.0,))
    async with running_cluster(tmp_path) as cluster, asyncio.timeout(30):
        mailboxes = cluster.frontends[0].frontend.mailboxes
        peer = await Peer.at(*cluster.address)
        await peer.until(b"* OK")
        await peer.ok("LOGIN ana secret")
        await peer.ok("CREATE INBOX/box")
        rows = {name: mailboxes.find(name) for name in (BOX, INBOX)}
        master, look = MasterClient(cluster.master.target), murder_list._Answer._look_at_own

        async def move(name: MailboxName) -> None:
            row = rows[name]
            assert row is not None
            await master.deactivate(name, row.raw_location)
            await until_soon(lambda: not (now := mailboxes.find(name)) or not now.is_active)

        async def look_and_go(self: Any) -> tuple[list[MailboxName], bool, set[str]]:
            seen = await look(self)
            row = mailboxes.find(INBOX)
            if row is not None and row.is_active:
                await move(INBOX)
            return seen

        await move(BOX)
        monkeypatch.setattr(murder_list._Answer, "_own_servers", nothing)
        monkeypatch.setattr(murder_list._Answer, "_look_at_own", look_and_go)
        told = [line.split()[-1] for line in await peer.ok('LIST "" *') if b" LIST " in line]
        assert told == [b"INBOX", b"INBOX/box"]
        await master.close()
        await peer.close()


async def test_nor_is_what_begins_to_move_while_the_first_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told beside them may be asked of backends for long."""
    monkeypatch.setattr("murder.serve.list.ROWS", 1)
    send = murder_list._Answer.send
    async with running_cluster(tmp_path) as cluster, asyncio.timeout(30):
        mailboxes = cluster.frontends[0].frontend.mailboxes
        peer = await Peer.at(*cluster.address)
        await peer.until(b"* OK")
        await peer.ok("LOGIN ana secret")
        for external in ("aside", "box", "other"):
            await peer.ok(f"CREATE INBOX/{external}")
        row = mailboxes.find(BOX)
        assert row is not None
        raw_location = row.raw_location
        master = MasterClient(cluster.master.target)

        async def send_and_go(self: Any) -> None:
            await send(self)
            if (now := mailboxes.find(BOX)) is not None and now.is_active:
                await master.deactivate(BOX, raw_location)
                await until_soon(lambda: not (row := mailboxes.find(BOX)) or not row.is_active)

        monkeypatch.setattr(murder_list._Answer, "send", send_and_go)
        for bound in ("FIRST_BATCH", "ROWS"):  # of what is read ahead, and would have it still
            monkeypatch.setattr(visibility, bound, 1)
        told = [line.split()[-1] for line in await peer.ok('LIST "" *') if b" LIST " in line]
        assert told == [b"INBOX", b"INBOX/aside", b"INBOX/box", b"INBOX/other"]
        await master.close()
        await peer.close()


NAMES = st.sets(
    st.sampled_from([MailboxName(b"user.ana" + end) for end in (b"", b".a", b"-b", b".c")])
)


@given(NAMES, NAMES)
def test_all_own_and_all_that_is_seen_are_told_once_in_order(
    own: set[MailboxName], seen: set[MailboxName]
) -> None:
    others = {MailboxName(b"news"), MailboxName(b"user.ana.b"), MailboxName(b"user.bob")}
    told = murder_list._with_all(
        sorted(own, key=collation_key), sorted(seen | others, key=collation_key)
    )
    assert list(told) == sorted(own | seen | others, key=collation_key)


async def nothing(_: object) -> set[str]:
    return set()
