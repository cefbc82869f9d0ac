"""NUL in a message: base IMAP is told of an encoded part, in sizes, structure and octets alike; BINARY has it as it is."""

import base64
import re
import smtplib
from functools import partial
from pathlib import Path

import pytest

from tests.kit.peer import Peer
from tests.rooms.backend.delivery.test_lmtp_and_pop3 import against, deliver, pop
from tests.rooms.backend.server import running_backend
from tests.rooms.backend.test_transcripts import STORES

BODY = b"a\x00b\r\n" * 40
MAIL = (
    b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: application/x-y\r\nContent-Transfer-Encoding: binary\r\nContent-ID: <i>\r\n\r\n"
    + BODY
    + b"\r\n--b\r\n\r\nplain\r\n--b--\r\n"
)


async def ask(folder: Path, kind: str, commands: list[bytes]) -> list[bytes]:
    """What each of the commands is answered, whole."""
    async with running_backend(folder, partial(STORES[kind], folder)) as running:
        peer = await Peer.at(*running.address)
        await peer.line()
        await peer.ok(b"LOGIN ana secret")
        answers = [b"\r\n".join([*await peer.command(words), b""]) for words in commands]
        await peer.close()
    return answers


def strings(answer: bytes) -> dict[bytes, bytes]:
    """The literals of one FETCH answer by their names."""
    found = {}
    for match in re.finditer(rb"([A-Z][A-Z.]*\[[^]]*\](?:<\d+>)?) (~?)\{(\d+)\}\r\n", answer):
        found[match.group(1) + match.group(2)] = answer[match.end() :][: int(match.group(3))]
    return found


@pytest.mark.parametrize("kind", STORES)
async def test_a_part_with_nul(tmp_path: Path, kind: str) -> None:
    commands = [
        b"APPEND INBOX ~{%d+}\r\n%b" % (len(MAIL), MAIL),
        b"SELECT INBOX",
        b"FETCH 1 (RFC822.SIZE BODYSTRUCTURE BODY.PEEK[] BODY.PEEK[1] BODY.PEEK[1.MIME] RFC822.TEXT BODY.PEEK[1]<2.9>)",
        b"FETCH 1 (BINARY.PEEK[1] BINARY.SIZE[1] BINARY.PEEK[2])",
        b"FETCH 1 (BODYSTRUCTURE)",
        b"SEARCH TEXT plain",
    ]
    answers = await ask(tmp_path, kind, commands)
    assert b"OK [APPENDUID" in answers[0]
    whole, binary, structure = answers[2:5]
    assert b"\x00" not in whole
    found = strings(whole)
    encoded = found[b"BODY[1]"]
    assert base64.b64decode(encoded) == BODY
    assert found[b"BODY[1]<2>"] == encoded[2:11]
    assert encoded in found[b"BODY[]"]
    assert b"RFC822.SIZE %d " % len(found[b"BODY[]"]) in whole
    told = b'"APPLICATION" "X-Y" NIL "<i>" NIL "base64" %d' % len(encoded)
    assert told.lower() in whole.lower() and told.lower() in structure.lower()
    assert found[b"BODY[1.MIME]"].count(b"Content-Transfer-Encoding: base64\r\n") == 1
    assert b"binary" not in found[b"BODY[1.MIME]"]
    assert strings(binary) == {b"BINARY[1]~": BODY, b"BINARY[2]": b"plain"}
    assert b"BINARY.SIZE[1] %d" % len(BODY) in binary
    assert answers[5].startswith(b"* SEARCH 1\r\n")


NULS = b"Subject: odd\r\nContent-Type: application/x-y\r\n\r\n" + b"\x00" * 3000


