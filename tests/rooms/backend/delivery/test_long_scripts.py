"""Long work of scripts: who has much of it takes turns with the others."""

import asyncio
import threading
from pathlib import Path

import pytest
from structlog import get_logger

from murder.api.delivery import Arriving
from murder.model.name import inbox_of
from murder.roles.backend.scripts.longer import aside_for
from murder.roles.backend.scripts.run import Chosen, Room, run_scripts
from tests.kit.waiting import until_soon
from tests.rooms.backend.server import running_backend

SCRIPT = b'require ["mime", "foreverypart"]; foreverypart { if header :mime "a" "x" { stop; } }'
OCTETS = memoryview(b"a: b\r\n\r\n" + b"x" * 100_000)  # taken apart in the thread


@pytest.mark.parametrize("wants", ["a delivery", "to know whether a script is right"])
async def test_many_mails_of_one_user_delay_another_by_a_turn(wants: str, tmp_path: Path) -> None:
    ended: list[str] = []
    async with running_backend(tmp_path) as server, asyncio.timeout(60):
        backend = server.backend

        async def run(user: str) -> None:
            message = Arriving(b"", b"x", inbox_of(user), user, OCTETS)
            async with Room(backend, message) as room:
                chosen = [Chosen("main", SCRIPT, user)]
                ran = await run_scripts(backend, message, chosen, get_logger(), room)
            assert ran.outcome is not None and not ran.faults
            ended.append(user)

        async def check() -> None:
            assert not (await backend.site.users.check(b"keep;", "ana")).errors
            ended.append("ana")

        await run("ana")  # it is compiled
        ended.clear()
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(run("mallory"))
            group.create_task(run("ana") if wants == "a delivery" else check())
    assert len(ended) == 21
    assert ended.index("ana") <= 3


async def test_who_gives_up_in_their_turn_has_it_until_the_thread_is_done() -> None:
    """Else each that has waited for too long would have the next one begin to wait for the thread."""
    goes_on, begun = threading.Event(), list[str]()

    def work(name: str) -> str:
        begun.append(name)
        goes_on.wait()
        return name

    try:
        first = asyncio.ensure_future(aside_for("mallory", lambda: work("first")))
        second = asyncio.ensure_future(aside_for("mallory", lambda: work("second")))
        ana = asyncio.ensure_future(aside_for("ana", lambda: work("ana")))
        third = asyncio.ensure_future(aside_for("mallory", lambda: work("third")))
        await until_soon(lambda: bool(begun))
        for gives_up in (first, second):
            gives_up.cancel()
        await asyncio.wait([first, second])
        assert begun == ["first"] and first.cancelled() and second.cancelled()
    finally:
        goes_on.set()
    assert await ana == "ana" and await third == "third"
    assert sorted(begun) == ["ana", "first", "third"]
