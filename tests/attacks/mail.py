"""Rows of mail from strangers: messages that cost whoever takes, reads or searches them."""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Final

from tests.attacks.ground import Ground
from tests.attacks.rows import Attack, Row, asking

PLAIN: Final = b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8"
QUOTED: Final = PLAIN + b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
BASE64: Final = PLAIN + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
MARKS: Final = "\u0301\u0323".encode()


def multiparts(depth: int) -> bytes:
    line = b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n'
    return b"Subject: x\r\n" + b"".join(line % (n, n) for n in range(depth)) + b"\r\nx\r\n"


def boundaries(lines: int) -> bytes:
    head = b'Content-Type: multipart/mixed; boundary="%b"\r\n\r\n--%b\r\n'
    nested = b"".join(head % (b"q" * n, b"q" * n) for n in range(1, 60))
    return nested + b"\r\n" + (b"--" + b"q" * 100 + b"\r\n") * lines


MESSAGES: Final[dict[str, bytes]] = {
    "blanks in quoted-printable": QUOTED + b" " * 1_000_000 + b"x\r\n",
    "equals in quoted-printable": QUOTED + b"=" * 1_000_000 + b"\r\n",
    "equals in base64": BASE64 + b"=" * 1_000_000 + b"\r\n",
    "semicolons": PLAIN + (b"\r\n " + b";" * 70) * 3000 + b"=\r\n\r\nx\r\n",
    "parameters": PLAIN + b"".join(b";\r\n a*%d*=x" % n for n in range(10_000)) + b"\r\n\r\nx\r\n",
    "combining marks": PLAIN + b"\r\n\r\na" + MARKS * 250_000 + b"\r\n",
    "combining marks in Subject": b"Subject: a" + MARKS * 20_000 + b"\r\n\r\nx\r\n",
    "encoded words": b"Subject:" + b"\r\n =?utf-8?q?=61?=" * 20_000 + b"\r\n\r\nx\r\n",
    "open encoded words": b"Subject: " + b"=?a?q?" * 50_000 + b"\r\n\r\nx\r\n",
    "From of 2 MB": b"From: " + b"a@b, " * 400_000 + b"\r\n\r\nx\r\n",
    "To of groups": b"To: " + b"g:a;," * 200_000 + b"\r\n\r\nx\r\n",
    "To of comments": b"To: " + b"(" * 500_000 + b"\r\n\r\nx\r\n",
    "To of quotes": b"To: " + b'"\\' * 300_000 + b"\r\n\r\nx\r\n",
    "References of 2 MB": b"References: " + b"<a@b> " * 300_000 + b"\r\n\r\nx\r\n",
    "fields": b"X-A: b\r\n" * 200_000 + b"\r\nx\r\n",
    "a field of 4 MB": b"Subject: " + b"x" * (4 << 20) + b"\r\n\r\nx\r\n",
    "folds": b"Subject: x\r\n" + b" \r\n" * 300_000 + b"\r\nx\r\n",
    "languages": PLAIN + b"\r\nContent-Language: " + b"a," * 500_000 + b"b\r\n\r\nx\r\n",
    "multiparts in each other": multiparts(5000),
    "messages in each other": b"Content-Type: message/rfc822\r\n\r\n" * 20_000 + b"x\r\n",
    "parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 200_000,
    "boundaries": boundaries(20_000),
    "text of 8 MB": PLAIN + b"\r\n\r\n" + b"lorem ipsum dolor sit amet\r\n" * 300_000,
    "HTML": PLAIN.replace(b"plain", b"html") + b"\r\n\r\n" + b"<a<!--&#9;" * 300_000,
    "dates": b"Date: " + b"(" * 200_000 + b" 1 1 1 1" * 50_000 + b"\r\n\r\nx\r\n",
}
READING: Final = (
    b"FETCH 1 (ENVELOPE BODYSTRUCTURE)",
    b"FETCH 1 (PREVIEW BINARY.SIZE[1])",
    b"SEARCH SUBJECT zzz",
    b"SEARCH BODY zzz",
    b"SEARCH TEXT zzz",
    b"SORT (SUBJECT FROM TO DATE) UTF-8 ALL",
    b"THREAD REFERENCES UTF-8 ALL",
)


def delivering(where: str, octets: bytes) -> Attack:
    def attack(ground: Ground, end: float) -> None:
        with closing(ground.open(where, "lmtp", "data")) as wire:
            wire.raw(octets + b"\r\n.\r\n")
            wire.reply()

    return attack


def put(ground: Ground, name: str, octets: bytes) -> None:
    ground.mailbox(name, octets)


def rows() -> Iterator[Row]:
    for number, (name, octets) in enumerate(MESSAGES.items()):
        mailbox = f"INBOX/mail{number}"
        prepare: Callable[[Ground], None] = partial(put, name=mailbox, octets=octets)
        yield Row(
            f"be mail: {name}, read and searched", asking("be", *READING, mailbox=mailbox), prepare
        )
        yield Row(f"fe lmtp data: {name}, delivered", delivering("fe", octets))


ROWS: Final = [*rows()]
