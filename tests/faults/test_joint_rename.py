"""RENAME of hierarchies that lie on three backends, through a frontend: whole, refused, and with processes dying at each
step of it."""

import contextlib
import imaplib
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.faults.moves.move_storm import run_ctl
from tests.faults.moves.test_moves import dying
from tests.faults.test_kill import check_lists_agree, differences, names_at_master
from tests.kit.demo import Demo, running_demo
from tests.kit.process import END_S
from tests.kit.waiting import until

OLD, NEW = "dept", "unit"
HOMES: Final = {"": "be1", "/a": "be2", "/a/far": "be3", "/b": "be1", "/c": "be2"}
# of all there are, which tests/rooms/backend/hierarchy/test_joint_rename.py goes through in one process
ROOT_STEPS: Final = ("root prepared", "parts prepared", "decided", "listed", "commit answered")
PART_STEPS: Final = ("reserved", "part prepared", "part commit", "listed")
for word in ("XSETTLE", "XPART", "XRENAME", "SETMETADATA", "GETMETADATA"):
    imaplib.Commands[word] = ("AUTH",)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """be1 and be3 on the spool, be2, where no user is, on Maildir++."""
    with running_demo("--users", "6", "--backends", "3", "--no-tls-required") as running:
        change_backend(running, "be2", 'delete = "immediate"')  # its store will be another one
        far = backend(running, "be2")
        with running.imap(far, "admin") as admin:
            for line in admin.list()[1]:
                if isinstance(line, bytes):
                    name = line.decode().rsplit(" ", 1)[1]
                    assert admin.setacl(name, "admin", "lrswipkxtea")[0] == "OK"
                    assert admin.delete(name)[0] == "OK"
        change_backend(running, "be2", 'store = "store_maildir"', gone='delete = "immediate"\n')
        yield running


def change_backend(demo: Demo, node: str, line: str, gone: str = "") -> None:
    demo.node("stop", node)
    file = demo.folder / node / "murder.toml"
    file.write_text(file.read_text().replace(gone, "").replace("[backend]", f"[backend]\n{line}"))
    demo.node("start", node)


def backend(demo: Demo, node: str) -> dict[str, Any]:
    return next(one for one in demo.backends if one["node"] == node)


def facts(demo: Demo, root: str) -> dict[str, tuple[object, ...]]:
    """What a client may remember of each mailbox of the hierarchy."""
    found: dict[str, tuple[object, ...]] = {}
    with demo.imap(demo.frontend, "admin") as admin:
        for line in admin.list('""', f'"{root}*"')[1]:
            if not isinstance(line, bytes):
                continue
            name = line.decode().rsplit(" ", 1)[1].strip('"')
            words = "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN MAILBOXID)"
            status = admin.status(name, words)[1][0].decode().partition("(")[2]
            acl = admin.getacl(name)[1][0].decode().replace(name, "", 1)
            quota = str(admin.getquotaroot(name)[1][1:]).replace(name, "")
            note = str(admin._simple_command("GETMETADATA", name, "/shared/comment"))
            comment = str(admin.untagged_responses.pop("METADATA", "")).replace(name, "")
            found[name.removeprefix(root)] = (status, acl, quota, note, comment)
    return found


def furnish(demo: Demo) -> dict[str, tuple[object, ...]]:
    """The hierarchy under its old name, with mail, rights, a quota and a comment; made once."""
    with demo.imap(demo.frontend, "admin") as admin:
        if admin.status(OLD, "(MESSAGES)")[0] != "OK":
            for below, node in HOMES.items():
                name = OLD + below
                assert admin._simple_command("CREATE", name, backend(demo, node)["name"])[0] == "OK"
                admin.setacl(name, "admin", "lrswipkxtea")
                admin.setacl(name, demo.user(1), "lrswipte")
                admin.setacl(name, demo.user(2), "lr")
                admin.append(name, r"(\Flagged)", "", f"Subject: {name}\r\n\r\nx\r\n".encode())
            admin.setquota(f"{OLD}/a", "(STORAGE 5000)")
            admin._simple_command("SETMETADATA", f"{OLD}/a/far", '(/shared/comment "far")')
    return facts(demo, OLD)


