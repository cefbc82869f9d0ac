"""The corpus of odd messages at our backend and at a Dovecot of Debian, live: structure, sizes, parts, decoded parts, and
what a search finds in them. Where the two differ, it stands here with the reason. (Envelopes: `test_addresses.py`, and
`python -m tests.peers.compare`.)
"""

import os
from itertools import chain
from pathlib import Path
from typing import Any, Final

from tests.conftest import cannot_run
from tests.kit.demo import wanted
from tests.kit.ports import free_port
from tests.kit.process import open_folder
from tests.peers import corpus, groups
from tests.peers.client import Client
from tests.peers.compare import our_backend
from tests.peers.dovecot import running_dovecot

ITEMS: Final = b"(BODYSTRUCTURE RFC822.SIZE BODY.PEEK[1] BODY.PEEK[TEXT] BODY.PEEK[HEADER])"
WORDS: Final = ("Köln", "hello", "list", "mailing", "Ende", "strange")
KEYS: Final = (b"TEXT", b"BODY", b"SUBJECT")
OUR_WAY: Final = {
    "boundary-with-more": "a delimiter line is no longer than its boundary (RFC 2046 §5.1.1)",
    "long-boundary": "of a boundary of more than 70 octets all of them count",
    "rfc822-no-body": "the line end before a delimiter is the delimiter's",
    "rfc822-base64": "likewise, where nothing can be decoded",
    "parameters": "RFC 2231 parameters in the disposition are told decoded",
    "odd-dispositions": "likewise",
    "odd-types": "what is no type is text/plain (RFC 2045 §5.2)",
    "nul-body": "base IMAP has no NUL: the part is told encoded anew; Dovecot has another octet in its place",
    "strange": "a text whose encoding is not known is searched as it is",
}


def nuls() -> list[tuple[str, bytes]]:
    octets = "Content-Type: application/octet-stream\nContent-Transfer-Encoding: "
    return [
        ("nul-body", corpus.crlf(corpus.HEAD + "\na\x00b\n")),
        ("nul-header", corpus.crlf("From: a@b.c\nSubject: a\x00b\n\nx\n")),
        ("nul-base64", corpus.crlf(corpus.HEAD + octets + "base64\n\nYQBi\n")),
        ("nul-qp", corpus.crlf(corpus.HEAD + octets + "quoted-printable\n\na=00b\n")),
    ]


def lower(value: Any) -> Any:
    """Types, parameters' names and encodings may be told in any case."""
    if isinstance(value, list):
        return [lower(one) for one in value]
    return value.lower() if isinstance(value, bytes) else value


def told(client: Client) -> dict[tuple[str, str], Any]:
    """By message and item; by word and search key the messages found."""
    shapes = chain(corpus.structures(), corpus.texts(), corpus.headers(), nuls())
    numbers = groups.fill(client, "INBOX/corpus", shapes)
    found: dict[tuple[str, str], Any] = {}
    for name, number in numbers.items():
        for item, value in groups.fetch(client, number, ITEMS).items():
            found[name, item] = lower(value) if item == "BODYSTRUCTURE" else value
        decoded = groups.fetch(client, number, b"BINARY.PEEK[1]")
        found[name, "BINARY[1]"] = decoded.get("BINARY[1]")
    names = {str(number): name for name, number in numbers.items()}
    for word in WORDS:
        octets = word.encode()
        for key in KEYS:
            text = b"SEARCH CHARSET UTF-8 %s {%d+}\r\n%s" % (key, len(octets), octets)
            answer = b" ".join(client.must(text).untagged).decode()
            found[word, key.decode()] = {names[one] for one in answer.split() if one.isdigit()}
    client.close()
    return found


def test_odd_messages_are_told_as_dovecot_tells_them(tmp_path: Path) -> None:
    if missing := wanted("dovecot"):
        cannot_run(missing)
    if os.geteuid() != 0:
        cannot_run("dovecot is started as root")
    with our_backend(tmp_path / "ours", "user1") as ours:
        mine = told(Client("ours", *ours, "user1", "secret"))
    with open_folder() as folder, running_dovecot(folder / "dovecot", free_port()) as dovecot:
        theirs = told(Client("dovecot", *dovecot, "user1", "secret"))
    different = {key for key in mine if mine[key] != theirs.get(key)}
    for name, item in set(different):
        if item == "BINARY[1]" and theirs[name, item] is None:
            different.discard((name, item))  # damaged: Dovecot tells nothing, we what can be read
    assert {name for name, _ in different} == set(OUR_WAY), sorted(different)
    assert mine["base64-footer", "BINARY[1]"] == b"hello"
    assert mine["nul-body", "BINARY[1]"] == b"a\0b\r\n"
