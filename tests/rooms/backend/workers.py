"""Workers of one backend, each a process of its own, on one store: what the supervisor would start."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import uvloop

from murder.model.acl import OWNER_RIGHTS, Acl, format_acl
from murder.model.name import inbox_of
from murder.model.protocol import IMAP
from murder.roles.backend.role import BackendRole
from tests.kit.listening import role_listening
from tests.rooms.backend.server import USERS, Parts, config_in, maildir_store, spool_store

ROOT = Path(__file__).parent.parent.parent.parent
LIMIT_S = 60.0


STORES: Final = {"spool": spool_store, "maildir": maildir_store}


async def serve(folder: Path, worker: int, store: str, workers: int) -> None:
    """One worker, until its standard input ends; says its port."""
    config = config_in(folder)
    config = replace(config, backend=replace(config.backend, workers=workers))
    role = BackendRole(config, Parts(lambda: STORES[store](folder)), worker)
    await role.start()
    backend = role.backend
    assert backend is not None
    if worker == 0:
        for user in USERS:
            acl = format_acl(Acl({user: OWNER_RIGHTS}))
            await backend.announcer.create(inbox_of(user), acl)
    async with role_listening(role, (IMAP,)) as (place,):
        print(place.port, flush=True)
        os.dup2(2, 1)  # nobody reads on: the log would fill the pipe, and then stop the worker
        await asyncio.to_thread(sys.stdin.read)


@contextlib.contextmanager
def two_workers(folder: Path, store: str = "spool", number: int = 2) -> Iterator[list[int]]:
    """Their ports; more than two where that is asked."""
    processes: list[subprocess.Popen[str]] = []
    ports: list[int] = []
    try:
        for worker in range(number):
            program = (
                "import sys; from tests.rooms.backend.workers import main; main(*sys.argv[1:])"
            )
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(folder), str(worker), store, str(number)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
            assert process.stdout is not None
            while not (line := process.stdout.readline()).strip().isdigit():
                assert line, "a worker has died"
            ports.append(int(line))
        yield ports
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            try:
                process.wait(LIMIT_S)
            finally:
                process.kill()


def main(folder: str, worker: str, store: str, workers: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(folder), int(worker), store, int(workers)))
