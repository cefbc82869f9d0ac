"""ManageSieve at a backend, on every store: dialogues, and what nobody may do to it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from murder.api.store import MailboxStore
from murder.config.sections import NamespaceConfig
from murder.config.sieve import SieveConfig
from murder.model.name import inbox_of
from murder.model.quota import Resource
from tests.kit.dialogue import Player, Streams
from tests.rooms.backend.server import config_in, running_backend, spool_store
from tests.rooms.backend.test_transcripts import STORES, TRANSCRIPTS
from tests.rooms.serve.sieve_kit import greeted

LOGIN = b'AUTHENTICATE "PLAIN" "AGFuYQBzZWNyZXQ="\r\n'
FILES = sorted((TRANSCRIPTS / "sieve").glob("*.txt"))


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_a_backend_says_what_the_transcript_says(
    file: Path, store: str, tmp_path: Path
) -> None:
    make: Callable[[Path], MailboxStore] = STORES[store]
    async with running_backend(tmp_path, lambda: make(tmp_path)) as running:

        async def connect(_: str) -> Streams:
            return await greeted(running.sieve)

        await Player(connect).play(file.read_text(encoding="utf-8"))


async def test_who_has_not_logged_in_gets_the_memory_of_one_login(tmp_path: Path) -> None:
    async with running_backend(tmp_path) as running:
        reader, writer = await greeted(running.sieve)
        assert await reader.readline() == b"OK\r\n"
        writer.write(b'AUTHENTICATE "PLAIN" {30000+}\r\n' + b"x" * 30000 + b"\r\nNOOP\r\n")
        assert await reader.readline() == b'NO (QUOTA/MAXSIZE) "A string may have 20480 octets"\r\n'
        assert await reader.readline() == b"OK\r\n"
        writer.write(b'PUTSCRIPT "x" {99999999+}\r\n')
        assert (await reader.readline()).startswith(b"BYE ")
        assert await reader.read() == b""
        writer.close()


async def test_a_script_that_is_too_big_costs_nothing_and_the_session_goes_on(
    tmp_path: Path,
) -> None:
    config = config_in(tmp_path, max_script_bytes=2048)
    async with running_backend(tmp_path, config=config) as running:
        reader, writer = await greeted(running.sieve)
        writer.write(LOGIN + b'PUTSCRIPT "a" {5000+}\r\n' + b"#" * 5000 + b"\r\n")
        writer.write(b'PUTSCRIPT "a" {2048+}\r\n' + b"#" * 2048 + b"\r\n")
        writer.write(b'GETSCRIPT "a"\r\nLOGOUT\r\n')
        said = await reader.read()
        writer.close()
        assert said.count(b"(QUOTA/MAXSIZE)") == 1
        assert b"{2048}\r\n" + b"#" * 2048 + b"\r\nOK\r\n" in said


async def test_who_sends_many_times_what_a_script_may_have_is_told_so_at_the_end(
    tmp_path: Path,
) -> None:
    config = config_in(tmp_path, max_script_bytes=2048)
    async with running_backend(tmp_path, config=config) as running:
        reader, writer = await greeted(running.sieve)
        writer.write(LOGIN + b'PUTSCRIPT "a" {9999999+}\r\n')
        said = await reader.read()
        writer.close()
        assert said.splitlines()[-1].startswith(b"BYE (QUOTA/MAXSIZE) ")


async def test_what_scripts_may_do_is_told(tmp_path: Path) -> None:
    """RFC 5804 §1.7, RFC 6134 §2.8."""
    lists = {":addrbook:staff": tmp_path, "tag:example.com,2011:x": tmp_path, "plain": tmp_path}
    config = replace(config_in(tmp_path), sieve=SieveConfig(lists=lists))
    async with running_backend(tmp_path, config=config) as running:
        reader, writer = await asyncio.open_connection(*running.sieve)
        said = await reader.readuntil(b"OK\r\n")
        writer.close()
        for row in (b'"MAXREDIRECTS" "4"', b'"NOTIFY" "mailto"', b'"EXTLISTS" "tag urn"'):
            assert row in said.splitlines()


async def test_who_speaks_something_else_is_let_go(tmp_path: Path) -> None:
    async with running_backend(tmp_path) as running:
        reader, writer = await greeted(running.sieve)
        writer.write(b"GET / HTTP/1.1\r\n" * 30)
        said = (await reader.read()).splitlines()
        writer.close()
        assert len(said) == 21 and said[-1].startswith(b"BYE ")


async def test_scripts_are_no_mail_and_are_in_the_quota(tmp_path: Path) -> None:
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as running:
        await running.backend.quotas.set_limits(inbox_of("ana"), {Resource.STORAGE: 1})
        reader, writer = await greeted(running.sieve)
        writer.write(LOGIN + b'PUTSCRIPT "a" {1500+}\r\n' + b"#" * 1500 + b"\r\nLOGOUT\r\n")
        said = await reader.read()
        writer.close()
        assert b"NO (QUOTA) " in said


@pytest.mark.parametrize(
    ("name", "alternative", "is_warned"),
    [
        ("Lists/a", False, True),
        ("INBOX/Lists/a", False, False),
        ("inbox", False, False),
        ("user/bob/both", False, False),
        ("Lists/a", True, False),
    ],
)
async def test_who_files_into_what_is_none_of_their_mailboxes_is_warned(
    name: str, alternative: bool, is_warned: bool, tmp_path: Path
) -> None:
    """As with Cyrus and Dovecot, whose personal namespace has a prefix, such mail is kept in INBOX; we say so before."""
    namespace = NamespaceConfig(alternative=alternative)
    config = config_in(tmp_path, namespace=namespace)
    async with running_backend(tmp_path, config=config) as running:
        reader, writer = await greeted(running.sieve)
        script = f'require ["fileinto", "mailbox"]; fileinto :create "{name}";'.encode()
        writer.write(LOGIN + b'PUTSCRIPT "a" {%d+}\r\n%b\r\nLOGOUT\r\n' % (len(script), script))
        said = await reader.read()
        writer.close()
        assert (b"OK (WARNINGS) " in said) is is_warned, said
        assert (b"your own mailboxes are called 'INBOX/" in said) is is_warned


async def test_a_size_of_thousands_of_digits_is_no_number(tmp_path: Path) -> None:
    async with running_backend(tmp_path) as running:
        reader, writer = await greeted(running.sieve)
        writer.write(LOGIN + b'HAVESPACE "a" "%b"\r\nLOGOUT\r\n' % (b"9" * 5000))
        said = (await reader.read()).splitlines()
        writer.close()
        assert said[-2] == b'NO "HAVESPACE takes a name and a number of octets"'
