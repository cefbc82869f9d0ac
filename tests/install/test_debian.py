"""The Debian package on a machine of its own, under its systemd, with Debian's own tools: installed, configured, started,
upgraded either way, removed, purged, and never a message lost."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from murder import __version__
from tests.conftest import cannot_run
from tests.install.machine import Machine, running_machine
from tests.kit.demo import wanted
from tests.kit.process import ROOT

NODE = """\
[node]
name = "one.example.org"
data = "/var/lib/murder"
roles = ["backend"]
control = []
[tls]
ca = "ca.pem"
certificate = "one.example.org.pem"
key = "one.example.org.key"
[backend]
imap = ["127.0.0.1:143"]
lmtp = ["127.0.0.1:24"]
workers = 1
admins = ["admin"]
"""
DELIVER = (
    "import smtplib; smtplib.LMTP('127.0.0.1', 24, 'localhost').sendmail("
    "'me@example.org', ['anna'], 'Subject: hello\\r\\n\\r\\nIt works.\\r\\n')"
)


@pytest.fixture(scope="module")
def debs(archive: Path) -> Iterator[tuple[Path, Path]]:
    """The package, and one that is newer."""
    if missing := wanted("dpkg-deb", "lintian", "mandoc", "man"):
        cannot_run(missing)
    made = []
    for version in ("0.1.0", "0.1.1"):
        words = "deb", "--archive", str(archive), "--version", version
        done = subprocess.run(
            [sys.executable, ROOT / "build.py", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        made.append(ROOT / re.findall(r"dist/\S+\.deb", done.stderr)[-1])
    yield made[0], made[1]
    for deb in made:
        deb.unlink()


def test_lintian_finds_nothing_but_that_nobody_maintains_it(debs: tuple[Path, Path]) -> None:
    """Who makes a package for others names themselves by --maintainer."""
    words = ["--fail-on", "error,warning", "--suppress-tags"]
    words += ["bogus-mail-host,bogus-mail-host-in-debian-changelog"]
    done = subprocess.run(
        ["lintian", "--allow-root", *words, debs[0]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_manual_pages_are_what_man_and_mandoc_take(debs: tuple[Path, Path], tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "-x", debs[0], tmp_path], check=True)
    pages = sorted((tmp_path / "usr/share/man").rglob("*.gz"))
    assert [page.name for page in pages] == ["murder-ctl.1.gz", "murder.1.gz", "murder.toml.5.gz"]
    for page in pages:
        linted = subprocess.run(
            ["mandoc", "-Tlint", "-Wwarning", page], capture_output=True, text=True, check=False
        )
        assert (linted.returncode, linted.stdout) == (0, ""), page
        shown = subprocess.run(
            ["man", "--warnings", "-E", "UTF-8", "-l", page],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"MANWIDTH": "100", "LC_ALL": "C.UTF-8"},
        )
        assert shown.stderr == ""
        if page.name == "murder-ctl.1.gz":
            assert "murder ctl mailbox move" in shown.stdout and "--yes" in shown.stdout
        if page.name == "murder.toml.5.gz":
            assert re.search(r"drain_timeout_s = 30\.0\s+How +long +a +stop", shown.stdout)


def test_two_packages_of_one_archive_are_the_same(archive: Path, debs: tuple[Path, Path]) -> None:
    before = debs[0].read_bytes()
    words = "deb", "--archive", str(archive), "--version", "0.1.0"
    environ = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, ROOT / "build.py", *words], check=True, env=environ)
    assert debs[0].read_bytes() == before


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with running_machine(tmp_path_factory.mktemp("machine")) as machine:
        yield machine


def asked(machine: Machine, user: str, mailbox: str, command: str) -> str:
    """What an IMAP command of theirs is answered."""
    curl = "curl", "-sSv", "--ssl-reqd", "--cacert", "/etc/murder/ca.pem", "-u", f"{user}:secret"
    return machine.ok(*curl, f"imap://127.0.0.1/{mailbox}", "-X", command)


def subjects(machine: Machine) -> str:
    return asked(machine, "anna", "INBOX", "FETCH 1:* BODY[HEADER.FIELDS (SUBJECT)]")


def test_it_is_installed_started_upgraded_removed_and_purged(
    debs: tuple[Path, Path], machine: Machine
) -> None:
    old, new = (Path("/root", deb.name) for deb in debs)
    for deb in debs:
        shutil.copy(deb, machine.root / "root")
    # installed: nothing runs, nothing is open to others
    machine.ok("dpkg", "-i", str(old))
    assert machine.state("murder.service") == "inactive"
    assert machine.run("systemctl", "is-enabled", "murder").stdout.strip() == "disabled"
    modes = machine.ok("stat", "-c", "%U:%G %a", "/etc/murder/murder.toml", "/var/lib/murder")
    assert modes.split("\n")[:2] == ["root:murder 640", "murder:murder 700"]
    assert machine.ok("murder", "version") == f"murder {__version__}\n"
    unit = machine.run("systemd-analyze", "verify", "murder.service").stderr
    assert "murder.service" not in unit, unit
    # configured and started: mail comes in
    issue = "ca", "issue", "one.example.org", "--role", "backend"
    machine.ok("murder", "ca", "init", "--dir", "/root/ca")
    machine.ok(
        "murder", *issue, "--address", "127.0.0.1", "--dir", "/root/ca", "--out", "/etc/murder"
    )
    machine.ok("cp", "/root/ca/ca.pem", "/etc/murder")
    machine.ok("chown", "murder:", "/etc/murder/one.example.org.key")
    (machine.root / "etc/murder/murder.toml").write_text(NODE)
    for user in ("admin", "anna"):
        machine.ok("murder", "auth", "add", user, given="secret\nsecret\n")
    assert "good, as" in machine.ok("murder", "config", "check")
    machine.ok("systemctl", "enable", "--now", "murder")
    asked(machine, "admin", "", 'CREATE "user/anna"')
    machine.ok("python3", "-c", DELIVER)
    assert "Subject: hello" in subjects(machine)
    first = machine.main_process("murder")
    # upgraded as by default: what runs goes on, and says that it is the earlier version
    said = machine.ok("dpkg", "-i", str(new))
    assert "systemctl restart murder.service" in said
    assert machine.main_process("murder") == first != "0"
    assert (machine.root / "etc/murder/murder.toml").read_text() == NODE
    machine.ok("systemctl", "reload", "murder")
    # upgraded by an operator who wants it restarted
    (machine.root / "etc/default/murder").write_text("ON_UPGRADE=restart\n")
    said = machine.ok("dpkg", "-i", "--force-confold", str(old))
    assert "systemctl restart" not in said
    assert machine.main_process("murder") not in (first, "0")
    assert "Subject: hello" in subjects(machine)
    # removed: stopped, and all is there
    machine.ok("dpkg", "-r", "murder")
    assert machine.state("murder.service") in ("inactive", "failed")
    assert not (machine.root / "usr/bin/murder").exists()
    assert (machine.root / "etc/murder/murder.toml").read_text() == NODE
    # purged: what is ours goes; mail, keys and their user stay, and it says so
    said = machine.ok("dpkg", "--purge", "murder")
    assert "/etc/murder and /var/lib/murder and the user murder stay" in said
    wants = "etc/systemd/system/multi-user.target.wants/murder.service"
    gone = ("etc/murder/murder.toml", "etc/default/murder", "var/cache/murder", wants)
    assert not [path for path in gone if os.path.lexists(machine.root / path)]
    assert (machine.root / "etc/murder/one.example.org.key").exists()
    # installed again: the mail is there
    machine.ok("dpkg", "-i", str(new))
    (machine.root / "etc/murder/murder.toml").write_text(NODE)
    machine.ok("systemctl", "start", "murder")
    assert "Subject: hello" in subjects(machine)
    # with nothing left of it the user goes too
    machine.ok("systemctl", "stop", "murder")
    machine.ok("sh", "-c", "rm -r /var/lib/murder/* /etc/murder/*.key /etc/murder/*.pem")
    assert "stay" not in machine.ok("dpkg", "--purge", "murder")
    assert machine.run("getent", "passwd", "murder").returncode == 2
    assert not (machine.root / "var/lib/murder").exists()


def test_several_nodes_on_a_host_are_instances_of_one_unit(
    debs: tuple[Path, Path], machine: Machine
) -> None:
    deb = Path("/root", debs[0].name)
    shutil.copy(debs[0], machine.root / "root")
    machine.ok("dpkg", "-i", str(deb))
    try:
        machine.ok("murder", "ca", "init", "--dir", "/root/ca2")
        for number, name in enumerate(("a", "b")):
            issue = "issue", name, "--role", "mupdate", "--dir", "/root/ca2", "--out", "/etc/murder"
            machine.ok("murder", "ca", *issue)
            machine.ok("cp", "/root/ca2/ca.pem", "/etc/murder")
            machine.ok("chown", "murder:", f"/etc/murder/{name}.key")
            (machine.root / f"etc/murder/{name}.toml").write_text(
                f'[node]\nname = "{name}"\ndata = "/var/lib/murder/{name}"\nroles = ["mupdate"]\n'
                f'control = []\n[tls]\nca = "ca.pem"\ncertificate = "{name}.pem"\nkey = "{name}.key"\n'
                f'[mupdate]\nlisten = ["127.0.0.1:{3910 + number}"]\n'
            )
            machine.ok("systemctl", "start", f"murder@{name}")
        assert {machine.state(f"murder@{name}.service") for name in ("a", "b")} == {"active"}
    finally:
        machine.ok("dpkg", "-r", "murder")
    assert {machine.state(f"murder@{name}.service") for name in ("a", "b")} <= {
        "inactive",
        "failed",
    }


def test_a_new_disk_is_the_services_and_what_is_somebody_elses_stays_so(
    debs: tuple[Path, Path], machine: Machine
) -> None:
    """A file system that was mounted before the package came is root's."""
    deb = Path("/root", debs[0].name)
    shutil.copy(debs[0], machine.root / "root")
    owner = "stat", "-c", "%U:%G %a", "/var/lib/murder"
    machine.run("dpkg", "--purge", "murder")
    machine.ok("rm", "-rf", "/var/lib/murder")
    machine.ok("mkdir", "-p", "/var/lib/murder/lost+found")
    assert "not the user" not in machine.ok("dpkg", "-i", str(deb))
    assert machine.ok(*owner) == "murder:murder 700\n"
    machine.run("dpkg", "--purge", "murder")
    machine.ok("sh", "-c", "chown root: /var/lib/murder && touch /var/lib/murder/list")
    said = machine.ok("dpkg", "-i", str(deb))
    assert "/var/lib/murder is not the user murder's" in said
    assert machine.ok(*owner) == "root:root 700\n"
    machine.ok("dpkg", "--purge", "murder")
    machine.ok("rm", "-rf", "/var/lib/murder")
