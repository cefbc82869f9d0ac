"""Addresses that are none: what ENVELOPE tells of them, beside a Dovecot of Debian, live. Where the two differ, we tell what
Cyrus 3.6 does (`unspecified-domain`, no address for nothing between commas), or more addresses than Dovecot."""

import os
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import cannot_run
from tests.kit.demo import wanted
from tests.kit.ports import free_port
from tests.kit.process import open_folder
from tests.peers import groups
from tests.peers.client import Client
from tests.peers.compare import our_backend
from tests.peers.dovecot import running_dovecot

AS_DOVECOT = (
    "a@b c@d",  # a comma is missing: the second one is not told
    "X <a@b> Y <c@d>",
    "X <a@b> <c@d>",
    "<a@b> <c@d>",
    '"A B" <a@b> c@d',
    '"X" <>',
    '"X" <>, a@b',
    'a@b, "X" <> , c@d',
    "X <>, Y <a@b>",
    "<>",
    "x@y, <>, z@w",
    "a@b (c) d@e",
    "G: a@b c@d;",
    'G: "X" <>;',
    "G:;",
    "G: a@b, c@d",
    "undisclosed-recipients:;",
    "(unclosed <a@b>",
    "<@r1,@r2:a@b>",
    "a@[1.2.3.4]",
    '"a@b" <c@d>',
    '<"quoted local"@b>',
    "=?utf-8?q?X?= <a@b>",
)
OUR_WAY = {
    "a@b c@d, e@f": ((b"a", b"b"), (b"e", b"f")),  # Dovecot tells none behind the first
    "a@b;c@d": ((b"a", b"b"), (b"c", b"d")),  # as Outlook writes them
    "a@b; c@d, e@f": ((b"a", b"b"), (b"c", b"d"), (b"e", b"f")),
    "a b c": ((b"a b c", b"unspecified-domain"),),
    "a@": ((b"a", b"unspecified-domain"),),
    "a@@b": ((b"a", b"b"),),
    "<a@b": ((b"a", b"b"),),
    "X <a@b>, , Y <c@d>": ((b"a", b"b"), (b"c", b"d")),
    ",a@b": ((b"a", b"b"),),
    "<<a@b>>": ((b"a", b"b"),),
}


def mails() -> Iterator[tuple[str, bytes]]:
    for shape in (*AS_DOVECOT, *OUR_WAY):
        yield shape, f"From: x@y\r\nTo: {shape}\r\nSubject: s\r\n\r\nb\r\n".encode()


def told(client: Client) -> dict[str, list[list[bytes | None]]]:
    """The recipients of each shape."""
    numbers = groups.fill(client, "INBOX/addresses", mails())
    envelopes = {
        shape: groups.fetch(client, number, b"ENVELOPE")["ENVELOPE"]
        for shape, number in numbers.items()
    }
    client.close()
    return {shape: envelope[5] for shape, envelope in envelopes.items()}


def test_addresses_are_told_as_dovecot_tells_them(tmp_path: Path) -> None:
    if missing := wanted("dovecot"):
        cannot_run(missing)
    if os.geteuid() != 0:
        cannot_run("dovecot is started as root")
    with our_backend(tmp_path / "ours", "user1") as ours:
        mine = told(Client("ours", *ours, "user1", "secret"))
    with open_folder() as folder, running_dovecot(folder / "dovecot", free_port()) as dovecot:
        theirs = told(Client("dovecot", *dovecot, "user1", "secret"))
    assert {one: mine[one] for one in AS_DOVECOT} == {one: theirs[one] for one in AS_DOVECOT}
    for shape, wanted_ones in OUR_WAY.items():
        assert [(one[2], one[3]) for one in mine[shape]] == list(wanted_ones), shape
        assert mine[shape] != theirs[shape], f"they agree now: {shape}"
