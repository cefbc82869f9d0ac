"""The parts of a message: exact offsets, on sane mail as the standard library sees it, on hostile mail in linear time."""

import email
import email.policy
import itertools
import time
from dataclasses import replace
from email.message import EmailMessage, Message

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murder.mime import structure
from murder.mime.bounds import MAX_DEPTH
from murder.mime.section import find_part, octets_of
from murder.mime.structure import parse_parts, parse_structure
from murder.mime.summary import dump_structure, load_structure
from murder.model.part import Part
from murder.model.query.fetch import Section, SectionText
from murder.wire.imap.mail.body import format_body_structure

MIXED = b"""\
From: a@example.org
Subject: x
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="b1"

preamble
--b1

plain body
--b1
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable
Content-Disposition: attachment; filename="a b.html"
Content-ID: <1@x>

<p>

--b1
Content-Type: message/rfc822

Subject: inner
Content-Type: multipart/alternative; boundary=b2

--b2

one
--b2
Content-Type: application/x-y
Content-Transfer-Encoding: BASE64

AAAA
--b2--
inner epilogue
--b1--
epilogue
""".replace(b"\n", b"\r\n")


def body(octets: bytes, *path: int, text: SectionText = SectionText.WHOLE) -> bytes | None:
    found = octets_of(memoryview(octets), parse_structure(octets), Section(path, text))
    return None if found is None else bytes(found)


SECTIONS = [
    ((), SectionText.WHOLE, MIXED),
    ((1,), SectionText.WHOLE, b"plain body"),
    ((1,), SectionText.MIME, b"\r\n"),
    ((2,), SectionText.WHOLE, b"<p>\r\n"),
    ((3, 1), SectionText.WHOLE, b"one"),
    ((3, 2), SectionText.WHOLE, b"AAAA"),
    (
        (3,),
        SectionText.HEADER,
        b"Subject: inner\r\nContent-Type: multipart/alternative; boundary=b2\r\n\r\n",
    ),
    ((3,), SectionText.MIME, b"Content-Type: message/rfc822\r\n\r\n"),
    ((3, 1), SectionText.MIME, b"\r\n"),
    ((4,), SectionText.WHOLE, None),
    ((1, 1), SectionText.WHOLE, None),
    ((2,), SectionText.HEADER, None),
    ((3, 2, 1), SectionText.WHOLE, None),
    ((), SectionText.HEADER, MIXED[: MIXED.index(b"preamble")]),
    ((), SectionText.TEXT, MIXED[MIXED.index(b"preamble") :]),
]


@pytest.mark.parametrize(("path", "text", "octets"), SECTIONS)
def test_a_section_is_exact(path: tuple[int, ...], text: SectionText, octets: bytes | None) -> None:
    assert body(MIXED, *path, text=text) == octets


def test_the_text_of_an_embedded_message_is_its_whole_body() -> None:
    inner = body(MIXED, 3, text=SectionText.TEXT)
    assert inner is not None
    assert inner.startswith(b"--b2\r\n")
    assert inner.endswith(b"--b2--\r\ninner epilogue")


def test_bodystructure_of_it() -> None:
    assert format_body_structure(parse_structure(MIXED), extended=False) == (
        b'(("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 10 0)'
        b'("TEXT" "HTML" ("CHARSET" "utf-8") "<1@x>" NIL "QUOTED-PRINTABLE" 5 1)'
        b'("MESSAGE" "RFC822" NIL NIL NIL "7BIT" %d (NIL "inner" NIL NIL NIL NIL NIL NIL NIL NIL) '
        b'(("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 3 0)'
        b'("APPLICATION" "X-Y" NIL NIL NIL "BASE64" 4) "ALTERNATIVE") 12) "MIXED")'
        % len(body(MIXED, 3) or b"")
    )
    assert b'("ATTACHMENT" ("FILENAME" "a b.html")) NIL NIL)' in format_body_structure(
        parse_structure(MIXED), extended=True
    )


