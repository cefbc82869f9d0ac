"""A backend dies under a frontend's session: what was in flight is refused, the session and all else live on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.demo import Demo, running_demo


@pytest.fixture(scope="module")
def demo(archive: Path) -> Iterator[Demo]:
    with running_demo("--users", "20", "--no-tls-required") as running:
        yield running


def test_an_append_is_refused_whose_backend_dies_in_the_middle(demo: Demo) -> None:
    other = next(n for n in range(2, 20) if demo.home(n) != demo.home(1))
    with demo.imap(demo.frontend, demo.user(other)) as sharer:
        assert sharer.create("INBOX/shared")[0] == "OK"
        assert sharer.setacl("INBOX/shared", demo.user(1), "lrs")[0] == "OK"
    shared = f"user/{demo.user(other)}/shared"
    client = demo.peer(demo.frontend, user=demo.user(1))
    client.send("t APPEND INBOX {300000}\r\n")
    assert client.line().startswith("+ ")
    client.send("x" * 100_000)
    demo.node("kill", demo.home(1)["node"])
    client.send("x" * 200_000 + "\r\n")
    assert client.line().startswith("t NO [UNAVAILABLE]")
    assert client.command("STATUS INBOX (MESSAGES)")[-1].startswith("t NO [UNAVAILABLE]")
    assert client.command('LSUB "" *')[-1].startswith("t NO [UNAVAILABLE]")
    assert client.command(f"STATUS {shared} (MESSAGES)")[0] == f"* STATUS {shared} (MESSAGES 0)"
    listed = client.command('LIST "" * RETURN (STATUS (MESSAGES))')
    assert f"* STATUS {shared} (MESSAGES 0)" in listed and listed[-1].startswith("t OK")
    assert any(line.startswith("* NO [UNAVAILABLE]") for line in listed)
    demo.node("start", demo.home(1)["node"])
    # the breaker tells nobody when it closes
    assert client.until_ok("STATUS INBOX (MESSAGES)") == ["* STATUS INBOX (MESSAGES 0)"]
