"""Nodes prove themselves by certificate: STARTTLS, EXTERNAL, what each role may do (RFC 3656 §4.10)."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from murder.config import TlsConfig
from murder.errors import Refusal, UpstreamFailure, UpstreamKind
from murder.net.tls import client_context, listening_context
from murder.pki.authority import init_authority, issue
from murder.roles.mupdate.remote.client import MasterClient
from murder.roles.mupdate.remote.link import Target, open_link
from tests.kit.waiting import pause_here, until_soon
from tests.rooms.mupdate.nodes import Follower, Raw, ScramUsers, Server, follower, master


class Cluster:
    """An authority, a master with a certificate, and certificates for its nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        init_authority(folder)
        self.issue("master.test", "mupdate")

    def issue(self, name: str, *roles: str) -> None:
        issue(self.folder, name, roles)

    def files(self, name: str) -> tuple[Path, Path, Path]:
        return self.folder / "ca.pem", self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def target(self, server: Server, name: str) -> Target:
        context = client_context(*self.files(name))
        context.check_hostname = False
        return replace(server.target, tls=context, user="", password="")


@asynccontextmanager
async def master_of(cluster: Cluster, folder: Path) -> AsyncIterator[Server]:
    server = Server(folder, allow_plaintext=False)
    await server.start()
    ca, certificate, key = cluster.files("master.test")
    server.service.tls = listening_context(
        TlsConfig(ca=ca, certificate=certificate, key=key), public=False
    )
    try:
        yield server
    finally:
        await server.stop()


async def test_a_backend_changes_its_own_rows_and_no_others(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "ca")
    cluster.issue("be1.test", "backend")
    cluster.issue("be2.test", "backend")
    cluster.issue("ops.test", "operator")

    async with master_of(cluster, tmp_path / "m") as server:
        one = MasterClient(cluster.target(server, "be1.test"))
        two = MasterClient(cluster.target(server, "be2.test"))
        ops = MasterClient(cluster.target(server, "ops.test"))
        await one.reserve(b"user.a", b"be1.test!p")
        await one.activate(b"user.a", b"be1.test!p", b"a\tl\t")
        for attempt in (
            two.activate(b"user.b", b"be1.test!p", b""),
            two.activate(b"user.a", b"be2.test!p", b""),
            two.reserve(b"user.a", b"be2.test!p"),
            two.deactivate(b"user.a", b"be1.test!p"),
            two.delete(b"user.a"),
        ):
            with pytest.raises(Refusal):
                await attempt
        assert [e.name for e in await two.list_server("be1.test")] == [b"user.a"]
        assert await two.list_server("be2.test") == []
        await one.deactivate(b"user.a", b"be1.test!p")
        await one.deactivate(b"user.a", b"be1.test!p")  # done already
        await two.activate(b"user.a", b"be2.test!p", b"a\tl\t")
        await one.delete(b"never")
        await ops.delete(b"user.a")
        assert await one.find(b"user.a") is None
        for client in (one, two, ops):
            await client.close()


async def test_a_frontend_reads_and_follows_and_may_not_write(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "ca")
    cluster.issue("fe1.test", "frontend")

    async with master_of(cluster, tmp_path / "m") as server:
        target = cluster.target(server, "fe1.test")
        client = MasterClient(target)
        with pytest.raises(Refusal):
            await client.activate(b"user.b", b"fe1.test!p", b"")
        await client.close()
        one: Follower
        async with follower(tmp_path / "r", target) as one:
            await one.replica.until_synchronised(10)


async def test_the_banner_is_honest_before_and_under_tls(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "ca")
    cluster.issue("be1.test", "backend")

    async def banner_of(server: Server, context: ssl.SSLContext) -> list[bytes]:
        raw = await Raw.connect(server.port, None)
        assert raw.banner[:2] == [b"* AUTH", b"* STARTTLS"]
        raw.send(b'S1 STARTTLS\r\nX FIND "a"\r\n')  # what follows in the clear is no command
        assert (await raw.message()).startswith(b"S1 OK ")
        await raw.writer.start_tls(context, server_hostname="master.test")
        lines = await raw.until(b"* OK")
        assert (await raw.ask(b"S2 STARTTLS"))[0].startswith(b"S2 NO")
        await raw.close()
        return lines

    async with master_of(cluster, tmp_path / "m") as server:
        with_certificate = await banner_of(server, client_context(*cluster.files("be1.test")))
        assert with_certificate[0] == b'* AUTH "EXTERNAL" "PLAIN"'
        assert b"* STARTTLS" not in with_certificate
        without = await banner_of(server, client_context(cluster.files("x")[0], None, None))
        assert without[0] == b'* AUTH "PLAIN"'


