"""Bad input on every port: an error or a bounded disconnect, bounded memory, nobody else affected."""

import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.demo import Demo, running_demo
from tests.kit.waiting import pause
from tests.load.imap_cpu import processes, pss_kib

MEMORY_KIB = 200 * 1024  # growth of a node's whole process tree under any of these
PATIENCE_S = 20


@pytest.fixture(scope="module")
def demo(archive: Path) -> Iterator[Demo]:
    with running_demo("--users", "4", "--no-tls-required") as running:
        yield running


def ports(demo: Demo) -> dict[str, tuple[str, int, int]]:
    """Every port of the murder: what it is -> host, port, the node's process."""
    found = {
        "mupdate": (
            demo.info["mupdate"]["host"],
            demo.info["mupdate"]["port"],
            demo.info["mupdate"]["pid"],
        )
    }
    for node in (demo.frontend, demo.backends[0]):
        for kind in ("imap", "imaps", "pop3", "pop3s", "lmtp"):
            found[f"{node['node']}-{kind}"] = (node["host"], node[kind], node["pid"])
    return found


NAMES = ["mupdate"] + [
    f"{node}-{kind}"
    for node in ("fe1", "be1")
    for kind in ("imap", "imaps", "pop3", "pop3s", "lmtp")
]

ATTACKS = {
    "noise": [bytes(range(256)) * 400],
    "noise in lines": [random.Random(7).randbytes(200).replace(b"\n", b"") + b"\r\n"] * 500,
    "a line of 10 MB": [b"a " + b"x" * 1_000_000] + [b"x" * 1_000_000] * 9,
    "an endless literal": [b"a LOGIN {4294967295+}\r\n"] + [b"y" * 1_000_000] * 20,
    "a literal beyond all numbers": [
        b"a LOGIN {99999999999999999999+}\r\n",
        b"a LOGIN {18446744073709551616}\r\n",
    ],
    "a thousand literals": [b"a LOGIN" + b" {4000+}\r\n" + b"z" * 4000]
    + [b" {4000+}\r\n" + b"z" * 4000] * 1000,
    "half a command": [b"a LOGI"],
    "wrong order": [
        b'a FETCH 1 (FLAGS)\r\nRCPT TO:<x>\r\nDATA\r\nRETR 1\r\na ACTIVATE "x" "y" "z"\r\n.\r\n'
    ]
    * 20,
    "empty lines": [b"\r\n" * 2000],
    "nuls": [b"\0" * 100_000],
}


def attack(host: str, port: int, pieces: list[bytes]) -> None:
    """Send it all, reading what comes back; the peer may close whenever it likes."""
    with socket.create_connection((host, port), timeout=PATIENCE_S) as sock:
        sock.setblocking(False)
        end = time.monotonic() + PATIENCE_S
        for piece in pieces:
            view = memoryview(piece)
            while view and time.monotonic() < end:
                try:
                    view = view[sock.send(view) :]
                except BlockingIOError:
                    pause(0.002, "the peer has stopped reading, as it should")
                    if not drained(sock):
                        return
                except OSError:
                    return
                if not drained(sock):
                    return


def drained(sock: socket.socket) -> bool:
    """Read away what is there; False if the peer has closed."""
    try:
        while sock.recv(65536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@pytest.mark.parametrize("what", ATTACKS)
@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_answered_or_cut_off(demo: Demo, name: str, what: str) -> None:
    host, port, pid = ports(demo)[name]
    before = pss_kib(processes([pid], []))
    with demo.imap(demo.frontend, demo.user(1)) as bystander:
        attack(host, port, ATTACKS[what])
        begin = time.monotonic()
        assert bystander.noop()[0] == "OK"
        assert bystander.select("INBOX")[0] == "OK"
        assert time.monotonic() - begin < PATIENCE_S
    assert pss_kib(processes([pid], [])) - before < MEMORY_KIB
    with socket.create_connection((host, port), timeout=PATIENCE_S):
        pass


def test_many_slow_writers_do_not_keep_others_out(demo: Demo) -> None:
    sockets = []
    for host, port, _ in ports(demo).values():
        for _ in range(20):
            sock = socket.create_connection((host, port), timeout=PATIENCE_S)
            sock.send(b"a")
            sockets.append(sock)
    with demo.imap(demo.frontend, demo.user(2)) as client:
        assert client.select("INBOX")[0] == "OK"
    for sock in sockets:
        sock.close()


def test_a_client_that_never_reads_does_not_fill_memory(demo: Demo) -> None:
    frontend, user = demo.frontend, demo.user(3)
    with demo.imap(frontend, user) as client:
        big = b"Subject: big\r\n\r\n" + b"0123456789abcdef\r\n" * 250_000  # 4.5 MB
        assert client.append("INBOX", "", "", big)[0] == "OK"
    nodes = [frontend["pid"], *(backend["pid"] for backend in demo.backends)]
    before = pss_kib(processes(nodes, []))
    readers = []
    for _ in range(5):
        sock = socket.create_connection((frontend["host"], frontend["imap"]), timeout=PATIENCE_S)
        sock.sendall(f"a LOGIN {user} secret\r\nb SELECT INBOX\r\n".encode())
        sock.sendall(b"c FETCH 1 BODY.PEEK[]\r\n" * 200)  # 900 MB, if anybody took it
        readers.append(sock)
    with demo.imap(frontend, demo.user(4)) as bystander:
        for _ in range(20):
            assert bystander.select("INBOX")[0] == "OK"
    assert pss_kib(processes(nodes, [])) - before < MEMORY_KIB
    for sock in readers:
        sock.close()
