"""A move that its target does not take, or whose target is nowhere, has never been: said at once, and in nobody's way."""

import asyncio
import errno
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from murder.api import CarriesMailboxes
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.name import MailboxName, inbox_of
from murder.net.outgoing.connect import connect
from murder.roles.backend.hierarchy.intent import this_process
from murder.roles.backend.moves import mover, outgoing
from murder.roles.backend.moves.journal import Move, Side, State, intent_of
from murder.roles.backend.moves.outgoing import freeze
from murder.roles.mupdate.database.change import RemoveEntry
from murder.wire.nodes.carry_words import Act
from tests.kit.ports import free_port
from tests.kit.sections import server_section
from tests.kit.waiting import until_soon
from tests.rooms.backend.server import config_in, running_backend, spool_store


class Refusing:
    """A target that says no to the first question."""

    names: Any = ()
    server = "be2.test"

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    async def do(self, request: Act) -> None:
        self._asked.append(type(request).__name__)
        raise Refusal(Code.CANNOT, "be2.test has no partition nosuch; it has default")

    def close(self) -> None:
        pass


async def gone(server: str, *_: object) -> NoReturn:
    """Another backend, whose connection is lost as soon as it stands."""
    raise UpstreamFailure(UpstreamKind.LOST, server, "it closed the connection")


@pytest.mark.parametrize("why", ["resolve", "partition"])
async def test_what_never_began_is_refused_at_once(tmp_path: Path, why: str) -> None:
    asked: list[str] = []

    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        moving = one.mover

        async def open_peer(server: str) -> Any:
            if why == "partition":
                return Refusing(asked)
            asked.append(server)
            raise UpstreamFailure(UpstreamKind.RESOLVE, server, "its name has no address")

        moving._open = open_peer  # type: ignore[method-assign] # no network here
        for server in ("be2.test", "be3.test"):  # the first does not stand in the second's way
            with pytest.raises(Refusal) as refused:
                await moving.move(inbox_of("ana"), server, "nosuch", "admin", lambda _: None)
            assert refused.value.code is Code.CANNOT
            assert refused.value.text.count("be2.test") <= 1
        assert [move.state for move in moving.journal.moves()] == [State.ABORTED] * 2
        assert asked == (["Begin"] * 2 if why == "partition" else ["be2.test", "be3.test"])
        assert not any(move.owes_abort for move in moving.journal.moves())
        await one.backend.announcer.set_acl(inbox_of("ana"), lambda acl: acl)


