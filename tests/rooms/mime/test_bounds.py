"""Mail that wants to be expensive: what is looked at is bounded, and what is left out is left out in a well-formed way."""

import base64
import quopri
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.config import BackendConfig
from murder.mime import text, thread
from murder.mime.bounds import MAX_ADDRESSES, MAX_PARTS, Bounds, set_bounds
from murder.mime.decode import (
    MAX_ENCODINGS,
    PIECE_OCTETS,
    decode_base64,
    decode_text,
    decoded_pieces,
    text_pieces,
)
from murder.mime.envelope import parse_addresses
from murder.mime.field import MAX_PARAMETERS, parse_languages, parse_media, parse_parameters
from murder.mime.preview import preview_of
from murder.mime.section import octets_of
from murder.mime.structure import MAX_BOUNDARY_OCTETS, parse_structure
from murder.mime.text import (
    FOLD_CHARACTERS,
    MAX_MARKS,
    Looking,
    body_has,
    fold,
    wanted_texts,
)
from murder.mime.thread import References, message_ids
from murder.model.part import Address
from murder.model.query.fetch import Section
from murder.model.query.thread import Thread, Threadable, by_ordered_subject, by_references
from murder.wire.imap.mail.body import format_body_structure
from murder.wire.imap.mail.envelope import format_envelope
from murder.wire.imap.mail.thread import format_thread
from tests.kit.steps import lines_run
from tests.rooms.mime.whole import decode_transfer

WHEN: Final = datetime(2024, 1, 1, tzinfo=UTC)


def test_of_two_megabytes_of_addresses_the_first_are_told() -> None:
    root = parse_structure(b"From: " + b"a," * 1_000_000 + b"b\r\n\r\nhi\r\n")
    assert root.envelope is not None
    assert len(root.envelope.from_) == MAX_ADDRESSES
    assert len(format_envelope(root.envelope)) < 200 * MAX_ADDRESSES


@pytest.fixture
def few() -> Iterator[None]:
    set_bounds(Bounds(addresses=2, parts=2, levels=2, header_octets=60))
    yield
    set_bounds(Bounds())


def test_a_site_may_bound_what_is_told(few: None) -> None:
    assert len(parse_addresses(b"a@x, b@x, c@x")) == 2
    head = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    # behind 60 octets
    assert parse_structure(b"Subject: %b\r\n" % (b"s" * 60) + head).media == (b"TEXT", b"PLAIN")
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    assert len(parse_structure(head + b"--b\r\n\r\nx\r\n" * 9 + b"--b--\r\n").children) == 3
    nested = parse_structure(b"Content-Type: message/rfc822\r\n\r\n" * 9 + b"x\r\n")
    depth = 0
    while nested.children:
        nested, depth = nested.children[0], depth + 1
    assert depth == 2


def test_the_defaults_are_those_of_the_configuration() -> None:
    config = BackendConfig()
    assert Bounds() == Bounds(
        config.max_parsed_addresses,
        config.max_parsed_parts,
        config.max_parsed_levels,
        config.max_parsed_header_bytes,
    )


def test_a_group_that_is_too_large_is_closed() -> None:
    found = parse_addresses(b"g: " + b"a@b, " * 5000 + b";")
    assert MAX_ADDRESSES <= len(found) <= MAX_ADDRESSES + 1
    assert found[-1] == Address(None, None, None, None)


def test_parameters_and_languages_are_bounded() -> None:
    assert parse_parameters(b";" * 100_000 + b"=") == ()
    assert len(parse_parameters(b"".join(b";a%d=b" % n for n in range(9000)))) == MAX_PARAMETERS
    assert len(parse_languages(b"a," * 1_000_000)) == MAX_PARAMETERS
    assert parse_media(b"text/plain" + b";" * 100_000 + b"x=y") == ((b"TEXT", b"PLAIN"), ())


def test_what_comes_behind_very_many_parts_is_one_last_part() -> None:
    count = MAX_PARTS + 500
    body = b"".join(b"--b\r\n\r\npart %d\r\n" % n for n in range(1, count + 1))
    octets = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + body + b"--b--\r\nepilogue\r\n"
    root = parse_structure(octets)
    assert len(root.children) == MAX_PARTS + 1
    last = octets_of(memoryview(octets), root, Section((MAX_PARTS + 1,)))
    assert last is not None
    assert bytes(last).startswith(b"\r\npart %d\r\n--b\r\n" % (MAX_PARTS + 1))
    assert bytes(last).endswith(b"--b\r\n\r\npart %d" % count)
    assert format_body_structure(root, extended=True).count(b'"OCTET-STREAM"') == 1


