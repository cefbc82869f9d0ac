"""The manual's "Replacing a Cyrus Murder node by node": each step, and the way back from it, while people work."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from murder.admin.manual.pages import page
from tests.cyrus.conftest import ROOT, Lab
from tests.cyrus.our_nodes import our_node, rows_at
from tests.cyrus.our_roles import FRONTEND, logged_in, message, ok, our_backend, our_frontend
from tests.cyrus.people import People, check
from tests.kit import process
from tests.kit.engine import etcd_settings, is_shared
from tests.kit.toml import Sections

OUR_MASTER = "127.0.0.14"
TARGET = "127.0.0.13"
USERS = int(os.environ.get("MURDER_WALK_USERS", "8"))
TAKES = {"takes_xfer_from": ["murder"]}
CHAPTER = page("cyrus").partition("## Replacing a Cyrus Murder")[2]


def line_with(word: str) -> str:
    """the manual's own line for a step."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```$", CHAPTER, re.DOTALL | re.MULTILINE)
    found = [line.strip() for block in blocks for line in block.splitlines() if word in line]
    assert found, f"the manual has no line with {word}"
    return str(found[0])


def dumped(instance: str) -> str:
    """The mailbox list of a Cyrus node, by the manual's line."""
    command = line_with("ctl_mboxlist -d").partition(" > ")[0]
    program = f"{ROOT}/pkg/usr/lib/cyrus/bin/ctl_mboxlist -C {ROOT}/{instance}/imapd.conf"
    shell = f"LD_LIBRARY_PATH=$(echo {ROOT}/pkg/usr/lib/*-linux-gnu) " + command.replace(
        "ctl_mboxlist", program
    )
    su = ["su", "cyrus", "-s", "/bin/bash", "-c", shell]
    return subprocess.run(su, capture_output=True, text=True, timeout=60, check=True).stdout


def fill(lab: Lab, users: list[str]) -> None:
    """Mail, sub-mailboxes, rights, subscriptions, and a shared mailbox."""
    for user in users:
        client = logged_in(lab.backends[(int(user[4:]) - 1) % 2], user)
        client.ask("CREATE INBOX/kept")
        for box in ("INBOX", "INBOX/kept"):
            for number in range(3):
                ok(client.append(box, r"(\Seen $Old)", "", message(f"old{number}")))
        client.ask("SETACL INBOX/kept anyone lrs")
        client.ask("SUBSCRIBE INBOX/kept")
        client.logout()
    admin = logged_in(lab.backends[0], "cyrus")
    admin.ask("CREATE lists")
    admin.ask("SETACL lists cyrus lrswipkxtecda")
    ok(admin.append("lists", "", "", message("shared")))
    admin.logout()


def repoint(lab: Lab, master: str, *instances: str) -> None:
    """`mupdate_server` of Cyrus nodes is changed, and each is started anew."""
    lab.run("gen", LAB_MUPDATE=master)
    for instance in instances:
        lab.run("restart", instance, LAB_MUPDATE=master, LAB_PATIENCE="8")


def test_a_cyrus_murder_is_replaced_node_by_node(lab_ready: Lab, tmp_path: Path) -> None:
    lab = lab_ready
    users = [f"user{number}" for number in range(1, USERS + 1)]
    lab.run("reset")
    try:
        lab.run("setup")
        lab.run("start")
        lab.run("populate", LAB_USERS=str(USERS))
        fill(lab, users)
        walk(lab, tmp_path, users)
    finally:
        lab.run("gen")
        lab.run("stop")


def walk(lab: Lab, tmp_path: Path, users: list[str]) -> None:
    people = People(users, lab.frontend)
    people.start()
    try:
        with ExitStack() as stack:
            steps(lab, tmp_path, users, people, stack)
            told = people.stop()
            print(told.summary())
            check(told, FRONTEND)
            look(users)
    finally:
        people.stop()


