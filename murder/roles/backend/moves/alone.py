"""One at a time with what an arriving move has brought, in all workers: who shows it, who removes it, who makes room for
another mailbox of a name in it. Who adds to it does so beside others that add.

A lock on a file beside the move's own: it ends with the process that has it, and the file goes with the move.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from murder.api.disk import disk_error
from murder.errors import Code, Refusal
from murder.roles.backend.moves.journal import OPEN, Journal, Move

ADDING_S: Final = 5.0  # longer than a batch takes to be stored
LOOK_AGAIN_S: Final = 0.01


class BeingEnded(Refusal):
    """Another connection, or another worker, is at it."""

    def __init__(self, move: Move) -> None:
        text = f"The move {move.id} is being ended elsewhere: try again in a moment"
        super().__init__(Code.IN_USE, text)


@asynccontextmanager
async def alone_with(journal: Journal, move: Move, wait_s: float = 0.0) -> AsyncIterator[Move]:
    """The move, as it stands now. Raises BeingEnded where somebody else is at it for longer than that."""
    give_up_at = asyncio.get_running_loop().time() + wait_s
    while (lock := _locked(journal, move, fcntl.LOCK_EX)) is None:
        if asyncio.get_running_loop().time() >= give_up_at:
            raise BeingEnded(move)
        await asyncio.sleep(LOOK_AGAIN_S)
    try:
        yield journal.find(move.side, move.id) or move
    finally:
        try:
            _tidy_up(journal, move)
        finally:
            os.close(lock)


@asynccontextmanager
async def adding_to(journal: Journal, move: Move) -> AsyncIterator[None]:
    """What is looked at here is so until the end. Raises BeingEnded."""
    give_up_at = asyncio.get_running_loop().time() + ADDING_S
    while (lock := _locked(journal, move, fcntl.LOCK_SH)) is None:
        if asyncio.get_running_loop().time() >= give_up_at:
            raise BeingEnded(move)
        await asyncio.sleep(LOOK_AGAIN_S)
    try:
        yield
    finally:
        os.close(lock)


def _tidy_up(journal: Journal, move: Move) -> None:
    """No file of what is over, or has never begun."""
    with suppress(Refusal, OSError):
        kept = journal.find(move.side, move.id)
        if kept is None or kept.state not in OPEN:
            journal.lock_path(move).unlink(missing_ok=True)


def _locked(journal: Journal, move: Move, how: int) -> int | None:
    """A descriptor to be closed; None where others have it. Raises Refusal."""
    path = journal.lock_path(move)
    try:
        journal.make_folder()
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise disk_error(error, path) from error
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(path)):  # nobody has removed it meanwhile
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None
