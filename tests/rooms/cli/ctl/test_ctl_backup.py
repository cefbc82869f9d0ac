"""`murder ctl backup` and `restore` on a running murder: points in time, and back."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import cannot_run
from tests.kit.demo import Demo, message, running_demo, wanted
from tests.kit.process import ROOT, murder_command
from tests.rooms.cli.ctl.test_ctl_mailboxes import Ctl

DATE = '"02-Jan-2020 03:04:05 +0100"'
TRIES = 20  # to kill something in its midst
LARGE = b"Subject: large\r\n\r\n" + b"y" * 3_000_000 + b"\r\n"


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", "7", "--no-tls-required") as running:
        yield running


def offline(*words: str, code: int = 0) -> Any:
    """What needs no murder: what it says as JSON."""
    done = subprocess.run(
        [*murder_command(), "ctl", "backup", *words, "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout.splitlines()[0])


def fill(demo: Demo, user: str) -> None:
    with demo.imap(demo.frontend, user) as client:
        client.create("INBOX/Work")
        for number in range(20):
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
    assert (first["messages"], first["missing"], first["unreadable"]) == (22, {}, {})
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
    assert third["messages"] == 22
    new = objects(vault) - before
    assert len(new) == 4  # the message, a page, the mailbox, the user
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
    words = ("ctl", "backup", "run", "--to", str(vault), "--config", str(demo.info["operator"]))
    for points in range(1, TRIES):
        with demo.imap(demo.frontend, "user2") as client:
            for _ in range(3):
                client.append("INBOX", "", DATE, LARGE + os.urandom(1000).hex().encode())
        process = subprocess.Popen([*murder_command(), *words], cwd=ROOT)
        while process.poll() is None and not list((vault / "objects" / "new").iterdir()):
            os.sched_yield()
        process.send_signal(signal.SIGKILL)
        process.wait()
        if len(offline("list", "--from", str(vault))) == points:
            break  # else it was at its end before the signal came
    else:
        raise AssertionError("it is always faster")
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


@pytest.mark.parametrize(
    "place", ["s3://bucket/mail", "s3:https://s3.example.org/b", "sftp:a@b:/c"]
)
def test_a_place_that_is_no_folder_is_not_taken_for_one(ctl: Ctl, place: str) -> None:
    assert "--restic s3:" in ctl("backup", "run", "--to", place, code=2)
    assert "is no folder" in ctl("restore", "user", "user1", "--from", place, code=2)
    assert not Path(place.split("/")[0]).exists()


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


def test_restic_takes_it_away_encrypted_and_brings_it_back(
    ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing := wanted("restic"):
        cannot_run(missing)
    vault, repository = tmp_path / "vault", str(tmp_path / "repository")
    to = os.path.relpath(vault)  # and brought back as what it is, from wherever it was named
    run = ("backup", "run", "--to", to, "--user", "user2", "--restic", repository)
    monkeypatch.delenv("RESTIC_PASSWORD", raising=False)
    assert "RESTIC_PASSWORD_FILE" in ctl(*run, code=1)
    assert not vault.exists()
    (tmp_path / "password").write_text("secret")
    monkeypatch.setenv("RESTIC_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("RESTIC_CACHE_DIR", str(tmp_path / "cache"))
    assert "restic: " in ctl(*run, code=1)  # the point is made, the copy is not
    assert len(offline("list", "--from", str(vault))) == 1
    subprocess.run(["restic", "-q", "-r", repository, "init"], check=True, timeout=120)
    ctl(*run)
    back = [
        "restic",
        "-q",
        "-r",
        repository,
        "restore",
        "latest",
        "--target",
        str(tmp_path / "back"),
    ]
    subprocess.run(back, check=True, timeout=120)
    copy = str(tmp_path / "back") + str(vault)
    assert offline("verify", "--from", copy)["problems"] == []
    assert len(offline("list", "--from", copy)) == 2


# --- back


def told(demo: Demo, user: str, folder: str) -> tuple[dict[str, int], list[bytes]]:
    """A mailbox's numbers, and flags, dates and octets of its messages."""
    with demo.imap(demo.frontend, user) as client:
        (line,) = client.status(f'"{folder}"', "(MESSAGES UIDNEXT UIDVALIDITY)")[1]
        words = line.decode().rpartition("(")[2].rstrip(")").split()
        numbers = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        assert client.select(f'"{folder}"', readonly=True)[0] == "OK"
        found = (
            client.fetch("1:*", "(UID INTERNALDATE FLAGS BODY.PEEK[])")[1]
            if words[1] != "0"
            else []
        )
    rows = [b" ".join(row[:2]).partition(b" ")[2] for row in found if isinstance(row, tuple)]
    return numbers, [re.sub(rb" ?\\Recent ?", b"", row) for row in rows]