def test_inner_multiparts_end_where_they_end_also_behind_very_many_parts() -> None:
    inner = b"".join(b"--i\r\n\r\n%d\r\n" % n for n in range(MAX_PARTS + 5))
    octets = (
        b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n"
        + inner
        + b"--i--\r\n--o\r\n\r\nlast\r\n--o--\r\n"
    )
    root = parse_structure(octets)
    assert len(root.children) == 2
    last = octets_of(memoryview(octets), root, Section((2,)))
    assert last is not None and bytes(last) == b"\r\nlast"


def test_line_ends_of_messages_within_each_other_are_exact() -> None:
    octets = b"Content-Type: message/rfc822\r\n\r\n" * 30 + b"\r\n" + b"x\r\n" * 20_000
    part = parse_structure(octets)
    depth = 0
    while part.children:
        assert part.lines == octets.count(b"\n", part.body_start, part.body_end)
        part, depth = part.children[0], depth + 1
    assert depth == 30 and part.lines == 20_000


def test_a_boundary_without_an_end_is_none() -> None:
    name = b"q" * (MAX_BOUNDARY_OCTETS + 1)
    octets = b'Content-Type: multipart/mixed; boundary="%s"\r\n\r\n--%s\r\n\r\nx\r\n' % (name, name)
    assert [child.size for child in parse_structure(octets).children] == [0]


@pytest.mark.parametrize(
    ("body", "octets"),
    [
        (b"aGVsbG8=\r\n_______\r\nlist mailing list\r\nlist@example.org\r\n", b"hello"),
        (b"aGVsbG8=\r\n\r\nfooter here\r\n", b"hello"),  # 10 letters: no whole encoding
        (b"aGVsbG8=\r\nThis is the list\r\n", b"hello"),  # 16 letters less three blanks
        (b"aGVsbG8=\r\nsee the\r\nlist\r\n", b"hello"),
        (b"YQ==\r\n Yg== \r\n\tYw==\t\r\n", b"abc"),
        (b"YQ= =\r\n", b"a"),
        (b"YW Jj\r\nZ GVm", b"abcdef"),
        # no padding, as a third of all texts have none
        (b"aGVsbG8h\r\n_______\r\nlist mailing list\r\nlist@example.org\r\n", b"hello!"),
        (b"aGVsbG8h\r\n\r\n-- \r\nfooter\r\n", b"hello!"),
        (b"aGVsbG8h\r\nThis is the list\r\n", b"hello!"),
        (b"aGVsbG8h\nhttps://list.example.org/mailman/listinfo/list\n", b"hello!"),
        (b"aGVs\r\nbG8h \r\n\t\r\nlist@example.org", b"hello!"),
        (b"aGVsbG8\r\n--\r\nlist", b"hello"),
        (b"YWJj" * 8000 + b"\r\n-- \r\nlist", b"abc" * 8000),
        (b"\r\n".join([b"YWJj" * 18] * 600) + b"\r\na list\r\n", b"abc" * 18 * 600),
        # a damaged line is none of text (RFC 2045 section 6.8)
        (b"!YW*Jj\r\n-ZGVm", b"abcdef"),
        (b"YWJj" * 19 + b"\r\n" + b"YWJj" * 9 + b"*" + b"YWJj" * 10, b"abc" * 38),
        (b"YWJj" * 250 + b"!\r\n " + b"YWJj" * 250, b"abc" * 500),
        (b"YQ==\r\nYg==\r\nYw==\r\n--\r\nx", b"abc"),
        (b"YQ==\r\nYmNk\r\n", b"abcd"),
        (b"YQ=========", b"a"),
        (b"=" * 100_000, b""),
        (b"YQ==" * 5000, b"a" * MAX_ENCODINGS),
    ],
)
def test_base64_ends_at_its_padding(body: bytes, octets: bytes) -> None:
    assert decode_base64(body) == octets


