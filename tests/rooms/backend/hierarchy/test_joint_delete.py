"""DELETE of a hierarchy on three backends, and what brings it back: killed at every step of each; all of it or nothing."""

import asyncio
from pathlib import Path

import pytest

from murder.config import BackendConfig
from murder.errors import Code, Refusal
from murder.model.name import MailboxName, deleted_name
from murder.roles.backend.renames.tree import Tree
from murder.roles.mupdate.database.change import PutNote
from murder.wire.nodes.rename_words import Act
from tests.rooms.backend.hierarchy.joint import (
    ACL,
    HOMES,
    OLD,
    SUBSCRIBED,
    Nodes,
    outcomes_of,
    settle,
    three,
    until_killed,
)

AT = 1_700_000_000
RESTING = deleted_name(OLD, AT)
DELETE = Tree(Act.DELETE, OLD, RESTING)
UNDELETE = Tree(Act.UNDELETE, RESTING, OLD)
WAYS = ("immediate", "delayed", "undelete")


def keep(nodes: Nodes, *servers: str) -> None:
    """These keep what is deleted."""
    for server in servers:
        config = BackendConfig(max_mailboxes_per_user=20, delete="delayed")
        nodes[server].backend.config = config


async def begin(nodes: Nodes, way: str) -> Tree:
    """What is to be done; before it all is there, or rests."""
    if way == "immediate":
        return DELETE
    keep(nodes, *HOMES)
    if way == "delayed":
        return DELETE
    assert await nodes["be1.test"].change(DELETE) == ()
    await check(nodes, set_of(nodes, rests=True))
    return UNDELETE


Sets = dict[str, set[MailboxName]]


def set_of(nodes: Nodes, rests: bool = False, gone: bool = False) -> Sets:
    names: Sets = {}
    for server in nodes:
        there = {MailboxName(name) for name in HOMES[server]}
        there = {deleted_name(name, AT) for name in there} if rests else there
        names[server] = set() if gone else there
    return names


def state(nodes: Nodes) -> str:
    """By the root."""
    names = nodes["be1.test"].names()
    return "there" if OLD in names else "resting" if RESTING in names else "gone"


async def check(nodes: Nodes, wanted: Sets) -> None:
    """At list, store and master; with mail, rights and a note."""
    for server, node in nodes.items():
        there = wanted[server]
        assert node.names() == there, server
        assert {one.name for one in await node.store.mailboxes()} == there, server
        rows = {row.name: row for row in await node.client.list_server(server)}
        assert set(rows) == there, server
        for name in there:
            found, row = node.list.find(name), rows[name]
            assert found is not None and found.is_active and row.is_active
            assert found.raw_acl == row.raw_acl == ACL
            assert node.list.note(f"a/{name.decode()}") == b'{"": {"/comment": "x"}}'
            mailbox = await node.store.open(name, "ana")
            assert (await mailbox.status()).messages == 1
            mailbox.close()
        left = [one for one in HOMES[server] if one not in there]
        assert not [one for one in left if node.list.note(f"a/{one.decode()}")]


async def annotate(nodes: Nodes) -> None:
    for server, node in nodes.items():
        notes = [
            PutNote(f"a/{name.decode()}", b'{"": {"/comment": "x"}}') for name in HOMES[server]
        ]
        await node.ledger.commit(notes)


@pytest.mark.parametrize("way", WAYS)
async def test_all_of_it_goes_or_comes_back(tmp_path: Path, way: str) -> None:
    async with three(tmp_path) as (_, nodes):
        await annotate(nodes)
        tree = await begin(nodes, way)
        assert await nodes["be1.test"].change(tree) == ()
        await check(nodes, set_of(nodes, way == "delayed", way == "immediate"))
        assert not any(node.list.intents() for node in nodes.values())
        for server, node in nodes.items():
            assert len(node.lost) == len(HOMES[server]), "its sessions are told"
        subscribed = await nodes["be1.test"].store.subscriptions("ana")
        assert set(subscribed) == (set() if way == "immediate" else set(SUBSCRIBED))


