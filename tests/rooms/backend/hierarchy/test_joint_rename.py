"""RENAME of a hierarchy on three backends: killed at every step of each, refused, crossing; all of it or nothing."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from murder.config import BackendConfig
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.acl import parse_acl
from murder.model.name import MailboxName, moved
from murder.net.frames import FrameChannel
from murder.roles.backend.hierarchy.intent import Stage, this_process
from murder.roles.backend.renames import mailboxes as renames
from murder.roles.backend.renames import part
from murder.roles.backend.renames.peer import Peer
from murder.roles.backend.renames.tree import Tree
from murder.wire.nodes.carry import Frame
from murder.wire.nodes.rename_words import Act, Prepare
from tests.rooms.backend.hierarchy.joint import (
    ACL,
    ALL,
    HOMES,
    LIVING,
    MOST_STEPS,
    NEW,
    OLD,
    STORES,
    KilledError,
    Wire,
    check,
    outcomes_of,
    settle,
    three,
    until_killed,
    worker,
)
from tests.rooms.mupdate.nodes import run


async def test_all_of_it_is_renamed(tmp_path: Path) -> None:
    async with three(tmp_path) as (_, nodes):
        steps: list[str] = []
        nodes["be1.test"].on_step = steps.append
        assert await nodes["be1.test"].rename() == ()
        await check(nodes, True)
        assert not any(node.list.intents() for node in nodes.values())
        assert steps.index("decided") < steps.index("moved")


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("victim", HOMES)
async def test_a_kill_at_any_step_leaves_all_or_nothing(
    tmp_path: Path, victim: str, store: str
) -> None:
    async def play(step: int) -> str:
        async with three(tmp_path / str(step), store) as (_, nodes):
            renamed = nodes["be1.test"].rename()
            seen, outcome = await until_killed(nodes, victim, step, renamed)
            if not nodes[victim].is_dead:
                return ""
            await nodes[victim].reborn()
            await settle(nodes)
            is_new = await check(nodes, outcome)
            return f"{seen[-1]} {'new' if is_new else 'old'}"

    outcomes = await outcomes_of(play)
    assert {one.rpartition(" ")[2] for one in outcomes} == {"old", "new"}
    assert len(outcomes) > 8, outcomes


@pytest.mark.parametrize("watched", HOMES)
def test_a_master_that_dies_at_any_step_leaves_all_or_nothing(tmp_path: Path, watched: str) -> None:
    async def play(step: int) -> bool:
        async with three(tmp_path / str(step)) as (master, nodes):
            seen: list[str] = []

            def kill_the_master(at: str) -> None:
                seen.append(at)
                if len(seen) == step + 1:
                    master.listener.stop_accepting()
                    master.listener.abort()

            nodes[watched].on_step = kill_the_master
            outcome = True
            try:
                await nodes["be1.test"].rename()
            except (Refusal, UpstreamFailure):
                outcome = False
            if len(seen) <= step:
                return False
            await master.stop()
            await master.start()
            await settle(nodes)
            await check(nodes, outcome)
            return True

    async def loop() -> None:
        for step in range(MOST_STEPS):
            if not await play(step):
                assert step > 8
                return
        raise AssertionError("it has more steps")

    run(loop())


@pytest.mark.parametrize(
    "step", ["prepare answered", "parts prepared", "decided", "commit answered"]
)
async def test_the_root_and_a_part_may_die_together(tmp_path: Path, step: str) -> None:
    async with three(tmp_path) as (_, nodes):

        def die(at: str) -> None:
            if at == step:
                nodes["be2.test"].is_dead = True
                raise KilledError

        nodes["be1.test"].on_step = die
        with pytest.raises(KilledError):
            await nodes["be1.test"].rename()
        for name in ("be2.test", "be1.test"):
            await nodes[name].reborn()
        await settle(nodes)
        await check(nodes, step in ("decided", "commit answered"))


@pytest.mark.parametrize("is_same", [True, False])
async def test_no_commit_has_more_than_some_of_the_access_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_same: bool
) -> None:
    """However many mailboxes there are, and however long their access lists; more of them where all have the same."""
    monkeypatch.setattr(renames, "MOST_ACL_OCTETS", (1 if is_same else 3) * len(ACL) + 1)
    monkeypatch.setattr(renames, "MANY_ACL_OCTETS", (3 if is_same else 5) * len(ACL))
    async with three(tmp_path) as (_, nodes):
        node = nodes["be1.test"]
        for number in range(10):
            name = MailboxName(b"user.ana.a.%d" % number)
            own = b"" if is_same else b"u%d\tl\t" % number
            await node.announcer.create(name, ACL + own)
        octets: list[int] = []
        node.ledger.on_commit = lambda committed: octets.append(
            sum(len(change.row or b"") for change in committed.changes)
        )
        await node.rename()
        assert len([one for one in octets if one]) > 4
        # the new names alone, or three with their lists
        assert max(octets) < 12 * 60 + 4 * len(ACL)
        assert len(node.names()) == 12
        rows = await node.client.list_server("be1.test")
        assert {row.name: row.raw_acl for row in rows} == {
            row.name: row.raw_acl for row in node.list.walk()
        }
        assert all("bea" in parse_acl(row.raw_acl).entries for row in rows)


async def test_a_kill_between_two_commits_of_a_rename_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renames, "MOST_MOVES", 1)
    async with three(tmp_path) as (_, nodes):
        node = nodes["be1.test"]
        moves: list[str] = []

        def die(at: str) -> None:
            moves.append(at)
            if moves.count("moved") == 2:  # the first one is committed
                raise KilledError

        node.on_step = die
        with pytest.raises(KilledError):
            await node.rename()
        assert NEW in node.names() and MailboxName(b"user.ana.a") in node.names()
        await node.reborn()
        await settle(nodes)
        assert await check(nodes, True)


@pytest.mark.parametrize("away", ["be2.test", "be3.test"])
async def test_where_a_part_is_away_nothing_is_renamed_and_it_is_named(
    tmp_path: Path, away: str
) -> None:
    async with three(tmp_path) as (_, nodes):
        nodes[away].is_dead = True
        with pytest.raises(
            Refusal, match=f"{away} has a part of it, and it cannot be reached"
        ) as no:
            await nodes["be1.test"].rename()
        assert no.value.code is Code.UNAVAILABLE
        nodes[away].is_dead = False
        assert not any(node.list.intents() for node in nodes.values())
        await check(nodes, False)
        await nodes["be1.test"].rename()
        await check(nodes, True)


async def test_a_new_name_that_exists_at_one_of_them_refuses_all(tmp_path: Path) -> None:
    async with three(tmp_path) as (_, nodes):
        taken = MailboxName(b"user.bea.b.c")
        await nodes["be2.test"].announcer.create(taken, ACL)
        with pytest.raises(Refusal, match=r"be2\.test: user\.bea\.b\.c exists already") as no:
            await nodes["be1.test"].rename()
        assert (no.value.code, no.value.names) == (Code.ALREADY_EXISTS, (taken,))
        await nodes["be2.test"].announcer.delete([taken])
        # the same name at another server: the master knows
        await nodes["be3.test"].announcer.create(taken, ACL)
        with pytest.raises(Refusal, match="The murder has this mailbox already") as no:
            await nodes["be1.test"].rename()
        await nodes["be3.test"].announcer.delete([taken])
        await check(nodes, False)
        assert not any(node.list.intents() for node in nodes.values())


async def test_a_limit_of_one_of_them_refuses_all(tmp_path: Path) -> None:
    async with three(tmp_path) as (_, nodes):
        nodes["be3.test"].backend.config = BackendConfig(max_mailboxes_per_user=0)
        with pytest.raises(
            Refusal, match=r"be3\.test: A mailbox may have at most 0 mailboxes"
        ) as no:
            await nodes["be1.test"].rename()
        assert no.value.code is Code.LIMIT
        await check(nodes, False)


async def test_two_that_cross_do_not_wait_for_ever_and_one_at_most_comes_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its root in a tree in which the other has a part."""
    monkeypatch.setattr(part, "WAIT_S", (0.1, 0.8))
    other, new = MailboxName(b"user.ana.b"), MailboxName(b"user.carl")

    async with three(tmp_path) as (_, nodes):
        far = MailboxName(b"user.ana.b.far")
        await nodes["be1.test"].announcer.create(far, ACL)
        outcomes = await asyncio.gather(
            nodes["be1.test"].rename(),
            nodes["be2.test"].rename(other, new),
            return_exceptions=True,
        )
        assert all(isinstance(one, tuple | Refusal) for one in outcomes)
        await settle(nodes)
        rows = set[bytes]()
        for server, node in nodes.items():
            there = {row.name for row in await node.client.list_server(server)}
            assert there == node.names() == {one.name for one in await node.store.mailboxes()}
            rows |= there
        first, second = (not isinstance(one, Refusal) for one in outcomes)
        assert (NEW in rows) == first and (new in rows) == second
        assert (MailboxName(b"user.carl.far") in rows) == second
        whole = {*ALL, far}
        if second:
            whole = {moved(one, other, new) if one.startswith(other) else one for one in whole}
        if first:
            whole = {moved(one, OLD, NEW) if one.startswith(OLD) else one for one in whole}
        assert rows == whole