def without_uids(rows: list[bytes]) -> list[bytes]:
    return sorted(row.partition(b"INTERNALDATE")[2] for row in rows)


def point(ctl: Ctl, vault: Path, *more: str) -> str:
    return str(ctl.json("backup", "run", "--to", str(vault), *more)["point"])


def test_a_user_comes_back_beside_and_instead(ctl: Ctl, demo: Demo, tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    with demo.imap(demo.frontend, "user3") as client:
        client.create("INBOX/Work")
        client.create("INBOX/Work/Deep")
        for number in range(5):
            client.append("INBOX", r"(\Seen $Word)", DATE, message(f"{number}"))
        client.append("INBOX/Work/Deep", "", DATE, message("deep"))
        client.setacl("INBOX/Work/Deep", "user4", "lr")
    inbox, deep = told(demo, "user3", "INBOX"), told(demo, "user3", "INBOX/Work/Deep")
    at = point(ctl, vault, "--user", "user3")
    said = ctl("restore", "user", "user3", "--from", str(vault), "--yes", code=1)
    assert "is there" in said and "--instead" in said
    beside = ("restore", "user", "user3", "--from", str(vault), "--into", "Back")
    assert ctl.json(*beside, code=2)["messages"] == 6
    assert ctl.json(*beside, "--yes")["messages"] == 6
    numbers, rows = told(demo, "user3", "INBOX/Back")
    assert rows == inbox[1]
    assert numbers["UIDVALIDITY"] > inbox[0]["UIDVALIDITY"]
    assert told(demo, "user3", "INBOX/Back/Work/Deep")[1] == deep[1]
    assert "is there already" in ctl(*beside, "--yes", code=1)
    with demo.imap(demo.frontend, "user3") as client:
        client.select("INBOX")
        client.store("1:3", "+FLAGS", r"(\Deleted)")
        client.expunge()
        client.append("INBOX", "", DATE, message("later"))
        client.delete("INBOX/Work/Deep")
    before = told(demo, "user3", "INBOX")
    done = ctl.json(
        "restore", "user", "user3", "--from", str(vault), "--at", at, "--instead", "--yes"
    )
    assert (done["messages"], done["lost"]) == (6, {})
    numbers, rows = told(demo, "user3", "INBOX")
    assert without_uids(rows) == without_uids(inbox[1])
    assert numbers["UIDVALIDITY"] == before[0]["UIDVALIDITY"]
    uids = [int(row.split(b"UID ")[1].split()[0]) for row in rows]
    assert min(uids) >= before[0]["UIDNEXT"]
    aside = told(demo, "user3", f"INBOX/Replaced-{at}")[1]
    assert without_uids(aside) == without_uids(before[1])
    numbers, rows = told(demo, "user3", "INBOX/Work/Deep")
    assert rows == deep[1]
    assert numbers["UIDVALIDITY"] > deep[0]["UIDVALIDITY"]
    assert ctl.json("mailbox", "show", "user/user3/Work/Deep")["acl"]["user4"] == "lr"
    ctl.json("restore", "user", "user3", "--from", str(vault), "--instead", "--yes")  # none is gone
    assert without_uids(told(demo, "user3", "INBOX")[1]) == without_uids(inbox[1])
    with demo.imap(demo.frontend, "user3") as client:
        assert not [line for line in client.list()[1] if "Restored-" in str(line)]
    resting = [row["name"] for row in ctl.json("mailbox", "list", "--deleted")]
    assert any("Deep" in name for name in resting)  # what they deleted themselves
    assert not [name for name in resting if "Restored-" in name]
    assert f"RESTORE user/user3/Back from the point {at}" in ctl("audit")


def test_what_was_set_since_stays_at_a_restore_instead_and_a_full_quota_refuses_nothing(
    ctl: Ctl, demo: Demo, tmp_path: Path
) -> None:
    vault, script = tmp_path / "vault", tmp_path / "script"
    ask = 'GETMETADATA INBOX "/private/comment"'
    with demo.peer(demo.frontend, user="user7") as peer:
        for text in ("one", "two"):
            demo.deliver(demo.frontend, "user7", message(text))
        peer.until_ok('SETMETADATA INBOX ("/private/comment" "then")')
        peer.ok("SETACL INBOX user2 lrs")
        before = told(demo, "user7", "INBOX")[1]
        point(ctl, vault, "--user", "user7")
        peer.ok('SETMETADATA INBOX ("/private/comment" "now")')
        peer.ok("SETACL INBOX user2 l")
        script.write_text("keep;")
        ctl("sieve", "put", "user7", "since", str(script))
        ctl("mailbox", "quota", "user/user7", "MESSAGE=1")
        done = ctl.json("restore", "user", "user7", "--from", str(vault), "--instead", "--yes")
        assert (done["messages"], done["lost"]) == (len(before), {})
        assert without_uids(told(demo, "user7", "INBOX")[1]) == without_uids(before)
        assert '"now"' in peer.ok(ask)[0] or "now" in "".join(peer.ok(ask))
    shown = ctl.json("mailbox", "show", "user/user7")
    assert shown["acl"]["user2"] == "l"
    assert shown["quota"]["user/user7"][-1] == "1"
    assert "since" in ctl("sieve", "list", "user7")
    assert demo.deliver(demo.frontend, "user7", message("more")).startswith("452 ")  # it is full


def test_a_restore_that_is_killed_is_repeated(ctl: Ctl, demo: Demo, tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    with demo.imap(demo.frontend, "user4") as client:
        for number in range(4):
            client.append("INBOX", "", DATE, LARGE + b"%d" % number)
    rows = told(demo, "user4", "INBOX")[1]
    point(ctl, vault, "--user", "user4")
    for number in range(TRIES):
        words = (
            "restore",
            "user",
            "user4",
            "--from",
            str(vault),
            "--into",
            f"Back{number}",
            "--yes",
        )
        command = [*murder_command(), "ctl", *words, "--config", str(demo.info["operator"])]
        process = subprocess.Popen(command, cwd=ROOT)
        while process.poll() is None and not list((vault / "restores").glob("*.json")):
            os.sched_yield()
        process.send_signal(signal.SIGKILL)
        process.wait()
        with demo.imap(demo.frontend, "user4") as client:
            if client.select(f"INBOX/Back{number}")[0] == "NO":
                break  # else it was at its end before the signal came: all of it, or nothing
        assert told(demo, "user4", f"INBOX/Back{number}")[1] == rows
        for file in (vault / "restores").glob("*.json"):
            file.unlink()
    else:
        raise AssertionError("it is always faster")
    assert ctl.json(*words)["messages"] == 4
    assert told(demo, "user4", f"INBOX/Back{number}")[1] == rows
    assert not list((vault / "restores").glob("*.json"))


def test_a_deleted_user_comes_back_with_scripts_and_subscriptions(
    ctl: Ctl, demo: Demo, tmp_path: Path
) -> None:
    vault = tmp_path / "vault"
    script = tmp_path / "script"
    script.write_text('require "fileinto"; fileinto "Work";')
    ctl("sieve", "put", "user5", "main", str(script))
    ctl("sieve", "activate", "user5", "main")
    ctl("mailbox", "quota", "user/user5", "STORAGE=5000")
    with demo.imap(demo.frontend, "user5") as client:
        client.create(
            "INBOX/Sent",
        )
        client.subscribe("INBOX/Sent")
        client.append("INBOX", r"(\Flagged)", DATE, message("x"))
    inbox = told(demo, "user5", "INBOX")
    point(ctl, vault, "--user", "user5")
    ctl("user", "delete", "user5", "--yes")
    ctl.json("restore", "user", "user5", "--from", str(vault), "--yes")
    numbers, rows = told(demo, "user5", "INBOX")
    assert rows == inbox[1]
    assert numbers["UIDVALIDITY"] > inbox[0]["UIDVALIDITY"]
    assert "main" in ctl("sieve", "list", "user5")
    assert ctl.json("mailbox", "show", "user/user5")["quota"]["user/user5"][2] == "5000"
    with demo.imap(demo.frontend, "user5") as client:
        assert b"INBOX/Sent" in b"".join(client.lsub()[1])


def test_a_user_who_moves_meanwhile_is_in_the_point(ctl: Ctl, demo: Demo, tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    with demo.imap(demo.frontend, "user4") as client:
        for number in range(4):
            client.append("INBOX", "", DATE, LARGE + b"%d" % number)
    messages = told(demo, "user4", "INBOX")[0]["MESSAGES"]
    places = [str(one["name"]) for one in demo.backends]
    here = ctl("mailbox", "find", "user/user4").partition("!")[0]
    there = next(name for name in places if name != here)
    words = ("ctl", "mailbox", "move", "user4", "--to", there, "--yes")
    moving = subprocess.Popen(
        [*murder_command(), *words, "--config", str(demo.info["operator"])], cwd=ROOT
    )
    for _ in range(3):
        done = ctl.json("backup", "run", "--to", str(vault), "--user", "user4")
        assert (done["missing"], done["unreadable"]) == ({}, {})
        assert done["messages"] >= messages
    assert moving.wait(60) == 0
    assert ctl.json("backup", "run", "--to", str(vault), "--user", "user4")["new_octets"] < 10_000
    assert offline("verify", "--from", str(vault))["problems"] == []


def test_a_backend_whose_disk_is_lost_comes_back(ctl: Ctl, demo: Demo, tmp_path: Path) -> None:
    """A backup from the night, mail and a mailbox of the morning, the disk is lost at noon."""
    vault = tmp_path / "vault"
    home = demo.home(6)
    fill(demo, "user6")
    night = {folder: told(demo, "user6", folder) for folder in ("INBOX", "INBOX/Work")}
    point(ctl, vault)
    with demo.imap(demo.frontend, "user6") as client:
        client.append("INBOX", "", DATE, message("of the morning"))
        client.create("INBOX/Morning")
    morning = told(demo, "user6", "INBOX")[0]
    demo.node("stop", home["node"])
    shutil.rmtree(demo.folder / home["node"] / "data")
    demo.node("start", home["node"])
    # nobody is told that mailboxes do not exist, and mail waits at its sender
    assert demo.deliver(demo.frontend, "user6", message("at noon")).startswith("451 ")
    with demo.imap(demo.frontend, "user6") as client:
        typ, said = client.select("INBOX")
        assert typ == "NO" and b"UNAVAILABLE" in (said[0] or b"")
    assert "it has lost" in ctl("doctor", code=1)
    missing = ctl.json("backup", "run", "--to", str(vault), code=1)["missing"]
    assert "user/user6" in missing  # told, and the older point stays the one to restore from
    told_at_end = ctl("restore", "backend", home["name"], "--from", str(vault), "--yes")
    assert "is gone from here: tell them" in told_at_end and "is lost:" not in told_at_end
    assert "user/user6/Morning: made since, now empty" in told_at_end
    assert "Everything is well." in ctl("status")  # at once
    for folder, (was, rows) in night.items():
        numbers, now = told(demo, "user6", folder)
        assert now == rows
        assert numbers["UIDVALIDITY"] > was["UIDVALIDITY"]  # UIDs of the morning mean nothing else
    assert morning["UIDNEXT"] > numbers["UIDNEXT"]
    assert told(demo, "user6", "INBOX/Morning")[0]["MESSAGES"] == 0
    assert demo.deliver(demo.frontend, "user6", message("at one")).startswith("250 ")
    assert (
        ctl.json("restore", "backend", home["name"], "--from", str(vault), code=2)["mailboxes"] == 0
    )
    assert ctl.json("backup", "run", "--to", str(vault))["missing"] == {}
