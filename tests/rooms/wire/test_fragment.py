"""The fragmenter cuts alike whatever the packets, stays within its limits, and never looks back."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.wire.fragment import MAX_ASKED, MAX_COLLECTED, Chunk, Fragmenter, Literal, TooLong


def cut(stream: bytes, sizes: list[int], decide: str = "accept") -> list[object]:
    """All fragments of a stream fed in packets of these sizes; literals are answered with `decide`."""
    fragmenter = Fragmenter(collect_octets=8)
    found: list[object] = []
    at = 0
    for size in [*sizes, len(stream)]:
        fragmenter.feed(stream[at : at + size])
        at += size
        while (fragment := fragmenter.next()) is not None:
            found.append(fragment)
            if isinstance(fragment, Literal):
                getattr(fragmenter, decide)()
    return found


def joined(found: list[object]) -> list[object]:
    """Neighbouring chunks made one, since their sizes follow the packets."""
    result: list[object] = []
    for item in found:
        if (
            isinstance(item, Chunk)
            and result
            and isinstance(result[-1], Chunk)
            and not result[-1].last
        ):
            result[-1] = Chunk(result[-1].data + item.data, item.last)
        else:
            result.append(item)
    return result


TABLE = [
    (b"a NOOP\r\n", [b"a NOOP\r\n"]),
    (b"a NOOP\nb NOOP\r\n", [b"a NOOP\n", b"b NOOP\r\n"]),
    (
        b"a LOGIN {5+}\r\nuser1 {6+}\r\nse\r\net\r\n",
        [b"a LOGIN {5+}\r\nuser1 {6+}\r\nse\r\net\r\n"],
    ),
    (b"a X {0+}\r\n\r\n", [b"a X {0+}\r\n\r\n"]),
    (b"a X {3+}\r\nabc{2+}\r\nde\r\n", [b"a X {3+}\r\nabc{2+}\r\nde\r\n"]),
    (b'a X "{3+}"\r\n', [b'a X "{3+}"\r\n']),
    (b"a X {3}\r\nabc\r\n", [Literal(b"a X {3}\r\n", 3, True), b"a X {3}\r\nabc\r\n"]),
    (
        b"a X ~{9+}\r\n123456789 y\r\nb\r\n",
        [
            Literal(b"a X ~{9+}\r\n", 9, False, True),
            b"a X ~{9+}\r\n123456789 y\r\n",
            b"b\r\n",
        ],
    ),
]


@pytest.mark.parametrize(("stream", "expected"), TABLE)
def test_messages_are_cut_alike_whole_and_octet_by_octet(
    stream: bytes, expected: list[object]
) -> None:
    assert cut(stream, []) == expected
    assert cut(stream, [1] * len(stream)) == expected


STREAMED = b"a APPEND x {12}\r\nhello\r\nworld (y) {0+}\r\n {9+}\r\n123456789\r\nb NOOP\r\n"


@given(st.lists(st.integers(1, 7)))
def test_a_streamed_literal_comes_in_chunks_and_the_rest_behind_it(
    sizes: list[int],
) -> None:
    assert joined(cut(STREAMED, sizes, "stream")) == [
        Literal(b"a APPEND x {12}\r\n", 12, True),
        Chunk(b"hello\r\nworld", True),
        Literal(b" (y) {0+}\r\n {9+}\r\n", 9, False),
        Chunk(b"123456789", True),
        b"\r\n",
        b"b NOOP\r\n",
    ]


@given(st.lists(st.integers(1, 7)))
def test_a_refused_message_is_skipped_to_its_end(sizes: list[int]) -> None:
    stream = b"a X {9+}\r\n12\r\n56789 {10+}\r\n0123456789 z\r\nb NOOP\r\nc X {7}\r\nd NOOP\r\n"
    messages = [item for item in cut(stream, sizes, "refuse") if isinstance(item, bytes)]
    assert messages == [b"b NOOP\r\n", b"d NOOP\r\n"]


@given(st.binary(max_size=200), st.lists(st.integers(1, 50)))
def test_any_octets_give_fragments_or_bad_syntax(stream: bytes, sizes: list[int]) -> None:
    try:
        cut(stream, sizes)
    except BadSyntax:
        pass


@pytest.mark.parametrize(
    "block",
    [
        b"a NOOP\r\n" * 100_000,
        b"a APPEND x {900000+}\r\n" + b"x" * 900_000 + b"\r\n",
        b"a APPEND x {9000000+}\r\n" + b"x" * 900_000,
        b"a NOOP\r\n" * 100_000 + b"a NO",
    ],
    ids=["lines", "literal", "half", "rest"],
)
def test_of_a_block_that_is_given_out_nothing_is_held(block: bytes) -> None:
    """A session may be silent behind it for half an hour."""
    fragmenter = Fragmenter()
    tracemalloc.start()
    try:
        fragmenter.feed(memoryview(bytearray(block)))  # its own copy
        while (fragment := fragmenter.next()) is not None:
            if isinstance(fragment, Literal):
                fragmenter.stream()
        del fragment
        assert fragmenter.held < 10
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    fragmenter.feed(b"b NOOP\r\n")
    while isinstance(fragment := fragmenter.next(), Chunk):
        assert fragment.data == b"b NOOP\r\n"
    assert fragment is None or (isinstance(fragment, bytes) and fragment.endswith(b"NOOP\r\n"))


def test_a_line_without_end_is_refused_at_its_limit() -> None:
    fragmenter = Fragmenter(max_line=100)
    fragmenter.feed(b"x" * 60)
    assert fragmenter.next() is None
    fragmenter.feed(b"x" * 60)
    with pytest.raises(BadSyntax):
        fragmenter.next()


def test_many_small_literals_cannot_pass_the_message_limit() -> None:
    fragmenter = Fragmenter(max_message=100)
    fragmenter.feed(b"a X" + b" {20+}\r\n01234567890123456789" * 6 + b"\r\n")
    with pytest.raises(BadSyntax):
        fragmenter.next()


@given(st.lists(st.integers(1, 300)), st.sampled_from([b"", b" {5+}\r\na\r\nb c", b" {9}"]))
def test_a_lenient_one_throws_too_long_a_message_away_and_goes_on(
    sizes: list[int], tail: bytes
) -> None:
    stream = b"a NOOP\r\nb SEARCH " + b"1," * 300 + tail + b"\r\nc NOOP\r\n"
    fragmenter, found, at = Fragmenter(max_line=100, lenient=True), [], 0
    for size in [*sizes, len(stream)]:
        fragmenter.feed(stream[at : at + size])
        at += size
        while (fragment := fragmenter.next()) is not None:
            found.append(fragment)
        assert fragmenter.held <= 100 + 2 * size
    kinds = [type(fragment) for fragment in found]
    assert kinds == [bytes, TooLong, bytes]
    assert isinstance(found[1], TooLong) and found[1].head.startswith(b"b SEARCH 1,")
    assert found[2] == b"c NOOP\r\n"
    assert fragmenter.is_between


def test_what_is_thrown_away_has_an_end() -> None:
    fragmenter = Fragmenter(max_line=100, lenient=True)
    fragmenter.max_skip = 1000
    fragmenter.feed(b"a " + b"x" * 200)
    assert isinstance(fragmenter.next(), TooLong)
    with pytest.raises(BadSyntax):
        for _ in range(100):
            fragmenter.feed(b"x" * 100)
            fragmenter.next()


def test_many_small_literals_of_a_lenient_one_are_one_message_that_is_too_long() -> None:
    fragmenter = Fragmenter(max_message=100, lenient=True)
    fragmenter.feed(b"a X" + b" {20+}\r\n01234567890123456789" * 6 + b"\r\nb NOOP\r\n")
    assert isinstance(fragmenter.next(), TooLong)
    assert fragmenter.next() == b"b NOOP\r\n"


def test_a_message_has_so_many_collected_literals() -> None:
    fragmenter = Fragmenter(lenient=True)
    fragmenter.feed(b"a X" + b" {1+}\r\nx" * MAX_COLLECTED + b"\r\n")
    assert isinstance(fragmenter.next(), bytes)
    fragmenter.feed(b"b X" + b" {1+}\r\nx" * (MAX_COLLECTED + 1) + b"\r\nc NOOP\r\n")
    refused = fragmenter.next()
    assert isinstance(refused, TooLong) and refused.head.startswith(b"b X ")
    assert fragmenter.next() == b"c NOOP\r\n"


@pytest.mark.parametrize("end", [b"\r\n", b" "])  # of APPENDs, and of a MULTIAPPEND
def test_streamed_literals_behind_collected_ones_are_counted_in_their_message_only(
    end: bytes,
) -> None:
    """As APPEND has them: a mailbox as a literal, or a small message, then a large one. The thousand and first was
    refused."""
    fragmenter = Fragmenter(collect_octets=2, lenient=True)
    for _ in range(MAX_ASKED + 10):
        fragmenter.feed(b"a APPEND {1+}\r\nx {3+}\r\nabc" + end)
        assert isinstance(fragmenter.next(), Literal)
        fragmenter.stream()
        assert fragmenter.next() == Chunk(b"abc", last=True)
        if end == b"\r\n":
            assert fragmenter.next() == b"\r\n"


def test_asked_literals_behind_collected_ones_are_counted_in_their_message_only() -> None:
    fragmenter = Fragmenter(collect_octets=2, lenient=True)
    for _ in range(MAX_ASKED + 10):
        fragmenter.feed(b"a X {1+}\r\nx {3}\r\n")
        assert isinstance(fragmenter.next(), Literal)
        fragmenter.accept()
        fragmenter.feed(b"abc\r\n")
        assert fragmenter.next() == b"a X {1+}\r\nx {3}\r\nabc\r\n"


@pytest.mark.parametrize("literals", [500, 50_000])  # of the second most is thrown away
def test_a_turn_cuts_so_many_literals_and_goes_on_in_the_next(literals: int) -> None:
    fragmenter = Fragmenter(lenient=True)
    fragmenter.most_steps = 100
    fragmenter.feed(b"a X" + b" {1+}\r\nx" * literals + b"\r\nb NOOP\r\n")
    found: list[object] = []
    behind = 0
    while len(found) < 2:
        fragment = fragmenter.next()
        if fragment is None:
            assert fragmenter.is_behind
            behind += 1
        else:
            found.append(fragment)
    assert found[-1] == b"b NOOP\r\n"
    assert literals // 101 <= behind <= literals // 100 + 1
    assert fragmenter.next() is None and not fragmenter.is_behind


@pytest.mark.parametrize("stands_in", ["a line", "a literal"])
def test_what_drips_in_takes_little_more_than_its_octets(stands_in: str) -> None:
    octets = 64 * 1024
    fragmenter = Fragmenter(octets * 2, octets * 4, octets * 2)
    if stands_in == "a literal":
        fragmenter.feed(b"t X {%d+}\r\n" % (octets * 2))
    tracemalloc.start()
    try:
        for number in range(octets // 2):
            fragmenter.feed(b"%02d" % (number % 100))
            if number % 100 == 0:
                assert fragmenter.next() is None
        assert tracemalloc.get_traced_memory()[1] < 3 * octets
    finally:
        tracemalloc.stop()
    assert fragmenter.held >= octets
