"""Programs of filters that do not read, say too much, or leave others behind that keep their pipes; and many that say as
much as they may."""

import asyncio
import os
import signal
import tracemalloc
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog import get_logger
from structlog.testing import capture_logs

from murder.api.delivery import Arriving
from murder.config.sieve import ProgramConfig
from murder.errors import Refusal
from murder.model.name import MailboxName
from murder.roles.backend.messages import made
from murder.roles.backend.scripts.programs import PIECE, SCRIPTS_AT_ONCE, Programs
from murder.roles.backend.scripts.run import Chosen, Room, run_scripts
from tests.kit.waiting import until_soon
from tests.rooms.backend.server import config_in, running_backend


@pytest.fixture(autouse=True)
def _files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made._Place, "folder", tmp_path)


LARGE = [b"x" * 64 * PIECE]  # far more than a pipe takes


async def said_by(
    script: str, timeout_s: float = 60.0, max_output_bytes: int = PIECE
) -> tuple[bytes | None, list[str]]:
    """What it says to a large message, and what the log says of it."""
    program = ProgramConfig(
        ("/bin/sh", "-c", script),
        ("filter",),
        timeout_s=timeout_s,
        max_output_bytes=max_output_bytes,
    )
    with capture_logs() as logged:
        said = await Programs({"one": program}).run(
            "filter", "one", (), LARGE, {}, get_logger(), for_user=False
        )
    return None if said is None else bytes(said), [event["problem"] for event in logged]


async def test_a_program_need_not_read_what_it_is_given() -> None:
    for _ in range(10):
        assert await said_by("exec <&-; echo fine") == (b"fine\n", [])


async def test_who_says_too_much_is_no_longer_listened_to(tmp_path: Path) -> None:
    """Neither is what it has left behind, whose complaints do not end."""
    left = tmp_path / "left"
    before = asyncio.all_tasks()
    try:
        _, problems = await said_by(
            f"setsid sh -c 'echo $$ > {left}; exec yes >&2' & exec yes", max_output_bytes=10 * PIECE
        )
        assert problems == [f"it says more than {10 * PIECE} octets"]
        assert asyncio.all_tasks() == before
    finally:
        end(left)


async def test_what_a_program_leaves_behind_holds_none_of_our_pipes(tmp_path: Path) -> None:
    """It is not in the group that is ended, and keeps all three."""
    left = tmp_path / "left"
    await said_by("true")  # what the loop opens once
    before = len(os.listdir("/proc/self/fd"))
    try:
        _, problems = await said_by(
            f"setsid sh -c 'echo $$ > {left}; exec sleep 150' & exit 0", timeout_s=0.3
        )
        assert problems == ["it takes longer than 0.3 s"]
        await until_soon(lambda: len(os.listdir("/proc/self/fd")) <= before)
    finally:
        end(left)


SAYS_MUCH = ProgramConfig(
    ("/bin/sh", "-c", "cat >&2; printf 'Subject: much\\r\\n\\r\\n'; head -c 3000000 /dev/zero"),
    ("filter",),
)


async def test_what_many_programs_say_is_no_memory_of_ours() -> None:
    """But for the buffers of each, which on a busy machine are all full at once: a megabyte or so."""
    command = ("/bin/sh", "-c", "cat >&2; head -c 16000000 /dev/zero")
    programs = Programs({"one": ProgramConfig(command, ("filter",), max_output_bytes=20_000_000)})
    tracemalloc.start()
    try:
        running = [
            programs.run("filter", "one", (), LARGE, {}, get_logger(), for_user=False)
            for _ in range(12)
        ]
        said = await asyncio.gather(*running)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [one is not None and len(one) for one in said] == [16_000_000] * 12
    assert most < 20_000_000


async def test_scripts_that_have_said_something_are_few_at_a_time(tmp_path: Path) -> None:
    """Each keeps that while it waits for its next program: were it all of them, so many files would be open."""
    programs = {"one": replace(SAYS_MUCH, by="users")}
    script = b'require "vnd.dovecot.filter"; filter "one"; filter "one";'
    config = replace(config_in(tmp_path), programs=programs)
    async with running_backend(tmp_path, config=config) as server:
        backend = server.backend
        begun: list[int] = []
        under_way = 0
        real = backend.site.programs.run

        async def watched(use: str, name: str, *words: Any, **more: Any) -> memoryview | None:
            nonlocal under_way
            is_first = len(words[1][0]) < PIECE
            under_way += is_first
            begun.append(under_way)
            said = await real(use, name, *words, **more)
            under_way -= not is_first
            return said

        backend.site.programs.run = watched  # type: ignore[method-assign]
        octets, chosen = memoryview(b"a: b\r\n\r\n"), [Chosen("main", script, "ana")]
        messages = [
            Arriving(b"", b"x", MailboxName(b"user.ana"), f"user{number}", octets)
            for number in range(40)  # of one user they are fewer
        ]
        runs = [
            run_scripts(backend, message, chosen, get_logger(), Room(backend, message))
            for message in messages
        ]
        for ran in await asyncio.gather(*runs):
            assert ran.outcome is not None and not ran.faults
    assert len(begun) == 80
    assert max(begun) == SCRIPTS_AT_ONCE


