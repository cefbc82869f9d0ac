"""Parts of the list that a master tells by our own commands."""

from pathlib import Path

from murder.roles.mupdate.remote.client import MasterClient
from tests.rooms.mupdate.nodes import Raw, master


async def test_rows_are_told_by_how_their_names_begin_and_servers_by_how_many_they_have(
    tmp_path: Path,
) -> None:
    async with master(tmp_path) as server:
        raw = await Raw.connect(server.port)
        assert b"* PREFIX" in raw.banner and b"* SERVERS" in raw.banner
        client = MasterClient(server.target)
        assert await client.servers() == {} and await client.prefixed(b"") == []
        for name in (b"user.ana", b"user.ana.b", b"user.anab", b"user.bob", b"e.org!user.ana"):
            await client.activate(name, b"be1.test!default", b"ana\tlr\t")
        for number in range(1200):
            await client.activate(b"user.bob.%d" % number, b"be2.test!p", b"bob\tlr\t")
        await client.reserve(b"user.anac", b"be3.test!default")
        rows = await client.prefixed(b"user.ana")
        assert rows is not None
        assert [(row.name, row.is_active, row.raw_acl) for row in rows] == [
            (b"user.ana", True, b"ana\tlr\t"),
            (b"user.ana.b", True, b"ana\tlr\t"),
            (b"user.anab", True, b"ana\tlr\t"),
            (b"user.anac", False, b""),
        ]
        for prefix, count in (
            *((b"user.bob.", 1200), (b"user.bob.1", 311), (b"e.org!user.a", 1), (b"x", 0)),
            *((b"e.org!", 1), (b"", 1206)),
        ):
            rows = await client.prefixed(prefix)
            assert rows is not None and len(rows) == count, prefix
        long = b"n" * 2000
        assert (await raw.ask(b"L PREFIX {%d+}\r\n%b" % (len(long), long)))[-1].startswith(b"L OK")
        assert (await raw.ask(b"L BELOW {%d+}\r\n%b" % (len(long), long)))[-1].startswith(b"L OK")
        assert await client.servers() == {"be1.test": 5, "be2.test": 1200, "be3.test": 1}
        await client.delete(b"user.anac")
        await client.activate(b"user.eve", b"be2.test!p", b"eve\tlr\t")
        assert await client.servers() == {"be1.test": 5, "be2.test": 1201}
        assert (await raw.ask(b"S SERVERS"))[:2] == [
            b'S MAILBOX "be1.test" "be1.test" "5"',
            b'S MAILBOX "be2.test" "be2.test" "1201"',
        ]
        assert (await raw.ask(b'S SERVERS "x"'))[0].startswith(b"S BAD")
        assert (await raw.ask(b"P PREFIX"))[0].startswith(b"P BAD")
        await client.close()
