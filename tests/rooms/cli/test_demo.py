"""A real demo: its line of JSON, its lines to paste, its nodes acted on, its end, and its mail the next time."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from murder.admin.cli.demo import paste_lines
from murder.admin.demo.plan import Options, nodes_of
from tests.kit.demo import Demo, message, running_demo
from tests.kit.ports import free_port_base
from tests.kit.process import ROOT, murder_command
from tests.kit.waiting import until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A name longer than the address of a socket may be."""
    return tmp_path_factory.mktemp("demo") / ("long-" * 20)


@pytest.fixture(scope="module")
def demo(folder: Path) -> Iterator[Demo]:
    with running_demo("--users", "4", "--no-tls-required", folder=folder, keep=True) as running:
        yield running


def state_of(demo: Demo) -> dict[str, Any]:
    """What the demo's folder says now: the line of JSON with the pids of today."""
    state: dict[str, Any] = json.loads((demo.folder / "demo.json").read_text())
    return state


def groups_of(demo: Demo) -> list[int]:
    """The process group of each node."""
    state = state_of(demo)
    return [node["pid"] for node in (state["mupdate"], *state["frontends"], *state["backends"])]


def members(group: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def murder(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*murder_command(), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_inboxes_are_spread_over_the_backends(demo: Demo) -> None:
    for number in range(1, 5):
        wanted = demo.backends[(number - 1) % 2]["node"]
        assert demo.home(number)["node"] == wanted


def test_the_lines_to_paste_work(demo: Demo, folder: Path) -> None:
    base = demo.info["mupdate"]["port"]
    options = Options(folder, users=4, port_base=base)
    nodes = nodes_of(options)
    for with_curl in [True, False] if shutil.which("curl") else [False]:
        deliver, read, listing = paste_lines(options, nodes, with_curl=with_curl)
        said = []
        for line in (deliver, read, listing):
            ran = subprocess.run(
                ["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False
            )
            assert ran.returncode == 0, f"{line}\n{ran.stderr}"
            said.append(ran.stdout)
        assert "Subject: hello" in said[1]
        assert "It works." in said[1]
        for number in range(1, 5):
            assert f"user/user{number}" in said[2]


def test_the_administrator_gets_in_everywhere(demo: Demo) -> None:
    admin, password = demo.info["admin"]["user"], demo.info["admin"]["password"]
    for server in (demo.frontend, *demo.backends):
        client = demo.imap(server, admin, password)
        status, found = client.list('""', '"user/%"')
        assert status == "OK"
        assert found[0] is not None
        client.logout()
    host, port = demo.info["mupdate"]["host"], demo.info["mupdate"]["port"]
    with socket.create_connection((host, port), timeout=30) as sock:
        stream = sock.makefile("rwb")
        while not stream.readline().startswith(b"* OK"):
            pass
        stream.write(b'A AUTHENTICATE "PLAIN" "AGFkbWluAHNlY3JldA=="\r\n')
        stream.flush()
        assert stream.readline().startswith(b"A OK")


def test_a_node_is_stopped_and_started(demo: Demo) -> None:
    demo.node("stop", "be1")
    before = demo.backends[0]["pid"]
    assert members(before) == []
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", demo.backends[0]["imap"]), timeout=5)
    demo.node("start", "be1")
    after = state_of(demo)["backends"][0]["pid"]
    assert after != before
    assert after in members(after)
    demo.imap(demo.backends[0], "user1").logout()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is asked for: root")
def test_another_user_hears_whose_demo_it_is(tmp_path: Path) -> None:
    as_nobody = ["setpriv", "--reuid=65534", "--clear-groups"]
    shared = tmp_path / "shared"
    shared.mkdir()
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(str(shared / "control.sock"))
        control.listen()
        (shared / "control.sock").chmod(0o600)
        ran = subprocess.run(
            [*as_nobody, *murder_command(), "demo", "node", "stop", "be1", "--dir", str(shared)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert ran.returncode == 1
    assert f"the demo in {shared} is root's: run this as root" in ran.stderr


def test_a_killed_node_recovers_with_its_mail(demo: Demo) -> None:
    assert demo.deliver(demo.frontend, "user2", message("before the kill")).startswith("250")
    demo.node("kill", "be2")
    demo.node("start", "be2")
    client = demo.imap(demo.backends[1], "user2")
    client.select("INBOX", readonly=True)
    assert client.search(None, 'SUBJECT "before the kill"')[1] != [b""]
    client.logout()


def test_a_frozen_node_answers_nothing_until_it_thaws(demo: Demo) -> None:
    demo.node("freeze", "be1")
    with socket.create_connection(("127.0.0.1", demo.backends[0]["imap"]), timeout=1) as sock:
        with pytest.raises(TimeoutError):
            sock.recv(100)
        demo.node("thaw", "be1")
        sock.settimeout(30)
        assert sock.recv(100).startswith(b"* OK")


def test_nonsense_about_nodes_is_refused(demo: Demo, tmp_path: Path) -> None:
    there = str(demo.folder)
    unknown = murder("demo", "node", "stop", "be9", "--dir", there)
    assert unknown.returncode == 1
    assert "nodes are mupdate, fe1, be1, be2" in unknown.stderr
    assert murder("demo", "node", "hug", "be1", "--dir", there).returncode == 2
    assert murder("demo", "node", "start", "be1", "--dir", there).returncode == 1
    nowhere = murder("demo", "node", "stop", "be1", "--dir", str(tmp_path))
    assert nowhere.returncode == 1
    assert "no demo runs in" in nowhere.stderr


def test_a_second_demo_in_the_folder_is_refused(demo: Demo) -> None:
    second = murder("demo", "--json", "--dir", str(demo.folder), "--port-base", "64000")
    assert second.returncode == 1
    assert second.stdout == ""
    assert "a demo runs already in" in second.stderr


def test_a_port_in_use_is_told_and_nothing_is_left(demo: Demo, tmp_path: Path) -> None:
    base = str(demo.info["mupdate"]["port"])
    second = murder("demo", "--json", "--dir", str(tmp_path / "d"), "--port-base", base)
    assert second.returncode == 1
    assert second.stdout == ""
    assert "the port is in use" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_and_the_mail_is_there_the_next_time(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "d"
    subject = f"kept over {number.name}"
    options = ("--users", "2", "--backends", "1", "--no-tls-required")
    with running_demo(*options, folder=folder, keep=True) as first:
        assert first.deliver(first.frontend, "user1", message(subject)).startswith("250")
        groups = groups_of(first)
        first.node("freeze", "be1")
        os.kill(first.process.pid, number)
        assert first.process.wait(60) == 0
        assert [members(group) for group in groups] == [[]] * len(groups)
        assert first.process.stdout is not None
        assert first.process.stdout.read() == ""
    with running_demo(*options, folder=folder, keep=True) as second:
        client = second.imap(second.frontend, "user1")
        client.select("INBOX", readonly=True)
        assert client.search(None, f'SUBJECT "{subject}"')[1] == [b"1"]
        client.logout()


def test_nodes_end_when_the_demo_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    command = [*murder_command(), "demo", "--json", "--dir", str(folder), "--users", "1"]
    process = subprocess.Popen(
        [*command, "--port-base", str(free_port_base())], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        info = json.loads(process.stdout.readline())
    process.kill()
    process.wait()
    groups = [node["pid"] for node in (info["mupdate"], *info["frontends"], *info["backends"])]
    until(lambda: not any(members(group) for group in groups), "no nodes are left")


def asked_of_list(endpoint: tuple[str, int], *commands: bytes) -> list[bytes]:
    """What a MUPDATE server says to the administrator, from its banner to the last tagged answer."""
    with socket.create_connection(endpoint, timeout=30) as sock:
        stream = sock.makefile("rwb")
        lines: list[bytes] = []
        for command in (b'A AUTHENTICATE "PLAIN" "AGFkbWluAHNlY3JldA=="', *commands):
            stream.write(command + b"\r\n")
            stream.flush()
            while not (line := stream.readline()).startswith(command[:2]):
                assert line, lines
                lines.append(line)
            lines.append(line)
        return lines


def test_a_frontend_tells_its_list_and_takes_no_change(demo: Demo) -> None:
    place = demo.info["frontends"][0]
    said = asked_of_list(
        (place["host"], place["mupdate"]),
        b"B LIST",
        b'C FIND "user.user1"',
        b'D RESERVE "user.stranger" "be1.murder.test!default"',
    )
    port = demo.info["mupdate"]["port"]
    assert any(line.startswith(b'* OK MUPDATE "fe1.murder.test"') for line in said)
    assert any(b"mupdate://127.0.0.1" in line for line in said), "whose copy it is"
    listed = [line.split(b'"')[1] for line in said if line.startswith(b"B MAILBOX")]
    assert [name for name in listed if name.startswith(b"user.user")] == [
        b"user.user%d" % number for number in range(1, 5)
    ]
    assert any(line.startswith(b'C MAILBOX "user.user1"') for line in said)
    assert said[-1].startswith(b"D BAD"), said[-1]
    at_master = asked_of_list((place["host"], port), b'C FIND "user.stranger"')
    assert at_master[-1].startswith(b"C OK")
    assert len([line for line in at_master if line.startswith(b"C ")]) == 1
