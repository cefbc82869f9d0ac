"""A backend becomes a unified node, by the manual's words, and a backend again: its mail stays where it is, and the rest is
passed on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli

from tests.kit.demo import Demo, message, running_demo
from tests.kit.process import run_murder
from tests.kit.waiting import until

NAME = "be1.murder.test"


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", "2", "--no-tls-required") as running:
        yield running


def certify(demo: Demo, *roles: str) -> None:
    words = [word for role in roles for word in ("--role", role)]
    words += ["--address", "127.0.0.1", "--dir", str(demo.folder / "ca")]
    run_murder("ca", "issue", NAME, *words, "--out", str(demo.folder / "be1"))


def move_ports(file: Path) -> None:
    """Those of [backend] to [frontend]; what is not about ports stays."""
    text = file.read_text()
    _, _, behind = text.partition("[backend]\n")
    section = behind.partition("\n\n")[0]
    ports = [line for line in section.splitlines() if " = [" in line and "admins" not in line]
    assert len(ports) == 6, section
    rest = [line for line in section.splitlines() if line not in ports]
    workers = [line for line in rest if line.startswith("workers")]
    kept = "\n".join(line for line in rest if line not in workers)
    clients = "\n".join([*workers, *ports, 'admins = ["admin"]', "allow_plaintext = true"])
    text = text.replace(section, f"{kept}\n\n[frontend]\n{clients}")
    file.write_text(text.replace('roles = ["backend"]', 'roles = ["unified"]'))
    assert tomli.loads(file.read_text())["node"]["roles"] == ["unified"]


def test_a_backend_becomes_unified_and_is_a_backend_again(demo: Demo) -> None:
    here, there = demo.backends
    own = next(user for user in map(demo.user, (1, 2)) if demo.home(int(user[4:])) == here)
    other = next(user for user in map(demo.user, (1, 2)) if user != own)
    file = demo.folder / "be1" / "murder.toml"
    before = file.read_text()
    for server, user in ((here, own), (there, other)):
        with demo.imap(server, user) as client:
            assert client.append("INBOX", r"(\Flagged)", "", message("before"))[0] == "OK"

    def flags(server: dict[str, object], user: str) -> list[object]:
        with demo.imap(server, user) as client:
            assert client.select("INBOX")[0] == "OK"
            return list(client.fetch("1:*", "(UID FLAGS)")[1])

    for server, user in ((here, own), (there, other)):
        flags(server, user)  # takes \\Recent
    kept = flags(here, own)
    assert kept
    demo.node("stop", "be1")
    certify(demo, "unified")
    move_ports(file)
    run_murder("config", "check", "--config", file)
    demo.node("start", "be1")

    def is_passed_on() -> bool:
        with demo.imap(here, other) as client:
            return client.select("INBOX")[0] == "OK"

    until(is_passed_on, "its copy of the list", every_s=0.2)
    assert [one for one in flags(here, own) if one in kept] == kept
    assert flags(here, other) == flags(there, other)
    for user in (own, other):
        assert demo.deliver(here, user, message("after")).startswith("250")
        with demo.imap(here, user) as client:
            assert client.create("INBOX/unified")[0] == "OK"
    for user in (own, other):  # the frontend that there was goes on
        with demo.imap(demo.frontend, user) as client:
            assert client.select("INBOX/unified")[0] == "OK"
            assert client.select("INBOX")[1] == [b"2"]
    status = run_murder("ctl", "doctor", "--config", str(demo.info["operator"])).stdout
    assert "Everything is well" in status, status

    demo.node("stop", "be1")
    certify(demo, "backend")
    file.write_text(before)
    demo.node("start", "be1")
    assert flags(here, own)[: len(kept)] == kept
    with demo.imap(here, own) as client:
        assert client.select("INBOX/unified")[0] == "OK"
        assert client.select("INBOX")[1] == [b"2"]
    with demo.imap(here, other) as client:  # whose mail is not here
        assert client.select("INBOX")[0] == "NO"