async def test_the_wrong_master_is_not_spoken_to(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "ca")
    cluster.issue("be1.test", "backend")
    stranger = Cluster(tmp_path / "other")

    async def kind_of(target: Target) -> UpstreamKind:
        with pytest.raises(UpstreamFailure) as caught:
            (await open_link(target)).abort()
        return caught.value.kind

    async with master_of(cluster, tmp_path / "m") as server:
        good = cluster.target(server, "be1.test")
        foreign = client_context(*stranger.files("master.test"))
        foreign.check_hostname = False
        assert await kind_of(replace(good, tls=foreign)) is UpstreamKind.TLS
        assert await kind_of(replace(good, port=1)) is UpstreamKind.CONNECT
        assert await kind_of(replace(good, user="murder", password="x")) is UpstreamKind.AUTH
        cluster.issue("be9.test", "backend")  # a backend's certificate is not a master's
        ca, certificate, key = cluster.files("be9.test")
        server.service.tls = listening_context(
            TlsConfig(ca=ca, certificate=certificate, key=key), public=False
        )
        assert await kind_of(good) is UpstreamKind.TLS
        server.service.tls = None
        assert await kind_of(good) is UpstreamKind.TLS


async def test_a_silent_master_is_given_up_in_time(tmp_path: Path) -> None:
    silent = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    target = Target("127.0.0.1", port, None, "a", "b", 1.0, 0.1)
    with pytest.raises(UpstreamFailure) as caught:
        await open_link(target)
    assert caught.value.kind is UpstreamKind.TIMEOUT
    silent.close()


async def test_scram_logs_in_without_showing_the_password(tmp_path: Path) -> None:
    async with master(tmp_path, auth=ScramUsers()) as server:
        raw = await Raw.connect(server.port, None)
        assert raw.banner[0] == b'* AUTH "SCRAM-SHA-256" "PLAIN"'
        client = MasterClient(server.target)  # without TLS it takes SCRAM by itself
        await client.activate(b"a", b"be1!p", b"")
        await client.close()
        with pytest.raises(UpstreamFailure) as caught:
            await open_link(replace(server.target, password="wrong"))
        assert caught.value.kind is UpstreamKind.AUTH


async def test_a_peer_that_goes_away_in_the_middle_of_the_handshake_leaves_nothing(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path / "ca")

    async with master_of(cluster, tmp_path / "m") as server:
        for going in ("close", "abort", "stop"):
            raw = await Raw.connect(server.port, None)
            assert (await raw.ask(b"S STARTTLS"))[0].startswith(b"S OK")
            raw.send(b"\x16\x03\x01\x02\x00\x01\x00")  # a ClientHello begins
            if going == "close":
                await raw.close()
            elif going == "abort":
                raw.writer.transport.abort()
            else:
                await pause_here(0.01, "in the middle of the handshake, of which nobody tells")
                server.listener.abort()
            await until_soon(lambda: not server.service.dialogues)


@pytest.mark.parametrize(("name", "role"), [("be1.test", "backend"), ("anna", "operator")])
async def test_a_certificate_has_so_many_connections_and_others_their_own(
    name: str, role: str, tmp_path: Path
) -> None:
    cluster = Cluster(tmp_path / "ca")
    cluster.issue(name, role)
    cluster.issue("be2.test", "backend")

    async with master_of(cluster, tmp_path / "m") as server:
        server.service.config = replace(server.service.config, max_connections_per_node=2)
        mine = [await open_link(cluster.target(server, name)) for _ in range(2)]
        with pytest.raises(UpstreamFailure) as refused:
            await open_link(cluster.target(server, name))
        assert "max_connections_per_node" in refused.value.text
        await (other := MasterClient(cluster.target(server, "be2.test"))).ping()
        mine[0].abort()
        await until_soon(lambda: len([one for one in server.service.dialogues if one.peer]) <= 2)
        (await open_link(cluster.target(server, name))).abort()
        mine[1].abort()
        await other.close()
