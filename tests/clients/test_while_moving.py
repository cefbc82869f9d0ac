"""A mailbox moves to and fro while mail programs read it through a frontend: each next mail is seen, and nothing else."""

import imaplib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients import test_mbsync, test_offlineimap
from tests.kit.demo import Demo, message, wanted
from tests.kit.process import run_murder

MOVES = 4


def move(demo: Demo, user: str, server: str) -> None:
    words = ("ctl", "mailbox", "move", user, "--to", server, "--yes")
    run_murder(*words, "--config", str(demo.info["operator"]))


@contextmanager
def moving(demo: Demo, number: int, deliver: Callable[[int], None]) -> Iterator[threading.Event]:
    """The user's mailboxes go from one backend to the other and back, with a mail after each step; the event says that it
    is over."""
    over, failed = threading.Event(), []
    home = demo.home(number)["name"]
    names = [home, *(one["name"] for one in demo.backends if one["name"] != home)][:2]

    def go() -> None:
        try:
            for step in range(MOVES):
                move(demo, demo.user(number), names[(step + 1) % 2])
                deliver(step)
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield over
    finally:
        thread.join()
    assert not failed, failed


def subjects(box: Path) -> Counter[str]:
    files = [file for part in ("new", "cur") for file in (box / part).iterdir()]
    found = [re.search(rb"^Subject: (.*?)\r?$", file.read_bytes(), re.M) for file in files]
    return Counter(match[1].decode() for match in found if match is not None)


def test_mbsync_and_offlineimap_in_a_loop(demo: Demo, number: int, tmp_path: Path) -> None:
    programs = {
        name: kit
        for name, kit in (("mbsync", test_mbsync), ("offlineimap", test_offlineimap))
        if not wanted(name)
    }
    if not programs:
        pytest.skip(wanted("mbsync"))
    user, server = demo.user(number), demo.frontend
    sent = Counter[str]()

    def deliver(step: int) -> None:
        octets = message(f"moved {step}")
        assert demo.deliver(server, user, octets).startswith("250")
        sent.update(re.findall(r"^Subject: (.*?)\r?$", octets.decode(), re.M))

    files = {}
    for name, kit in programs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "mail").mkdir()
        files[name] = kit.configuration(demo, server, user, tmp_path / name)
    deliver(-1)
    with moving(demo, number, deliver) as over:
        rounds = 0
        while not over.is_set() or rounds < 2:
            rounds += 1
            for name, kit in programs.items():
                kit.sync(files[name])
    for name, kit in programs.items():
        said = kit.sync(files[name])
        said = kit.sync(files[name])
        assert subjects(tmp_path / name / "mail" / "INBOX") == sent, said
    client = demo.imap(server, user)
    assert client.select("INBOX")[1] == [str(MOVES + 1).encode()]
    client.logout()


def test_a_client_that_asks_now_and_then(demo: Demo, number: int) -> None:
    """imaplib, outside IDLE: NOOP, FETCH and STORE during the moves."""
    user, server = demo.user(number), demo.frontend

    def deliver(step: int) -> None:
        assert demo.deliver(server, user, message(f"moved {step}")).startswith("250")

    deliver(-1)
    client = demo.imap(server, user)
    assert client.select("INBOX")[1] == [b"1"]
    client.response("EXISTS")
    seen: list[bytes] = []
    with moving(demo, number, deliver) as over:
        while not over.is_set():
            assert client.noop()[0] == "OK"
            assert client.store("1", "+FLAGS", "(\\Flagged)")[0] == "OK"
            assert client.fetch("1", "(UID RFC822.SIZE)")[0] == "OK"
            assert client.store("1", "-FLAGS", "(\\Flagged)")[0] == "OK"
            exists = client.response("EXISTS")[1]
            seen += [one for one in exists if isinstance(one, bytes)]
    assert client.noop()[0] == "OK"
    seen += [one for one in client.response("EXISTS")[1] if isinstance(one, bytes)]
    assert list(dict.fromkeys(seen)) == [b"%d" % (2 + step) for step in range(MOVES)]
    assert client.response("EXPUNGE")[1] == [None]
    assert isinstance(client, imaplib.IMAP4) and client.logout()[0] == "BYE"
