"""The page for operators before people who mean it harm: raw octets, silence, storms."""

import contextlib
import http.client
import re
import socket
import ssl
import threading

from tests.kit.demo import Demo
from tests.kit.waiting import until
from tests.rooms.web.visitor import Visitor

GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"


def opened(visitor: Visitor) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(visitor.ca))
    sock = socket.create_connection(("127.0.0.1", visitor.port), timeout=60)
    return context.wrap_socket(sock, server_hostname="127.0.0.1")


def said(sock: ssl.SSLSocket) -> bytes:
    """To the end of the connection, however it ends."""
    octets = b""
    try:
        while more := sock.recv(65536):
            octets += more
    except (ConnectionError, ssl.SSLError):
        pass
    return octets


def test_what_is_too_long_or_no_request_is_told_and_ends(demo: Demo) -> None:
    visitor = Visitor.of(demo, demo.frontend)
    form = b"Host: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    for octets, status in (
        (b"GET /login HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000, b"431"),
        (b"GET /" + b"a" * 20_000, b"431"),
        (b"GET /login HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 2000 + b"\r\n", b"431"),
        (b"\x16\x03\x01 nonsense\r\n\r\n", b"400"),
        (
            b"POST /login HTTP/1.1\r\n" + form + b"Content-Length: 99999\r\n\r\n" + b"u" * 99_999,
            b"413",
        ),
        (
            b"POST /login HTTP/1.1\r\n" + form + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"400",
        ),
        (
            b"POST /login HTTP/1.1\r\n"
            + form
            + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n"
            + b"u" * 99_999,
            b"413",
        ),
    ):
        with opened(visitor) as sock:
            sock.sendall(octets)
            answer = said(sock)
        assert re.match(rb"HTTP/1.1 %b " % status, answer), (octets[:40], answer[:100])
        assert b"Traceback" not in answer


def test_pipelined_requests_are_answered_in_order(demo: Demo) -> None:
    with opened(Visitor.of(demo, demo.frontend)) as sock:
        paths = (b"/login", b"/status", b"/files/murder.css", b"/status/part")
        sock.sendall(b"".join(GET % path for path in paths[:-1]))
        sock.sendall(b"GET /status/part HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = re.findall(rb"HTTP/1.1 (\d+)", said(sock))
    assert answers == [b"200", b"303", b"200", b"401"]


def test_who_reads_no_answers_is_cut_off_and_others_are_served(demo: Demo) -> None:
    visitor = Visitor.of(demo, demo.frontend)
    with opened(visitor) as sock:
        try:
            for _ in range(4000):
                sock.sendall(GET % b"/files/murder.css" * 100)
            is_cut_off = False
        except (ConnectionError, ssl.SSLError, TimeoutError):
            is_cut_off = True
        assert is_cut_off
    assert visitor.get("/login").status == 200


def test_from_one_address_strangers_have_only_so_many_connections(demo: Demo) -> None:
    visitor = Visitor.of(demo, demo.backends[0])
    friend = Visitor.of(demo, demo.backends[0]).entered()
    silent = []
    for _ in range(80):
        silent.append(opened(visitor))
    try:
        refused = [b"HTTP/1.1 503" in said(sock) for sock in silent[40:]]
        assert len(refused) == 40 and all(refused)  # [web] max_strangers_per_address: 32
        with demo.imap(demo.backends[0], "user1") as mail:
            assert mail.noop()[0] == "OK"  # mail has room of its own
    finally:
        for sock in silent:
            sock.close()

    # their ends reach the loop in their turns, some behind the friend's new connection
    def is_served() -> bool:
        # who is refused may be cut off
        with contextlib.suppress(OSError, http.client.HTTPException):
            return friend.get("/status").status == 200
        return False

    until(is_served)


def test_a_storm_of_wrong_passwords_costs_the_attacker_and_nobody_else(demo: Demo) -> None:
    ends: list[int] = []

    def guess(number: int) -> None:
        attacker = Visitor.of(demo, demo.backends[1])
        try:
            ends.append(attacker.log_in(f"user{number}", f"guess{number}").status)
        except OSError:
            pass

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    with demo.imap(demo.backends[1], "user2") as mail:
        assert mail.noop()[0] == "OK"
    assert Visitor.of(demo, demo.frontend).entered().get("/status").status == 200
    for thread in threads:
        thread.join()
    assert 403 in ends


def test_old_sessions_make_room_and_tokens_are_not_guessed(demo: Demo) -> None:
    visitors = [Visitor.of(demo, demo.frontend).entered() for _ in range(11)]
    assert visitors[0].get("/status").status == 303  # ten at once of one user
    assert all(one.get("/status").status == 200 for one in visitors[1:])
    name, token = next(iter(visitors[1].cookies.items()))
    for wrong in ("", token[:-1], token + "x", token.swapcase(), "é", "x" * 8000):
        visitors[1].cookies[name] = wrong.encode("utf-8").decode("latin-1")
        assert visitors[1].get("/status").status == 303
    for one in visitors[2:]:
        assert one.send("/logout").status == 303