def rename(demo: Demo, old: str, new: str, at: dict[str, Any] | None = None) -> tuple[str, bytes]:
    with demo.imap(at or demo.frontend, "admin") as admin:
        kind, data = admin.rename(old, new)
        return kind, data[0]


def names(demo: Demo) -> dict[str, str]:
    found = names_at_master(demo)
    return {name: server for name, server in found.items() if name.split(".")[0] in (OLD, NEW)}


def in_doubt(demo: Demo) -> list[dict[str, Any]]:
    """RENAMEs that wait for another server, as an operator sees them."""
    told = json.loads(run_ctl(demo, "conflicts", "--json")[1])
    return [one for one in told if one["command"].startswith("RENAME")]


def settled(demo: Demo) -> str:
    """Until all of it has one name again, everywhere, and nobody waits for another any more: which."""

    def is_one() -> str:
        before = names(demo)
        roots = {name.split(".")[0] for name in before}
        if len(roots) == 1 and len(before) == len(HOMES):
            told = json.loads(run_ctl(demo, "reservations", "--json")[1])
            if told == [] and not in_doubt(demo):
                with contextlib.suppress(OSError, imaplib.IMAP4.error):
                    # what was decided may have been carried out since they were read
                    agree = not differences(demo) and names(demo) == before
                    return roots.pop() if agree else ""
        return ""

    # whoever was away asks every few seconds; nobody tells
    return until(is_one, lambda: (names(demo), run_ctl(demo, "conflicts")), every_s=0.2)


def back(demo: Demo, root: str) -> None:
    if root == NEW:
        assert rename(demo, NEW, OLD)[0] == "OK"
        assert settled(demo) == OLD


def test_a_hierarchy_keeps_all_that_it_has(demo: Demo) -> None:
    before = furnish(demo)
    assert len(before) == len(HOMES)
    assert rename(demo, OLD, NEW) == ("OK", b"Completed")
    assert facts(demo, NEW) == before and facts(demo, OLD) == {}
    assert settled(demo) == NEW
    # straight at the backend that has the root, which asks the master who else has a part
    assert rename(demo, NEW, OLD, backend(demo, "be1"))[0] == "OK"
    assert settled(demo) == OLD
    assert facts(demo, OLD) == before
    code, said = run_ctl(demo, "mailbox", "rename", OLD, NEW)
    assert code == 0, said
    assert settled(demo) == NEW
    back(demo, NEW)


def test_who_has_a_part_selected_stays_in_it(demo: Demo) -> None:
    furnish(demo)
    with demo.imap(demo.frontend, demo.user(1)) as watcher:
        watcher.select(f"{OLD}/a/far")
        for old, new in ((f"{OLD}/a", f"{OLD}/z"), (f"{OLD}/z", f"{OLD}/a")):
            assert rename(demo, old, new)[0] == "OK"
            assert watcher.noop()[0] == "OK"
            assert watcher.uid("FETCH", "1:*", "(FLAGS)")[1] != [None]
            assert watcher.status(f"{new}/far", "(MESSAGES)")[0] == "OK"


def test_where_a_backend_is_away_it_is_named_and_nothing_has_changed(demo: Demo) -> None:
    before = furnish(demo)
    name = backend(demo, "be3")["name"]
    demo.node("stop", "be3")
    try:
        for kind, said in (rename(demo, OLD, NEW), rename(demo, OLD, NEW, backend(demo, "be1"))):
            assert kind == "NO" and b"UNAVAILABLE" in said and name.encode() in said
        code, said_too = run_ctl(demo, "mailbox", "rename", OLD, NEW)
        assert code != 0 and name in said_too
        assert set(names(demo)) == {(OLD + below).replace("/", ".") for below in HOMES}
    finally:
        demo.node("start", "be3")
    assert settled(demo) == OLD
    assert facts(demo, OLD) == before


