"""Programs of filters that do not read, say too much, or leave others behind that keep their pipes."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from structlog import get_logger
from structlog.testing import capture_logs

from murder.config.sieve import ProgramConfig
from murder.roles.backend.scripts.programs import PIECE, Programs
from tests.kit.waiting import until_soon

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
    return said, [event["problem"] for event in logged]


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


def end(left: Path) -> None:
    with suppress(OSError, ValueError):
        os.kill(int(left.read_text()), signal.SIGKILL)
