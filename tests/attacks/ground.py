"""Where a stranger stands: a demo's addresses, connections in every state, and what can be done with one that is open.

A stranger has an address of their own (127.0.1.1 …), so that what one has earned is not the next one's. All of it is over
by `end`, whatever the node does.
"""

import contextlib
import multiprocessing
import select
import socket
import ssl
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.kit.peer import BlockingPeer
from tests.kit.waiting import pause

FORK: Final = multiprocessing.get_context("fork")
STEP_S: Final = 0.1  # how long a stranger waits for room before they look at the clock
PATIENCE_S: Final = 60.0
GRAB: Final = 1 << 18
MULTI: Final = 500  # messages of one APPEND

# What is cheap to say before login, of each protocol
CHEAP: Final = {
    "imap": b"a CAPABILITY\r\n",
    "pop3": b"CAPA\r\n",
    "lmtp": b"LHLO x\r\n",
    "sieve": b"CAPABILITY\r\n",
    "mupdate": b"a NOOP\r\n",
    "metrics": b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "web": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}
START_TLS: Final = {
    "imap": b"a STARTTLS\r\n",
    "pop3": b"STLS\r\n",
    "lmtp": b"LHLO x\r\nSTARTTLS\r\n",
    "sieve": b"STARTTLS\r\n",
    "mupdate": b"a STARTTLS\r\n",
}


