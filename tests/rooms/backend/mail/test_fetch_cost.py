"""A FETCH of many items: others have their turn between them, and one part is decoded once for all its pieces."""

import asyncio
import mmap
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest

from murder.api.store import Mailbox
from murder.mime.mapped import MAPPED_OCTETS
from murder.mime.section import encoded_part
from murder.model.message import MANY_FLAGS, Message, ModSeq, Uid
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.flags import LONG_FORMS
from murder.roles.backend.imap.mail import fetch
from murder.roles.backend.imap.mail.fetch import send_in_slices
from murder.roles.backend.messages import content
from murder.roles.backend.messages.content import Reader
from tests.rooms.backend.server import config_in, memory_store, running_backend, spool_store

MAIL = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8gd29ybGQ=\r\n"


async def test_many_pieces_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[tuple[int, ...]] = []
    flushed: list[None] = []
    find, flush = encoded_part, BackendImap.flush

    def count_parts(octets: memoryview, part: object, path: tuple[int, ...]) -> object:
        decoded.append(path)
        return find(octets, part, path)  # type: ignore[arg-type]  # it passes on what it got

    async def count_flushes(dialogue: BackendImap) -> None:
        flushed.append(None)
        await flush(dialogue)

    monkeypatch.setattr(content, "encoded_part", count_parts)
    monkeypatch.setattr(BackendImap, "flush", count_flushes)
    items = " ".join(f"BINARY.PEEK[1]<{at}.1>" for at in range(100))

    async with running_backend(tmp_path, config=config_in(tmp_path)) as running:
        reader, writer = await asyncio.open_connection(*running.address)
        await reader.readline()
        commands = (
            b"a LOGIN ana secret\r\n"
            b"b APPEND INBOX {%d+}\r\n%s\r\nc SELECT INBOX\r\n"
            % (len(MAIL), MAIL)
            + b"d FETCH 1 (%s)\r\n" % items.encode()
            + b"e FETCH 1 (%s)\r\n" % b" ".join(b"BODY[]<%d.1>" % at for at in range(251))
            + b"f FETCH 1 BODY[HEADER.FIELDS (%s)]\r\n"
            % b" ".join(b"a%d" % at for at in range(251))
            + b"g LOGOUT\r\n"
        )
        writer.write(commands)
        lines = (await reader.read()).split(b"\r\n")
        writer.close()
        assert any(line.startswith(b"d OK") for line in lines), lines[-8:]
        assert any(line.startswith(b"e BAD") for line in lines), lines[-8:]
        assert any(line.startswith(b"f BAD") for line in lines), lines[-8:]
    assert decoded == [(1,)]
    assert len(flushed) >= 100


class Mapped(mmap.mmap):
    """Counts how often its pages are let go."""

    let_go = 0

    def madvise(self, option: int, start: int = 0, length: int = 0) -> None:
        self.let_go += 1
        super().madvise(option)


async def test_a_large_message_is_not_held_in_memory_while_it_is_read(tmp_path: Path) -> None:
    """By its own reader, who takes it quickly, and by the look for NUL: a hundred may do that at once."""
    octets = b"Subject: x\r\n\r\n" + b"y" * (5 * MAPPED_OCTETS)
    file = tmp_path / "message"
    file.write_bytes(octets)

    class Box:
        mailbox_id = tmp_path.name

        async def octets(self, _: Uid) -> memoryview:
            return memoryview(mapped)

    class Taker:
        sent = b""
        kept: ClassVar[list[memoryview]] = []

        def __init__(self) -> None:
            self.connection = SimpleNamespace(
                writing_paused=False, is_narrow=False, write=self.write
            )

        def write(self, data: memoryview) -> None:
            self.kept.append(data)
            self.send(bytes(data))

        def send(self, data: bytes) -> None:
            self.sent += data

        async def flush(self) -> None: ...

    with file.open("rb") as opened:
        mapped = Mapped(opened.fileno(), 0, access=mmap.ACCESS_READ)
    message = Message(Uid(1), frozenset(), datetime.now(UTC), len(octets), modseq=ModSeq(1))
    found = await Reader(cast("Mailbox", Box()), message).octets()
    assert mapped.let_go >= 5
    mapped.let_go, taker = 0, Taker()
    await send_in_slices(cast("BackendImap", taker), found)
    assert mapped.let_go == 5
    assert taker.sent == octets
    assert {piece.obj for piece in taker.kept} == {mapped}  # none was copied
    taker.sent, taker.connection.is_narrow = b"", True
    await send_in_slices(cast("BackendImap", taker), found)
    assert taker.sent == octets


@pytest.mark.parametrize("tells_flags", [True, False])
async def test_flags_of_messages_with_many_keywords_are_told_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tells_flags: bool
) -> None:
    """Of a store that tells flags alone, and of one that does not."""
    parts: list[int] = []
    put = fetch._Fetch._put

    def count(self: fetch._Fetch, octets: bytes) -> None:
        parts.append(octets.count(b" FETCH "))
        put(self, octets)

    monkeypatch.setattr(fetch._Fetch, "_put", count)
    keywords = b" ".join(b"key%02d" % number for number in range(100))
    many = 2 * LONG_FORMS + 1
    make_store = (lambda: spool_store(tmp_path / "mail")) if tells_flags else memory_store
    async with running_backend(tmp_path, make_store, config=config_in(tmp_path)) as running:
        reader, writer = await asyncio.open_connection(*running.address)
        mails = b" ".join([b"(%s) {3+}\r\nabc" % keywords] * many)
        writer.write(
            b"a LOGIN ana secret\r\nb APPEND INBOX %s\r\nc SELECT INBOX\r\n" % mails
            + b"d FETCH 1:* FLAGS\r\ne LOGOUT\r\n"
        )
        lines = (await reader.read()).split(b"\r\n")
        writer.close()
        assert any(line.startswith(b"d OK") for line in lines), lines[-4:]
        assert sum(b" FETCH (FLAGS (" in line for line in lines) == sum(parts) == many
        assert max(parts) <= max(LONG_FORMS, MANY_FLAGS // 100)
