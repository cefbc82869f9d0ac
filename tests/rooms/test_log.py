"""The log: every event is listed, no secret is shown, one event is one line."""

import ast
import errno
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from murder.log import EVENTS, MASK, logger, mask_secrets, plain_log, set_up

ROOT = Path(__file__).parent.parent.parent
METHODS = {"debug", "info", "warning", "error", "exception"}
LOGS = re.compile(r"(^|\.|_)log$|^logger\(")  # a logger that is kept, or made for one line
MEANING = re.compile(r"\S[ -~]{15,110}[.]")
EVENT = re.compile(r"^[a-z0-9_]+\.[a-z0-9_]+$")


def logged() -> Iterator[tuple[str, str]]:
    """Every event that the code logs, with its place."""
    for path in sorted((ROOT / "murder").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(value=owner, attr=method), args=[first, *_]):
                    if method in METHODS and LOGS.search(ast.unparse(owner)):
                        place = f"{path.relative_to(ROOT)}:{node.lineno}"
                        yield from ((event, place) for event in _events_in(first, place))


def _events_in(first: ast.expr, place: str) -> Iterator[str]:
    """A constant, or a choice between two."""
    match first:
        case ast.Constant(value=str(event)):
            yield event
        case ast.IfExp(body=one, orelse=other):
            yield from _events_in(one, place)
            yield from _events_in(other, place)
        case ast.Name("event") if place.startswith("murder/log/plain.py:"):
            pass  # passed on: `plain_log`
        case _:
            raise AssertionError(
                f"{place}: an event's name is a constant, not {ast.unparse(first)}"
            )


def test_the_list_of_events_and_the_code_agree() -> None:
    found = dict(logged())
    unlisted = {event: place for event, place in found.items() if event not in EVENTS}
    assert not unlisted, "add them to murder.log.EVENTS"
    assert not EVENTS.keys() - found.keys(), (
        "nothing logs these; take them out of murder.log.EVENTS"
    )


def test_an_event_is_a_noun_and_what_happened() -> None:
    assert [event for event in EVENTS if not EVENT.match(event)] == []


def test_each_event_says_in_one_sentence_or_two_what_it_means() -> None:
    assert list(EVENTS) == sorted(EVENTS)
    assert [event for event, meaning in EVENTS.items() if not MEANING.fullmatch(meaning)] == []


def test_a_secret_is_masked_whoever_logs_it() -> None:
    shown = mask_secrets(
        None, "info", {"event": "x.y", "password": "hush", "token": b"hush", "user": "a"}
    )
    assert shown == {"event": "x.y", "password": MASK, "token": MASK, "user": "a"}


PROGRAM = """
import logging
from murder import log
log.set_up("{level}", "{form}", node="be1")
l = log.logger(cid="c1")
l.debug("d.d")
l.info("mailbox.made", mailbox=b"user.\\xff", password="hush")
logging.getLogger("asyncio").error("lost %s", "it")
for _ in range(100):  # as the loop does, of a peer that has gone with many commands ahead
    logging.getLogger("asyncio").warning("SSL connection is closed")
try:
    1 / 0
except ZeroDivisionError:
    l.exception("task.failed")
"""


def lines_of(level: str, form: str) -> list[str]:
    code = PROGRAM.format(level=level, form=form)
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == ""
    return ran.stderr.splitlines()


def test_json_is_one_line_an_event() -> None:
    made, bridged, failed = map(json.loads, lines_of("info", "auto"))
    assert made["event"] == "mailbox.made"
    assert made["mailbox"] == "user.\\xff"
    assert made["password"] == MASK
    assert (made["node"], made["cid"], made["level"]) == ("be1", "c1", "info")
    assert bridged["event"] == "library.logged"
    assert bridged["text"] == "lost it"
    assert "ZeroDivisionError" in failed["exception"]


def test_text_is_readable_and_the_level_counts() -> None:
    lines = lines_of("warning", "text")
    assert "library.logged" in lines[0]
    assert "text=lost it" in lines[0].replace("'", "")
    assert not any("mailbox.made" in line for line in lines)


HOSTILE = """
from murder.log import logger, set_up
evil = "\\x1b[31mred\\x1b]0;title\\x07\\x9b\\u202eback\\u2028\\r\\n2026 FAKE"
log = logger(peer="\\x1b[2J")
for form in ("json", "text"):
    set_up("debug", form, node=evil)
    log.info("x.y", user=evil, raw=evil.encode(), names=[evil], deep={"a": evil})
    try:
        raise ValueError(evil)
    except ValueError:
        log.exception("x.z")
"""


def test_what_a_peer_chose_does_nothing_to_who_reads_the_log() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE], capture_output=True, text=True, cwd=ROOT, check=True
    )
    lines = done.stderr.split("\n")
    assert all(line.isprintable() for line in lines), done.stderr
    assert not any(line.startswith("2026 FAKE") for line in lines)
    assert done.stderr.count("red") > 10