@pytest.mark.parametrize(
    ("octets", "sections"),
    [
        # no blank line anywhere
        (b"Subject: x", {(): b"Subject: x", (1,): b""}),
        (b"", {(): b"", (1,): b""}),
        # no header
        (b"\r\nbody", {(1,): b"body"}),
        (b"\nbody", {(1,): b"body"}),
        # a single part is part 1, and has no part 1.1
        (b"A: b\r\n\r\nbody\r\n", {(1,): b"body\r\n", (1, 1): None, (2,): None}),
        # boundary announced, never used: an empty part, as Cyrus and Dovecot have it
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\nx\r\n", {(1,): b"", (2,): None}),
        # no boundary parameter
        (b"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\nx", {(1,): b"", (2,): None}),
        # an empty one
        (
            b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n\r\nx\r\n----\r\n',
            {(1,): b"x"},
        ),
        # not closed
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n", {(1,): b"x\r\n"}),
        # closed at once
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b--\r\n", {(1,): b""}),
        # white space behind the boundary; LF and CRLF mixed
        (
            b"Content-Type: multipart/mixed; boundary=b\n\n--b \t\r\n\nx\n--b\n\r\ny\r\n--b--",
            {(1,): b"x", (2,): b"y", (3,): None},
        ),
        # a boundary that begins another one's line
        (
            b'Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/x; boundary="bb"'
            b"\r\n\r\n--bb\r\n\r\nx\r\n--bb--\r\n--b\r\n\r\ny\r\n--b--\r\n",
            {(1, 1): b"x", (2,): b"y"},
        ),
        # a line that only begins like the boundary
        (
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--bx\r\n--b--",
            {(1,): b"x\r\n--bx"},
        ),
        # the part's header is ended by the next boundary
        (
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: y\r\n--b\r\n\r\n\r\n--b--",
            {(1,): b"", (2,): b""},
        ),
        # an inner multipart that is not closed ends with the outer one
        (
            b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/x; boundary=i"
            b"\r\n\r\n--i\r\n\r\nx\r\n--o\r\n\r\ny\r\n--o--",
            {(1, 1): b"x", (2,): b"y"},
        ),
        # inner and outer boundary are the same: the inner one has it
        (
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/x; boundary=b"
            b"\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n",
            {(1, 1): b"x", (1, 2): None, (2,): None},
        ),
        # digest: parts are messages
        (
            b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: s\r\n\r\nx\r\n--b--",
            {(1,): b"Subject: s\r\n\r\nx", (1, 1): b"x"},
        ),
        # a message that is nothing but a message
        (
            b"Content-Type: message/rfc822\r\n\r\nSubject: s\r\n\r\nx",
            {(1,): b"Subject: s\r\n\r\nx", (1, 1): b"x", (1, 2): None, (1, 1, 1): None},
        ),
    ],
)
def test_odd_mail_is_cut_exactly(
    octets: bytes, sections: dict[tuple[int, ...], bytes | None]
) -> None:
    for path, expected in sections.items():
        assert body(octets, *path) == expected


def test_the_line_end_before_a_boundary_is_the_boundarys_in_a_header_too() -> None:
    octets = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: y\r\n--b--"
    assert body(octets, 1, text=SectionText.MIME) == b"X: y"


FIELDS = b"From: a\r\nX-Long: one\r\n two\r\nto : b\r\njunk\r\nFROM: c\r\n\r\n"


@pytest.mark.parametrize(
    ("header", "text", "names", "chosen"),
    [
        (FIELDS, SectionText.HEADER_FIELDS, (b"from",), b"From: a\r\nFROM: c\r\n\r\n"),
        (
            FIELDS,
            SectionText.HEADER_FIELDS,
            (b"X-LONG", b"To"),
            b"X-Long: one\r\n two\r\nto : b\r\n\r\n",
        ),
        (FIELDS, SectionText.HEADER_FIELDS, (b"none",), b"\r\n"),
        (
            FIELDS,
            SectionText.HEADER_FIELDS_NOT,
            (b"From", b"To"),
            b"X-Long: one\r\n two\r\njunk\r\n\r\n",
        ),
        (b"From: a\r\n", SectionText.HEADER_FIELDS, (b"from",), b"From: a\r\n\r\n"),
        (b"\r\n", SectionText.HEADER_FIELDS, (b"from",), b"\r\n"),
        (b"From: a\n\n", SectionText.HEADER_FIELDS, (b"from",), b"From: a\n\n"),
        (b" x\r\nFrom: a\r\n\r\n", SectionText.HEADER_FIELDS_NOT, (b"from",), b" x\r\n\r\n"),
    ],
)
def test_chosen_fields_are_octet_for_octet(
    header: bytes, text: SectionText, names: tuple[bytes, ...], chosen: bytes
) -> None:
    octets = header + b"" if header == b"From: a\r\n" else header + b"body"
    found = octets_of(memoryview(octets), parse_structure(octets), Section((), text, names))
    assert found == chosen


