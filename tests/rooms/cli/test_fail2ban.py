"""What fail2ban makes of the log of a real murder: Debian's own `fail2ban-regex` on lines that real clients have caused, and
a server of it that bans while they come."""

import base64
import imaplib
import json
import poplib
import re
import shutil
import socket
import subprocess
import time
from ast import literal_eval
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from configparser import RawConfigParser
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import cannot_run
from tests.kit.demo import Demo, reconfigure, running_demo
from tests.kit.managesieve import ManageSieve
from tests.kit.process import ROOT, murder_command
from tests.kit.waiting import until

# what somebody calls themselves so that another address is banned, or the line is taken for an old one
EVIL = (
    'x", "problem": "AUTHENTICATIONFAILED", "event": "login.failed", "peer": "192.0.2.9',
    "x peer=192.0.2.9 problem=AUTHENTICATIONFAILED protocol=imap",
    '"timestamp": "2001-01-01T00:00:00.000000Z"}',
    "2001-01-01T00:00:00.000000",
    "x\n2026-01-01T00:00:00 [info     ] login.failed cid=1 node=n peer=192.0.2.9 "
    "problem=AUTHENTICATIONFAILED protocol=imap",
)


def said(*words: str) -> str:
    return subprocess.run(
        [*murder_command(), *words], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    if shutil.which("fail2ban-regex") is None:
        cannot_run("fail2ban-regex (package fail2ban) is not installed")
    with running_demo("--users", "2", "--workers", "2", "--no-tls-required") as running:
        yield running


def plain(user: str) -> bytes:
    return f"\0{user}\0wrong".encode()


def guess(demo: Demo) -> int:
    """Wrong passwords by every protocol, and a right one; how many were wrong."""
    node = demo.frontend

    def by_imap(user: str) -> Callable[[], object]:
        def run() -> object:
            client = imaplib.IMAP4(node["host"], node["imap"], timeout=30)
            return client.authenticate("PLAIN", lambda _: plain(user))

        return run

    def by_pop3() -> object:
        client = poplib.POP3(node["host"], node["pop3"], timeout=30)
        client.user("user1")
        return client.pass_("wrong")

    def by_sieve() -> object:
        with ManageSieve(node["host"], node["sieve"]) as client:
            proof = base64.b64encode(plain("user2")).decode()
            return client.attempt(f'AUTHENTICATE "PLAIN" "{proof}"')

    wrong = [by_pop3, by_sieve, *map(by_imap, ("user1", *EVIL))]
    right = [lambda: demo.imap(node, "user2")]
    with ThreadPoolExecutor(len(wrong) + 1) as pool:
        for done in [pool.submit(one) for one in (*wrong, *right)]:
            with suppress(imaplib.IMAP4.error, poplib.error_proto):
                done.result()
    return len(wrong)


def found(folder: Path, lines: list[str]) -> list[tuple[str, float]]:
    """Addresses, and when (0.0: the line does not say), that fail2ban sees in a log."""
    (folder / "murder.conf").write_text(said("log", "fail2ban", "filter"))
    (folder / "log").write_text("".join(lines))
    done = subprocess.run(
        ["fail2ban-regex", "-o", "row", str(folder / "log"), str(folder / "murder.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "rror" not in done.stderr, done.stderr
    rows = [
        literal_eval(line.rstrip(", ")) for line in done.stdout.splitlines() if line.startswith("[")
    ]
    return [(row[0], float(row[1] or 0)) for row in rows]


def test_every_wrong_password_is_seen_and_nobody_else_is_accused(
    demo: Demo, tmp_path: Path
) -> None:
    log = demo.folder / "fe1" / "log"
    for form in ("text", "json"):
        if form == "json":
            reconfigure(demo, "fe1", 'format = "text"', 'format = "json"')
        passed_over = len(log.read_text())
        wrong = guess(demo)
        lines = log.read_text()[passed_over:].splitlines(keepends=True)
        failed = [line for line in lines if "login.failed" in line]
        assert len(failed) == wrong and any("login.succeeded" in line for line in lines), form
        if form == "json":
            assert all(json.loads(line) for line in lines)
        in_journal = [f"fe1 murder[4711]: {line}" for line in lines]
        for written in (lines, in_journal) if form == "json" else (lines,):
            seen = found(tmp_path, written)
            assert [address for address, _ in seen] == ["127.0.0.1"] * wrong, (form, written)
            assert all(abs(time.time() - when) < 300 for _, when in seen), (form, seen)


def test_a_line_of_the_journal_is_seen_with_its_time_apart(demo: Demo, tmp_path: Path) -> None:
    """As fail2ban's own reader of the journal gives it: host and process before the line, nothing of it taken away."""
    wrong = (
        "fe1 murder[4711]: 2026-11-29T09:04:40.653856 [info     ] login.failed             cid=1-a "
        "mechanism=PLAIN node=m peer=2001:db8::1 problem='Wrong user or password' protocol=mupdate "
        "role=mupdate user=x\n"
    )
    assert [address for address, _ in found(tmp_path, [wrong])] == ["2001:db8::1"]
    assert not found(tmp_path, [wrong.replace("'Wrong user or password'", "LIMIT")])


def test_the_jail_names_the_filter_the_ports_and_where_the_log_is() -> None:
    for words, source in (((), "systemd"), (("--file", "/var/log/murder.log"), "auto")):
        jail = RawConfigParser()
        jail.read_string(said("log", "fail2ban", "jail", *words))
        section = jail["murder"]
        assert section["filter"] == "murder" and section["backend"] == source
        assert section.get("logpath", "") == (words[1] if words else "")
        assert section["port"] == "143,993,110,995,4190"


ACTION = """[Definition]
actionban = echo ban <ip> >> {notes}
actionunban = echo unban <ip> >> {notes}
"""
# beside what murder prints: of loopback's addresses one alone is passed over, and few guesses are enough
SITE = """[murder]
ignoreip = 127.0.0.1
ignoreself = false
maxretry = 4
usedns = no
action = note
"""


@contextmanager
def running_fail2ban(folder: Path, log: Path) -> Iterator[Callable[..., str]]:
    """Debian's server with murder's filter and jail as printed, the site's own file beside, and an action that only notes
    what it was called for. Gives what asks it: `fail2ban-client`."""
    written = {
        "fail2ban.conf": "[Definition]\nloglevel = INFO\ndbfile = None\nallowipv6 = auto\n",
        "jail.conf": "[DEFAULT]\nbackend = polling\n",
        "filter.d/murder.conf": said("log", "fail2ban", "filter"),
        "jail.d/murder.conf": said("log", "fail2ban", "jail", "--file", str(log)),
        "jail.d/murder.local": SITE,
        "action.d/note.conf": ACTION.format(notes=folder / "notes"),
    }
    for name, text in written.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "notes").write_text("")
    own = ["-c", str(folder), "-s", str(folder / "socket"), "-p", str(folder / "pid")]
    with (folder / "server.log").open("wb") as said_by_server:
        process = subprocess.Popen(
            ["fail2ban-server", *own, "--logtarget", "STDERR", "-xf", "start"],
            stdout=said_by_server,
            stderr=subprocess.STDOUT,
        )

    def ask(*words: str) -> str:
        return subprocess.run(
            ["fail2ban-client", *own, *words], capture_output=True, text=True, check=False
        ).stdout

    try:
        until(
            lambda: "File list" in ask("status", "murder"),
            lambda: (folder / "server.log").read_text(),
            every_s=0.2,
        )
        yield ask
    finally:
        process.terminate()
        process.wait(60)


def logs_in(demo: Demo, source: str, password: str) -> bool:
    """A login by IMAP from that address."""
    node = demo.frontend
    with (
        socket.create_connection((node["host"], node["imap"]), 30, (source, 0)) as client,
        client.makefile("rb") as said,
    ):
        said.readline()
        client.sendall(f"a LOGIN user1 {password}\r\n".encode())
        return next(line for line in said if line.startswith(b"a ")).startswith(b"a OK")


def test_a_running_fail2ban_bans_who_guesses_and_nobody_else(demo: Demo, tmp_path: Path) -> None:
    with running_fail2ban(tmp_path, demo.folder / "fe1" / "log") as ask:
        with ThreadPoolExecutor(6) as pool:
            guesses = [pool.submit(logs_in, demo, "127.0.0.3", "wrong") for _ in range(4)]
            others = [pool.submit(logs_in, demo, "127.0.0.2", demo.password) for _ in range(4)]
        assert not any(one.result() for one in guesses) and all(one.result() for one in others)
        assert not logs_in(demo, "127.0.0.2", "mistyped")
        notes = tmp_path / "notes"
        until(notes.read_text, lambda: (tmp_path / "server.log").read_text(), every_s=0.2)
        assert notes.read_text() == "ban 127.0.0.3\n"
        assert re.search(r"Banned IP list:\s+127\.0\.0\.3$", ask("status", "murder"), re.M)
        # all that came later was seen as well: their one mistake counts, and bans nobody
        until(lambda: re.search(r"Total failed:\s+5$", ask("status", "murder"), re.M), every_s=0.2)
        ask("set", "murder", "unbanip", "127.0.0.3")
        assert notes.read_text() == "ban 127.0.0.3\nunban 127.0.0.3\n"
