"""The real cyradm (Debian's cyrus-admin) as an administrator's tool: every command of its, at a backend and a frontend."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.cyrus.conftest import IS_CI, ROOT
from tests.kit.demo import Demo, running_demo

PACKAGES = ROOT / "pkg"
START = "shift @ARGV if $ARGV[0] eq '--'; Cyrus::IMAP::Shell::shell()"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    if not (PACKAGES / "usr/bin/cyradm").exists() and not IS_CI:
        pytest.skip("cyradm is not installed: run tests/cyrus/lab.sh install as root")
    with running_demo("--users", "4", folder=tmp_path_factory.mktemp("cyradm")) as demo:
        yield demo


def cyradm(port: int, *commands: str) -> list[str]:
    """What it says to each command, in turn."""
    done = run_cyradm(port, *commands)
    said = done.stdout.split("127.0.0.1> ")[1:]
    assert len(said) >= len(commands) and not done.stderr.count("mailbox:"), done
    return [one.strip() for one in said[: len(commands)]]


def run_cyradm(port: int, *commands: str) -> "subprocess.CompletedProcess[str]":
    (perl,) = PACKAGES.glob("usr/lib/*/perl5/*/Cyrus")
    (libraries,) = PACKAGES.glob("usr/lib/*-linux-gnu")
    environment = os.environ | {
        "PERL5LIB": f"{perl.parent}:{PACKAGES / 'usr/share/perl5'}",
        "LD_LIBRARY_PATH": str(libraries),
        "PERL_RL": "0",  # a GNU readline, where one is installed, writes what it reads
    }
    words = ["--norc", "--auth", "PLAIN", "--user", "admin", "--password", "secret"]
    return subprocess.run(
        ["perl", "-MCyrus::IMAP::Shell", "-e", START, "--", *words, f"--port={port}", "127.0.0.1"],
        input="".join(command + "\n" for command in commands),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("role", ["backend", "frontend"])
def test_every_command_of_cyradm(role: str, demo: Demo) -> None:
    port = (demo.backends[0] if role == "backend" else demo.frontend)["imap"]
    user, shared = f"user/zoe{role}", f"shared/{role}"
    quiet = [  # done without a word
        *(f"cm {user}", f"createmailbox {user}/Sent", f"cm {shared}"),
        f"cm --specialuse \\\\Drafts {user}/Drafts",
        *(f"sam {shared} anyone lrsp zoe all", f"dam {shared} zoe"),
        *(f"sq {user} STORAGE 10000", f"setquota {user} MESSAGE 500"),
        *(f"mboxcfg {user} comment hello", f"mboxcfg --private {user} comment mine"),
        *(f"mboxcfg {user} {what} 30" for what in ("expire", "news2mail", "sieve", "squat")),
        *(f"setmd {user} {what} 1" for what in ("expire", "pop3showafter", "sharedseen")),
        f"setmetadata {user}/Sent specialuse \\\\Sent",
        f"setmd {user} comment none",
        *(f"setinfo {what} text" for what in ("motd", "comment", "admin", "expire", "squat")),
        "setinfo shutdown none",
        f"renm {user}/Sent {user}/Old",
        f"renm --partition default {user}/Old {user}/Old",
    ]
    complaints = [line for line in run_cyradm(port, *quiet).stderr.splitlines() if "[" in line]
    assert not complaints
    told = {
        "version": "name       : murder",
        "server": "127.0.0.1",
        f"lm {user}*": f"{user}/Old",
        f"lam {shared}": "anyone lrsp",
        f"lq {user}": "MESSAGE 0/500",
        f"lqr {user}/Old": f"{user} MESSAGE 0/500",
        f"lqm {user}": "MESSAGE 0/500",
        "info": "motd: text",
        f"info {user}": "partition: default",
        f"getmd {user}": "server: be",
        f"getmetadata {user}": "size: 0",
        "help": "transfer (relocate) a mailbox",
    }
    for command, said in zip(told, cyradm(port, *told), strict=True):
        assert told[command] in said, (command, said)
    assert "murder ctl store check" in run_cyradm(port, f"reconstruct {user}").stderr
    if role == "backend":  # who has no INBOX has nowhere to keep subscriptions at a frontend
        assert cyradm(port, f"subscribe {shared}", "lm -subscribed")[1] == shared
        assert cyradm(port, f"unsubscribe {shared}", "lm -subscribed") == ["", ""]
    here = cyradm(demo.frontend["imap"], f"info {user}")[0].partition("server: ")[2].split()[0]
    there = next(one["name"] for one in demo.backends if one["name"] != here)
    assert cyradm(port, f"xfer {user} {there}") == [""]
    moved = demo.frontend["imap"]
    assert f"server: {there}" in cyradm(moved, f"info {user}")[0]
    gone = [f"sam {user} admin c", f"dm {user}/Old", f"dm {user}", f"lm {user}*"]
    assert cyradm(moved, *gone) == [""] * 4
    assert cyradm(port, f"dm {shared}", f"lm {shared}") == ["", ""]
    assert "cyradm> " in run_cyradm(port, "cd /tmp", "disc", "help").stdout