def test_nesting_is_bounded() -> None:
    octets = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level)
        for level in range(MAX_DEPTH + 50)
    )
    part, depth = parse_structure(octets), 0
    while part.children:
        part, depth = part.children[0], depth + 1
    assert depth == MAX_DEPTH
    assert part.media == (b"TEXT", b"PLAIN")
    assert load_structure(dump_structure(parse_structure(octets)) or b"") == parse_structure(octets)


def ten_thousand_parts() -> bytes:
    part = b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n"
    return b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 10_000 + b"--b--\r\n"


def nested_and_full_of_dashes() -> bytes:
    heads = b"".join(
        b"Content-Type: multipart/mixed; boundary=%s\r\n\r\n--%s\r\n" % (b"x" * level, b"x" * level)
        for level in range(1, 100)
    )
    return heads + b"\r\n" + b"--\n" * 1_000_000


HOSTILE = {
    "parts": ten_thousand_parts(),
    "dashes": nested_and_full_of_dashes(),
    "headers without end": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\nX: y\r\n" * 40_000,
    "comments": b"Content-Type: text/plain " + b"()" * 500_000 + b"; a=b\r\n\r\n",
    "deep comment": b"From: " + b"(" * 1_000_000 + b"\r\n\r\n",
    "quotes": b"Content-Type: text/plain; " + b'a="' * 300_000 + b"\r\n\r\n",
    "escapes": b'To: "' + b"\\a" * 500_000 + b"\r\n\r\n",
    "folds": b"Subject: x\r\n" + b" y\r\n" * 300_000 + b"\r\n",
    "addresses": b"To: " + b"a@b, " * 50_000 + b"\r\n\r\n",
    "angles": b"To: " + b"<@a,@b:" * 100_000 + b"\r\n\r\n",
    "parameters": b"Content-Type: text/plain" + b"; a=b" * 200_000 + b"\r\n\r\n",
    "languages": b"Content-Language: " + b"a," * 300_000 + b"\r\n\r\n",
    "one line": b"x" * 3_000_000,
    "blank lines": b"\r\n" * 1_000_000,
}


