"""A real saslauthd: its mechanism here is `rimap`, which asks an IMAP server whether a password is right."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from murder.api import Denied, Identity, LoginAttempt
from murder.errors import UpstreamFailure, UpstreamKind
from plugins.auth_saslauthd import Saslauthd, Settings, format_question
from tests.conftest import cannot_run
from tests.kit.waiting import until_soon
from tests.rooms.backend.server import running_backend

HERE = LoginAttempt("imap", "fe1.test", "192.0.2.1", is_tls=True)


@contextmanager
def saslauthd_beside(folder: Path, *words: str) -> Iterator[Path]:
    """One by these options; its socket."""
    program = shutil.which("saslauthd", path="/usr/sbin:/usr/bin")
    if program is None:
        cannot_run("saslauthd (Debian: sasl2-bin) is not installed")
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [program, "-d", "-m", str(folder), "-n", "2", *words],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )  # at its end it kills all of its process group
        try:
            asyncio.run(until_soon(lambda: (folder / "mux").exists()))
            yield folder / "mux"
        finally:
            running.terminate()
            running.wait()


@asynccontextmanager
async def saslauthd(folder: Path) -> AsyncIterator[Settings]:
    """One that asks a backend where everybody's password is `secret`."""
    async with running_backend(folder / "be") as backend:
        port = backend.address[1]
        beside = saslauthd_beside(folder, "-a", "rimap", "-O", f"127.0.0.1/{port}")
        mux = await asyncio.to_thread(beside.__enter__)
        try:
            yield Settings(socket=mux, at_once=2)
        finally:
            await asyncio.to_thread(beside.__exit__, None, None, None)


async def test_a_saslauthd_says_who_is_who(tmp_path: Path) -> None:
    async with saslauthd(tmp_path) as settings:
        backend = Saslauthd(settings)
        assert await backend.check(HERE, "Ana", b"secret") == Identity("ana")
        assert await backend.check(HERE, "ana", b"wrong") is Denied.UNKNOWN
        assert await backend.check(replace(HERE, protocol="pop3"), "ana", b"secret") == Identity(
            "ana"
        )
        for password in (b"", b"x" * 300, b"secret\0"):
            assert await backend.check(HERE, "ana", password) is Denied.UNKNOWN
        assert await backend.check(HERE, "a" * 300, b"secret") is Denied.UNKNOWN
        answers = await asyncio.gather(
            *(backend.check(HERE, f"user{number}", b"secret") for number in range(8))
        )
        assert answers == [Identity(f"user{number}") for number in range(8)]
        assert await backend.diagnose() == []


def test_a_question_is_written_as_cyrus_does() -> None:
    assert format_question("anna", b"pw", "imap", "example.org") == (
        b"\0\4anna\0\2pw\0\4imap\0\x0bexample.org"
    )


async def test_what_is_not_there_is_told_with_its_cure(tmp_path: Path) -> None:
    backend = Saslauthd(Settings(socket=tmp_path / "mux"))
    with pytest.raises(UpstreamFailure) as failed:
        await backend.check(HERE, "ana", b"secret")
    assert failed.value.kind is UpstreamKind.CONNECT
    (fault,) = await backend.diagnose()
    assert fault.what == f"saslauthd: nobody listens at {tmp_path / 'mux'}"
    assert "start saslauthd" in fault.cure


async def test_a_socket_that_may_not_be_opened_is_told_with_its_cure(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    async with await asyncio.start_unix_server(lambda reader, writer: None, str(folder / "mux")):
        folder.chmod(0)
        own = os.geteuid()
        if own == 0:
            os.seteuid(65534)  # root may open everything
        try:
            (fault,) = await Saslauthd(Settings(socket=folder / "mux")).diagnose()
        finally:
            os.seteuid(own)
            folder.chmod(0o700)
    assert "may not be opened" in fault.what
    assert "usermod -aG sasl murder" in fault.cure


@pytest.mark.parametrize("answer", [b"", b"\xff\xff", b"\0\x05OK"])
async def test_one_that_breaks_off_lets_nobody_in(tmp_path: Path, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(serve, str(tmp_path / "mux")):
        with pytest.raises(UpstreamFailure):
            await Saslauthd(Settings(socket=tmp_path / "mux")).check(HERE, "ana", b"secret")


async def test_one_that_is_silent_is_given_up(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(serve, str(tmp_path / "mux")):
        backend = Saslauthd(Settings(socket=tmp_path / "mux", timeout_s=0.05))
        with pytest.raises(UpstreamFailure) as failed:
            await backend.check(HERE, "ana", b"secret")
        assert failed.value.kind is UpstreamKind.TIMEOUT