class Wire(BlockingPeer):
    """A connection of a stranger's."""

    def __init__(self, host: str, port: int, source: str, *, is_tls: bool = False) -> None:
        self.sock = socket.create_connection((host, port), PATIENCE_S, (source, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if is_tls:
            self.sock = no_questions().wrap_socket(self.sock)
        self.stream = self.sock.makefile("rb", 1 << 20)

    def raw(self, octets: bytes) -> None:
        self.sock.sendall(octets)

    def until_quiet(self, *ends: bytes) -> bytes:
        """A line that begins so; what comes before is passed over."""
        while not (line := self.stream.readline()).startswith(ends):
            if not line:
                raise EOFError
        return line


def no_questions() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@dataclass
class Ground:
    """`nodes` are what the demo has told of each, by what the rows call them: fe, be, mu; `user` lives at be."""

    nodes: dict[str, dict[str, Any]]
    folder: Path
    user: str
    password: str = "secret"
    source: str = "127.0.1.1"
    mailboxes: set[str] = field(default_factory=set)  # that have been made
    # How often a stranger came as far as they wanted: theirs is a process of its own
    entered: Any = field(default_factory=lambda: FORK.Value("i", 0))

    # --- connections

    def open(self, where: str, protocol: str, state: str = "greeted") -> Wire:
        """A connection in this state: connected, greeted, penalty, logged, selected, idle, deflated, data, update."""
        node = self.nodes[where]
        is_master = where == "mu" and protocol == "mupdate"
        port = node["port" if is_master else protocol]
        wire = Wire(node["host"], port, self.source, is_tls=protocol in ("imaps", "pop3s"))
        self._reach(wire, protocol, state)
        with self.entered.get_lock():
            self.entered.value += 1
        return wire

    def _reach(self, wire: Wire, protocol: str, state: str) -> None:
        if state == "connected" or protocol in ("metrics", "web"):
            return
        if protocol in ("sieve", "mupdate"):
            wire.until_quiet(b"OK", b"* OK MUPDATE")
        else:
            wire.reply()
        if state == "penalty":
            for octets in wrong_password(protocol, "user4"):
                wire.raw(octets)
        elif state == "data":
            talk = ("LHLO x", "MAIL FROM:<a@b.example>", f"RCPT TO:<{self.user}>", "DATA")
            for line in talk:
                wire.raw(line.encode() + b"\r\n")
                wire.reply()
        elif state != "greeted":
            self._log_in(wire, protocol)
            self._go_on(wire, protocol, state)

    def _log_in(self, wire: Wire, protocol: str) -> None:
        user = "admin" if protocol == "mupdate" else self.user
        plain = b64encode(f"\0{user}\0{self.password}".encode()).decode()
        if protocol in ("imap", "imaps"):
            wire.ok(f"LOGIN {user} {self.password}")
        elif protocol in ("pop3", "pop3s"):
            wire.raw(f"USER {user}\r\nPASS {self.password}\r\n".encode())
            wire.until_quiet(b"+OK")
            wire.until_quiet(b"+OK")
        elif protocol == "sieve":
            wire.raw(f'AUTHENTICATE "PLAIN" "{plain}"\r\n'.encode())
            wire.until_quiet(b"OK")
        else:
            wire.raw(f'a AUTHENTICATE "PLAIN" "{plain}"\r\n'.encode())
            wire.until_quiet(b"a OK")

    def _go_on(self, wire: Wire, protocol: str, state: str) -> None:
        if state in ("selected", "idle"):
            wire.ok("SELECT INBOX")
        if state == "idle":
            wire.raw(b"i IDLE\r\n")
            wire.until_quiet(b"+")
        elif state == "deflated":
            wire.raw(
                b"c COMPRESS DEFLATE\r\n" if protocol == "imap" else b'c COMPRESS "DEFLATE"\r\n'
            )
            wire.until_quiet(b"c OK")
        elif state == "update":
            wire.raw(b"u UPDATE\r\n")
            wire.until_quiet(b"u OK")

    def again(self, end: float, attempt: Callable[[], object]) -> None:
        """Over and over until the end, whatever the node says to it; one that is turned away takes a breath."""
        while time.monotonic() < end:
            try:
                attempt()
            except (OSError, EOFError, AssertionError):
                pause(0.01, "a stranger whom the node has turned away comes again")

    @contextlib.contextmanager
    def crowd(self, count: int, end: float, open_: Callable[[], Wire]) -> Iterator[list[Wire]]:
        """As many as are let in, until the end."""
        wires: list[Wire] = []
        try:
            while len(wires) < count and time.monotonic() < end:
                try:
                    wires.append(open_())
                except (OSError, EOFError, AssertionError):
                    pause(0.01, "a stranger whom the node has turned away comes again")
                    count -= 1
            yield wires
        finally:
            for wire in wires:
                with contextlib.suppress(OSError):
                    wire.close()

    # --- mail

    def mailbox(self, name: str, *messages: bytes) -> None:
        """A mailbox of the user's with these messages; made once."""
        if name in self.mailboxes:
            return
        with contextlib.closing(self.open("be", "imap", "logged")) as wire:
            wire.ok(f"CREATE {name}")
            for start in range(0, len(messages), MULTI):
                some = messages[start : start + MULTI]
                parts = b" ".join(b"{%d+}\r\n%b" % (len(octets), octets) for octets in some)
                wire.raw(b"t APPEND " + name.encode() + b" " + parts + b"\r\n")
                wire.until_quiet(b"t OK")
        self.mailboxes.add(name)


def wrong_password(protocol: str, user: str) -> list[bytes]:
    plain = b64encode(f"\0{user}\0wrong".encode())
    return {
        "imap": [b"a LOGIN %b wrong\r\n" % user.encode()],
        "imaps": [b"a LOGIN %b wrong\r\n" % user.encode()],
        "pop3": [b"USER %b\r\nPASS wrong\r\n" % user.encode()],
        "sieve": [b'AUTHENTICATE "PLAIN" "%b"\r\n' % plain],
        "mupdate": [b'a AUTHENTICATE "PLAIN" "%b"\r\n' % plain],
    }[protocol]


# What is done with a connection. Each ends by `end`, or where the node ends it (OSError, EOFError)


def flood(wire: Wire, block: bytes, end: float) -> None:
    """Say it for ever, and never read."""
    wire.sock.settimeout(STEP_S)
    at = 0
    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            at = (at + wire.sock.send(block[at:])) % len(block)


def pump(wire: Wire, block: bytes, end: float) -> None:
    """Say it for ever, and read whatever comes."""
    wire.sock.setblocking(False)
    at = 0
    while time.monotonic() < end:
        readable, writable, _ = select.select([wire.sock], [wire.sock], [], STEP_S)
        if readable and not wire.sock.recv(GRAB):
            raise EOFError
        if writable:
            with contextlib.suppress(BlockingIOError):
                at = (at + wire.sock.send(block[at : at + GRAB])) % len(block)


def hold(end: float) -> None:
    """Say nothing, and stay."""
    pause(max(0.0, end - time.monotonic()), "a stranger says nothing, and stays")


def trickle(wires: list[Wire], block: bytes, end: float) -> None:
    """An octet at a time, on each in turn."""
    alive = list(wires)
    at = 0
    while alive and time.monotonic() < end:
        for wire in tuple(alive):
            try:
                wire.sock.settimeout(0.001)
                wire.sock.send(block[at : at + 1])
            except TimeoutError:
                continue
            except OSError:
                alive.remove(wire)
        at = (at + 1) % len(block)
    hold(end)


def ask(wire: Wire, command: bytes, end: float) -> None:
    """One command, tagged z; its answer is read and thrown away, however long it is."""
    wire.sock.settimeout(STEP_S)
    wire.sock.setblocking(False)
    command, at, tail = b"z " + command + b"\r\n", 0, b"\n"
    while time.monotonic() < end:
        wanted = [wire.sock] if at < len(command) else []
        readable, writable, _ = select.select([wire.sock], wanted, [], STEP_S)
        if writable:
            with contextlib.suppress(BlockingIOError):
                at += wire.sock.send(command[at : at + GRAB])
        if readable:
            octets = wire.sock.recv(GRAB)
            if not octets:
                raise EOFError
            tail = tail[-400:] + octets
            if any(b"\nz " + status in tail for status in (b"OK", b"NO", b"BAD")):
                return


def deflated(block: bytes, times: int) -> bytes:
    """A stream that is so much when it is inflated."""
    packer = zlib.compressobj(9, wbits=-15)
    packed = b"".join(packer.compress(block) for _ in range(times))
    return packed + packer.flush(zlib.Z_SYNC_FLUSH)
