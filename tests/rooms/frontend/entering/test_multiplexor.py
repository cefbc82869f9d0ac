"""A frontend as a multiplexor before backends of a murder: who is passed on as a whole, and who is not."""

from pathlib import Path

from murder.config.sections import MultiplexorConfig
from murder.roles.frontend.multiplexor.pipe import Pipe
from tests.kit.peer import Peer
from tests.kit.waiting import until_soon
from tests.rooms.frontend.cluster import Cluster, running_cluster


async def entered(cluster: Cluster, user: str) -> Peer:
    peer = await Peer.at(*cluster.address)
    await peer.line()
    await peer.ok(f"LOGIN {user} secret".encode())
    return peer


def states(cluster: Cluster) -> list[str | None]:
    frontend = cluster.frontends[0].role.frontend
    assert frontend is not None
    return [one.describe().state for one in frontend.sessions]  # type: ignore[attr-defined]


async def test_who_has_all_at_one_server_is_passed_on(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, mode="multiplexor") as cluster:
        peer = await entered(cluster, "ana")
        assert states(cluster) == ["pipe"]
        words = (await peer.ok(b"CAPABILITY"))[0]
        assert b"IMAP4rev1" in words and b"UNAUTHENTICATE" not in words
        await peer.ok(b"CREATE INBOX/one")
        await peer.close()


async def test_nobody_becomes_another_by_the_frontends_certificate(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, mode="multiplexor") as cluster:
        peer = await entered(cluster, "ana")
        said = await peer.ask(b"a UNAUTHENTICATE")
        assert said == [b"a NO [CANNOT] Through this proxy nobody becomes another: connect again"]
        said = await peer.ask(b"b AUTHENTICATE EXTERNAL Ym9i")
        assert said[-1].startswith(b"b BAD")
        # nor does it say what only a proxy may say
        said = await peer.ask(b'c CREATE INBOX/x ("default")')
        assert said[-1].startswith((b"c NO", b"c BAD")), said
        await peer.close()


async def test_who_has_mailboxes_at_two_servers_is_served_by_commands(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, mode="multiplexor") as cluster:
        ana, bob = await entered(cluster, "ana"), await entered(cluster, "bob")
        assert states(cluster) == ["pipe", "pipe"]
        await ana.ok(b"SETACL INBOX bob lr")
        await bob.close()
        await until_soon(lambda: states(cluster) == ["pipe"])
        bob = await entered(cluster, "bob")
        assert sorted(map(str, states(cluster))) == ["authenticated", "pipe"]
        await bob.ok(b"SELECT user/ana")
        await bob.ok(b"SELECT INBOX")
        await ana.close()
        await bob.close()


async def test_a_pipe_is_ended_counted_and_drained_as_any_session(tmp_path: Path) -> None:
    async with running_cluster(
        tmp_path, mode="multiplexor", max_connections_per_user=1, idle_timeout_s=1800.0
    ) as cluster:
        peer = await entered(cluster, "ana")
        second = await Peer.at(*cluster.address)
        await second.line()
        said = await second.ask(b"a LOGIN ana secret")
        assert said[-1].startswith(b"a NO [LIMIT]")
        assert (await second.line()).startswith(b"* BYE")
        frontend = cluster.frontends[0].role.frontend
        assert frontend is not None
        (pipe,) = [one for one in frontend.sessions if isinstance(one, Pipe)]
        pipe.say_bye("An operator ends it")
        assert await peer.line() == b"* BYE [UNAVAILABLE] An operator ends it"
        assert await peer.line() == b"" and peer.reader.at_eof()
        await peer.close()
        await second.close()
        await until_soon(lambda: not frontend.sessions)
        peer = await entered(cluster, "ana")  # counted no longer
        peer.send(b"b NOOP\r\n")
        await peer.until(b"b OK")
        await peer.close()


async def test_what_nobody_reads_is_not_read_at_the_other_end(tmp_path: Path) -> None:
    """Megabytes for a client that sleeps stay at the server; then they all come."""
    async with running_cluster(tmp_path, mode="multiplexor") as cluster:
        peer = await entered(cluster, "ana")
        mail = b"Subject: x\r\n\r\n" + b"y" * 4_000_000
        peer.send(b"a APPEND INBOX {%d+}\r\n%s\r\n" % (len(mail), mail))
        await peer.until(b"a OK")
        await peer.ok(b"SELECT INBOX")
        frontend = cluster.frontends[0].role.frontend
        assert frontend is not None
        (pipe,) = frontend.sessions
        for _ in range(20):
            peer.send(b"f FETCH 1 BODY.PEEK[]\r\n")
        await until_soon(lambda: pipe.connection.writing_paused)
        assert pipe.connection.pending() < 2_000_000
        for _ in range(20):
            said = await peer.until(b"f OK")
            assert sum(map(len, said)) > len(mail)
        await peer.close()


async def test_own_mailboxes_alone_can_decide(tmp_path: Path) -> None:
    config = MultiplexorConfig(shared="own")
    async with running_cluster(tmp_path, mode="multiplexor", multiplexor=config) as cluster:
        ana = await entered(cluster, "ana")
        await ana.ok(b"SETACL INBOX bob lr")
        bob = await entered(cluster, "bob")
        assert states(cluster) == ["pipe", "pipe"]
        await ana.close()
        await bob.close()