async def test_a_host_that_is_no_server_of_the_murder_is_not_tried_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the configuration has a section for, or that another move has gone to, may be on its way up: it is tried
    on."""
    monkeypatch.setattr(mover, "RETRY_MIN_S", 0.0)
    monkeypatch.setattr(mover, "RETRIES", 20)
    config = config_in(tmp_path)
    config = replace(config, servers={"be3.test": server_section(address="127.0.0.1")})
    tried: Counter[str] = Counter()

    async def open_peer(server: str) -> Any:
        tried[server] += 1
        raise UpstreamFailure(UpstreamKind.CONNECT, server, "port 143: Connection refused")

    async with running_backend(tmp_path, lambda: spool_store(tmp_path), config=config) as one:
        one.mover._open = open_peer  # type: ignore[method-assign] # no network here
        bob = inbox_of("bob")
        gone = Move("1", Side.OUT, bob, "be4.test", state=State.DONE, names=(bob,))
        await one.mover.journal.save(gone)
        for server, code in (
            ("be2.test", Code.CANNOT),
            ("be3.test", Code.UNAVAILABLE),
            ("be4.test", Code.UNAVAILABLE),
        ):
            with pytest.raises(Refusal) as refused:
                await one.mover.move(inbox_of("ana"), server, "", "admin", lambda _: None)
            assert refused.value.code is code
            assert refused.value.text == f"{server}: port 143: Connection refused"
            for move in one.mover.journal.moves():
                if move.state is State.FAILED:
                    await one.mover.abort(move.id)
        strangers = mover.RETRIES_OF_STRANGERS + 1
        assert tried == {"be2.test": strangers, "be3.test": 21, "be4.test": 21}


async def test_a_move_of_what_is_renamed_meanwhile_is_given_up(tmp_path: Path) -> None:
    """Nobody could resume it; and its target keeps what has come until it hears so."""
    box, renamed = (MailboxName(inbox_of("ana") + name) for name in (b".box", b".renamed"))
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        announcer = one.backend.announcer
        await announcer.create(box, one.backend.mailboxes.default_acl(box))

        async def open_peer(server: str) -> Any:
            if one.backend.mailboxes.find(box) is not None:
                await announcer.rename([(box, renamed)])
            await gone(server)

        one.mover._open = open_peer  # type: ignore[method-assign] # no network here
        with pytest.raises(Refusal) as refused:
            await one.mover.move(box, "be2.test", "", "admin", lambda _: None)
        assert refused.value.code is Code.CANNOT and "No such mailbox" in refused.value.text
        (move,) = one.mover.journal.moves()
        assert (move.state, move.owes_abort) == (State.ABORTED, True)


async def test_a_move_of_what_was_lost_with_a_disk_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come to its target may be all that there is."""
    monkeypatch.setattr(mover, "RETRY_MIN_S", 0.0)
    monkeypatch.setattr(mover, "RETRIES", 1)
    ana = inbox_of("ana")
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:

        async def open_peer(server: str) -> Any:
            if one.backend.mailboxes.find(ana) is not None:
                await one.backend.announcer.commit([RemoveEntry(ana)])
            await gone(server)

        monkeypatch.setattr(one.backend.mailboxes, "_is_whole", lambda: False)
        one.mover._open = open_peer  # type: ignore[method-assign] # no network here
        with pytest.raises(Refusal):
            await one.mover.move(ana, "be2.test", "", "admin", lambda _: None)
        (move,) = one.mover.journal.moves()
        assert (move.state, move.owes_abort) == (State.FAILED, False)


@pytest.mark.parametrize("is_late", [False, True])
async def test_who_waits_for_a_move_that_is_given_up_hears_so(
    tmp_path: Path, is_late: bool
) -> None:
    """An operator says so at another connection; too late, it goes on."""
    begun, waits = asyncio.Event(), asyncio.Event()
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        journal = one.mover.journal

        async def open_peer(server: str) -> Any:
            begun.set()
            try:
                await waits.wait()
            except asyncio.CancelledError:
                if is_late:  # it had just come so far
                    (move,) = journal.moves()
                    await journal.save(move, state=State.HANDING)
                    waits.set()
                raise
            raise Refusal(Code.CANNOT, "No such thing")

        one.mover._open = open_peer  # type: ignore[method-assign] # no network here
        words = inbox_of("ana"), "be2.test", "", "admin", lambda _: None
        waiting = asyncio.create_task(one.mover.move(*words))
        await begun.wait()
        (move,) = journal.moves()
        if not is_late:
            await one.mover.abort(move.id)
            with pytest.raises(Refusal) as refused:
                await waiting
            assert refused.value.text == "The move is aborted"
            return
        with pytest.raises(Refusal):
            await one.mover.abort(move.id)
        assert not waiting.done()
        await one.mover.stop()
        with pytest.raises(Refusal):
            await waiting


async def test_a_name_without_an_address_is_said_once() -> None:
    with pytest.raises(UpstreamFailure) as failed:
        await connect(
            "nowhere.invalid",
            143,
            lambda _: None,  # type: ignore[arg-type, return-value] # never called
            server="nowhere.invalid",
        )
    assert failed.value.kind is UpstreamKind.RESOLVE
    assert str(failed.value).count("nowhere.invalid") == 1


async def test_so_is_that_of_one_where_nothing_listens() -> None:
    port = free_port()
    with pytest.raises(UpstreamFailure) as failed:
        await connect(
            "localhost",
            port,
            lambda _: None,  # type: ignore[arg-type, return-value] # never called
            server="localhost",
        )
    assert failed.value.kind is UpstreamKind.CONNECT
    assert str(failed.value).startswith(f"localhost: port {port}: ")


