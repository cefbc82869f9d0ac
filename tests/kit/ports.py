"""Ports for the programs under test, reserved: no other test run, and no outgoing connection, takes one in between.

They lie below the range from which the kernel takes ports for outgoing connections. For each that is handed out this process
holds a lock on the octet of that number in one file, which the kernel drops when the process ends, however it ends; so
test runs beside each other never get the same. A server in the test's own process needs none of this: it binds port 0.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

FIRST: Final = 15_000  # what people run by hand is mostly below
BEHIND: Final = 32_000  # Linux connects from 32768 on

_held: set[int] = set()


def free_port() -> int:
    """One, for as long as this process lives."""
    return free_port_base(1)


def free_ports(count: int) -> list[int]:
    first = free_port_base(count)
    return list(range(first, first + count))


def free_port_base(count: int = 80) -> int:
    """The first of `count` neighbouring ports, for as long as this process lives."""
    span = BEHIND - FIRST
    start = (os.getpid() * 97) % span  # so that runs beside each other seldom look at the same
    for step in range(0, 2 * span, count):
        base = FIRST + (start + step) % span
        if base + count <= BEHIND and _reserve(range(base, base + count)):
            return base
    raise AssertionError(f"no {count} neighbouring ports are free")


@contextlib.contextmanager
def ports_held(count: int) -> Iterator[int]:
    """The first of `count` neighbouring ports, given back at the end of the block."""
    base = free_port_base(count)
    try:
        yield base
    finally:
        _release(range(base, base + count))


def _reserve(ports: range) -> bool:
    """Take them all, or none. A lock is the process's, so what it holds itself it must know."""
    if not _held.isdisjoint(ports):
        return False
    for port in ports:
        if not (_lock(port) and _is_unused(port)):
            _release(range(ports.start, port + 1))
            return False
    _held.update(ports)
    return True


def _lock(port: int) -> bool:
    try:
        fcntl.lockf(_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _release(ports: range) -> None:
    _held.difference_update(ports)
    fcntl.lockf(_file(), fcntl.LOCK_UN, len(ports), ports.start)


@cache
def _file() -> int:
    """Never closed: with any descriptor of the file that a process closes, its locks are gone."""
    # wherever a run has its files (TMPDIR)
    path = Path("/tmp") / f"murder-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_unused(port: int) -> bool:
    """Whether no program that knows nothing of the locks listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
