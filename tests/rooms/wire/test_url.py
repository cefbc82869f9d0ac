"""IMAP and MUPDATE URLs, there and back."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.model.message import Uid, UidValidity
from murder.model.query.fetch import Section, SectionText
from murder.model.url import ImapUrl, UrlAccess, UrlServer
from murder.wire.url import format_mupdate_url, format_url, parse_mupdate_url, parse_url

MINBARI = UrlServer("minbari.example.org")
TOKEN = b"91354a473744909de610943775f92038"

SAME: list[tuple[bytes, ImapUrl]] = [
    (b"imap://minbari.example.org/", ImapUrl(MINBARI)),
    (b"imap://[::1]:143/INBOX", ImapUrl(UrlServer("[::1]", 143), b"INBOX")),
    (
        b"imap://michael;AUTH=*@minbari.example.org:1143/a/b",
        ImapUrl(UrlServer("minbari.example.org", 1143, "michael", "*"), b"a/b"),
    ),
    (
        b"imap://user%40dom@minbari.example.org/%E2%82%AC%20x",
        ImapUrl(UrlServer("minbari.example.org", None, "user@dom"), b"&IKw- x"),
    ),
    (
        b"imap://;AUTH=GSSAPI@minbari.example.org/gray-council/;UID=20/;SECTION=1.2",
        ImapUrl(
            UrlServer("minbari.example.org", None, None, "GSSAPI"),
            b"gray-council",
            None,
            Uid(20),
            Section((1, 2)),
        ),
    ),
    (
        b"/gray-council;UIDVALIDITY=385759045/;UID=20/;PARTIAL=0.1024",
        ImapUrl(None, b"gray-council", UidValidity(385759045), Uid(20), partial=(0, 1024)),
    ),
    (
        b"/x/;UID=1/;SECTION=HEADER.FIELDS%20(From)/;PARTIAL=5",
        ImapUrl(
            None,
            b"x",
            None,
            Uid(1),
            Section((), SectionText.HEADER_FIELDS, (b"From",)),
            (5, None),
        ),
    ),
    (b"/x?SUBJECT%20shadows", ImapUrl(None, b"x", search=b"SUBJECT shadows")),
    (
        b"imap://joe@minbari.example.org/INBOX/;UID=20/;SECTION=1.2;EXPIRE=2006-12-31T23:59:59+00:00"
        b";URLAUTH=submit+fred:INTERNAL:" + TOKEN,
        ImapUrl(
            UrlServer("minbari.example.org", None, "joe"),
            b"INBOX",
            None,
            Uid(20),
            Section((1, 2)),
            access=UrlAccess(
                "submit",
                "fred",
                datetime(2006, 12, 31, 23, 59, 59, tzinfo=UTC),
                "INTERNAL",
                TOKEN,
                b"imap://joe@minbari.example.org/INBOX/;UID=20/;SECTION=1.2"
                b";EXPIRE=2006-12-31T23:59:59+00:00;URLAUTH=submit+fred",
            ),
        ),
    ),
]


@pytest.mark.parametrize(("octets", "url"), SAME)
def test_urls_go_there_and_back(octets: bytes, url: ImapUrl) -> None:
    assert parse_url(octets) == url
    assert format_url(url) == octets


READ = [
    (b";UID=20", ImapUrl(uid=Uid(20))),
    (b"", ImapUrl()),
    (b"INBOX/;uid=20/;section=1", ImapUrl(None, b"INBOX", None, Uid(20), Section((1,)))),
    (b"//minbari.example.org/INBOX", ImapUrl(MINBARI, b"INBOX")),
    (b"IMAP://minbari.example.org", ImapUrl(MINBARI)),
]


@pytest.mark.parametrize(("octets", "url"), READ)
def test_other_forms_are_read_too(octets: bytes, url: ImapUrl) -> None:
    assert parse_url(octets) == url


def test_a_rump_has_no_token() -> None:
    url = parse_url(b"imap://a@h/INBOX/;UID=1;URLAUTH=anonymous")
    assert url.access is not None
    assert (url.access.token, url.access.mechanism) == (b"", "")
    assert url.access.rump == b"imap://a@h/INBOX/;UID=1;URLAUTH=anonymous"


@pytest.mark.parametrize(
    "octets",
    [
        b"http://x/",
        b"imap://",
        b"imap://a b/",
        b"imap://h:0/x",
        b"imap://h:99999/x",
        b"imap://h/x;UID=0",
        b"imap://h/x;UID=4294967296",
        b"imap://h/x/;UID=1/;SECTION=NONSENSE",
        b"imap://h/x%",
        b"imap://h/%FF",
        b"imap://h/x;URLAUTH=anonymous",
        b"imap://h/x/;UID=1;EXPIRE=soon;URLAUTH=anonymous",
        b"imap://h/x/;UID=1;URLAUTH=nobody",
        b"imap://h/x/;UID=1:INTERNAL:" + TOKEN,
        b"imap://h/x/;UID=1;URLAUTH=anonymous:INTERNAL:12",
        b"/" + b"x" * 10_000,
    ],
)
def test_what_is_no_imap_url_is_bad(octets: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_url(octets)


@given(
    st.lists(
        st.sampled_from(
            [
                b"imap://",
                b"/",
                b";UID=1",
                b";SECTION=",
                b"1",
                b"%41",
                b"@",
                b":",
                b"x",
                b";URLAUTH=",
                b"anonymous",
                b"?",
            ]
        )
    ).map(b"".join)
)
def test_no_octets_raise_anything_else(octets: bytes) -> None:
    try:
        url = parse_url(octets)
    except BadSyntax:
        return
    assert parse_url(format_url(url)) == url or url.access is not None


def test_mupdate_urls() -> None:
    octets = format_mupdate_url(MINBARI, b"user.a b")
    assert octets == b"mupdate://minbari.example.org/user.a%20b"
    assert parse_mupdate_url(octets) == (MINBARI, b"user.a b")
    assert parse_mupdate_url(b"mupdate://h:3905/") == (UrlServer("h", 3905), b"")
    with pytest.raises(BadSyntax):
        parse_mupdate_url(b"imap://h/")
