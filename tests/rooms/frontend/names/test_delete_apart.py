"""A user with mailboxes on two backends that ask no others (as Cyrus): deleted as one act, as far as they allow."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from murder.errors import Code, Refusal
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName, no_such_mailbox
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.mupdate.database.change import PutEntry, RemoveEntry
from murder.roles.mupdate.remote.client import MasterClient
from murder.wire.imap.command import Command
from murder.wire.nodes.rename_words import TREES
from tests.kit.dialogue import Player
from tests.rooms.backend.server import memory_store
from tests.rooms.frontend.cluster import Cluster, running_cluster

MAILBOXES = ("user.ana", "user.ana.far", "user.ana.far.below", "user.ana.near")
MADE = """
Cadmin= LOGIN admin secret
Cadmin= CREATE user/ana/near
Cadmin= CREATE user/ana/far be2.test
Cadmin= CREATE user/ana/far/below be2.test
"""


@asynccontextmanager
async def furnished(folder: Path, delete: str) -> AsyncIterator[tuple[Cluster, Player]]:
    async with running_cluster(folder, {}, frontends=0) as cluster:
        for name, users in (("be1.test", ("ana",)), ("be2.test", ("bob",))):
            words = (TREES.decode(),)
            await cluster.add_backend(
                name, users, memory_store, suppress_capabilities=words, delete=delete
            )
        await cluster.add_frontend()
        player = Player(cluster.connect)
        await player.play(MADE, keep=True)
        yield cluster, player


def there(cluster: Cluster) -> tuple[str, ...]:
    """What is left of the user."""
    mailboxes = cluster.frontends[0].frontend.mailboxes
    rows = [mailboxes.find(MailboxName(b"user.ana")), *mailboxes.below(b"user.ana")]
    return tuple(row.name.decode() for row in rows if row is not None and row.is_active)


def refuse(cluster: Cluster, name: str, what: bytes) -> None:
    """That backend does not delete this mailbox."""
    announcer = cluster.backends[name].backend.announcer

    def step(step: str) -> None:
        busy = announcer._ledger.mailboxes.intents().values()
        if step == "intended" and any(b"user.ana" in octets and what in octets for octets in busy):
            raise Refusal(Code.IN_USE, "Not now")

    announcer.step = step


async def test_all_of_it_goes(tmp_path: Path) -> None:
    async with furnished(tmp_path, "immediate") as (cluster, player):
        assert there(cluster) == MAILBOXES
        await player.play("Cadmin: a1 DELETE user/ana\nSadmin: a1 OK Completed", keep=True)
        assert there(cluster) == ()


async def test_nothing_goes_while_one_is_away(tmp_path: Path) -> None:
    async with furnished(tmp_path, "immediate") as (cluster, player):
        cluster.backends["be2.test"].listener.stop_accepting()
        for session in list(cluster.backends["be2.test"].backend.sessions):
            session.connection.abort()
        await player.play("Cadmin: a1 DELETE user/ana\nSadmin: a1 NO [UNAVAILABLE] $_", keep=True)
        assert there(cluster) == MAILBOXES


async def test_what_has_gone_comes_back_where_the_rest_is_refused(tmp_path: Path) -> None:
    async with furnished(tmp_path, "delayed") as (cluster, player):
        refuse(cluster, "be1.test", b"user.ana")
        await player.play("Cadmin: a1 DELETE user/ana\nSadmin: a1 NO [INUSE] $_", keep=True)
        assert there(cluster) == MAILBOXES


async def test_what_cannot_come_back_is_named(tmp_path: Path) -> None:
    async with furnished(tmp_path, "immediate") as (cluster, player):
        refuse(cluster, "be1.test", b"user.ana")
        await player.play(
            "Cadmin: a1 DELETE user/ana\n"
            "Sadmin: a1 NO [CANNOT] Not now; user/ana/far and user/ana/far/below stay deleted, the others are there",
            keep=True,
        )
        assert there(cluster) == ("user.ana", "user.ana.near")


async def test_what_has_gone_comes_back_where_the_inbox_has_moved_meanwhile_and_is_refused_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, home = MailboxName(b"user.ana"), b"be2.test!default"
    async with furnished(tmp_path, "delayed") as (cluster, player):
        old, new = (cluster.backends[name].backend for name in ("be1.test", "be2.test"))
        master = MasterClient(cluster.master.target)

        async def comes_too_late(dialogue: BackendImap, _: Command, name: MailboxName) -> None:
            """The INBOX moves before the old home has come to it; the new one has something against it."""
            assert name == inbox
            if dialogue.backend is new:
                raise Refusal(Code.NO_PERMISSION, "Not now")
            row = old.mailboxes.find(inbox)
            assert row is not None
            await master.deactivate(inbox, row.raw_location)
            await old.announcer.commit([RemoveEntry(inbox)])
            old.mailboxes.has_left = lambda name: name == inbox
            await new.store.create(inbox, "default", "inbox2")
            moved = MailboxEntry(inbox, EntryState.ACTIVE, home, row.raw_acl)
            await new.announcer.commit([PutEntry(moved)])
            await master.activate(inbox, home, row.raw_acl)
            raise no_such_mailbox(inbox)

        monkeypatch.setattr(
            "murder.roles.backend.imap.mailboxes.mailbox.delete_tree", comes_too_late
        )
        await player.play("Cadmin: a1 DELETE user/ana\nSadmin: a1 NO [NOPERM] $_", keep=True)
        assert there(cluster) == MAILBOXES
        await master.close()