def look(users: list[str]) -> None:
    """What was there before the first step."""
    for user in users:
        client = logged_in(FRONTEND, user)
        client.ask("EXAMINE INBOX/kept")
        text = client.ask("UID FETCH 1:* (UID FLAGS)")
        assert [
            set(flags.split()) - {"\\Recent"}
            for flags in re.findall(r"UID \d+ FLAGS \(([^)]*)\)", text)
        ] == [{"\\Seen", "$Old"}] * 3, text
        assert re.findall(r"UID (\d+)", text) == ["1", "2", "3"]
        assert "INBOX/kept" in client.ask('LSUB "" *')
        assert "anyone lrs" in client.ask("GETACL INBOX/kept")
        client.logout()


def steps(lab: Lab, folder: Path, users: list[str], people: People, stack: ExitStack) -> None:
    people.wait_for_some()

    # a frontend of ours; back to the old one; there again
    with our_frontend(folder / "fe9", lab.master[0], users=users):
        for frontend in (FRONTEND, lab.frontend):
            people.frontend = frontend
            people.wait_for_some()

    # the master, with the Cyrus master's list; back; there again
    master = stack.enter_context(new_master(lab, folder))
    everything = ("be1", "be2", "fe1")
    for address in (OUR_MASTER, lab.master[0], OUR_MASTER):
        repoint(lab, address, *everything)
        people.wait_for_some()
        assert {row[1] for row in rows_at(lab.master[0])} == {row[1] for row in rows_at(OUR_MASTER)}
    assert master.exists()

    # frontends of ours in front of it
    stack.enter_context(our_frontend(folder / "fe10", OUR_MASTER, users=users))
    people.frontend = FRONTEND
    people.wait_for_some()
    lab.run("stop", "fe1", "mupdate", LAB_PATIENCE="8")

    # users, one after the other; a shared mailbox as one of them
    stack.enter_context(our_backend(folder / "be9", "be9", TARGET, OUR_MASTER, TAKES))
    for user in users:
        host = lab.backends[(int(user[4:]) - 1) % 2]
        assert f"* OK USER {user}" in said_to(host, "'XFER user/anna", anna=user)
    said_to(lab.backends[0], "'RENAME lists")
    assert "* OK USER moving" in said_to(lab.backends[0], "'XFER user/moving")
    said_to(TARGET, "'RENAME user/moving")
    people.wait_for_some()
    lab.run("stop", "be1", "be2", LAB_PATIENCE="8")
    people.wait_for_some()
    rows = {row[1]: row[2] for row in rows_at(OUR_MASTER)}
    assert rows.keys() >= {b"lists", b"user.user1.kept"}, rows
    assert set(rows.values()) == {b"be9.murder.test!default"}


def said_to(host: str, word: str, **names: str) -> str:
    """Run the manual's `curl` line with this word at a node of the lab."""
    words = shlex.split(line_with(word))
    assert words[:2] == ["curl", "-v"] and words[-2] == "-X", words
    command = words[-1].replace("be9.example.org", "be9.murder.test")
    for name, ours in names.items():
        command = command.replace(name, ours)
    curl = ["curl", "-v", "-u", "cyrus:secret", f"imap://{host}", "-X", command]
    done = subprocess.run(curl, capture_output=True, text=True, timeout=60, check=True)
    return done.stderr


@contextmanager
def new_master(lab: Lab, folder: Path) -> Iterator[Path]:
    """Our master, filled from a Cyrus node's dump by the manual's line before it is started. With etcd, its list goes there
    when it serves."""
    place = folder / "master"
    engine: Sections = {}
    if is_shared():
        settings = etcd_settings(place)
        table = {"endpoints": list(settings.endpoints), "prefix": settings.prefix}
        engine = {"mupdate": {"engine": "embedded"}, "plugins.list_etcd": table}
    with our_node(place, "mupdate9.murder.test", OUR_MASTER, 3905, engine=engine):
        pass  # it has its configuration and users now
    file = folder / "mailboxes.txt"
    file.write_text(dumped("mupdate"))
    words = line_with("ctl list load").split()
    assert words[:2] == ["murder", "ctl"]
    command = [str(file) if word == "mailboxes.txt" else word for word in words[1:]]
    own = ["--config", str(place / "murder.toml")]
    process.run_murder(*command, *own)
    with our_node(place, "mupdate9.murder.test", OUR_MASTER, 3905):
        if is_shared():
            process.run_murder("ctl", "list", "engine", "copy", "--to", "etcd", "--yes", *own)
        yield place