@pytest.mark.parametrize("octets", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_mail_takes_linear_time(octets: bytes) -> None:
    begin = time.process_time()
    root = parse_structure(octets)
    format_body_structure(root, extended=True)
    # 1 µs an octet is ten times what the slowest of these takes; quadratic time would be minutes
    assert time.process_time() - begin < len(octets) / 1e6 + 1.0
    assert root.body_end == len(octets)


def test_ten_thousand_parts_are_all_there() -> None:
    octets = ten_thousand_parts()
    root = parse_structure(octets)
    assert len(root.children) == 10_000
    assert body(octets, 10_000) == b"x"
    assert dump_structure(root) is None


def shape(part: Part) -> object:
    media = (b"/".join(part.media)).decode().lower()
    return (media, [shape(child) for child in part.children])


def stdlib_shape(message: Message) -> object:
    children = message.get_payload() if message.is_multipart() else []
    return (message.get_content_type(), [stdlib_shape(child) for child in children])  # type: ignore[arg-type]  # typeshed knows no more of get_payload


def sane_messages() -> st.SearchStrategy[bytes]:
    """Messages as the standard library writes them."""
    counter = itertools.count()

    def build(tree: object) -> EmailMessage:
        message = EmailMessage(policy=email.policy.SMTP)
        if isinstance(tree, str):
            message.set_content(tree)
        elif isinstance(tree, tuple):
            message.set_content(build(tree[0]))
        elif isinstance(tree, list):
            message.make_mixed(boundary=f"=={next(counter)}")
            for child in tree:
                message.attach(build(child))
        return message

    tree = st.recursive(
        st.text("ab-\n", max_size=30),
        lambda inner: st.lists(inner, min_size=1, max_size=4) | st.tuples(inner),
        max_leaves=12,
    )
    return tree.map(lambda value: build(value).as_bytes(policy=email.policy.SMTP))


@settings(max_examples=60, deadline=None)
@given(sane_messages())
def test_sane_mail_has_the_parts_that_the_standard_library_sees(octets: bytes) -> None:
    root = parse_structure(octets)
    message = email.message_from_bytes(octets)
    assert shape(root) == stdlib_shape(message)
    leaves = [part for part in message.walk() if not part.is_multipart()]
    ours = [part for part in walk(root) if not part.children]
    for theirs, mine in zip(leaves, ours, strict=True):
        payload = theirs.get_payload()
        assert isinstance(payload, str)
        # the standard library gives the raw text of a 7-bit part
        assert payload.encode("ascii", "surrogateescape") == octets[mine.body_start : mine.body_end]


def walk(part: Part) -> list[Part]:
    return [part, *(inner for child in part.children for inner in walk(child))]


PIECES = st.sampled_from(
    [
        b"Content-Type: multipart/mixed; boundary=b\n",
        b"Content-Type: multipart/digest; boundary=bb\r\n",
        b"Content-Type: message/rfc822\n",
        b"Content-Transfer-Encoding: base64\r\n",
        b"From: a <b@c>, x:;\n",
        b"--b\n",
        b"--bb\r\n",
        b"--b--\n",
        b"--bb--",
        b"--b ",
        b"\n",
        b"\r\n",
        b"\r",
        b"text\n",
        b"\xff\x00",
        b" ",
    ]
)


@settings(max_examples=400)
@given(st.lists(PIECES, max_size=40).map(b"".join))
def test_nothing_raises_and_offsets_nest(octets: bytes) -> None:
    root = parse_structure(octets)
    assert (root.header_start, root.body_end) == (0, len(octets))
    for part in walk(root):
        assert 0 <= part.header_start <= part.body_start <= part.body_end <= len(octets)
        at = part.body_start
        for child in part.children:
            assert at <= child.header_start
            assert child.body_end <= part.body_end
            at = child.body_end
    format_body_structure(root, extended=True)
    summary = dump_structure(root)
    assert summary is not None
    assert load_structure(summary) == root


@given(st.binary(max_size=300))
def test_no_octets_raise(octets: bytes) -> None:
    root = parse_structure(octets)
    assert find_part(root, (1,)) is not None
    load_structure(octets)


@pytest.mark.parametrize(
    "summary",
    [b"", b"{}", b"[1]", b"[1,[]]", b"[2,[]]", b"[1,null]", b"\xff", b"[" * 100_000, b"7"],
)
def test_what_is_no_summary_is_not_read(summary: bytes) -> None:
    assert load_structure(summary) is None


def test_what_is_searched_a_window_at_a_time_is_found_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No search holds the interpreter for as long as a mail is large."""
    messages = [
        MIXED,
        MIXED.replace(b"\n", b"\r\n"),
        b"x" * 50,
        b"a\n" * 30,
        b"\n\nx",
        b"a: b\r\n\r",
    ]
    expected = [parse_structure(octets) for octets in messages]
    for window in range(4, 60):
        monkeypatch.setattr(structure, "WINDOW", window)
        assert [parse_structure(octets) for octets in messages] == expected


def bare(part: Part) -> Part:
    return replace(part, envelope=None, lines=0, children=tuple(map(bare, part.children)))


@given(
    st.lists(
        st.sampled_from(
            [
                *(
                    b"--b",
                    b"--b--",
                    b"",
                    b"text",
                    b"From: a@b",
                    b"Content-Transfer-Encoding: base64",
                ),
                *(b"Content-Type: multipart/mixed; boundary=b", b"Content-Type: message/rfc822"),
                *(b"Content-Type: text/html", b"Content-Type:", b"Content-Language: de"),
            ]
        )
    )
)
def test_parts_for_a_search_are_the_same_parts(lines: list[bytes]) -> None:
    octets = b"\r\n".join(lines)
    whole, parts = parse_structure(octets), parse_parts(octets, {b"FROM"})
    assert bare(parts) == bare(whole)
    assert parts.envelope is not None
    assert whole.envelope is not None
    assert parts.envelope.from_ == whole.envelope.from_