async def test_what_is_prepared_keeps_others_out_until_it_is_over(tmp_path: Path) -> None:
    async with three(tmp_path) as (_, nodes):
        part_node = nodes["be2.test"]
        blocked: list[asyncio.Task[Any]] = []
        inside = MailboxName(b"user.ana.b.more")

        def create(at: str) -> None:
            if at == "part prepared":
                blocked.append(asyncio.create_task(part_node.announcer.create(inside, ACL)))

        part_node.on_step = create
        await nodes["be1.test"].rename()
        (task,) = blocked
        await task  # it comes behind: a mailbox of the former user's, as where one server has all
        assert part_node.names() == {b"user.bea.b", b"user.bea.b.c", inside}


async def test_only_a_root_s_own_server_asks_for_it(tmp_path: Path) -> None:
    """Another one may have a stolen key: it renames, commits and aborts nothing of what it has no part in."""

    async with three(tmp_path) as (_, nodes):
        asked = Peer(cast(FrameChannel, Wire(nodes, "be3.test", "be2.test")), "be2.test")
        with pytest.raises(Refusal, match=r"user\.ana is not at be3\.test") as no:
            await asked.ask(Prepare("a1", OLD, NEW, "ana", True))
        assert no.value.code is Code.NO_PERMISSION
        await check(nodes, False)


