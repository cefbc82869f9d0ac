"""A message whose file is missing or cut short: it is refused and logged, the others are told, and nothing crashes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.peer import Peer
from tests.rooms.backend.server import running_backend, spool_store

MAIL = b"Subject: %b\r\n\r\n" + b"0123456789abcde\n" * 20_000
REFUSED = b"NO [UNAVAILABLE] A message is damaged"


def cut_short(file: Path) -> None:
    with file.open("r+b") as octets:
        octets.truncate(100)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def largest_new(folder: Path, known: set[Path]) -> Path:
    """The file of the message that has just come."""
    (file,) = [path for path in files(folder) if path not in known]
    return file


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size >= 300_000]


@pytest.mark.parametrize("damage", [Path.unlink, cut_short, empty])
async def test_others_are_told_and_the_damage_is_said(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as running:
        peer = await Peer.at(*running.address)
        await peer.until(b"* OK")
        await peer.ok("LOGIN ana secret")
        damaged = tmp_path
        for name in (b"a", b"b", b"c"):
            known = set(files(tmp_path))
            mail = MAIL % name
            await peer.ok(f"APPEND INBOX {{{len(mail)}+}}\r\n{mail.decode()}")
            if name == b"b":
                damaged = largest_new(tmp_path, known)
        damage(damaged)
        await peer.ok("SELECT INBOX")
        said = await peer.command("FETCH 1:3 (UID BODY.PEEK[]<0.10>)")
        assert [line[:10] for line in said[:-1] if line.startswith(b"*")] == [
            b"* 1 FETCH ",
            b"* 3 FETCH ",
        ]
        assert REFUSED in said[-1]
        assert REFUSED in (await peer.command("FETCH 2 BODY.PEEK[TEXT]"))[-1]
        assert (await peer.ok("SEARCH BODY 0123456789abcde"))[0] == b"* SEARCH 1 3"
        assert len(await peer.ok("FETCH 1:3 (FLAGS RFC822.SIZE)")) == 3
        await peer.close()
    assert damaged.name in caplog.text and "store check" in caplog.text
