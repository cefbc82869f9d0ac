"""CREATE through a frontend: by what backends say of themselves at this moment, past those that are away."""

from dataclasses import replace
from pathlib import Path

from murder.model.name import MailboxName
from tests.kit.peer import Peer
from tests.kit.ports import free_port
from tests.kit.sections import server_section
from tests.rooms.frontend.cluster import Cluster, running_cluster

WEIGHT = 'SETMETADATA "" (/shared/vendor/murder/weight "%d")'


async def admin_at(address: tuple[str, int]) -> Peer:
    peer = await Peer.at(*address)
    await peer.until(b"* OK")
    await peer.ok("LOGIN admin secret")
    return peer


def home(cluster: Cluster, name: bytes) -> str:
    row = cluster.frontends[0].frontend.mailboxes.find(MailboxName(name))
    assert row is not None
    return row.server


async def test_a_backend_s_weight_counts_as_it_is_now(tmp_path: Path) -> None:
    """Also where this session, or another one, has heard another one before."""
    async with running_cluster(tmp_path) as cluster:
        client = await admin_at(cluster.address)
        first = await admin_at(cluster.backends["be1.test"].address)
        for number, weight in enumerate((1, 0, 0, 1, 0)):
            await first.ok(WEIGHT % weight)
            await client.ok(f"CREATE user/new{number}")
            there = "be1.test" if weight else "be2.test"
            assert home(cluster, b"user.new%d" % number) == there
        for peer in (client, first):
            await peer.close()


async def test_a_backend_that_is_away_gets_none(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        frontend = cluster.frontends[0].frontend
        away = server_section(address="127.0.0.1", imap=free_port())
        servers = {**frontend.whole_config.servers, "be0.test": away}
        frontend.whole_config = replace(frontend.whole_config, servers=servers)
        frontend.upstreams.configure(frontend.whole_config)
        client = await admin_at(cluster.address)
        for number in range(3):
            await client.ok(f"CREATE user/new{number}")
            assert home(cluster, b"user.new%d" % number) == "be1.test"
        await client.close()
