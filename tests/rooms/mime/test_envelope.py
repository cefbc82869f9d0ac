"""Addresses and envelopes."""

import re
from email.utils import formataddr, getaddresses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.mime import envelope
from murder.mime.envelope import parse_addresses, parse_envelope
from murder.mime.field import parameter_value, parse_media, parse_parameters
from murder.model.part import Address, Envelope
from murder.wire.imap.mail.envelope import format_envelope

END = Address(None, None, None, None)


def plain(mailbox: bytes, host: bytes, name: bytes | None = None) -> Address:
    return Address(name, None, mailbox, host)


ADDRESSES: list[tuple[bytes, list[Address]]] = [
    (b"", []),
    (b"a@b", [plain(b"a", b"b")]),
    (b"a@b, c@d", [plain(b"a", b"b"), plain(b"c", b"d")]),
    (
        b"Terry Gray <gray@cac.washington.edu>",
        [plain(b"gray", b"cac.washington.edu", b"Terry Gray")],
    ),
    (b'"Q, \\"J\\"" <a@b>', [plain(b"a", b"b", b'Q, "J"')]),
    (b"John Q. Public <a.b@c.d>", [plain(b"a.b", b"c.d", b"John Q. Public")]),
    (b"a@b (Foo Bar)", [plain(b"a", b"b", b"Foo Bar")]),
    (b"a@b (a (nested) one)", [plain(b"a", b"b", b"a (nested) one")]),
    (b"(one) a@b", [plain(b"a", b"b")]),
    (b"<a@b> (x), c@d", [plain(b"a", b"b"), plain(b"c", b"d")]),
    (b"a@b (x\\) y)", [plain(b"a", b"b", b"x) y")]),
    (b'"a b"@c', [plain(b"a b", b"c")]),
    (b"a@[1.2.3.4]", [plain(b"a", b"[1.2.3.4]")]),
    (b"<a@b>", [plain(b"a", b"b")]),
    (b" a . b @ c . d ", [plain(b"a . b", b"c.d")]),
    (b"<@r1,@r2:a@b>", [Address(None, b"@r1,@r2", b"a", b"b")]),
    (b"X <@r1:a@b>", [Address(b"X", b"@r1", b"a", b"b")]),
    (b"g: a@b, c@d;", [Address(None, None, b"g", None), plain(b"a", b"b"), plain(b"c", b"d"), END]),
    (b"undisclosed recipients:;", [Address(None, None, b"undisclosed recipients", None), END]),
    (b"g:;, x@y", [Address(None, None, b"g", None), END, plain(b"x", b"y")]),
    (b"g: a@b", [Address(None, None, b"g", None), plain(b"a", b"b"), END]),
    (b"joe", [plain(b"joe", b"unspecified-domain")]),
    (b"Joe User", [plain(b"Joe User", b"unspecified-domain")]),
    (b"=?utf-8?q?=C3=BC?= <a@b>", [plain(b"a", b"b", b"=?utf-8?q?=C3=BC?=")]),
    (b"a@b <c@d>", [plain(b"c", b"d", b"a@b")]),
    (b",,a@b,,", [plain(b"a", b"b")]),
    (b"\xc3\xbc <a@b>", [plain(b"a", b"b", b"\xc3\xbc")]),
    (b"a@b c@d e@f, g@h", [plain(b"a", b"b"), plain(b"g", b"h")]),
    (b"a@b (x) c@d", [plain(b"a", b"b", b"x")]),
    (b"a@b\tc", [plain(b"a", b"b")]),
    (b"A <a@b> B <c@d>", [plain(b"a", b"b", b"A")]),
    (b"<a@b> <c@d>", [plain(b"a", b"b")]),
    (b'"X" <>', [plain(b"MISSING_MAILBOX", b"MISSING_DOMAIN", b"X")]),
    (b"<> x, a@b", [plain(b"MISSING_MAILBOX", b"MISSING_DOMAIN"), plain(b"a", b"b")]),
    (b'"unfinished <a@b>', [plain(b"unfinished <a@b>", b"unspecified-domain")]),
]


@pytest.mark.parametrize(("value", "addresses"), ADDRESSES)
def test_addresses_are_read(value: bytes, addresses: list[Address]) -> None:
    assert list(parse_addresses(value)) == addresses


NAMES = st.text('abc "(),<>@.\\:;', max_size=10).map(str.strip)


@given(
    st.lists(
        st.tuples(NAMES, st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,3})?@[a-z]{1,5}", fullmatch=True)),
        max_size=5,
    )
)
def test_addresses_that_the_standard_library_writes_are_read_as_it_reads_them(
    pairs: list[tuple[str, str]],
) -> None:
    value = ", ".join(map(formataddr, pairs))
    ours = [
        ((one.name or b"").decode(), ((one.mailbox or b"") + b"@" + (one.host or b"")).decode())
        for one in parse_addresses(value.encode())
    ]
    theirs = getaddresses([value])
    assert [address for _, address in ours] == [address for _, address in theirs]
    assert [name for name, _ in ours] == [name for name, _ in theirs]


@given(st.text('a@<>,;:()"\\[]. \n\x00\xff', max_size=40).map(lambda text: text.encode("latin-1")))
def test_no_octets_raise(value: bytes) -> None:
    for one in parse_addresses(value):
        assert one.mailbox is not None or one == END
    parse_media(value)
    parse_parameters(value)


