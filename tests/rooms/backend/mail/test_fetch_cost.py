"""A FETCH of many items: others have their turn between them, and one part is decoded once for all its pieces."""

import asyncio
from pathlib import Path

import pytest

from murder.mime.section import encoded_part
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.mail import content
from tests.rooms.backend.server import config_in, running_backend

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
