"""A backup's folder carried away by restic, as a program: what it says is passed on, and it does not stand still for ever.

A server may take a connection and never answer, or an octet a second. How far restic has come is what it writes of itself
(`--json`): it is ended where nothing of that has changed for long.
"""

import asyncio
import json
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Final

import asyncclick as click

from murder.admin.cli.screen import plain, seconds
from murder.errors import Code, Refusal

STALL_S: Final = 3600.0  # five packs of 16 MiB are on their way at once: 23 KiB a second are enough
END_S: Final = 10.0  # from 0.17 on it takes its lock away at SIGTERM, and the server may not answer that either
LINE: Final = 1 << 20  # at most: it names files that it reads
PIECE: Final = 64 * 1024
PASSWORDS: Final = ("RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD", "RESTIC_PASSWORD_COMMAND")
PROGRESS: Final = ("total_files", "files_done", "total_bytes", "bytes_done")
EVERY_S: Final = 1  # it says so


def need_restic() -> str:
    """The program. Raises Refusal where it cannot be run."""
    program = shutil.which("restic")
    if program is None:
        raise Refusal(Code.CANNOT, "restic is not installed here: apt install restic")
    if not any(name in os.environ for name in PASSWORDS):
        raise Refusal(
            Code.CANNOT, "$RESTIC_PASSWORD_FILE names no file with the repository's password"
        )
    return program


def _command(repository: str, folder: Path) -> list[str]:
    """Restic brings a folder back under the path as it was told."""
    words = ["-r", repository, "backup", "--json", "--tag", "murder"]
    return [need_restic(), *words, str(folder.absolute())]


async def carry_away(repository: str, folder: Path, stall_s: float) -> None:
    """Copy the folder there. Raises Refusal where that fails, or has come no further for `stall_s`. Restic's own lock is on
    the repository; ours is not held: objects never change."""
    every = {"RESTIC_PROGRESS_FPS": str(1 / EVERY_S)}
    click.echo(f"restic: copying to {repository}", err=True)
    process = await asyncio.create_subprocess_exec(
        *_command(repository, folder),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        limit=LINE,
        env={**os.environ, **every},
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(stall_s) as limit, asyncio.TaskGroup() as tasks:
            tasks.create_task(_pass_on(process.stderr))
            await _watch(process.stdout, limit, stall_s)
            code = await process.wait()
    except TimeoutError:
        raise Refusal(
            Code.CANNOT,
            f"restic has come no further for {seconds(stall_s)}, and was ended: does {repository} answer? The point is "
            "made; the next run copies what is not there yet",
        ) from None
    finally:
        await _end(process)
    if code:
        raise Refusal(Code.CANNOT, f"restic has failed, with exit code {code}")
    click.echo(f"copied to {repository}", err=True)


async def _pass_on(stream: asyncio.StreamReader) -> None:
    """What it says, as it comes: behind a server that does not answer it may try again for long, and says so there alone."""
    while piece := await stream.read(PIECE):
        for line in piece.decode("utf-8", "replace").splitlines():
            click.echo(plain(f"restic: {line}"), err=True)


async def _watch(stream: asyncio.StreamReader, limit: asyncio.Timeout, stall_s: float) -> None:
    """Until it says no more. Each step puts the limit off."""
    before: list[object] | None = None
    while True:
        try:
            line = await stream.readline()
            facts = json.loads(line or "{}")
        except ValueError:  # a line of more than LINE, or no JSON
            continue
        if not line:
            return
        if isinstance(facts, dict) and facts.get("message_type") == "status":
            now = [facts.get(key, 0) for key in PROGRESS]
            if now != before:
                before = now
                limit.reschedule(asyncio.get_running_loop().time() + stall_s)


async def _end(process: Process) -> None:
    """However it came to that."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
