"""Parsers of mail over every short pattern of what means something to them: four times of it cost about four times as much.

The work is partly done in C, where no steps can be counted: processor time of this process is taken, and only what is far
from linear again and again is a fault.
"""

import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from murder.mime import envelope, field
from murder.mime.bounds import Bounds
from murder.mime.decode import decode_base64
from murder.mime.envelope import parse_addresses
from murder.mime.field import parse_media, parse_parameters
from murder.mime.header import decode_value
from murder.mime.structure import parse_structure
from murder.mime.thread import message_ids
from tests.rooms.mime.whole import decode_transfer

PARSERS: dict[str, tuple[Callable[[bytes], object], str]] = {
    "addresses": (parse_addresses, '< > @ a , ; : " \\ ( ) ~ [ <@a,'),
    "parameters": (parse_parameters, '; a = " \\ ( ~ *0 %'),
    "media": (parse_media, 'a/b ; a = " \\ ( ) ~'),
    "values": (decode_value, "=? a ?q? ?b? ?= ~ * =?a?q?b?="),
    "base64": (decode_base64, "= A AA== -"),
    "quoted": (lambda body: decode_transfer(body, b"QUOTED-PRINTABLE"), "= A ~ ~~ =0"),
    "ids": (message_ids, "< > a ~"),
    "structure": (parse_structure, "| |--b| -- Content-Type:multipart/mixed;boundary=b| |~a a:b|"),
}
TIMES = 4
FAR = 9.0  # times the time for `TIMES` times the octets
NOTHING_S = 0.003


def pieces(tokens: str) -> Iterator[bytes]:
    words = [word.replace("~", " ").replace("|", "\n").encode() for word in tokens.split()]
    for count in (1, 2):
        yield from map(b"".join, itertools.product(words, repeat=count))


def seconds(parse: Callable[[bytes], object], octets: bytes) -> float:
    begin = time.process_time()
    parse(octets)
    return time.process_time() - begin


def is_far_from_linear(parse: Callable[[bytes], object], piece: bytes, size: int = 2000) -> bool:
    """A first look, and where it is suspicious a longer one, three times."""
    for attempt in range(4):
        short = piece * (size // len(piece) + 1)
        few, many = seconds(parse, short), seconds(parse, short * TIMES)
        if many < NOTHING_S or many < FAR * max(few, 1e-5):
            return False
        size *= 4 if not attempt else 1
    return True


@pytest.mark.parametrize("name", PARSERS)
def test_four_times_the_octets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "MAX_LIST_OCTETS", 10**9)
    monkeypatch.setattr(envelope, "bounds", lambda: Bounds(addresses=10**9))
    monkeypatch.setattr(field, "MAX_VALUE_OCTETS", 10**9)
    parse, tokens = PARSERS[name]
    assert [piece for piece in pieces(tokens) if is_far_from_linear(parse, piece)] == []


def test_what_is_quadratic_is_found() -> None:
    def copying(octets: bytes) -> None:
        kept: list[int] = []
        for octet in octets:
            kept = [*kept, octet]

    # one of them is enough: what else a processor does may hide it once
    assert any(is_far_from_linear(copying, b"a", 800) for _ in range(5))