def test_a_name_that_one_of_them_has_refuses_all(demo: Demo) -> None:
    furnish(demo)
    with demo.imap(demo.frontend, "admin") as admin:
        for node in ("be2", "be3"):  # of the part itself, and of another server
            where = backend(demo, node)["name"]
            assert admin._simple_command("CREATE", f"{NEW}/c", where)[0] == "OK"
            kind, said = rename(demo, OLD, NEW)
            assert kind == "NO" and b"ALREADYEXISTS" in said, said
            assert admin.delete(f"{NEW}/c")[0] == "OK"
    assert settled(demo) == OLD


def test_who_lacks_the_right_is_refused_and_names_no_server(demo: Demo) -> None:
    furnish(demo)
    with demo.imap(demo.frontend, demo.user(2)) as client:
        kind, data = client.rename(OLD, f"user/{demo.user(2)}/mine")
        assert kind == "NO" and b"NOPERM" in data[0]
    with demo.imap(backend(demo, "be1"), demo.user(2)) as client:
        for words in (("XRENAME", OLD, NEW, "(elsewhere)"), ("XPART",), ("XSETTLE", "a1", "ABORT")):
            kind, data = client._simple_command(*words)
            assert kind == "NO" and b"NOPERM" in data[0]


def test_a_user_is_renamed_wherever_the_mailboxes_are(demo: Demo) -> None:
    number = next(one for one in range(1, 7) if f"user.{demo.user(one)}" in names_at_master(demo))
    user = demo.user(number)
    home = demo.home(number)
    others = [one["name"] for one in demo.backends if one is not home]
    with demo.imap(demo.frontend, "admin") as admin:
        for number, server in enumerate(others):
            assert admin._simple_command("CREATE", f"user/{user}/far{number}", server)[0] == "OK"
    with demo.imap(demo.frontend, user) as client:
        client.subscribe("INBOX/far0")
        client.append("INBOX/far1", "", "", b"Subject: far\r\n\r\nx\r\n")
    code, plan = run_ctl(demo, "user", "rename", user, "renamed")
    assert code == 2 and "3 mailboxes" in plan and all(other in plan for other in others)
    code, said = run_ctl(demo, "user", "rename", user, "renamed", "--yes")
    assert code == 0, said
    found = {name: server for name, server in names_at_master(demo).items() if "renamed" in name}
    assert found == {
        "user.renamed": home["name"],
        "user.renamed.far0": others[0],
        "user.renamed.far1": others[1],
    }
    assert not any(name.startswith(f"user.{user}") for name in names_at_master(demo))
    with demo.imap(demo.frontend, "admin") as admin:
        for name in ("user/renamed", "user/renamed/far0", "user/renamed/far1"):
            acl = admin.getacl(name)[1][0]
            assert b"renamed lrswipkxte" in acl and user.encode() not in acl.replace(
                name.encode(), b""
            )
    assert run_ctl(demo, "user", "rename", "renamed", user, "--yes")[0] == 0
    with demo.imap(demo.frontend, user) as client:
        assert re.search(rb"INBOX/far0", client.lsub()[1][0])
        assert client.select("INBOX/far1")[1] == [b"1"]
    check_lists_agree(demo)


