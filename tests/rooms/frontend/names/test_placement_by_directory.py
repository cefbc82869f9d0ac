"""A directory says where a new user is at home, and how much they may have: whoever makes their INBOX follows it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from murder.api.auth import AuthBackend, Identity
from murder.errors import BadSyntax
from murder.model.name import MailboxName
from murder.model.quota import Resource, parse_limits
from murder.wire.nodes.control_words import AskPlace, Placement
from tests.kit.peer import Peer
from tests.rooms.backend.server import OnePassword, Parts, config_in, memory_store, running_backend
from tests.rooms.frontend.cluster import Policy, running_cluster

PEOPLE: Mapping[str, Identity] = {
    "zoe": Identity("zoe", host="BE2.test", fields={"quota": "2G"}),
    "yan": Identity("yan", host="elsewhere.example"),
    "admin": Identity("admin"),
}


class Directory(OnePassword):
    """Where people are at home."""

    async def verify(self, user: str, password: bytes) -> Identity | None:
        return PEOPLE.get(user) if password == b"secret" else None

    async def lookup(self, user: str) -> Identity | None:
        return PEOPLE.get(user)


class ByDirectory(Policy):
    def auth_backends(self) -> Sequence[tuple[str, AuthBackend]]:
        return [("directory", Directory())]


async def entered(where: tuple[str, int], user: str) -> Peer:
    peer = await Peer.at(*where)
    await peer.until(b"* OK")
    await peer.ok(f"LOGIN {user} secret")
    return peer


async def test_a_new_users_mailbox_is_made_at_their_home(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        frontend = await cluster.add_frontend(ByDirectory())
        peer = await entered(frontend.address, "admin")
        for user, home in {"zoe": "be2.test", "yan": "be1.test"}.items():
            await peer.ok(f"CREATE user/{user}")
            found = frontend.frontend.mailboxes.find(MailboxName(f"user.{user}".encode()))
            assert found is not None and found.server == home
        await peer.close()


async def test_an_operator_hears_where_and_how_much(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        role = (await cluster.add_frontend(ByDirectory())).role
        weights = {"be1.test": 1.0, "be2.test": 1.0}
        told = await role.place(AskPlace(MailboxName(b"user.zoe"), weights))
        assert isinstance(told, Placement)
        assert (told.server, told.quota) == ("be2.test", "2G")
        assert told.reason == "it is the home of zoe, by the plugins of [auth]"
        other = await role.place(AskPlace(MailboxName(b"user.yan"), weights))
        assert isinstance(other, Placement)
        assert (other.server, other.quota) == ("be1.test", "")


class AtBackend(Parts):
    def auth_backends(self) -> Sequence[tuple[str, AuthBackend]]:
        return [("directory", Directory())]


@pytest.mark.parametrize(("user", "is_made"), [("zoe", True), ("yan", False)])
async def test_at_the_first_login_an_inbox_is_made_at_home_with_its_quota(
    user: str, is_made: bool, tmp_path: Path
) -> None:
    config = config_in(tmp_path, create_inbox=True)
    config = replace(config, node=replace(config.node, name="be2.test"))
    parts = AtBackend(memory_store)
    async with running_backend(tmp_path, users=(), config=config, parts=parts) as running:
        peer = await entered(running.address, user)
        peer.send(b"a GETQUOTAROOT INBOX\r\n")
        lines = [await peer.line()]
        while not lines[-1].startswith(b"a "):
            lines.append(await peer.line())
        assert lines[-1].startswith(b"a OK" if is_made else b"a NO [NONEXISTENT]")
        assert (b"* QUOTA INBOX (STORAGE 0 2097152)" in lines) == is_made
        await peer.close()


def test_limits_are_written_as_people_do() -> None:
    assert parse_limits(["2G"]) == {Resource.STORAGE: 2 << 20}
    assert parse_limits(["STORAGE=500M", "message=10"]) == {
        Resource.STORAGE: 500 << 10,
        Resource.MESSAGE: 10,
    }
    for odd in ("", "x", "MESSAGE=2G", "CATS=2", "STORAGE="):
        with pytest.raises(BadSyntax):
            parse_limits([odd])
