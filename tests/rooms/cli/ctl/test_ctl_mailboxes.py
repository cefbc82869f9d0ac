"""`murder ctl mailbox|move|backend|rebalance|placement` on a running murder, as an operator runs them."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.demo import Demo, running_demo
from tests.kit.process import ROOT, murder_command
from tests.kit.waiting import until

BACKENDS = ("be1.murder.test", "be2.murder.test", "be3.murder.test")


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", "9", "--backends", "3", "--no-tls-required") as running:
        yield running


class Ctl:
    """Runs it; words in, exit code and output out."""

    def __init__(self, demo: Demo, config: Path | None = None) -> None:
        self._config = str(config or demo.info["operator"])

    def __call__(self, *words: str, code: int = 0, given: str = "") -> str:
        done = subprocess.run(
            [*murder_command(), "ctl", *words, "--config", self._config],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            input=given,
            timeout=120,
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        assert "Traceback" not in said
        return said

    def json(self, *words: str, code: int = 0, given: str = "") -> Any:
        return json.loads(self(*words, "--json", code=code, given=given).splitlines()[0])


def place(ctl: Ctl, name: str) -> str:
    return ctl("mailbox", "find", name).partition("!")[0]


def rests(ctl: Ctl, name: str) -> bool:
    """Whether a backend has it in quarantine."""
    try:
        return name in ctl("conflicts", code=1)
    except AssertionError:
        return False


def test_mailboxes_are_made_shown_and_removed(ctl: Ctl) -> None:
    made = ctl("mailbox", "create", "shared/news", "--quota", "STORAGE=1000")
    assert "shared/news is at be" in made
    assert "rights: anyone lrs" in made
    ctl("mailbox", "create", "shared/news/old")
    ctl("mailbox", "acl", "shared/news", "anyone", "lrsp")
    ctl("mailbox", "metadata", "shared/news", "/shared/comment", "for all")
    shown = ctl.json("mailbox", "show", "shared/news")
    assert shown["acl"] == {"anyone": "lprs"}
    assert shown["quota"] == {"shared/news": ["STORAGE", "0", "1000"]}
    assert shown["annotations"]["/shared/comment"] == "for all"
    ctl("mailbox", "rename", "shared/news", "shared/herald")
    assert "shared/news/old" not in ctl("mailbox", "list", "shared/*")
    plan = ctl("mailbox", "delete", "shared/herald", code=2)
    assert "shared/herald/old" in plan and "--yes" in plan
    assert "2 removed" in ctl("mailbox", "delete", "shared/herald", "--yes")
    assert "knows no mailbox shared/herald" in ctl("mailbox", "find", "shared/herald", code=1)


def test_a_user_is_made_where_the_policy_says(ctl: Ctl, demo: Demo) -> None:
    said = ctl.json("placement", "explain", "user/zoe")
    ctl("mailbox", "create", "user/zoe", "--quota", "MESSAGE=10")
    assert place(ctl, "user/zoe") == said["server"]
    ctl("mailbox", "subscribe", "user/user1", "user1")
    assert "no user nobody" in ctl("mailbox", "subscribe", "user/user1", "nobody", code=1)
    assert "user/nix" in ctl("mailbox", "subscribe", "user/nix", "user1", code=1)
    assert "1 removed" in ctl("mailbox", "delete", "user/zoe", "--yes")


def test_the_list_is_told_by_force_who_has_a_mailbox(ctl: Ctl) -> None:
    ctl("mailbox", "create", "shared/two", "--server", "be1.murder.test")
    plan = ctl("mailbox", "force", "shared/two", "--to", "be2", code=2)
    assert "from be1.murder.test to be2.murder.test" in plan and "--yes" in plan
    assert place(ctl, "shared/two") == "be1.murder.test"
    said = ctl("mailbox", "force", "shared/two", "--to", "be2", "--yes")
    assert "is at be2.murder.test, it was at be1.murder.test" in said
    assert place(ctl, "shared/two") == "be2.murder.test"
    assert "be2.murder.test does not have it" in said
    until(lambda: rests(ctl, "shared/two"), "what be1 has rests, at once", every_s=0.2)
    assert "nowhere" in ctl("mailbox", "force", "shared/two", "--to", "nowhere", "--yes", code=1)
    ctl("mailbox", "force", "shared/two", "--to", "be1!default", "--yes")
    assert "1 removed" in ctl("mailbox", "delete", "shared/two", "--yes")


def test_what_exists_is_refused_before_the_master_counts_a_conflict(ctl: Ctl) -> None:
    assert "user/user1 is at be" in ctl("user", "create", "user1", code=1)
    other = next(one for one in BACKENDS if one != place(ctl, "user/user1"))
    assert "already" in ctl("mailbox", "create", "user/user1", "--server", other, code=1)
    assert "user.user1" not in ctl("conflicts")


def test_a_conflict_is_told_with_its_cure_and_forgotten(ctl: Ctl, demo: Demo) -> None:
    other = next(one for one in BACKENDS if one != place(ctl, "user/user1"))
    backend = next(one for one in demo.backends if one["name"] == other)
    with demo.imap(backend, "admin") as client:
        assert client.create("user/user1")[0] == "NO"
    assert ctl.json("status", code=1)["problems"]
    assert "--forget --yes" in ctl("conflicts", code=1)
    assert "--yes" in ctl("conflicts", "--forget", code=2)
    assert "Forgotten" in ctl("conflicts", "--forget", "--yes")
    assert "No conflicts" in ctl("conflicts")
    assert "Everything is well." in ctl("status")


def test_quotas_are_written_and_read_with_units(ctl: Ctl) -> None:
    assert "0 B of 2.0 GiB" in ctl("mailbox", "quota", "user/user1", "STORAGE=2G")
    assert ctl.json("mailbox", "quota", "user/user1")["quota"] == {
        "user/user1": ["STORAGE", "0", str(2 << 20)]
    }
    assert "STORAGE=2X" in ctl("mailbox", "quota", "user/user1", "STORAGE=2X", code=2)
    assert "MESSAGE=2G" in ctl("mailbox", "quota", "user/user1", "MESSAGE=2G", code=2)
    assert "has no quota" in ctl("mailbox", "quota", "user/user1", "--none")


def test_a_move_shows_its_plan_moves_and_is_undone(ctl: Ctl, demo: Demo) -> None:
    with demo.imap(demo.frontend, "user1") as client:
        client.create("INBOX/Sub")
        client.append("INBOX/Sub", "", "", b"Subject: x\r\n\r\ny\r\n")
    source = place(ctl, "user/user1")
    target = next(one for one in BACKENDS if one != source)
    assert "--yes" in ctl("mailbox", "move", "user1", "--to", target.split(".")[0], code=2)
    assert place(ctl, "user/user1") == source
    moved = ctl.json("mailbox", "move", "user1", "--to", target, "--yes")
    assert (moved["moved"], moved["failed"]) == (1, {})
    assert place(ctl, "user/user1/Sub") == target
    (record,) = ctl.json("move", "status")
    assert (record["state"], record["messages"], record["server"]) == ("done", 1, target)
    ctl("move", "undo", record["id"])
    assert place(ctl, "user/user1") == source
    with demo.imap(demo.frontend, "user1") as client:
        assert client.status("INBOX/Sub", "(MESSAGES)")[1] == [b"INBOX/Sub (MESSAGES 1)"]
    assert "already" in ctl("mailbox", "move", "user1", "--to", source, "--yes")
    assert "No backend is called nowhere" in ctl(
        "mailbox", "move", "user1", "--to", "nowhere", code=1
    )
    assert "No mailbox is called nobody" in ctl("mailbox", "move", "nobody", "--to", target, code=1)


def test_a_backend_is_drained_kept_empty_and_filled_again(ctl: Ctl, demo: Demo) -> None:
    assert "--yes" in ctl("backend", "drain", "be1", code=2)
    ctl("backend", "drain", "be1", "--yes")
    counts = {one["name"]: one for one in ctl.json("backend", "list")}
    assert (counts[BACKENDS[0]]["mailboxes"], counts[BACKENDS[0]]["weight"]) == (0, 0)
    with demo.imap(demo.frontend, "admin") as admin:
        for number in range(4):
            assert admin.create(f"user/new{number}")[0] == "OK"
            assert place(ctl, f"user/new{number}") != BACKENDS[0]
    ctl("backend", "weight", "be1", "--configured")
    plan = ctl("rebalance")
    assert BACKENDS[0] in plan and "--apply" in plan
    ctl("rebalance", "--apply")
    users = [one["users"] for one in ctl.json("backend", "list")]
    assert max(users) - min(users) <= 2


def test_a_backend_that_is_down_is_named_with_exit_code_3(ctl: Ctl, demo: Demo) -> None:
    demo.node("kill", "be3")
    try:
        said = ctl("backend", "list", code=3)
        assert "be3.murder.test" in said
        ctl("backend", "test-login", "be3", code=3)
    finally:
        demo.node("start", "be3")


def test_without_a_certificate_a_password_is_wanted(ctl: Ctl) -> None:
    assert "[operator] password_file" in ctl("mailbox", "list", "--as", "admin", code=1)


def test_a_move_to_a_backend_that_is_down_says_why_it_waits_and_goes_on(
    ctl: Ctl, demo: Demo
) -> None:
    source = place(ctl, "user/user9")
    target = next(one for one in BACKENDS if one != source)
    node = next(one["node"] for one in demo.backends if one["name"] == target)
    demo.node("stop", node)
    command = [*murder_command(), "ctl", "mailbox", "move", "user9", "--to", target, "--yes"]
    with subprocess.Popen(
        [*command, "--config", str(demo.info["operator"])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    ) as moving:
        assert moving.stdout is not None
        said = moving.stdout.readline()
        assert "user/user9: waits: " in said and target in said
        demo.node("start", node)
        said = moving.stdout.read()
        assert moving.wait(60) == 0 and "1 moved, 0 failed" in said
    assert place(ctl, "user/user9") == target
