"""The simulated power cut itself: it loses what was not fsynced, and never what was."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.kit.powercut import MISSING, Story

CUTS = 60
SAYS = """
import os, socket, sys
root, port = sys.argv[1], int(sys.argv[2])
says = socket.create_connection(("127.0.0.1", port))
def sync_folder(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
def put(name, octets, careful):
    with open(os.path.join(root, name + ".new"), "wb") as file:
        file.write(octets)
        file.flush()
        if careful:
            os.fsync(file.fileno())
    os.rename(os.path.join(root, name + ".new"), os.path.join(root, name))
    if careful:
        sync_folder(root)
"""


def story_of(folder: Path, program: str) -> Story:
    """What a program did in `folder`; it `says` what it has done."""
    if MISSING and os.environ.get("CI") != "true":
        pytest.skip(MISSING)
    folder.mkdir()
    (folder / "old").write_bytes(b"old")
    story = Story(folder)
    with socket.create_server(("127.0.0.1", 0)) as ear:
        port = str(ear.getsockname()[1])
        command = [sys.executable, "-c", SAYS + program, str(folder), port]
        subprocess.run(story.traced(command), check=True, timeout=60)
    return story


def test_what_was_fsynced_is_there_whatever_the_moment(tmp_path: Path) -> None:
    story = story_of(
        tmp_path / "disk",
        """
for i in range(20):
    put(f"f{i}", b"x" * 2000, True)
    says.send(b"%d\\n" % i)
""",
    )
    seen = set()
    for disk in story.cuts(Random(1), CUTS):
        copy = tmp_path / "copy"
        disk.write_to(copy, Random(2))
        said = b"".join(disk.sent.values()).count(b"\n")
        seen.add(said)
        assert (copy / "old").read_bytes() == b"old"
        for i in range(said):
            assert (copy / f"f{i}").read_bytes() == b"x" * 2000
    assert len(seen) > 5


@pytest.mark.parametrize(
    "careless",
    [
        'put(f"f{i}", b"x" * 2000, False)',
        'put(f"f{i}", b"x" * 2000, False); sync_folder(root)',
        'open(f"{root}/f{i}", "wb", 0).write(b"x" * 2000)',
        'f = open(f"{root}/f{i}", "wb", 0); f.write(b"x" * 2000); os.fsync(f.fileno())',
        'f = open(f"{root}/f{i}", "wb", 0); os.fsync(f.fileno()); f.write(b"x" * 2000); sync_folder(root)',
    ],
)
def test_what_was_not_fsynced_is_lost_sooner_or_later(tmp_path: Path, careless: str) -> None:
    story = story_of(
        tmp_path / "disk", f"for i in range(20):\n    {careless}\n    says.send(b'%d\\n' % i)\n"
    )
    lost = 0
    random = Random(3)
    for disk in story.cuts(random, CUTS):
        disk.write_to(tmp_path / "copy", random)
        for i in range(b"".join(disk.sent.values()).count(b"\n")):
            path = tmp_path / "copy" / f"f{i}"
            lost += not path.exists() or path.read_bytes() != b"x" * 2000
    assert lost


def test_o_dsync_positions_appends_and_removals(tmp_path: Path) -> None:
    story = story_of(
        tmp_path / "disk",
        """
a = os.open(root + "/a", os.O_RDWR | os.O_CREAT | os.O_DSYNC)
b = os.open(root + "/b", os.O_RDWR | os.O_CREAT)
sync_folder(root)
os.pwrite(b, b"never seen, for it is written over", 0)
d = os.open(root + "/b", os.O_WRONLY | os.O_DSYNC)
os.write(a, b"one")
os.write(a, b"two")
os.pwrite(a, b"T", 3)
os.writev(d, [b"below", b"!" * 40])
with open(root + "/old", "ab") as file:
    file.write(b"er")
    file.flush()
    os.fdatasync(file.fileno())
says.send(b"here\\n")
os.mkdir(root + "/sub")
os.link(root + "/old", root + "/sub/link")
os.unlink(root + "/old")
sync_folder(root)
sync_folder(root + "/sub")
says.send(b"there\\n")
""",
    )
    random = Random(4)
    seen = set()
    for disk in story.cuts(random, 4 * CUTS):
        copy = tmp_path / "copy"
        disk.write_to(copy, random)
        said = b"".join(disk.sent.values())
        seen.add(said)
        if said:
            assert (copy / "a").read_bytes() == b"oneTwo"
            assert (copy / "b").read_bytes() == b"below" + b"!" * 40
        if said == b"here\nthere\n":
            assert (copy / "sub" / "link").read_bytes() == b"older" and not (copy / "old").exists()
    assert len(seen) == 3


@pytest.mark.parametrize("end", [") = ? <unavailable>", " <unfinished ...>", ") = 6"])
def test_what_was_said_as_the_program_was_killed_was_said(tmp_path: Path, end: str) -> None:
    """Whoever heard it knows that; strace may not know any more whether it was."""
    folder = tmp_path / "disk"
    folder.mkdir()
    story = Story(folder)
    line = r'7 sendto(5<TCP:[127.0.0.1:9->127.0.0.1:10]>, "\x64\x6f\x6e\x65\x0d\x0a", 6, 0, NULL, 0'
    story.log.write_text(f"{line}{end}\n")
    *_, disk = story.cuts(Random(1), 0)
    assert disk.sent == {"127.0.0.1:10": b"done\r\n"}
    assert not story.unclear