@pytest.mark.parametrize("encoding", [b"BASE64", b"QUOTED-PRINTABLE", b"8BIT"])
@pytest.mark.parametrize(
    "body",
    [b" " * 500_000 + b"x", b"=" * 500_000, b"=20" * 200_000, b"YQ==" * 100_000, b"\n" * 500_000],
)
def test_decoding_goes_in_small_pieces(body: bytes, encoding: bytes) -> None:
    pieces = decoded_pieces(body, encoding)
    assert pieces is not None
    assert all(len(piece) <= PIECE_OCTETS for piece in pieces)


@given(st.binary(min_size=0, max_size=60), st.integers(1, 4000))
def test_pieces_are_the_whole(octets: bytes, times: int) -> None:
    octets = octets * times
    assert decode_transfer(base64.encodebytes(octets), b"BASE64") == octets
    assert decode_transfer(base64.b64encode(octets), b"BASE64") == octets
    assert decode_transfer(quopri.encodestring(octets), b"QUOTED-PRINTABLE") == octets
    long_line = octets.replace(b"\n", b"").replace(b"\r", b"").rstrip(b" \t")
    encoded = b"".join(b"=%02X" % octet for octet in long_line)
    assert decode_transfer(encoded, b"QUOTED-PRINTABLE") == long_line


@pytest.mark.parametrize(
    ("octets", "charset", "expected"),
    [
        ("Grüße ".encode() * 3 + b"\xff", "", "Grüße " * 3 + "\ufffd"),
        ("Grüße ".encode() + b"\xff", "utf-8", "Grüße \ufffd"),
        (b"\xff", "utf-8", "\ufffd"),
        ("ü".encode() + b"\xc3", "", "ü\ufffd"),  # cut within a character
        (b"Gr\xfc\xdfe", "", "Grüße"),
        (b"Gr\xfc\xdfe", "us-ascii", "Grüße"),
        (b"Gr\xfc\xdfe", "iso-8859-1", "Grüße"),
    ],
)
def test_one_bad_octet_spoils_only_itself(octets: bytes, charset: str, expected: str) -> None:
    assert decode_text(octets, charset) == expected
    assert "".join(text_pieces([octets], charset)) == expected
    if charset not in ("", "us-ascii"):
        pieces = [octets[at : at + 1] for at in range(len(octets))]
        assert "".join(text_pieces(pieces, charset)) == expected


def test_marks_are_put_in_order_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 0

    class Recording:
        combining = staticmethod(unicodedata.combining)

        @staticmethod
        def normalize(form: str, piece: str) -> str:
            nonlocal longest
            longest = max(longest, len(piece))
            return unicodedata.normalize(form, piece)  # type: ignore[arg-type]

    monkeypatch.setattr(text, "unicodedata", Recording)
    fold("a" + "\u0301\u0323" * 50_000)
    assert longest <= 2 * FOLD_CHARACTERS


MARKED = st.lists(
    st.tuples(
        st.sampled_from("aäßÅﬁ한Σ x"), st.text("\u0301\u0323\u0315", max_size=MAX_MARKS // 2)
    ),
    max_size=400,
).map(lambda pairs: "".join(letter + marks for letter, marks in pairs))


@given(MARKED)
def test_folding_in_pieces_is_folding(value: str) -> None:
    whole = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", value).casefold())
    assert fold(value) == (whole if not value.isascii() else value.lower())


def _thread_chain(count: int) -> list[Threadable]:
    """Each answers the one before, and says that the first belongs below itself."""
    return [
        Threadable(
            n,
            WHEN.timestamp(),
            "",
            False,
            f"m{n}",
            ("m0", f"m{n - 1}", "m0", f"m{n - 1}") if n else (),
        )
        for n in range(count)
    ]


def _thread_absent(count: int) -> list[Threadable]:
    """All answer the last of a long line of messages that are not here."""
    line = tuple(f"a{n}" for n in range(count))
    return [
        Threadable(n, WHEN.timestamp(), "", False, f"m{n}", line[max(0, n - 3) : n + 1])
        for n in range(count)
    ] + [
        Threadable(count + n, WHEN.timestamp(), "", False, f"n{n}", line[-1:]) for n in range(count)
    ]


def _thread_reversed(count: int) -> list[Threadable]:
    return _thread_chain(count)[::-1]


def _thread_subjects(count: int) -> list[Threadable]:
    return [Threadable(n, WHEN.timestamp(), "s", n % 2 == 0, f"m{n}", ()) for n in range(count)]


@pytest.mark.parametrize(
    "shape", [_thread_chain, _thread_absent, _thread_reversed, _thread_subjects]
)
@pytest.mark.parametrize("algorithm", [by_references, by_ordered_subject])
def test_threading_is_linear(
    shape: Callable[[int], list[Threadable]], algorithm: Callable[[list[Threadable]], list[Thread]]
) -> None:
    def run(count: int) -> None:
        format_thread(algorithm(shape(count)))

    assert lines_run(run, 1000) < 2.6 * lines_run(run, 500)


def test_references_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread, "MAX_KEPT_IDS", 100)
    references = References()
    kept = 0
    for n in range(1000):
        ids = tuple(f"x{n}.{k}" for k in range(50))
        kept += len(
            references.shared(Threadable(n, WHEN.timestamp(), "s", False, f"m{n}", ids)).references
        )
    assert kept < 1300
    assert message_ids(b"<" + b"a" * 900 + b">")[0] != message_ids(b"<" + b"b" * 900 + b">")[0]
    assert len(message_ids(b"<" + b"a" * 900 + b">")[0]) < 100


