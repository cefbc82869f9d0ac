"""What is made of a large message is in memory a piece at a time, and waits for whoever reads slowly in a file."""

import contextlib
import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from murder.errors import Refusal
from murder.mime.nul import PIECE_OCTETS, told_pieces, told_size
from murder.mime.structure import parse_structure
from murder.roles.backend.messages import made as made_octets
from murder.roles.backend.messages.made import IN_MEMORY, Made, keep_made_in
from tests.kit.peer import Peer
from tests.rooms.backend.server import running_backend


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path) -> Iterator[None]:
    before = made_octets._Place.folder
    keep_made_in(tmp_path)
    yield
    made_octets._Place.folder = before


@pytest.mark.parametrize("pieces", [[b""], [b"a", b"b"], [b"x" * IN_MEMORY], [b"y" * 70_000] * 9])
def test_octets_are_what_was_written(pieces: list[bytes], tmp_path: Path) -> None:
    made = Made()
    for piece in pieces:
        made.write(piece)
    octets = made.octets()
    assert bytes(octets) == b"".join(pieces)
    assert isinstance(octets.obj, bytes) == (len(octets) <= IN_MEMORY)
    assert list(tmp_path.iterdir()) == []  # nothing is left, whenever we die


async def test_the_loop_does_not_wait_for_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, threads = tempfile.TemporaryFile, set()

    class Watched:
        def __init__(self, **words: Any) -> None:
            threads.add(threading.get_ident())
            self._file = really(**words)

        def __getattr__(self, name: str) -> Any:
            threads.add(threading.get_ident())
            return getattr(self._file, name)

        def __enter__(self) -> Any:
            return self._file.__enter__()

        def __exit__(self, *how: object) -> None:
            self._file.close()

    monkeypatch.setattr(tempfile, "TemporaryFile", Watched)
    pieces = [bytes([number]) * 50_000 for number in range(20)]
    made = Made()
    for piece in pieces:
        await made.take(piece)
    assert bytes(await made.taken()) == b"".join(pieces)
    assert threads and threading.get_ident() not in threads
    small = Made()
    await small.take(b"in memory")
    assert bytes(await small.taken()) == b"in memory"


def open_files(folder: Path) -> list[str]:
    """Of that folder, with names or without: what else this process has open comes and goes."""
    named = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            named.append(os.readlink(f"/proc/self/fd/{number}"))
    return [name for name in named if name.startswith(f"{folder}/")]


def test_what_is_read_is_one_open_file_each_and_goes_with_it(tmp_path: Path) -> None:
    def one() -> memoryview:
        made = Made()
        made.write(b"x" * (IN_MEMORY + 1))
        return made.octets()

    held = [one() for _ in range(3)]
    before = len(open_files(tmp_path))
    del held
    assert len(open_files(tmp_path)) == before - 3  # a mapping's own


def test_where_no_file_can_be_made_the_client_hears_of_it(tmp_path: Path) -> None:
    keep_made_in(tmp_path / "gone")
    made = Made()
    with pytest.raises((Refusal, OSError)):
        made.write(b"x" * (IN_MEMORY + 1))


def test_a_message_with_nul_is_told_a_piece_at_a_time() -> None:
    for size in (100, PIECE_OCTETS + 17):
        for encoding in (b"8bit", b"quoted-printable", b"base64"):
            for end in (b"", b"\r\n"):
                head = b"A: \x00\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n"
                octets = head + b"QUJD" * size + b"\x00x" + end
                root = parse_structure(octets)
                pieces = list(told_pieces(memoryview(octets), root))
                assert max(map(len, pieces)) <= 2 * PIECE_OCTETS
                assert told_size(memoryview(octets)) == sum(map(len, pieces))


async def test_a_disk_that_takes_no_more_leaves_a_response_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands before it is with the client already: the rest of that response must still be read as one."""
    plain, coded = b"x" * 78 + b"\r\n", b"QUJD" * 19 + b"\r\n"
    parts = (b"\r\n" + plain * 2000, b"Content-Transfer-Encoding: base64\r\n\r\n" + coded * 6000)
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    mail = head + b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
    async with running_backend(tmp_path) as running:
        client = await Peer.at(*running.address)
        await client.line()
        await client.ok("LOGIN ana secret")
        await client.ok(b"APPEND INBOX {%d+}\r\n%s" % (len(mail), mail))
        await client.ok("SELECT INBOX")

        def full(**_: object) -> None:
            raise OSError(errno.ENOSPC, "no room")

        monkeypatch.setattr(tempfile, "TemporaryFile", full)
        asked = "BODY.PEEK[1] BINARY.PEEK[2] BODY.PEEK[HEADER]"
        answer, status = await client.command(f"FETCH 1 ({asked})")
        assert answer == b"* 1 FETCH (BODY[1] {%d}\r\n%s BINARY[2] NIL BODY[HEADER] {%d}\r\n%s)" % (
            *(len(plain) * 2000, plain * 2000),
            *(len(head), head),
        )
        assert status.startswith(b"t NO [OVERQUOTA]")
        assert (await client.command("NOOP"))[-1].startswith(b"t OK")
        await client.close()
