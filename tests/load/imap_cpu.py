"""A closed loop of one IMAP command on many connections, and the CPU time that the server's processes spent on it.

A generator written with asyncio costs as much per command as a good proxy does, so on a small machine rates mostly
show the generator. This one is one epoll loop of a few microseconds a command, and besides the rate it tells what does
not depend on it: CPU seconds of the processes under test, from /proc.

    imap_cpu.py --host 127.0.0.1 --port 14304 -c 10 -d 5 --command NOOP --pid 4711
    imap_cpu.py ... --match bin/imapd --match /fe1/       # processes whose command line has all of these
    imap_cpu.py ... --idle 1000                           # no load: memory (PSS) per idle selected session
"""

import argparse
import json
import os
import select
import socket
import time
from collections.abc import Iterable

TICK = os.sysconf("SC_CLK_TCK")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=143)
    parser.add_argument("-c", "--connections", type=int, default=10)
    parser.add_argument("-d", "--duration", type=float, default=5, help="seconds")
    parser.add_argument("--command", default="NOOP")
    parser.add_argument("--mailbox", default="INBOX")
    parser.add_argument("--user-format", default="user%d")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--password", default="secret")
    parser.add_argument("--pid", type=int, action="append", default=[], help="with its descendants")
    parser.add_argument("--match", action="append", default=[], help="words of the command line")
    parser.add_argument(
        "--idle", type=int, default=0, help="open so many sessions and measure memory"
    )
    return parser.parse_args()


def processes(pids: Iterable[int], words: list[str]) -> set[int]:
    """Process ids under test: the given ones with their descendants, and those whose command line has all words."""
    parent: dict[int, int] = {}
    chosen = set(pids)
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                parent[int(name)] = int(file.read().rsplit(")", 1)[1].split()[1])
            with open(f"/proc/{name}/cmdline", "rb") as file:
                line = file.read().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if words and int(name) != os.getpid() and all(word in line for word in words):
            chosen.add(int(name))
    while more := {child for child, above in parent.items() if above in chosen} - chosen:
        chosen |= more
    return chosen


def cpu_seconds(pids: Iterable[int]) -> float:
    total = 0.0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def pss_kib(pids: Iterable[int]) -> int:
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except OSError:
            continue
    return total


def last_line(data: bytes) -> bytes:
    """The last complete line, or b"" if the data does not end with one."""
    if not data.endswith(b"\r\n"):
        return b""
    return (b"\r\n" + data)[(b"\r\n" + data).rfind(b"\r\n", 0, -2) + 2 :]


def until(sock: socket.socket, tag: bytes) -> None:
    data = b""
    while not last_line(data).startswith(tag + b" "):
        got = sock.recv(65536)
        if not got:
            raise EOFError(data)
        data += got
    if not last_line(data).startswith(tag + b" OK"):
        raise RuntimeError(last_line(data).decode())


def session(given: argparse.Namespace, number: int) -> socket.socket:
    """A new connection, logged in, with the mailbox selected."""
    sock = socket.create_connection((given.host, given.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.recv(65536)
    user = given.user_format % (1 + number % given.users)
    sock.sendall(f"a LOGIN {user} {given.password}\r\n".encode())
    until(sock, b"a")
    sock.sendall(f"b SELECT {given.mailbox}\r\n".encode())
    until(sock, b"b")
    return sock


def measure_idle(given: argparse.Namespace) -> dict[str, object]:
    before = pss_kib(processes(given.pid, given.match))
    sockets = [session(given, number) for number in range(given.idle)]
    after = pss_kib(processes(given.pid, given.match))
    for sock in sockets:
        sock.close()
    return {
        "sessions": given.idle,
        "pss_kib_before": before,
        "pss_kib_after": after,
        "kib_per_session": round((after - before) / given.idle, 1),
    }


def measure_command(given: argparse.Namespace) -> dict[str, object]:
    poll = select.epoll()
    sockets = {}
    for number in range(given.connections):
        sock = session(given, number)
        sockets[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)
    line = f"t {given.command}\r\n".encode()
    done = octets = 0
    tails = dict.fromkeys(sockets, b"")
    before, start = cpu_seconds(processes(given.pid, given.match)), time.perf_counter()
    for sock in sockets.values():
        sock.send(line)
    while time.perf_counter() - start < given.duration:
        for descriptor, _ in poll.poll(1):
            data = sockets[descriptor].recv(1 << 18)
            if not data:
                raise EOFError("the server closed")
            octets += len(data)
            tail = tails[descriptor] + data[-512:]
            # only the end can be the tagged line of a closed loop with one command in flight
            if last_line(tail).startswith(b"t "):
                done += 1
                tails[descriptor] = b""
                sockets[descriptor].send(line)
            else:
                tails[descriptor] = tail[-512:]
    elapsed = time.perf_counter() - start
    cpu = cpu_seconds(processes(given.pid, given.match)) - before
    return {
        "command": given.command,
        "connections": given.connections,
        "per_second": round(done / elapsed, 1),
        "mb_per_second": round(octets / elapsed / 1e6, 2),
        "cpu_us_per_command": round(cpu * 1e6 / done, 1) if done else None,
        "cpu_ms_per_mb": round(cpu * 1e3 / (octets / 1e6), 3) if octets else None,
    }


if __name__ == "__main__":
    chosen = options()
    print(json.dumps(measure_idle(chosen) if chosen.idle else measure_command(chosen)))