@pytest.mark.parametrize("kind", STORES)
async def test_its_size_is_the_same_before_and_after_it_was_read(tmp_path: Path, kind: str) -> None:
    """Appended, delivered, copied; asked alone, with the octets, and once more; searched, sorted and counted by it."""
    commands = [
        b"APPEND INBOX ~{%d+}\r\n%b" % (len(NULS), NULS),
        b"CREATE INBOX/copies",
        b"SELECT INBOX",
        b"COPY 1 INBOX/copies",
        b"SELECT INBOX/copies",
        b"FETCH 1 (RFC822.SIZE)",
        b"SEARCH LARGER 3500",
        b"STATUS INBOX/copies (SIZE)",
        b"FETCH 1 (BODY.PEEK[])",
        b"FETCH 1 (RFC822.SIZE BODY.PEEK[]<4000.1000> BODY.PEEK[TEXT])",
        b"FETCH 1 (RFC822.SIZE)",
        b"SEARCH SMALLER 3500",
    ]
    answers = await ask(tmp_path, kind, commands)
    alone, larger, status, whole, both, again, smaller = answers[5:]
    size = len(strings(whole)[b"BODY[]"])
    assert size > 4000
    for answer in (alone, both, again):
        assert b"RFC822.SIZE %d" % size in answer
    assert larger.startswith(b"* SEARCH 1\r\n") and smaller.startswith(b"* SEARCH\r\n")
    assert b"(SIZE %d)" % size in status
    assert strings(both)[b"BODY[]<4000>"] == strings(whole)[b"BODY[]"][4000:5000]


@pytest.mark.parametrize("name", ["1.from.elsewhere", "1.from.elsewhere,S=%d,W=%d"])
async def test_so_is_that_of_what_other_software_has_put_there(tmp_path: Path, name: str) -> None:
    commands = [
        b"SELECT INBOX",
        b"FETCH 1 (RFC822.SIZE)",
        b"UID SORT (SIZE) UTF-8 LARGER 3500",
        b"FETCH 1 (BODY.PEEK[])",
        b"FETCH 1 (RFC822.SIZE)",
    ]
    folder = tmp_path / "maildir" / "maildir" / "users" / "ana"
    for part in ("cur", "new", "tmp"):
        (folder / part).mkdir(parents=True)
    stored = NULS.replace(b"\r\n", b"\n")
    file = name % (len(stored), len(NULS)) if "%" in name else name
    (folder / "new" / file).write_bytes(stored)
    answers = await ask(tmp_path, "maildir", commands)
    size = len(strings(answers[3])[b"BODY[]"])
    assert b"RFC822.SIZE %d" % size in answers[1]
    assert answers[2].startswith(b"* SORT 1\r\n")
    assert b"RFC822.SIZE %d" % size in answers[4]


def test_pop3_and_lmtp_pass_it_as_it_is_and_agree_in_size(tmp_path: Path) -> None:
    """What LIST and STAT count is what RETR and TOP send: the file, not its encoded form."""
    dotted = b"Subject: odd\r\n\r\n" + b"\x00" * 500 + b"\r\n.\x00\r\n\x00.\r\n..\r\n"

    def client(lmtp: int, pop3: int) -> None:
        assert deliver(lmtp, "ana", MAIL) == {}
        with smtplib.LMTP("127.0.0.1", lmtp, local_hostname="mta.test", timeout=60) as sender:
            sender.ehlo_or_helo_if_needed()
            sender.mail("s@example.org", ["BODY=8BITMIME"])
            sender.rcpt("ana")
            assert sender.data(dotted)[0] == 250
        wire = pop(pop3)
        sizes = [int(line.split()[1]) for line in wire.list()[1]]
        assert wire.stat() == (2, sum(sizes))
        for number, sent in ((1, MAIL), (2, dotted)):
            _, lines, octets = wire.retr(number)
            whole = b"".join(line + b"\r\n" for line in lines)
            assert whole.endswith(sent)
            assert len(whole) == octets == sizes[number - 1]
            assert b"".join(line + b"\r\n" for line in wire.top(number, 1000)[1]) == whole
        wire.quit()

    against(tmp_path, client)