@pytest.mark.parametrize(
    ("victim", "way", "store"),
    [
        *((victim, way, "memory") for victim in ("be1.test", "be2.test") for way in WAYS),
        *(("be1.test", way, store) for way in WAYS[1:] for store in ("spool", "maildir")),
    ],
)
async def test_a_kill_at_any_step_leaves_all_or_nothing(
    tmp_path: Path, victim: str, way: str, store: str
) -> None:
    async def play(step: int) -> str:
        async with three(tmp_path / str(step), store) as (_, nodes):
            await annotate(nodes)
            tree = await begin(nodes, way)
            before = state(nodes)
            changed = nodes["be1.test"].change(tree)
            _, is_done = await until_killed(nodes, victim, step, changed)
            if not nodes[victim].is_dead:
                return ""
            config = nodes[victim].backend.config
            reborn = await nodes[victim].reborn()
            reborn.backend.config = config
            await settle(nodes)
            after = state(nodes)
            assert is_done in (None, after != before)
            await check(nodes, set_of(nodes, after == "resting", after == "gone"))
            return "new" if after != before else "old"

    outcomes = await outcomes_of(play)
    assert set(outcomes) == {"old", "new"} and len(outcomes) > 6, outcomes


async def test_where_a_part_is_away_nothing_is_deleted_and_it_is_named(tmp_path: Path) -> None:
    async with three(tmp_path) as (_, nodes):
        await annotate(nodes)
        nodes["be3.test"].is_dead = True
        with pytest.raises(Refusal, match=r"be3\.test has a part of it") as no:
            await nodes["be1.test"].change(DELETE)
        assert no.value.code is Code.UNAVAILABLE
        nodes["be3.test"].is_dead = False
        await check(nodes, set_of(nodes))
        assert not any(node.list.intents() for node in nodes.values())


async def test_each_server_keeps_or_removes_its_own_by_its_configuration(tmp_path: Path) -> None:
    async with three(tmp_path) as (_, nodes):
        await annotate(nodes)
        keep(nodes, "be1.test", "be3.test")
        await nodes["be1.test"].change(DELETE)
        wanted = set_of(nodes, rests=True) | {"be2.test": set()}
        await check(nodes, wanted)
        await nodes["be1.test"].change(UNDELETE)
        await check(nodes, set_of(nodes) | {"be2.test": set()})


async def test_what_was_deleted_at_another_time_stays_where_it_rests(tmp_path: Path) -> None:
    async with three(tmp_path) as (_, nodes):
        await annotate(nodes)
        keep(nodes, *HOMES)
        early = MailboxName(b"user.ana.b.c")
        far = nodes["be2.test"]
        rests = deleted_name(early, AT - 1)
        await far.announcer.rename([(early, rests)])
        await nodes["be1.test"].change(DELETE)
        await nodes["be1.test"].change(UNDELETE)
        await check(nodes, set_of(nodes) | {"be2.test": {MailboxName(b"user.ana.b"), rests}})


async def test_a_name_that_is_taken_meanwhile_refuses_all_of_what_would_come_back(
    tmp_path: Path,
) -> None:
    async with three(tmp_path) as (_, nodes):
        await annotate(nodes)
        tree = await begin(nodes, "undelete")
        taken = MailboxName(b"user.ana.a.d")
        await nodes["be2.test"].announcer.create(taken, ACL)
        with pytest.raises(Refusal, match="The murder has this mailbox already") as no:
            await nodes["be1.test"].change(tree)
        assert no.value.code is Code.ALREADY_EXISTS
        await nodes["be2.test"].announcer.delete([taken])
        await check(nodes, set_of(nodes, rests=True))


async def test_what_is_being_deleted_is_not_changed_by_others(tmp_path: Path) -> None:
    """CREATE comes behind it: the mailbox that it makes is a new one."""
    async with three(tmp_path) as (_, nodes):
        await annotate(nodes)
        inside = MailboxName(b"user.ana.b.more")
        tasks: list[asyncio.Task[object]] = []

        def create(at: str) -> None:
            if at == "part prepared":
                tasks.append(asyncio.create_task(nodes["be2.test"].announcer.create(inside, ACL)))

        nodes["be2.test"].on_step = create
        await nodes["be1.test"].change(DELETE)
        await tasks[0]
        assert nodes["be2.test"].names() == {inside}
