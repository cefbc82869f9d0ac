"""Sieve scripts as messages of a hidden mailbox: what is kept, what a crash leaves, what came as files."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from murder.api.store import MailboxStore
from murder.errors import Code, Refusal
from murder.model.name import inbox_of
from murder.model.quota import Resource
from murder.roles.backend.scripts.kept import IsActive, Limits, Scripts, scripts_of
from murder.roles.backend.scripts.message import format_script, parse_script
from tests.rooms.backend.server import Running, config_in, running_backend, spool_store
from tests.rooms.backend.test_transcripts import STORES

SCRIPT = b'require "fileinto";\r\nfileinto "INBOX/x";\r\n'
INBOX = inbox_of("ana")


class Crash(Exception):
    """Stops between two steps."""


@asynccontextmanager
async def scripts_in(
    folder: Path, make_store: Callable[[Path], MailboxStore] = spool_store
) -> AsyncIterator[tuple[Running, Scripts]]:
    async with running_backend(folder, lambda: make_store(folder)) as one:
        yield one, one.backend.scripts


async def names(scripts: Scripts) -> list[tuple[str, bool]]:
    return [(script.name, script.is_active) for script in await scripts.all("ana")]


def crash_at(scripts: Scripts, where: str) -> None:
    def step(what: str) -> None:
        if what == where:
            raise Crash

    scripts.step = step


@pytest.mark.parametrize("store", STORES)
async def test_scripts_are_kept_changed_and_removed(store: str, tmp_path: Path) -> None:
    async with scripts_in(tmp_path, STORES[store]) as (_, scripts):
        assert await names(scripts) == [] and await scripts.active("ana") is None
        await scripts.put("ana", "b", SCRIPT)
        await scripts.put("ana", "a", b"keep;")
        assert await names(scripts) == [("a", False), ("b", False)]
        assert await scripts.active("ana") is None
        await scripts.activate("ana", "b")
        await scripts.put("ana", "b", b"stop;\n\n")
        assert await scripts.active("ana") == ("b", b"stop;\n\n")
        await scripts.rename("ana", "b", "Äpfel und sehr lange Namen " + "ü" * 100)
        assert await names(scripts) == [
            ("a", False),
            ("Äpfel und sehr lange Namen " + "ü" * 100, True),
        ]
        with pytest.raises(IsActive):
            await scripts.delete("ana", "Äpfel und sehr lange Namen " + "ü" * 100)
        await scripts.activate("ana", "a")
        assert await scripts.active("ana") == ("a", b"keep;")
        await scripts.activate("ana", "")
        await scripts.delete("ana", "a")
        with pytest.raises(Refusal):
            await scripts.read("ana", "a")
        assert len(await scripts.all("ana")) == 1


async def test_another_worker_finds_them_after_a_start(tmp_path: Path) -> None:
    async with scripts_in(tmp_path) as (_, scripts):
        await scripts.put("ana", "main", SCRIPT)
        await scripts.activate("ana", "main")
    async with scripts_in(tmp_path) as (one, scripts):
        assert await scripts.active("ana") == ("main", SCRIPT)
        entry = one.backend.mailboxes.find(scripts_of(INBOX))
        assert entry is not None and entry.raw_acl.startswith(b"ana\t")


async def test_what_is_left_later_in_a_folder_that_was_empty_is_taken_in(tmp_path: Path) -> None:
    async with scripts_in(tmp_path) as (_, scripts):
        folder = scripts.folder_of("ana").parent
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder, (1_000_000_000, 1_000_000_000))  # long ago
        assert await scripts.active("ana") is None and await scripts.active("bob") is None
        scripts.leave("ana", "main.script", b"keep;")
        scripts.leave("ana", "active", b"main")
        assert await scripts.active("ana") == ("main", b"keep;")
        assert await scripts.active("bob") is None


@pytest.mark.parametrize("where", ["appended", "flagged"])
async def test_a_crash_between_two_steps_leaves_one_script_of_a_name_and_one_active(
    where: str, tmp_path: Path
) -> None:
    async with scripts_in(tmp_path) as (_, scripts):
        await scripts.put("ana", "old", b"keep;")
        await scripts.put("ana", "new", b"stop;")
        await scripts.activate("ana", "old")
        crash_at(scripts, where)
        with pytest.raises(Crash):
            if where == "appended":
                await scripts.put("ana", "old", b"discard;")
            else:
                await scripts.activate("ana", "new")
    async with scripts_in(tmp_path) as (_, scripts):
        if where == "appended":
            assert await scripts.active("ana") == ("old", b"discard;")
        else:
            assert await scripts.active("ana") == ("new", b"stop;")
        assert [active for _, active in await names(scripts)].count(True) == 1
        await scripts.put("ana", "old", b"keep;")
        await scripts.activate("ana", "new")
        assert await names(scripts) == [("new", True), ("old", False)]


async def test_what_may_come_is_bounded(tmp_path: Path) -> None:
    async with scripts_in(tmp_path) as (one, scripts):
        scripts.limits = Limits(2, 1000)

        async def refused(name: str, octets: bytes) -> Code:
            with pytest.raises(Refusal) as checked:
                await scripts.check_space("ana", name, len(octets))
            with pytest.raises(Refusal) as put:
                await scripts.put("ana", name, octets)
            assert put.value.code is checked.value.code
            return put.value.code

        assert await refused("a", b"#" * 1001) is Code.TOO_BIG
        assert await refused("a\x07", b"keep;") is Code.CANNOT
        await scripts.put("ana", "a", b"keep;")
        await scripts.put("ana", "b", b"keep;")
        assert await refused("c", b"keep;") is Code.LIMIT
        await scripts.put("ana", "b", b"stop;")
        await one.backend.quotas.set_limits(INBOX, {Resource.MESSAGE: 2})
        scripts.limits = Limits(3, 1000)
        assert await refused("c", b"keep;") is Code.OVER_QUOTA
        await scripts.put("ana", "b", b"keep;")  # in the place of another
        with pytest.raises(Refusal) as missing:
            await scripts.put("zoe", "a", b"keep;")
        assert missing.value.code is Code.NONEXISTENT


async def test_many_changes_at_once_are_made_one_after_the_other(tmp_path: Path) -> None:
    async with scripts_in(tmp_path) as (_, scripts):
        await asyncio.gather(*(scripts.put("ana", f"s{n % 3}", b"# %d" % n) for n in range(9)))
        assert await names(scripts) == [("s0", False), ("s1", False), ("s2", False)]


async def test_files_of_an_earlier_transfer_become_messages_at_a_start(tmp_path: Path) -> None:
    folder = tmp_path / "backend/sieve/ana"
    folder.mkdir(parents=True)
    (folder / "my%20own.script").write_bytes(SCRIPT)
    (folder / "other.script").write_bytes(b"keep;")
    (folder / "my%20own.bc").write_bytes(b"\0\1")
    (folder / "active").write_text("my%20own.bc\n")
    stranger = tmp_path / "backend/sieve/nobody"
    stranger.mkdir()
    async with scripts_in(tmp_path) as (_, scripts):
        assert await names(scripts) == [("my own", True), ("other", False)]
        assert await scripts.active("ana") == ("my own", SCRIPT)
    assert not folder.exists() and stranger.exists()


def test_a_script_of_cyrus_is_read_as_it_wrote_it() -> None:
    octets = (
        b"From: <ana@be1.test>\r\nSubject: =?UTF-8?Q?=C3=84pfel?=\r\n"
        b"Content-Type: application/sieve; charset=utf-8\r\nContent-Length: 5\r\n"
        b'Content-Disposition: attachment;\r\n\tfilename="0a-1b"\r\nMIME-Version: 1.0\r\n\r\nkeep;'
    )
    told = parse_script(memoryview(octets))
    assert (told.name, told.id, octets[told.begin :]) == ("Äpfel", "0a-1b", b"keep;")
    for name in ("a", "a  b", " a ", "=?x?=", "日本" * 60, "a" * 300):
        again = format_script(name, b"keep;", "ana", "be1.test", "0a-1b")
        assert b'\tfilename="0a-1b.sieve"\r\n' in again  # of another name a Cyrus dies
        assert all(len(line) <= 76 for line in again.split(b"\r\n") if b"Subject" in line)
        assert replace(parse_script(memoryview(again)), begin=0) == replace(
            told, name=name, begin=0
        )


def test_the_configuration_bounds_them(tmp_path: Path) -> None:
    config = config_in(tmp_path, max_scripts_per_user=7, max_script_bytes=2048)
    assert (config.backend.max_scripts_per_user, config.backend.max_script_bytes) == (7, 2048)