PLAIN = """
from murder.log import logger, plain_log, set_up
facts = {{"role": "frontend", "user": "\\udcffana\\x1b\\u00e9", "admin": False, "raw": b"\\xff", "n": 1}}
set_up("{level}", "{form}", node="be1", worker=2)
plain_log.info("x.y", facts)
logger(**facts).info("x.y")
"""


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_the_plain_log_says_what_the_other_one_says(level: str, form: str) -> None:
    code = PLAIN.format(level=level, form=form)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    lines = [re.sub(r"20[-0-9]+[T ][0-9:.]+", "now", line) for line in done.stderr.splitlines()]
    assert len(lines) == (0 if level == "warning" else 2)
    assert len(set(lines)) <= 1


JOURNALLED = """
from murder.log import logger, set_up
log = logger()
for form in ("json", "text"):
    set_up("debug", form)
    for level in ("debug", "info", "warning", "error"):
        getattr(log, level)("x.y")
try:
    raise ValueError("a bug")
except ValueError:
    log.exception("x.y")
"""


def test_the_journal_learns_each_lines_level(tmp_path: Path) -> None:
    for is_journal in (True, False):
        with (tmp_path / "log").open("w") as file:
            seen = os.fstat(file.fileno())
            stream = f"{seen.st_dev}:{seen.st_ino if is_journal else 1}"
            subprocess.run(
                [sys.executable, "-c", JOURNALLED],
                stderr=file,
                env=os.environ | {"JOURNAL_STREAM": stream},
                cwd=ROOT,
                check=True,
            )
        lines = (tmp_path / "log").read_text().splitlines()
        if is_journal:
            assert [line[:3] for line in lines[:8]] == ["<7>", "<6>", "<4>", "<3>"] * 2
            assert len(lines) > 10
            assert {line[:3] for line in lines[8:]} == {"<3>"}  # a traceback's lines too
        else:
            assert not any(line.startswith("<") for line in lines)


UNREAD = """
from murder.log import logger, plain_log, set_up
set_up("info", "json")
for number in range(20_000):
    plain_log.info("x.y", {"n": number})
    logger().info("x.y", n=number)
print("done", flush=True)
input()
logger().info("y.z")
"""


def test_a_journal_that_stands_still_stops_nothing_and_what_it_missed_is_told() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        seen = os.fstat(its.fileno())
        stream = f"{seen.st_dev}:{seen.st_ino}"
        with subprocess.Popen(
            [sys.executable, "-c", UNREAD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=its.fileno(),
            env=os.environ | {"JOURNAL_STREAM": stream},
            cwd=ROOT,
        ) as process:
            its.close()
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline() == b"done\n"
            ours.setblocking(False)
            said = b""
            while octets := _received(ours):
                said += octets
            written = said.count(b"\n")
            ours.setblocking(True)
            process.stdin.write(b"\n")
            process.stdin.close()
            while octets := ours.recv(65536):
                said += octets
    last = [json.loads(line.partition(b">")[2]) for line in said.splitlines()[written:]]
    assert [line["event"] for line in last] == ["y.z", "log.lost"]
    assert 0 < written < 40_000 and last[1]["lines"] == 40_000 - written


@pytest.mark.parametrize(
    "say", [plain_log.info, lambda event, facts: logger().info(event, **facts)]
)
def test_what_could_not_be_told_of_is_told_with_what_comes(
    say: Callable[[str, dict[str, int]], object],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A journal that was full takes a line, is full again, and then takes all."""
    write, takes = os.write, iter([False, False, True, False])

    def some(file: int, octets: bytes) -> int:
        if not next(takes, True):
            raise BlockingIOError
        return write(file, octets)

    set_up("info", "json")
    monkeypatch.setattr("os.write", some)
    for number in range(4):
        say("x.y", {"n": number})
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line.get("n") for line in said] == [2, 3, None]
    assert said[-1]["event"] == "log.lost" and said[-1]["lines"] == 3  # its own line, too


def test_what_a_full_disk_takes_of_a_line_spoils_no_other(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write, room = os.write, iter([30, 0, 0])

    def some(file: int, octets: bytes) -> int:
        if taken := octets[: next(room, len(octets))]:
            return write(file, taken)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    set_up("info", "json")
    monkeypatch.setattr("os.write", some)
    for number in range(5):
        plain_log.info("x.y", {"n": number})
    cut, *said = capfd.readouterr().err.splitlines()
    assert len(cut) == 30
    last = [json.loads(line) for line in said]
    assert [line.get("n") for line in last] == [3, None, 4]
    assert last[1]["event"] == "log.lost" and last[1]["lines"] == 3


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except BlockingIOError:
        return b""
