"""Frames of many megabytes between backends: read in small steps, into little memory, or refused by their kind."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.model.carried import CarriedIdentity, Portrait
from murder.model.message import ModSeq, Uid, UidValidity
from murder.model.uidset import Tombstones, UidSet
from murder.wire.nodes import pieces
from murder.wire.nodes.carry import (
    HEAD,
    IN_PIECES,
    JSON,
    MAX_JSON,
    MAX_LARGE_JSON,
    MAX_TOMBSTONES,
    FrameCutter,
    format_portrait,
    format_words,
    parse_portrait,
    parse_uid_ranges,
    parse_uids,
)
from murder.wire.nodes.pieces import Pairs, loads_in_pieces


def plain(value: Any) -> Any:
    """As `json.loads` would have it."""
    if isinstance(value, Pairs):
        return [list(pair) for pair in value]
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return value


NUMBERS = st.integers(0, 2**32 - 1)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS).map(list), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=9) | PAIRS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(VALUES)
def test_a_text_in_pieces_is_what_it_is_in_one(value: Any) -> None:
    octets = json.dumps(value, separators=(",", ":")).encode()
    try:
        found = loads_in_pieces(octets)
    except (
        BadSyntax
    ) as error:  # an array that begins as a set of UIDs and goes on otherwise, or is deep
        assert "range" in error.text or "deep" in error.text or "32 bits" in error.text
    else:
        assert plain(found) == value


@given(st.binary(max_size=40), VALUES)
def test_whatever_comes_is_read_or_refused(octets: bytes, value: Any) -> None:
    text = json.dumps(value, separators=(",", ":")).encode()
    for one in (octets, text[:-1], text + octets, b"[" + octets + b"]", b"[" * 5000, b'{"a":' * 50):
        try:
            loads_in_pieces(one)
        except BadSyntax:
            pass


def portrait(ranges: int, tombstones: int) -> Portrait:
    return Portrait(
        CarriedIdentity("m1", UidValidity(7)),
        Uid(2 * ranges + 10),
        ModSeq(tombstones + 5),
        [(ModSeq(number + 1), Uid(2 * number + 1)) for number in range(tombstones)],
        {"ben": [Uid(2 * number + 1) for number in range(ranges)]},
    )


def test_a_large_portrait_goes_there_and_back_in_little_memory() -> None:
    told = portrait(50_000, 20_000)
    octets = format_words({"do": "complete", "name": "user.ana", **format_portrait(told)})
    assert len(octets) > IN_PIECES
    cutter = FrameCutter()
    cutter.feed(octets)
    frame = cutter.next()
    assert frame is not None
    tracemalloc.start()
    words = frame.words()
    seen = parse_uids(words["seen"]["ben"])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 8 << 20 and len(seen) == 50_000
    assert parse_portrait(words) == told


def test_no_step_reads_more_than_a_thousand_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    extend = Pairs.extend

    def counted(self: Pairs, octets: bytes) -> None:
        steps.append(len(octets))
        extend(self, octets)

    monkeypatch.setattr(Pairs, "extend", counted)
    for ranges in (20_000, 40_000):
        steps.clear()
        text = b"[%b]" % b",".join(b"[%d,%d]" % (one, one) for one in range(1, 2 * ranges, 2))
        assert len(loads_in_pieces(text)) == ranges
        assert len(steps) == ranges / 1000 and max(steps) < 24 * 1000


def test_what_is_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MAX_RANGES", 5000)
    monkeypatch.setattr(pieces, "MAX_VALUES", 5000)
    for text, why in (
        (b"[" + b",".join([b"[1,1]"] * 6000) + b"]", "5000 ranges"),
        (b"[" + b",".join([b"1"] * 6000) + b"]", "5000 values"),
        (b"[[1,4294967296]]", "32 bits"),
    ):
        with pytest.raises(BadSyntax, match=why):
            loads_in_pieces(text)
    with pytest.raises(BadSyntax, match="UIDs"):
        parse_uids([[1, 2**32 - 1]])
    words = format_portrait(portrait(1, 1))
    with pytest.raises(BadSyntax, match="tombstones"):
        parse_portrait({**words, "expunged": [[1, [[1, MAX_TOMBSTONES + 1]]]]})


@pytest.mark.parametrize(
    ("begins", "of_answers", "most"),
    [
        (b'{"do":"rows"', False, MAX_JSON),
        (b'{"do":"complete"', False, MAX_LARGE_JSON),
        (b'{"do":"prepare"', False, MAX_LARGE_JSON),
        (b'{"do":"completely-other"', False, MAX_JSON),
        (b'{"uids":[', True, MAX_LARGE_JSON),
        (b'{"uids":[', False, MAX_JSON),
        (b"{}", False, MAX_JSON),
    ],
)
def test_a_frame_is_as_long_as_its_kind_may_be(begins: bytes, of_answers: bool, most: int) -> None:
    for length, is_good in ((most, True), (most + 1, False)):
        cutter = FrameCutter(of_answers=of_answers)
        cutter.feed(HEAD.pack(JSON, length))
        cutter.feed(begins)
        if is_good:
            assert cutter.next() is None  # the rest is still to come
        else:
            with pytest.raises(BadSyntax, match="of this kind"):
                cutter.next()


@given(st.sets(st.integers(1, 60)))
def test_a_set_of_uids_is_the_sequence_it_stands_for(uids: set[int]) -> None:
    wanted = [Uid(one) for one in sorted(uids)]
    told = [[one, one] for one in wanted]
    found = parse_uids(told)
    assert list(found) == wanted and found == wanted and len(found) == len(wanted)
    assert [found[at] for at in range(len(wanted))] == wanted and found[1:3] == wanted[1:3]
    assert [found[-1 - at] for at in range(len(wanted))] == wanted[::-1]
    with pytest.raises(IndexError):
        found[len(wanted)]
    assert parse_uids(told[::-1]) == wanted  # in whatever order
    assert UidSet(parse_uid_ranges(told)) == wanted
    stones = Tombstones([(one + 9, one) for one in wanted])
    assert stones == [(one + 9, one) for one in wanted] and stones[1:3] == list(stones)[1:3]