HEADER = b"""\
Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)
From: Terry Gray <gray@cac.washington.edu>
Subject: IMAP4rev1 WG mtg summary
 and minutes
To: imap@cac.washington.edu
cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>
Message-Id: <B27397-0100000@cac.washington.edu>
MIME-Version: 1.0
To: another@example.org

""".replace(b"\n", b"\r\n")


def test_the_envelope_of_the_rfcs_example() -> None:
    gray = b'(("Terry Gray" NIL "gray" "cac.washington.edu"))'
    assert format_envelope(parse_envelope(HEADER, 0, len(HEADER))) == (
        b'("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev1 WG mtg summary and minutes" '
        + b" ".join([gray, gray, gray])
        + b' ((NIL NIL "imap" "cac.washington.edu")(NIL NIL "another" "example.org")) '
        b'((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU")) '
        b'NIL NIL "<B27397-0100000@cac.washington.edu>")'
    )


def test_an_empty_field_is_not_a_missing_one() -> None:
    envelope = parse_envelope(b"Subject:\r\nTo:\r\nSender: \r\nFrom: a@b\r\n\r\n", 0, 40)
    assert envelope.subject == b""
    assert envelope.message_id is None
    assert envelope.to == ()
    assert envelope.sender == envelope.from_


MEDIA = [
    (b"text/plain", (b"TEXT", b"PLAIN"), ()),
    (b"Text / HTML ; Charset=utf-8", (b"TEXT", b"HTML"), ((b"CHARSET", b"utf-8"),)),
    (
        b'multipart/mixed (hi); boundary="a;\\"b" (ho); x=y',
        (b"MULTIPART", b"MIXED"),
        ((b"BOUNDARY", b'a;"b'), (b"X", b"y")),
    ),
    (b"a/b; name*0=x; name*1=y", (b"A", b"B"), ((b"NAME", b"xy"),)),
    (b"a/b; boundary=a=b==", (b"A", b"B"), ((b"BOUNDARY", b"a=b=="),)),
    (b"a/b; x; y=1; y=2", (b"A", b"B"), ((b"Y", b"1"),)),
    (b'a/b; x="unfinished', (b"A", b"B"), ((b"X", b"unfinished"),)),
]


@pytest.mark.parametrize(("value", "media", "parameters"), MEDIA)
def test_content_types_are_read(
    value: bytes, media: tuple[bytes, bytes], parameters: tuple[tuple[bytes, bytes], ...]
) -> None:
    assert parse_media(value) == (media, parameters)


@pytest.mark.parametrize("value", [b"", b"text", b"/plain", b"text/", b'"a"/b', b"(text/plain)"])
def test_what_is_no_content_type_leaves_the_default(value: bytes) -> None:
    assert parse_media(value) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"; boundary=a", b"a"),
        (b"; boundary*=us-ascii'en'a%20b", b"a b"),
        (b"; boundary*0=a; boundary*1=b", b"ab"),
        (b"; boundary*0*=''a%20; boundary*1*=b'c", b"a b'c"),
        (b"; boundary*1=b", None),
        (b"; other=b", None),
    ],
)
def test_parameters_of_rfc_2231_are_put_together(value: bytes, found: bytes | None) -> None:
    assert parameter_value(parse_parameters(value), b"BOUNDARY") == found


def test_what_a_message_has_twice() -> None:
    """Addresses add up, of other fields the last counts: what Cyrus and Dovecot, or one of them, make of it."""
    header = b"From: a@b\r\nTo: c@d\r\nSubject: one\r\nTo: e@f\r\nSubject: two\r\n\r\n"
    envelope = parse_envelope(header, 0, len(header))
    assert envelope.subject == b"two"
    assert [one.mailbox for one in envelope.to] == [b"c", b"e"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"a/b; t*0*=u'e'x%20; t*1=\"y%z\"; q=r", ((b"T*", b"u'e'x%20y%25z"), (b"Q", b"r"))),
        (b"a/b; t*1=lost; q=r", ((b"T*1", b"lost"), (b"Q", b"r"))),
        (b"a/b; t*0=x; t*2=z", ((b"T", b"x"), (b"T*2", b"z"))),
        (b"a/b; t*0=x; t=y; t*1=z", ((b"T", b"xz"),)),
    ],
)
def test_parameters_in_pieces_are_put_together(
    value: bytes, expected: tuple[tuple[bytes, bytes], ...]
) -> None:
    found = parse_media(value)
    assert found is not None and found[1] == expected


LISTS = st.lists(
    st.sampled_from(
        [
            *b'a b.c @ < > , ; : ( ) [ ] " \\ \t \x0b \xc3\xbc =?u?q?x?= ,, a@b <a@b>'.split(b" "),
            b" ",
        ]
    )
)


@given(LISTS)
def test_plain_addresses_are_read_as_all_others(pieces: list[bytes]) -> None:
    """Most are read in one step: the same as word by word."""
    value = b"".join(pieces)
    in_one_step = parse_addresses(value)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(envelope, "_PLAIN", re.compile(rb"(?!)"))
        assert parse_addresses(value) == in_one_step


def test_an_envelope_has_the_fields_that_are_asked_for() -> None:
    header = b"From: A <a@b>\r\nTo: c@d\r\nDate: x\r\n\r\n"
    asked = parse_envelope(header, 0, len(header), {b"TO"})
    assert asked == Envelope(to=(plain(b"c", b"d"),))