@pytest.mark.parametrize("state", [State.COPYING, State.HANDING])
async def test_a_move_goes_on_when_a_full_disk_takes_again_what_became_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    """Nobody was at it any more, though its process lived: handed over, its mailboxes were nowhere until the next start."""
    monkeypatch.setattr(mover, "RETRY_MIN_S", 0.0)
    ana, full = inbox_of("ana"), OSError(errno.ENOSPC, "No space left on device")
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        journal, tries = one.mover.journal, 0
        save, troubles = journal.save, [full, full]

        async def fails(move: Move, **words: Any) -> Move:
            if troubles and words.get("problem"):
                raise troubles.pop()
            return await save(move, **words)

        async def open_peer(server: str) -> Any:
            nonlocal tries
            tries += 1
            if tries > 3:
                return Refusing([])
            await gone(server)

        monkeypatch.setattr(journal, "save", fails)
        one.mover._open = open_peer  # type: ignore[method-assign] # no network here
        move = Move("b7", Side.OUT, ana, "be2.test", state=state, names=(ana,))
        await save(move)
        driven = one.mover._run(move)
        await until_soon(lambda: tries > 3 or driven.done())
        assert tries > 3
        driven.cancel()


async def test_people_work_in_what_a_crash_had_stopped_while_its_target_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could write there until the target was back, or an operator gave the move up."""
    monkeypatch.setattr(mover, "RETRY_MIN_S", 0.0)
    monkeypatch.setattr(mover, "RETRIES", 1)
    ana = inbox_of("ana")
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        backend = one.backend
        assert isinstance(backend.store, CarriesMailboxes)

        one.mover._open = gone  # type: ignore[method-assign] # no network here
        move = Move("b9", Side.OUT, ana, "be2.test", state=State.STOPPED, names=(ana,))
        await one.mover.journal.save(move)
        await backend.announcer.hold(intent_of(move))
        await freeze(backend, [ana], True)
        ended = await one.mover._run(move)
        assert ended.state is State.FAILED
        assert not await backend.store.is_frozen(ana)
        assert not backend.announcer.is_held(intent_of(move))


async def test_what_a_full_disk_keeps_frozen_is_let_go_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counted as let go, and nobody could write there any more."""
    monkeypatch.setattr(mover, "RETRY_MIN_S", 0.0)
    monkeypatch.setattr(mover, "RETRIES", 1)
    ana, full = inbox_of("ana"), Refusal(Code.OVER_QUOTA, "The disk of this server is full")
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:
        backend, store, troubles = one.backend, one.backend.store, [full, full, full]
        assert isinstance(store, CarriesMailboxes)
        freeze_it = store.freeze

        async def fails(name: MailboxName, frozen: bool) -> None:
            if troubles and not frozen:
                raise troubles.pop()
            await freeze_it(name, frozen)

        monkeypatch.setattr(store, "freeze", fails)
        one.mover._open = gone  # type: ignore[method-assign] # no network here
        move = Move("b9", Side.OUT, ana, "be2.test", state=State.STOPPED, names=(ana,))
        await one.mover.journal.save(move)
        await backend.announcer.hold(intent_of(move))
        await freeze(backend, [ana], True)
        with pytest.raises(Refusal):
            await outgoing.thaw(backend, move)
        assert not backend.announcer.is_held(intent_of(move))  # the others of its tree are not kept
        ended = await one.mover._run(move)
        assert ended.state is State.FAILED and not troubles
        assert not await store.is_frozen(ana)


@pytest.mark.parametrize("trouble", [Refusal(Code.OVER_QUOTA, "full"), OSError(errno.ENOSPC, "")])
async def test_a_move_that_a_full_disk_does_not_let_end_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    """Nobody was at it any more, and who gave it up once more heard that another worker moves it."""
    ana = inbox_of("ana")
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as one:

        async def waits(server: str) -> Any:
            await asyncio.Event().wait()

        async def fails(*_: object) -> None:
            raise trouble

        one.mover._open = waits  # type: ignore[method-assign] # no network here
        move = Move("b9", Side.OUT, ana, "be2.test", process=this_process(), names=(ana,))
        await one.mover.journal.save(move)
        one.mover._run(move)
        with monkeypatch.context() as full:
            full.setattr(mover, "thaw", fails)
            with pytest.raises(Refusal):
                await one.mover.abort(move.id)
        assert not one.mover._running[move.id].done()
        monkeypatch.setattr(one.mover._ends, "settle", gone)
        assert (await one.mover.abort(move.id)).state is State.ABORTED