async def test_one_user_has_a_part_of_those_and_keeps_nobody_from_the_rest() -> None:
    """Each may last a minute, and who waits for so long is told to try again."""
    programs, end, begun = Programs({}), asyncio.Event(), list[str]()

    async def deliver(user: str) -> None:
        async with programs.scripts_turn(user):
            begun.append(user)
            await end.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(2 * SCRIPTS_AT_ONCE):
            group.create_task(deliver("eve"))
        await until_soon(lambda: begun)
        group.create_task(deliver("ana"))
        await until_soon(lambda: "ana" in begun)
        end.set()
    assert begun.count("eve") == 2 * SCRIPTS_AT_ONCE and begun.index("ana") < SCRIPTS_AT_ONCE


async def test_nor_does_one_shared_mailbox_keep_another(tmp_path: Path) -> None:
    """Both are nobody's: each stands in line by its own name."""
    end, begun = asyncio.Event(), list[str]()
    chosen = [Chosen("site", b'require "vnd.dovecot.filter"; filter "one";', "")]
    config = replace(config_in(tmp_path), programs={"one": SAYS_MUCH})
    async with running_backend(tmp_path, config=config) as server, asyncio.timeout(30):
        backend = server.backend

        async def run(*words: Any, **_: Any) -> None:
            begun.append(words[4]["MAILBOX"])
            await end.wait()

        backend.site.programs.run = run  # type: ignore[method-assign]

        def deliver(mailbox: bytes) -> Coroutine[Any, Any, object]:
            octets = memoryview(b"a: b\r\n\r\n")
            message = Arriving(b"", b"x", MailboxName(mailbox), None, octets)
            return run_scripts(backend, message, chosen, get_logger(), Room(backend, message))

        async with asyncio.TaskGroup() as group:
            for _ in range(SCRIPTS_AT_ONCE):
                group.create_task(deliver(b"news"))
            await until_soon(lambda: begun)
            group.create_task(deliver(b"help"))
            await until_soon(lambda: "help" in begun)
            end.set()
    assert begun.count("news") == SCRIPTS_AT_ONCE


async def test_a_disk_that_takes_no_more_has_the_sender_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made._Place, "folder", tmp_path / "gone")
    before = asyncio.all_tasks()
    with pytest.raises(Refusal):
        await Programs({"one": SAYS_MUCH}).run(
            "filter", "one", (), LARGE, {}, get_logger(), for_user=False
        )
    assert asyncio.all_tasks() == before


async def test_who_waits_for_programs_and_who_waits_for_room_do_not_wait_for_each_other(
    tmp_path: Path,
) -> None:
    """One has a turn with programs and wants room for a large version, the other has that and wants a turn: both were
    refused after a minute."""
    one = ProgramConfig(("/bin/true",), ("execute",), by="users")
    config = replace(config_in(tmp_path), programs={"one": one})
    needs = 'require ["enclose", "vnd.dovecot.execute"]; '
    program, version = 'execute "one";', 'enclose "x";'
    octets = memoryview(b"a: b\r\n\r\n" + b"x" * 100_000)

    def of(user: str, *said: str) -> tuple[Arriving, Chosen]:
        message = Arriving(b"", b"x", MailboxName(f"user.{user}".encode()), user, octets)
        return message, Chosen("main", (needs + "".join(said)).encode(), user)

    async with running_backend(tmp_path, config=config) as server:
        backend = server.backend
        programs = backend.site.programs
        message, script = of("ana", version, program)
        has_room = Room(backend, message)
        others = [f"user{number}" for number in range(SCRIPTS_AT_ONCE)]
        async with AsyncExitStack() as turns, asyncio.timeout(20):
            for other in others[1:]:  # all turns but one
                await turns.enter_async_context(programs.scripts_turn(other))
            await has_room.have()
            late, its_script = of(others[0], program, version)
            wants_room = asyncio.ensure_future(
                run_scripts(backend, late, [its_script], get_logger(), Room(backend, late))
            )
            await until_soon(lambda: any(backend.large_runs._rings))
            ran = await run_scripts(backend, message, [script], get_logger(), has_room)
            assert ran.outcome is not None and not ran.faults and not wants_room.done()
            await has_room.__aexit__()
            assert not (await wants_room).faults


def end(left: Path) -> None:
    with suppress(OSError, ValueError):
        os.kill(int(left.read_text()), signal.SIGKILL)


async def test_large_versions_of_messages_are_made_for_one_run_at_a_time(tmp_path: Path) -> None:
    """And are there until they are carried out: a script may make many of each of many messages."""
    async with running_backend(tmp_path) as server, asyncio.timeout(30):
        backend = server.backend
        chosen = [Chosen("main", b'require "enclose"; enclose "x";', "ana")]

        def of(size: int) -> Arriving:
            octets = memoryview(b"a: b\r\n\r\n" + b"x" * size)
            return Arriving(b"", b"x", MailboxName(b"user.ana"), "ana", octets)

        def run(message: Arriving, room: Room) -> Coroutine[Any, Any, object]:
            return run_scripts(backend, message, chosen, get_logger(), room)

        first, second, small = (Room(backend, of(size)) for size in (100_000, 100_000, 10))
        await run(of(100_000), first)
        waiting = asyncio.ensure_future(run(of(100_000), second))
        await run(of(10), small)
        await until_soon(lambda: any(backend.large_runs._rings))  # somebody stands in line
        assert not waiting.done()
        await first.__aexit__()
        await waiting
        await second.__aexit__()
        assert not backend.large_runs.is_full