STRUCTURES: dict[str, Callable[[int], bytes]] = {
    "deep": lambda n: b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (k, k) for k in range(n)
    ),
    "rfc822": lambda n: b"Content-Type: message/rfc822\r\n\r\n" * n,
    "parts": lambda n: (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * n
    ),
    "header": lambda n: b"X-A: b\r\n" * n + b"\r\n",
    "boundaries": lambda n: (
        b"".join(
            b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n--%b\r\n" % (b"q" * k, b"q" * k)
            for k in range(1, 60)
        )
        + b"\r\n"
        + (b"--" + b"q" * 100 + b"\r\n") * n
    ),
    "languages": lambda n: b"Content-Language: " + b"a," * n + b"\r\n\r\n",
    "addresses": lambda n: b"From: " + b"a," * n + b"\r\n\r\n",
    "comments": lambda n: b"From: " + b"(" * n + b"\r\nContent-Type: (" + b"()" * n + b"\r\n\r\n",
}


@pytest.mark.parametrize("shape", STRUCTURES.values(), ids=STRUCTURES)
def test_structures_cost_what_they_are_long(shape: Callable[[int], bytes]) -> None:
    few, many = (lines_run(parse_structure, shape(times)) for times in (300, 600))
    assert many < 2.3 * few


def test_a_message_is_decoded_once_for_all_texts_that_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    octets = b"Subject: s\r\n\r\n" + b"lorem ipsum dolor\r\n" * 50_000
    root = parse_structure(octets)
    folded = 0

    def counting(piece: str) -> str:
        nonlocal folded
        folded += len(piece)
        return fold(piece)

    wanted = wanted_texts(bodies=[f"q{n}" for n in range(25)], texts=[f"r{n}" for n in range(25)])
    monkeypatch.setattr(text, "fold", counting)
    looking = Looking(octets, root, wanted)
    assert looking.text_has("r1") is None
    list(looking.in_header())
    assert looking.text_has("r1") is None
    steps = len(list(looking.in_body()))
    assert looking.text_has("r1") is False and looking.body_has("q1") is False
    assert folded < 1.1 * len(octets)
    assert steps >= len(octets) // PIECE_OCTETS


@given(st.text("ab\u0301äß", min_size=1, max_size=5), st.integers(0, 3 * PIECE_OCTETS))
def test_a_text_is_found_wherever_the_pieces_are_cut(wanted: str, before: int) -> None:
    octets = (
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + b"c" * before + f"c{wanted}c".encode()
    )
    assert body_has(octets, parse_structure(octets), wanted) == (
        fold(wanted) in fold(f"c{wanted}c")
    )


def test_a_preview_of_nothing_is_not_looked_for_to_the_end() -> None:
    head = b"Content-Transfer-Encoding: base64\r\n\r\n"
    few, many = (head + b"=" * size for size in (4_000_000, 16_000_000))
    lines = [lines_run(preview_of, octets, parse_structure(octets)) for octets in (few, many)]
    assert lines[1] < 1.1 * lines[0]
