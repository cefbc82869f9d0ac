"""LMTP and POP3 at a backend, over real sockets."""

import asyncio
import smtplib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from poplib import POP3, error_proto
from typing import Any, TypeVar

import pytest

from murder.model.protocol import LMTP
from murder.model.protocol import POP3 as POP3_PORT
from tests.kit.listening import listening
from tests.rooms.backend.server import Running, config_in, running_backend

T = TypeVar("T")
NOTHING: dict[str, Any] = {}


@asynccontextmanager
async def ports(running: Running) -> AsyncIterator[tuple[int, int]]:
    """An LMTP and a POP3 port of one backend."""
    services = running.role.services()
    async with listening(services[LMTP]) as lmtp, listening(services[POP3_PORT]) as pop3:
        yield lmtp.port, pop3.port


def against(folder: Path, client: Callable[[int, int], T], backend: dict[str, Any] = NOTHING) -> T:
    """Run a blocking client in a thread against a backend in this process."""

    async def run() -> T:
        config = config_in(folder, **backend)
        async with (
            running_backend(folder, config=config) as running,
            ports(running) as (lmtp, pop3),
            asyncio.timeout(60),
        ):
            return await asyncio.to_thread(client, lmtp, pop3)

    return asyncio.run(run())


def dialogue(port: int, *steps: bytes) -> bytes:
    """Send each step at once, the next when something has come; all that was answered until the end."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        said += sock.recv(65536)
        for step in steps:
            sock.sendall(step)
            said += sock.recv(65536)
        while more := sock.recv(65536):
            said += more
    return said


def pop(port: int, user: str = "ana") -> POP3:
    client = POP3("127.0.0.1", port, timeout=60)
    client.user(user)
    client.pass_("secret")
    return client


def deliver(
    port: int, recipient: str, text: bytes = b"Subject: x\r\n\r\nbody\r\n"
) -> dict[str, object]:
    with smtplib.LMTP("127.0.0.1", port, local_hostname="mta.test", timeout=60) as client:
        return dict(client.sendmail("s@example.org", recipient, text))


def test_each_recipient_gets_their_own_reply(tmp_path: Path) -> None:
    head = b"LHLO x\r\nMAIL FROM:<s@x>\r\nRCPT TO:<ana>\r\nRCPT TO:<nobody@x>\r\nRCPT TO:<Bob+none@x>\r\nDATA\r\n"

    def client(lmtp: int, _: int) -> bytes:
        return dialogue(lmtp, head + b"a\r\n.\r\nQUIT\r\n")

    said = against(tmp_path, client).splitlines()
    assert [line[:9] for line in said if line[3:4] == b" "][2:] == [
        b"250 2.1.0",
        b"250 2.1.5",
        b"550 5.1.1",
        b"250 2.1.5",
        b"354 End w",
        b"250 2.1.5",
        b"250 2.1.5",
        b"221 2.0.0",
    ]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"..dot\r\n", b".dot\r\n"),
        (b"a\n.\r\nMAIL FROM:<forged@x>\r\n", b"a\r\n.\r\nMAIL FROM:<forged@x>\r\n"),
        (b"a\r\n.\nb\r\n", b"a\r\n\r\nb\r\n"),
        (b"x" * 300_000 + b"\r\n", b"x" * 300_000 + b"\r\n"),
    ],
)
def test_a_message_comes_out_as_it_went_in(tmp_path: Path, sent: bytes, kept: bytes) -> None:
    def client(lmtp: int, pop3: int) -> bytes:
        text = b"Subject: x\r\n\r\n" + sent + b".\r\n"
        dialogue(lmtp, b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ana>\r\nDATA\r\n" + text + b"QUIT\r\n")
        sock = dialogue(pop3, b"USER ana \r\nPASS secret\r\nRETR 1\r\nQUIT\r\n")
        return sock.partition(b"Subject: x\r\n\r\n")[2].partition(b"\r\n.\r\n")[0]

    got = against(tmp_path, client) + b"\r\n"
    assert got == (b"\r\n" + kept).replace(b"\r\n.", b"\r\n..")[2:]


def test_bdat_carries_a_message_in_chunks(tmp_path: Path) -> None:
    def client(lmtp: int, pop3: int) -> bytes:
        head = b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ana>\r\n"
        chunks = b"BDAT 5\r\nA: b\rBDAT 1\r\n\nBDAT 6 LAST\r\n\r\n.\r\nx"
        said = dialogue(lmtp, head + chunks + b"QUIT\r\n")
        assert b"250 2.0.0 5 octets received\r\n250 2.0.0 1 octets received\r\n250 2.1.5" in said
        kept = dialogue(pop3, b"USER ana \r\nPASS secret\r\nRETR 1\r\nQUIT\r\n")
        return kept[kept.index(b"A: b") :]

    assert against(tmp_path, client).startswith(b"A: b\r\n\r\n..\r\nx\r\n.\r\n")


def test_a_message_too_large_is_refused_and_the_session_goes_on(tmp_path: Path) -> None:
    def client(lmtp: int, pop3: int) -> bytes:
        said = dialogue(
            lmtp,
            b"LHLO x\r\nMAIL FROM:<> SIZE=9999\r\nMAIL FROM:<>\r\nRCPT TO:<ana>\r\nDATA\r\n"
            + b"y" * 3000
            + b"\r\n.\r\nNOOP\r\nQUIT\r\n",
        )
        assert pop(pop3).stat() == (0, 0)
        return said

    said = against(tmp_path, client, {"max_message_bytes": 2000})
    assert said.count(b"552 5.3.4") == 2
    assert said.endswith(b"250 2.0.0 Ok\r\n221 2.0.0 Goodbye\r\n")


def test_who_is_not_trusted_has_to_log_in(tmp_path: Path) -> None:
    def client(lmtp: int, _: int) -> bytes:
        mail = b"MAIL FROM:<>\r\n"
        wrong = b"AUTH PLAIN AGFuYQBzZWNyZXQ=\r\n"  # ana, who is no administrator
        return dialogue(lmtp, b"LHLO x\r\n" + mail, wrong, mail + b"QUIT\r\n")

    said = against(tmp_path, client, {"lmtp_trusted": ()})
    assert said.count(b"530 5.7.0") == 2


def test_pop3_deletes_at_quit_and_not_before(tmp_path: Path) -> None:
    def client(lmtp: int, pop3: int) -> list[int]:
        deliver(lmtp, "ana@x")
        deliver(lmtp, "bob@x")
        counts = []
        first = pop(pop3)
        first.dele(1)
        counts.append(first.stat()[0])
        with pytest.raises(error_proto, match="IN-USE"):
            pop(pop3)
        first.rset()
        first.dele(1)
        first.sock.shutdown(socket.SHUT_RDWR)
        first.close()
        for _ in range(100):
            try:
                second = pop(pop3)
                break
            except error_proto:
                continue
        counts.append(second.stat()[0])
        second.dele(1)
        second.quit()
        counts.append(pop(pop3).stat()[0])
        counts.append(pop(pop3, "bob").stat()[0])
        return counts

    assert against(tmp_path, client) == [0, 1, 0, 1]


def test_pop3_tells_of_messages_in_every_way(tmp_path: Path) -> None:
    def client(lmtp: int, pop3: int) -> None:
        for number in range(3):
            deliver(lmtp, "ana", text=b"Subject: %d\r\n\r\none\r\n.two\r\nthree\r\n" % number)
        client = pop(pop3)
        count, octets = client.stat()
        assert count == 3
        assert sum(int(line.split()[1]) for line in client.list()[1]) == octets
        assert len({line.split()[1] for line in client.uidl()[1]}) == 3
        second: Any = client.uidl(2)  # one line, whatever the stubs say
        assert second.split()[2] == client.uidl()[1][1].split()[1]
        assert client.top(2, 2)[1][-2:] == [b"one", b".two"]
        assert client.top(2, 0)[1][-2:] == [b"Subject: 1", b""]
        listed: Any = client.list(1)
        assert sum(len(line) + 2 for line in client.retr(1)[1]) == int(listed.split()[2])
        for wrong in ("RETR 4", "RETR 0", "TOP 1", "DELE x", "LIST 99", "FOO"):
            with pytest.raises(error_proto):
                client._shortcmd(wrong)  # type: ignore[attr-defined] # poplib checks nothing there

    against(tmp_path, client)


def test_pop3_takes_no_password_without_tls(tmp_path: Path) -> None:
    def client(_: int, pop3: int) -> bytes:
        return dialogue(
            pop3, b"CAPA\r\nUSER ana\r\nPASS secret\r\nAUTH PLAIN AGFuYQBzZWNyZXQ=\r\nQUIT\r\n"
        )

    said = against(tmp_path, client, {"allow_plaintext": False})
    assert b"USER\r\n" not in said
    assert said.count(b"-ERR") == 3


@pytest.mark.parametrize("which", [0, 1])
def test_a_line_without_end_ends_the_connection(tmp_path: Path, which: int) -> None:
    def client(*both: int) -> bytes:
        with socket.create_connection(("127.0.0.1", both[which]), timeout=60) as sock:
            sock.recv(1000)
            said = b""
            try:
                for _ in range(160):
                    sock.sendall(b"x" * 65536)
                while more := sock.recv(1000):
                    said += more
            except ConnectionError:
                pass
        return said

    said = against(tmp_path, client)
    assert not said or said.startswith((b"421", b"-ERR"))


def test_whom_a_proxy_speaks_for_stands_in_received(tmp_path: Path) -> None:
    def client(lmtp: int, pop3: int) -> None:
        told = b"XCLIENT ADDR=192.0.2.9 PORT=1234 HELO=mx.example.net SESSION=s1 TTL=3\r\n"
        said = dialogue(
            lmtp,
            b"LHLO proxy\r\n",
            told,
            b"LHLO proxy\r\nMAIL FROM:<>\r\nRCPT TO:<ana>\r\nDATA\r\n",
            b"Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n",
        )
        assert b"250-XCLIENT ADDR PORT HELO SESSION TTL\r\n" in said.replace(b"250 X", b"250-X")
        assert said.count(b"220 ") == 2  # it begins anew
        header = b"\n".join(pop(pop3).top(1, 0)[1])
        assert b"Received: from mx.example.net ([192.0.2.9])" in header

    against(tmp_path, client)