@pytest.mark.parametrize(
    "step",
    [
        *ROOT_STEPS,
        *(f"{node} {one}" for node in ("be2", "be3") for one in PART_STEPS),
    ],
)
def test_killed_at_any_step_all_of_it_or_nothing_is_renamed(demo: Demo, step: str) -> None:
    before = furnish(demo)
    node, at = ("be1", step) if step in ROOT_STEPS else (step[:3], step[4:])
    said = b""
    kind = ""
    with dying(demo, backend(demo, node), at) as process:
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            kind, said = rename(demo, OLD, NEW)
        assert process.wait(END_S) == 9, f"it did not come to {at}"
    root = settled(demo)
    if kind == "OK":
        assert root == NEW
    elif kind == "NO" and node != "be1":
        assert root == OLD and backend(demo, node)["name"].encode() in said
    assert facts(demo, root) == before
    back(demo, root)


@pytest.mark.parametrize("at", ["parts prepared", "decided"])
def test_the_master_may_die_meanwhile(demo: Demo, at: str) -> None:
    """With the root: of a master that dies alone, tests/rooms/backend/hierarchy/test_joint_rename.py."""
    before = furnish(demo)
    with dying(demo, backend(demo, "be1"), at) as process:
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            rename(demo, OLD, NEW)
        assert process.wait(END_S) == 9
        demo.node("kill", "mupdate")
    demo.node("start", "mupdate")
    root = settled(demo)
    assert facts(demo, root) == before
    back(demo, root)


def test_what_is_in_doubt_is_shown_and_ended_by_hand(demo: Demo) -> None:
    furnish(demo)
    be2 = backend(demo, "be2")
    with dying(demo, backend(demo, "be1"), "parts prepared") as process:
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            rename(demo, OLD, NEW)
        assert process.wait(END_S) == 9

        def shown() -> str:
            _, told = run_ctl(demo, "conflicts")
            return told if "is the RENAME" in told and be2["name"] in told else ""

        told = until(shown, "what is young may well be under way, and is not shown", every_s=0.2)
        ids = set(re.findall(r"is the RENAME (\w+)", told))
        assert len(ids) == 1
        with demo.imap(be2, "admin") as admin:
            assert admin._simple_command("XSETTLE", ids.pop(), "ABORT")[0] == "OK"
    assert settled(demo) == OLD


@pytest.mark.parametrize(
    ("verb", "node", "at"),
    [
        ("", "", ""),
        ("delete", "be1", "decided"),
        ("delete", "be3", "part prepared"),
        ("undelete", "be2", "part commit"),
    ],
)
def test_it_is_deleted_and_comes_back_as_one(demo: Demo, verb: str, node: str, at: str) -> None:
    """Killed at some of the steps; tests/rooms/backend/hierarchy/test_joint_delete.py goes through all of them."""
    before = furnish(demo)
    commands = {"delete": ("delete", OLD, "--yes"), "undelete": ("undelete", OLD)}
    for one, words in commands.items():
        dies = dying(demo, backend(demo, node), at) if verb == one else None
        with dies or contextlib.nullcontext() as process:
            code, said = run_ctl(demo, "mailbox", *words)
            if process is not None:
                assert process.wait(END_S) == 9
        is_there = rests_or_is_there(demo)
        if verb != one:
            assert code == 0, said
        if code == 0 or node == "be1":
            assert is_there == (one == "undelete"), said
        elif is_there != (one == "undelete"):
            assert backend(demo, node)["name"] in said
            assert run_ctl(demo, "mailbox", *words)[0] == 0
            assert rests_or_is_there(demo) == (one == "undelete")
    assert facts(demo, OLD) == before


def rests_or_is_there(demo: Demo) -> bool:
    """Until all of it is there, or all of it rests: which."""

    def is_one() -> str:
        found = names_at_master(demo)
        there = {name for name in found if name.split(".")[0] == OLD}
        resting = {name for name in found if name.startswith(f"DELETED.{OLD}.")}
        if {len(there), len(resting)} == {0, len(HOMES)} and not in_doubt(demo):
            # what was decided may have been carried out since they were read
            if names_at_master(demo) == found:
                return "there" if there else "resting"
        return ""

    told = until(is_one, lambda: (names_at_master(demo), run_ctl(demo, "conflicts")), every_s=0.2)
    return told == "there"
