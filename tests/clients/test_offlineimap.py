"""offlineimap: a two-way sync of a mailbox, then nothing to do; then changes on both sides."""

import subprocess
from pathlib import Path

import pytest

from tests.clients.offlineimap import write_configuration
from tests.kit.demo import Demo, message, wanted

pytestmark = pytest.mark.skipif(bool(wanted("offlineimap")), reason=wanted("offlineimap"))

EACH = 150


def configuration(demo: Demo, server: dict[str, object], user: str, folder: Path) -> Path:
    proof = f"remotepass = {demo.password}\nauth_mechanisms = PLAIN"
    return write_configuration(folder, str(server["host"]), server["imap"], user, proof)


def sync(file: Path) -> str:
    done = subprocess.run(
        ["offlineimap", "-o", "-1", "-u", "basic", "-c", str(file)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={"HOME": str(file.parent), "PATH": "/usr/bin:/bin"},
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "ERROR" not in said, said[-3000:]
    return said


def files_in(box: Path) -> list[str]:
    return [file.name for part in ("new", "cur") for file in (box / part).iterdir()]


def test_both_ways_then_nothing_to_do_then_changes_on_both_sides(
    demo: Demo, number: int, kind: str, tmp_path: Path
) -> None:
    server, user = demo.server(kind, number), demo.user(number)
    client = demo.imap(server, user)
    assert client.create("INBOX/sub")[0] == "OK"
    for position in range(EACH):
        flags = r"(\Seen)" if position % 2 else ""
        assert client.append("INBOX", flags, "", message(f"far {position}"))[0] == "OK"
    file = configuration(demo, server, user, tmp_path)
    sync(file)
    box = tmp_path / "mail" / "INBOX"
    names = files_in(box)
    assert len(names) == EACH
    assert sum("S" in name.rpartition(",")[2] for name in names) == EACH // 2
    assert (tmp_path / "mail" / "INBOX" / "sub" / "cur").is_dir()
    for position in range(EACH):
        octets = message(f"near {position}").replace(b"\r\n", b"\n")
        (box / "cur" / f"9{position:04}.1.host:2,F").write_bytes(octets)
    sync(file)
    assert client.select("INBOX")[1] == [str(2 * EACH).encode()]
    assert len(client.search(None, "FLAGGED")[1][0].split()) == EACH
    again = sync(file)
    assert "Copy message" not in again and "Deleting" not in again, again
    client.store("1:10", "+FLAGS", r"(\Deleted)")
    client.expunge()
    client.store("1", "+FLAGS", r"(\Answered)")
    gone = next(name for name in files_in(box) if "F" in name.rpartition(",")[2])
    (box / "cur" / gone).unlink()
    sync(file)
    assert len(files_in(box)) == 2 * EACH - 11
    assert sum("R" in name.rpartition(",")[2] for name in files_in(box)) == 1
    assert client.select("INBOX")[1] == [str(2 * EACH - 11).encode()]
    client.logout()
