"""A master's users have names in DNS that follow them: a real BIND."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from murder.config.dns import DnsConfig
from murder.config.value import Endpoint
from murder.errors import Refusal
from murder.roles.mupdate.zone.keeper import MOST_APART, ZoneKeeper
from tests.kit.ports import free_port
from tests.kit.programs.bind import KEY, bind, why_not
from tests.kit.waiting import until_soon
from tests.rooms.mupdate.nodes import Raw, Server, master

ZONE = "imap.example.org"
pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def at(port: int, **more: object) -> DnsConfig:
    place = Endpoint("127.0.0.1", port)
    settings = {"key_name": "murder", "key": KEY, "timeout_s": 5.0, **more}
    return DnsConfig(suffix=ZONE, follows=True, server=place, **settings)  # type: ignore[arg-type]


@contextmanager
def kept(server: Server, config: DnsConfig) -> Iterator[ZoneKeeper]:
    keeper = ZoneKeeper(config, server.mailboxes, ["be9.example.org"])
    server.keepers.append(keeper)
    keeper.start()
    try:
        yield keeper
    finally:
        keeper.stop()
        server.keepers.remove(keeper)


async def put(peer: Raw, user: str, server: str) -> None:
    words = f'"user.{user}" "{server}!default"'
    await peer.ok(f'ACTIVATE {words} "{user}\tlr\t"')


async def test_names_follow_users(tmp_path: Path) -> None:
    with bind(ZONE) as named:

        def leads(user: str, where: str) -> bool:
            return named.cname(f"{user}.{ZONE}") == (f"{where}." if where else "")

        async with master(tmp_path) as server:
            peer = await Raw.connect(server.port)
            await put(peer, "anna", "be1.example.org")
            with kept(server, at(named.port)), capture_logs() as log:
                await until_soon(lambda: leads("anna", "be1.example.org"))
                await peer.ok('DEACTIVATE "user.anna" "be1.example.org!default"')
                await put(peer, "ben", "be1.example.org")
                await until_soon(lambda: leads("ben", "be1.example.org"))
                assert leads("anna", "be1.example.org")  # while they are on their way
                await put(peer, "anna", "be2.example.org")
                await put(peer, "bob", "be1.example.org")
                await put(peer, "www", "be1.example.org")
                await until_soon(lambda: leads("bob", "be1.example.org"))
                await until_soon(lambda: leads("anna", "be2.example.org"))
                assert leads("www", "web.example.org")  # others have made it
                await peer.ok('DELETE "user.anna"')
                await until_soon(lambda: leads("anna", ""))
                for number in range(MOST_APART + 1):  # then the whole zone is compared
                    await put(peer, f"u{number}", "be2.example.org")
                await until_soon(lambda: leads(f"u{MOST_APART}", "be2.example.org"))
            assert {line["event"] for line in log} == {"dns.updated"}
            await peer.close()


async def test_a_server_that_was_away_hears_it_later(tmp_path: Path) -> None:
    port = free_port()
    async with master(tmp_path) as server:
        peer = await Raw.connect(server.port)
        with kept(server, at(port)), capture_logs() as log:
            await put(peer, "anna", "be1.example.org")
            await until_soon(lambda: log)
            assert log[0]["event"] == "dns.failed"
            assert "Connection refused" in log[0]["problem"]
            with bind(ZONE, port) as named:
                name = f"anna.{ZONE}"
                await until_soon(lambda: named.cname(name) == "be1.example.org.")
        await peer.close()


async def test_a_user_who_can_have_no_name_holds_up_nobody(tmp_path: Path) -> None:
    with bind(ZONE) as named:
        async with master(tmp_path) as server:
            peer = await Raw.connect(server.port)
            with kept(server, at(named.port)), capture_logs() as log:
                await put(peer, "anna", "be1.example.org")
                await until_soon(lambda: named.cname(f"anna.{ZONE}"))
                for user in ("x" * 70, "a@b@", "b@x_y", "-"):
                    await put(peer, user, "be1.example.org")
                await put(peer, "ben", "be1.example.org")
                await until_soon(lambda: named.cname(f"ben.{ZONE}") == "be1.example.org.")
            assert {line["event"] for line in log} == {"dns.updated"}
            await peer.close()


def test_what_is_missing_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="key_name and key_file are missing"):
        ZoneKeeper(at(1, key=""), None, ())  # type: ignore[arg-type] # it is not looked at
