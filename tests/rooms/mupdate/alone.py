"""A master, or a replica of one, in a process of its own: `python -m tests.rooms.mupdate.alone FOLDER [PORT OF ITS MASTER]`;
with `shared` as the port, a master of several, whose log is in its memory.

Says its port (a replica: when it is in step) and lives until its input ends; then it is gone at once, as if killed.
"""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from murder.roles.mupdate.database import settling
from murder.roles.mupdate.remote.link import Target
from tests.rooms.mupdate.nodes import Follower, Server
from tests.rooms.mupdate.several import MemoryLog, Sharing

PROJECT = Path(__file__).parent.parent.parent.parent


class Alone:
    """Such a process. `wrap` changes the command line (`powercut.Story.traced`)."""

    def __init__(
        self,
        folder: Path,
        master: int | str | None = None,
        wrap: Callable[[Sequence[str]], Sequence[str]] = lambda command: command,
    ) -> None:
        command = [sys.executable, "-m", "tests.rooms.mupdate.alone", str(folder)]
        self.process = subprocess.Popen(
            wrap(command + ([str(master)] if master else [])),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=PROJECT,
        )
        lines = iter(_pipe(self.process.stdout).readline, b"")  # it logs, too
        self.port = next(int(line.split()[1]) for line in lines if line.startswith(b"port "))

    def end(self) -> None:
        """It is gone when this returns."""
        _pipe(self.process.stdin).close()
        self.process.wait(60)
        _pipe(self.process.stdout).close()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


async def _serve(folder: Path, master: int | None, *, is_shared: bool = False) -> None:
    if is_shared:
        settling.SETTLE_S = 0.01  # type: ignore[misc] # often, in a short life
    if master is None:
        server = Sharing(folder, MemoryLog()) if is_shared else Server(folder)
        await server.start()
        print("port", server.port, flush=True)
    else:
        follower = Follower(folder, Target("127.0.0.1", master, None, "murder", "secret", 5.0, 5.0))
        await follower.follow()
        await follower.replica.until_synchronised(60)
        print("port 0", flush=True)
    await asyncio.Event().wait()


def _until_input_ends() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_until_input_ends, daemon=True).start()
    word = sys.argv[2] if len(sys.argv) > 2 else ""
    asyncio.run(
        _serve(
            Path(sys.argv[1]), int(word) if word.isdecimal() else None, is_shared=word == "shared"
        )
    )
