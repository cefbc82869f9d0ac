"""`murder ctl backup` and `restore` on a running murder: points in time, and back."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_ctl_mailboxes import Ctl
from tests.kit.demo import Demo, message, running_demo
from tests.kit.process import ROOT, murder_command

DATE = '"02-Jan-2020 03:04:05 +0100"'
LARGE = b"Subject: large\r\n\r\n" + b"y" * 3_000_000 + b"\r\n"


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", "6", "--no-tls-required") as running:
        yield running


@pytest.fixture(scope="module")
def ctl(demo: Demo) -> Ctl:
    return Ctl(demo)


def offline(*words: str, code: int = 0) -> Any:
    """What needs no murder: what it says as JSON."""
    done = subprocess.run(
        [*murder_command(), "ctl", "backup", *words, "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout.splitlines()[0])


def fill(demo: Demo, user: str) -> None:
    with demo.imap(demo.frontend, user) as client:
        client.create("INBOX/Work")
        for number in range(300):
            client.append(
                "INBOX", r"(\Seen $Word)" if number % 2 else "", DATE, message(f"{number}")
            )
        client.append("INBOX/Work", r"(\Flagged)", DATE, LARGE)
        client.append("INBOX/Work", r"(\Flagged)", DATE, LARGE)


def objects(vault: Path) -> set[Path]:
    return {path for path in (vault / "objects").rglob("*") if path.is_file()}


def test_what_has_not_changed_is_neither_read_nor_written_again(
    ctl: Ctl, demo: Demo, tmp_path: Path
) -> None:
    fill(demo, "user1")
    vault = tmp_path / "vault"
    first = ctl.json("backup", "run", "--to", str(vault))
    assert (first["messages"], first["missing"], first["unreadable"]) == (302, {}, {})
    assert first["octets"] > 6_000_000 > first["new_octets"] > 3_000_000  # two copies, kept once
    assert ctl.json("backup", "run", "--to", str(vault))["new_octets"] == 0
    with demo.imap(demo.frontend, "user1") as client:
        client.select("INBOX")
        client.store("1", "+FLAGS", r"(\Deleted)")
        client.expunge()
        client.store("7", "+FLAGS", r"(\Answered)")
        client.append("INBOX", "", DATE, message("new"))
    before = objects(vault)
    third = ctl.json("backup", "run", "--to", str(vault), "--user", "user1")
    assert third["messages"] == 302
    new = objects(vault) - before
    assert len(new) == 5  # the message, two pages, the mailbox, the user
    assert offline("verify", "--from", str(vault))["problems"] == []
    listed = offline("list", "--from", str(vault))
    assert [one["scope"] for one in listed] == ["all", "all", "user user1"]


def test_what_is_damaged_is_found_and_read_again(ctl: Ctl, demo: Demo, tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    with demo.imap(demo.frontend, "user2") as client:
        for number in range(3):
            client.append("INBOX", "", DATE, message(f"{number}", "kept"))
    ctl.json("backup", "run", "--to", str(vault), "--user", "user2")
    hurt, gone = sorted(path for path in objects(vault) if b"kept" in path.read_bytes())[:2]
    hurt.write_bytes(b"something else")
    gone.unlink()
    problems = offline("verify", "--from", str(vault), code=1)["problems"]
    assert sorted("is damaged" in one for one in problems) == [False, True]
    assert ctl.json("backup", "run", "--to", str(vault), "--user", "user2")["messages"] == 3
    assert offline("verify", "--from", str(vault))["problems"] == []
    assert [path.read_bytes() for path in (vault / "damaged").iterdir()] == [b"something else"]


def test_a_run_that_is_killed_leaves_the_points_that_were_there(
    ctl: Ctl, demo: Demo, tmp_path: Path
) -> None:
    vault = tmp_path / "vault"
    ctl.json("backup", "run", "--to", str(vault), "--user", "user2")
    with demo.imap(demo.frontend, "user2") as client:
        for _ in range(3):
            client.append("INBOX", "", DATE, LARGE + os.urandom(1000).hex().encode())
    words = ("ctl", "backup", "run", "--to", str(vault), "--config", str(demo.info["operator"]))
    process = subprocess.Popen([*murder_command(), *words], cwd=ROOT)
    while process.poll() is None and not list((vault / "objects" / "new").iterdir()):
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(offline("list", "--from", str(vault))) == 1
    assert offline("verify", "--from", str(vault))["problems"] == []
    assert ctl.json("backup", "run", "--to", str(vault))["missing"] == {}
    assert offline("verify", "--from", str(vault))["problems"] == []
    assert list((vault / "objects" / "new").iterdir()) == []


def test_old_points_go_and_what_others_name_stays(ctl: Ctl, demo: Demo, tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    ctl.json("backup", "run", "--to", str(vault), "--user", "user2")
    with demo.imap(demo.frontend, "user2") as client:
        client.select("INBOX")
        client.store("1", "+FLAGS", r"(\Deleted)")
        client.expunge()
    ctl.json("backup", "run", "--to", str(vault), "--user", "user2")
    before = len(objects(vault))
    assert len(offline("prune", "--from", str(vault), "--keep-daily", "3", code=2)["removed"]) == 1
    done = offline("prune", "--from", str(vault), "--keep-daily", "3", "--yes")
    assert (len(done["removed"]), len(done["kept"])) == (1, 1)
    assert len(objects(vault)) == before - done["objects"] < before
    assert offline("verify", "--from", str(vault))["problems"] == []


def test_a_folder_that_cannot_be_written_is_told(ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "other").touch()
    said = ctl("backup", "run", "--to", str(tmp_path / "mail"), code=1)
    assert "neither empty nor a backup" in said
    assert "/dev/null" in ctl("backup", "run", "--to", "/dev/null", code=1)
    assert "No user nobody" in ctl(
        "backup", "run", "--to", str(tmp_path / "v"), "--user", "nobody", code=1
    )


def test_an_administrators_password_is_not_enough(ctl: Ctl, demo: Demo, tmp_path: Path) -> None:
    with demo.imap(demo.backends[0], "admin") as client:
        typ, said = client.xatom("XBACKUP")
        assert typ == "NO" and b"certificate" in said[0]
