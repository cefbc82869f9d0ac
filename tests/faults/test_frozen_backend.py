"""A backend is frozen (SIGSTOP): its own mailboxes are refused in bounded time, nobody else waits, and when it wakes it
does nothing that was refused meanwhile."""

import re
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.demo import Demo, reconfigure, running_demo
from tests.kit.peer import BlockingPeer
from tests.kit.waiting import until

TIMEOUTS = """[frontend]
connect_timeout_s = 1.0
upstream_timeout_s = 4.0
upstream_login_timeout_s = 1.5
breaker_retry_s = 0.3
"""
BOUND_S = 30.0  # well beyond any sum of these on a busy machine, well below a hang


@pytest.fixture(scope="module")
def demo(archive: Path) -> Iterator[Demo]:
    with running_demo("--users", "6", "--no-tls-required") as running:
        reconfigure(running, "fe1", "[frontend]\n", TIMEOUTS)
        yield running


@pytest.fixture
def others(demo: Demo) -> tuple[int, int]:
    """Two users on different backends."""
    return 1, next(number for number in range(2, 7) if demo.home(number) != demo.home(1))


def imap(demo: Demo, user: int) -> BlockingPeer:
    return demo.peer(demo.frontend, user=demo.user(user), limit_s=BOUND_S)


def is_told(peer: BlockingPeer) -> bool:
    """Whether something has come for it."""
    readable = select.poll()
    readable.register(peer.sock, select.POLLIN)
    return bool(readable.poll(0))


def until_back(demo: Demo, user: int) -> BlockingPeer:
    """A client whose INBOX is there again."""
    peer = imap(demo, user)
    peer.until_ok("SELECT INBOX")
    return peer


def test_a_selected_session_is_closed_politely_and_lives_on(
    demo: Demo, others: tuple[int, int]
) -> None:
    mine, other = others
    with demo.imap(demo.frontend, demo.user(other)) as sharer:
        assert sharer.create("INBOX/both")[0] == "OK"
        assert sharer.setacl("INBOX/both", demo.user(mine), "lrs")[0] == "OK"
    shared = f"user/{demo.user(other)}/both"
    client, bystander = imap(demo, mine), imap(demo, other)
    assert client.command("SELECT INBOX")[-1].startswith("t OK")
    demo.node("freeze", demo.home(mine)["node"])
    try:
        client.send("a NOOP\r\nb UID SEARCH ALL\r\n")
        assert bystander.command("SELECT INBOX")[-1].startswith("t OK")
        assert not is_told(client), "the bystander waited for another's backend to be given up"
        said = [client.line() for _ in range(3)]
        assert said[0].startswith("* OK [CLOSED]")
        assert [line[:18] for line in said[1:]] == ["a NO [UNAVAILABLE]", "b NO [UNAVAILABLE]"]
        assert client.command("STATUS INBOX (MESSAGES)")[-1].startswith("t NO [UNAVAILABLE]")
        listed = client.command('LIST "" *')
        assert any(line.endswith(" INBOX") for line in listed) and listed[-1].startswith("t OK")
        assert client.command(f"SELECT {shared}")[-1].startswith("t OK")
        assert client.command('LSUB "" *')[-1].startswith("t NO [UNAVAILABLE]")
        assert imap(demo, mine).command("SELECT INBOX")[-1].startswith("t NO [UNAVAILABLE]")
        pop = demo.peer(demo.frontend, "pop3", limit_s=BOUND_S)
        pop.send(f"USER {demo.user(mine)}\r\nPASS {demo.password}\r\n")
        pop.line()
        assert pop.line().startswith("-ERR [SYS/TEMP]")
    finally:
        demo.node("thaw", demo.home(mine)["node"])
    until_back(demo, mine)
    client.until_ok("SELECT INBOX")


def test_an_append_that_was_refused_is_not_made_when_the_backend_wakes(
    demo: Demo, others: tuple[int, int]
) -> None:
    mine, _ = others
    client = imap(demo, mine)
    text = "Subject: refused\r\n\r\n" + "Hello.\r\n" * 10
    client.send(f"t APPEND INBOX {{{len(text)}}}\r\n")
    assert client.line().startswith("+ ")
    client.send(text[:50])
    assert imap(demo, mine).command("SELECT INBOX")[-1].startswith("t OK")
    demo.node("freeze", demo.home(mine)["node"])
    try:
        client.send(text[50:] + "\r\n")
        assert client.line().startswith("t NO [UNAVAILABLE]")
    finally:
        demo.node("thaw", demo.home(mine)["node"])
    assert until_back(demo, mine).command("UID SEARCH SUBJECT refused")[0] == "* SEARCH"


def test_what_was_refused_for_a_sleeper_is_not_delivered_when_it_wakes(
    demo: Demo, others: tuple[int, int]
) -> None:
    mine, other = others
    client = demo.peer(demo.frontend, "lmtp", limit_s=BOUND_S)
    client.send("LHLO mta.test\r\n")
    client.reply()
    text = "Subject: once\r\n\r\n" + "Hello.\r\n" * 10
    client.send("MAIL FROM:<a@example.org>\r\n")
    client.reply()
    for user in (mine, other):
        client.send(f"RCPT TO:<{demo.user(user)}>\r\n")
        assert client.reply().startswith("250")
    client.send("DATA\r\n")
    assert client.reply().startswith("354")
    client.send(text)
    # a round trip to the same backend: the first half has gone there
    until_at_backend = imap(demo, mine)
    assert until_at_backend.command("SELECT INBOX")[-1].startswith("t OK")
    demo.node("freeze", demo.home(mine)["node"])
    try:
        client.send(".\r\n")
        assert client.reply().startswith("451 4.4.2")
        assert client.reply().startswith("250")
    finally:
        demo.node("thaw", demo.home(mine)["node"])
    until_back(demo, mine)
    until(
        lambda: demo.deliver(demo.frontend, demo.user(mine), text.encode()).startswith("250"),
        "mail is taken again",
        every_s=0.2,
    )
    for user in (mine, other):
        found = until_back(demo, user).command("UID SEARCH SUBJECT once")
        assert re.match(r"\* SEARCH [0-9]+$", found[0]), found