async def test_what_is_in_doubt_is_shown_and_can_be_ended_by_hand(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        async with three(tmp_path / stage.value) as (_, nodes):

            def die(at: str) -> None:
                if at == "parts prepared":
                    raise KilledError

            nodes["be1.test"].on_step = die
            with pytest.raises(KilledError):
                await nodes["be1.test"].rename()
            far = nodes["be2.test"]
            await far.renames.look()  # nobody answers
            (shown,) = far.renames.in_doubt()
            assert (shown.holder, shown.claimant) == ("be1.test", "be2.test")
            assert (shown.name, shown.target) == ("user.ana.b", "user.bea.b")
            with pytest.raises(Refusal):
                await far.renames.decide_by_hand("unknown", stage)
            await far.renames.decide_by_hand(str(shown.rename), stage)
            assert (MailboxName(b"user.bea.b") in far.names()) == (stage is Stage.COMMIT)
            assert far.renames.in_doubt() == [] and not far.list.intents()

    await play(Stage.COMMIT)
    await play(Stage.ABORT)


async def test_a_part_that_cannot_be_told_is_shown_at_the_root_s_until_it_is_done(
    tmp_path: Path,
) -> None:
    async with three(tmp_path) as (_, nodes):

        def die(at: str) -> None:
            if at == "decided":
                nodes["be3.test"].is_dead = True

        nodes["be1.test"].on_step = die
        assert await nodes["be1.test"].rename() == ("be3.test",)
        root = nodes["be1.test"]
        await root.renames.look()
        told = {(one.claimant, one.command) for one in root.renames.in_doubt()}
        assert told == {("be3.test", "RENAMED")}  # the other one has done its part
        await nodes["be3.test"].reborn()
        await settle(nodes)
        assert root.renames.in_doubt() == []
        await check(nodes, True)


@pytest.mark.parametrize("step", ["parts prepared", "decided"])
async def test_each_worker_ends_what_it_began_and_the_first_one_what_a_dead_one_left(
    tmp_path: Path, step: str
) -> None:
    """A store that fails at the end of a RENAME, in a worker that lives on; then that worker has died."""

    class FailedError(Exception):
        pass

    async def play(second: str) -> None:
        async with three(tmp_path / second) as (_, nodes):
            root = nodes["be1.test"]
            began = worker(root, LIVING if second == "living" else "dead", keeps_all=False)
            first = worker(root, this_process(), keeps_all=True)

            def fail(at: str) -> None:
                if at in (step, "given back"):
                    raise FailedError

            began.coordinator.step = began._backend.announcer.step = fail
            with pytest.raises(FailedError):
                await root.change(Tree(Act.RENAME, OLD, NEW), began)
            began.coordinator.step = began._backend.announcer.step = lambda _: None
            assert root.list.intents()
            if second == "living":
                await first.look()
                assert root.list.intents(), "it is another's"
                await began.look()
            else:
                await first.look()
            assert not [one for one in root.list.intents().values() if b'"joint"' in one]
            await first.look() if second == "dead" else await began.look()
            assert not root.list.intents()
            await settle(nodes)
            await check(nodes, step == "decided")

    await play("living")
    await play("dead")


async def test_a_server_that_came_back_is_not_waited_for_as_long_the_next_time(
    tmp_path: Path,
) -> None:
    async with three(tmp_path) as (_, nodes):
        root = nodes["be1.test"]
        now = 1000.0
        keeper = root.renames
        keeper.clock = lambda: now
        dies = True

        def die(at: str) -> None:
            if at == "decided":
                nodes["be3.test"].is_dead = dies

        for old, new in ((OLD, NEW), (NEW, OLD)):
            root.on_step = die
            assert await root.rename(old, new) == ("be3.test",)
            for _ in range(8):  # each time it is left alone longer
                now += 30.0
                await keeper.look()
            (shown,) = keeper.in_doubt()
            assert shown.claimant == "be3.test"
            far = await nodes["be3.test"].reborn()
            await far.renames.look()
            now += 30.0
            await keeper.look()
            assert keeper.in_doubt() == [] and not root.list.intents()
            await far.comparer.compare()
        assert await root.rename() == ("be3.test",)
        now += 6.0
        await keeper.look()
        await nodes["be3.test"].reborn()
        now += 2.0
        await keeper.look()
        assert not root.list.intents()


async def test_a_peer_that_goes_when_it_has_been_answered_is_no_news(tmp_path: Path) -> None:
    class Gone(Wire):
        async def receive(self) -> Frame:
            raise UpstreamFailure(self.kind, "be1.test", "it is gone")

        kind = UpstreamKind.LOST

    async with three(tmp_path) as (_, nodes):
        parts = nodes["be2.test"].renames.parts
        channel = Gone(nodes, "be1.test", "be2.test")
        await parts.serve(cast(FrameChannel, channel), "be1.test")
        channel.kind = UpstreamKind.TIMEOUT
        with pytest.raises(UpstreamFailure):
            await parts.serve(cast(FrameChannel, channel), "be1.test")
