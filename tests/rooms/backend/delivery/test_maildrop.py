"""One session at a time in a maildrop; who comes meets the last moments of the one before them."""

import asyncio
from pathlib import Path

import pytest

from murder.errors import Code, Refusal
from murder.model.name import inbox_of
from murder.roles.backend.maildrop import WAITS, MaildropLock, lock_maildrop

NAME = inbox_of("ana")


def locked(folder: Path, is_gone: bool = False, released_after: int = 10**9) -> tuple[bool, int]:
    """Whether the lock was had, and how often was waited for it."""
    before, waits = MaildropLock(folder, NAME), 0

    async def sleep(seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits == released_after:
            before.release()

    async def run() -> bool:
        lock = await lock_maildrop(folder, NAME, lambda: is_gone, sleep)
        lock.release()
        return True

    try:
        return asyncio.run(run()), waits
    finally:
        before.release()


def test_who_comes_waits_for_the_end_of_the_session_before(tmp_path: Path) -> None:
    assert locked(tmp_path, released_after=3) == (True, 3)


def test_but_not_for_ever(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        locked(tmp_path)
    assert refused.value.code is Code.IN_USE
    assert locked(tmp_path, released_after=WAITS) == (True, WAITS)


def test_who_has_gone_meanwhile_gets_no_lock(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError):
        locked(tmp_path, is_gone=True)
    MaildropLock(tmp_path, NAME).release()
