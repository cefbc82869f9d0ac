"""Our backend's client at a Cyrus master: its mailboxes appear in a Cyrus frontend's LIST, and the master survives it."""

import imaplib

from murder.roles.mupdate.remote.client import MasterClient
from murder.roles.mupdate.remote.link import Target
from tests.cyrus.conftest import Lab
from tests.cyrus.our_nodes import rows_at
from tests.kit import scene
from tests.kit.waiting import until

LOCATION = b"ours.murder.test!default"
ACL = b"ana\tlrswipkxtecdan\tuser1\tlrs\t"


def names_seen_by(host: str, user: str, pattern: str) -> list[bytes]:
    client = imaplib.IMAP4(host, timeout=20)
    client.login(user, "secret")
    _, lines = client.list('""', pattern)
    client.logout()
    return [line.rpartition(b'" ')[2] for line in lines if isinstance(line, bytes)]


def test_our_mailboxes_come_and_go_in_a_cyrus_murder(cyrus: Lab) -> None:
    names = [b"user.ana", b"user.ana.x-y", b"user.ana.x"]

    async def come() -> None:
        client = MasterClient(Target(*cyrus.master, None, cyrus.user, cyrus.password))
        for name in names:
            await client.reserve(name, LOCATION)
            await client.activate(name, LOCATION, ACL)
        found = await client.find(b"user.ana.x")
        assert found is not None and found.raw_acl == ACL
        listed = await client.list_server("ours.murder.test")
        assert [entry.name for entry in listed] == [b"user.ana", b"user.ana.x", b"user.ana.x-y"]
        await client.close()

    async def go() -> None:
        client = MasterClient(Target(*cyrus.master, None, cyrus.user, cyrus.password))
        for name in [*names, b"user.never"]:
            await client.delete(name)
            await client.delete(name)
        await client.close()

    scene.run(come())
    until(lambda: len(names_seen_by(cyrus.frontend, "user1", "user/ana*")) >= 3, every_s=0.5)
    scene.run(go())
    assert len(rows_at(*cyrus.master)) == 20  # it lives, with the INBOXes of the lab's users
