"""Rows of who has no password: every protocol, and what comes before a login."""

import ssl
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from tests.attacks.ground import (
    CHEAP,
    START_TLS,
    Ground,
    Wire,
    deflated,
    flood,
    hold,
    no_questions,
    wrong_password,
)
from tests.attacks.rows import Attack, Row, coming_and_going, crowding, read, slowly, unread

BLOCK: Final = 1 << 16
MAIL: Final = ("imap", "pop3", "lmtp", "sieve")
PLACES: Final = (
    *(("fe", protocol) for protocol in MAIL),
    *(("be", protocol) for protocol in MAIL),
    ("fe", "mupdate"),
    ("mu", "mupdate"),
    ("fe", "metrics"),
    ("fe", "web"),
    ("mu", "web"),
)
# A command whose argument is announced as a literal of 4 GB and sent, and of one that is as long as any line
LITERALS: Final = {
    "imap": b"a LOGIN {400000+}\r\n",
    "sieve": b'AUTHENTICATE "PLAIN" {400000+}\r\n',
    "mupdate": b'a AUTHENTICATE "PLAIN" {400000+}\r\n',
}
HTTP: Final = ("metrics", "web")


def stopped_handshake(where: str, protocol: str, count: int = 200) -> Attack:
    """A ClientHello, and then nothing."""

    def attack(ground: Ground, end: float) -> None:
        def open_() -> Wire:
            wire = ground.open(where, protocol, "greeted" if protocol in START_TLS else "connected")
            if protocol in START_TLS:
                wire.raw(START_TLS[protocol])
                wire.reply()
            wire.raw(hello())
            return wire

        with ground.crowd(count, end, open_):
            hold(end)

    return attack


def hello() -> bytes:
    """What a client says first, by itself."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = no_questions().wrap_bio(incoming, outgoing)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def guessing(where: str, protocol: str, count: int) -> Attack:
    """As many wrong passwords at once, for as many users."""

    def attack(ground: Ground, end: float) -> None:
        def open_() -> Wire:
            wire = ground.open(where, protocol)
            for octets in wrong_password(protocol, f"nobody{id(wire)}"):
                wire.raw(octets)
            return wire

        with ground.crowd(count, end, open_):
            hold(end)

    return attack


def bomb(where: str, protocol: str) -> Attack:
    """COMPRESS before login, whatever is said to that, and a stream that is 64 MB of commands."""
    octets = deflated(CHEAP[protocol] * 4096, (64 << 20) // (4096 * len(CHEAP[protocol])))

    def attack(ground: Ground, end: float) -> None:
        with closing(ground.open(where, protocol)) as wire:
            wire.raw(b'c COMPRESS "DEFLATE"\r\n')
            wire.line()
            flood(wire, octets, end)

    return attack


def of_every_protocol() -> Iterator[Row]:
    for where, protocol in PLACES:
        at = f"{where} {protocol} greeted"
        cheap = CHEAP[protocol] * (BLOCK // len(CHEAP[protocol]))
        yield Row(
            f"{at}: commands pipelined, no answer read", unread(where, protocol, "greeted", cheap)
        )
        yield Row(
            f"{at}: commands pipelined, answers read", read(where, protocol, "greeted", cheap)
        )
        yield Row(f"{at}: a line without an end", unread(where, protocol, "greeted", b"x" * BLOCK))
        yield Row(f"{at}: octets one by one", slowly(where, protocol, "greeted", CHEAP[protocol]))
        yield Row(f"{at}: empty lines", read(where, protocol, "greeted", b"\r\n" * (BLOCK // 2)))
        half = CHEAP[protocol][:-2] + b" " + b"x" * 60_000
        yield Row(f"{at}: half a line, 200 times", crowding(where, protocol, "greeted", half))
        yield Row(f"{at}: they come and go", coming_and_going(where, protocol))
        if protocol in LITERALS:
            literal = LITERALS[protocol] + b"x" * 400_000 + b"\r\n"
            yield Row(f"{at}: large literals", read(where, protocol, "greeted", literal))
        if protocol in HTTP:
            fields = b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 8000
            yield Row(f"{at}: fields without an end", unread(where, protocol, "greeted", fields))
            body = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n\r\n"
            body += b"x" * (1 << 20)
            yield Row(f"{at}: a body without an end", unread(where, protocol, "greeted", body))


def of_passwords_and_tls() -> Iterator[Row]:
    for where, protocol in PLACES:
        at = f"{where} {protocol}"
        if protocol in START_TLS and (where, protocol) != ("fe", "mupdate"):
            yield Row(
                f"{at} starttls: 200 handshakes that stop", stopped_handshake(where, protocol)
            )
            garbage = START_TLS[protocol] + b"x" * BLOCK
            again = coming_and_going(where, protocol, "greeted", garbage)
            yield Row(f"{at} starttls: garbage behind it", again)
        if protocol in ("imap", "pop3", "sieve") or (where == "mu" and protocol == "mupdate"):
            yield Row(f"{at} greeted: 500 wrong passwords at once", guessing(where, protocol, 500))
            cheap = CHEAP[protocol] * (BLOCK // len(CHEAP[protocol]))
            yield Row(
                f"{at} penalty: commands pipelined", unread(where, protocol, "penalty", cheap)
            )
            held = b"a LOGIN {65000+}\r\n" + b"x" * 65_000
            at_penalty = crowding(where, protocol, "penalty", held)
            yield Row(f"{at} penalty: literals of 200", at_penalty)
    for where in ("fe", "be"):
        for protocol in ("imaps", "pop3s"):
            yield Row(
                f"{where} {protocol}: 200 handshakes that stop", stopped_handshake(where, protocol)
            )
            yield Row(
                f"{where} {protocol}: handshakes, and gone",
                coming_and_going(where, protocol, "connected"),
            )
    yield Row("mu mupdate greeted: COMPRESS that blows up", bomb("mu", "mupdate"))
    yield Row("fe imap greeted: COMPRESS that blows up", bomb("fe", "imap"))


ROWS: Final = [*of_every_protocol(), *of_passwords_and_tls()]
