"""QUOTA, METADATA, NOTIFY, URLAUTH and search contexts: arguments and answers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax, Code, Refusal
from murder.mime.structure import parse_structure
from murder.model.annotation import Depth, is_entry_name, is_within
from murder.model.query.fetch import Attribute, BodyItem, Section
from murder.model.query.notify import Event, EventGroup, NotifyRequest, Which
from murder.model.quota import Resource, Usage, storage_units
from murder.wire.imap.mail.search import format_context_change, parse_cancelupdate
from murder.wire.imap.mail.urlauth import (
    ResetKeyRequest,
    UrlFetchItem,
    UrlFetchRequest,
    format_genurlauth,
    format_urlfetch,
    format_urlfetch_around,
    format_urlfetch_extended,
    parse_genurlauth,
    parse_resetkey,
    parse_urlfetch,
)
from murder.wire.imap.mailboxes.metadata import (
    GetMetadataRequest,
    SetMetadataRequest,
    format_metadata,
    format_metadata_changed,
    parse_getmetadata,
    parse_setmetadata,
    refuse_value_too_big,
)
from murder.wire.imap.mailboxes.quota import (
    SetQuotaRequest,
    format_quota,
    format_quotaroot,
    parse_setquota,
)
from murder.wire.imap.notify import parse_notify
from murder.wire.token import Scanner
from tests.rooms.wire.imap.grammar import Parse, check_row, check_survives

BOTH = frozenset({Event.MESSAGE_NEW, Event.MESSAGE_EXPUNGE})

ROWS: list[tuple[Parse, bytes, Any]] = [
    (parse_setquota, b' "" (STORAGE 512)', SetQuotaRequest(b"", ((Resource.STORAGE, 512),))),
    (parse_setquota, b" user/a ()", SetQuotaRequest(b"user/a", ())),
    (
        parse_setquota,
        b" r (message 5 Mailbox 2)",
        SetQuotaRequest(b"r", ((Resource.MESSAGE, 5), (Resource.MAILBOX, 2))),
    ),
    (parse_getmetadata, b' "" /shared/comment', GetMetadataRequest(b"", ("/shared/comment",))),
    (
        parse_getmetadata,
        b' INBOX (/Shared/Comment "/private/comment")',
        GetMetadataRequest(b"INBOX", ("/shared/comment", "/private/comment")),
    ),
    (
        parse_getmetadata,
        b" (MAXSIZE 1024 DEPTH infinity) INBOX (/shared)",
        GetMetadataRequest(b"INBOX", ("/shared",), 1024, Depth.INFINITY),
    ),
    (
        parse_getmetadata,
        b" (DEPTH 1) INBOX (/private/filters/values)",
        GetMetadataRequest(b"INBOX", ("/private/filters/values",), None, Depth.ONE),
    ),
    (
        parse_getmetadata,
        b" INBOX (MAXSIZE 1024) /private/x",
        GetMetadataRequest(b"INBOX", ("/private/x",), 1024),
    ),
    (
        parse_setmetadata,
        b' INBOX (/private/comment "new" /shared/comment NIL)',
        SetMetadataRequest(b"INBOX", {"/private/comment": b"new", "/shared/comment": None}),
    ),
    (parse_notify, b" NONE", NotifyRequest()),
    (
        parse_notify,
        b" SET STATUS (selected-delayed (MessageNew (UID BODY.PEEK[1]) MessageExpunge)) (subtree (a b) NONE)",
        NotifyRequest(
            (
                EventGroup(
                    Which.SELECTED_DELAYED,
                    (),
                    BOTH,
                    (Attribute.UID, BodyItem(Section((1,)), peek=True)),
                ),
                EventGroup(Which.SUBTREE, (b"a", b"b")),
            ),
            True,
        ),
    ),
    (
        parse_notify,
        b" set (mailboxes misc (messagenew messageexpunge flagchange)) (personal (MailboxName))",
        NotifyRequest(
            (
                EventGroup(Which.MAILBOXES, (b"misc",), BOTH | {Event.FLAG_CHANGE}),
                EventGroup(Which.PERSONAL, (), frozenset({Event.MAILBOX_NAME})),
            )
        ),
    ),
    (parse_cancelupdate, b' "B02" "B03"', (b"B02", b"B03")),
    (
        parse_genurlauth,
        b' "imap://a@h/INBOX/;UID=1;URLAUTH=anonymous" internal',
        ((b"imap://a@h/INBOX/;UID=1;URLAUTH=anonymous", "INTERNAL"),),
    ),
    (parse_resetkey, b"", ResetKeyRequest()),
    (parse_resetkey, b" INBOX internal", ResetKeyRequest(b"INBOX", ("INTERNAL",))),
    (parse_urlfetch, b' "u1" u2', (UrlFetchRequest(b"u1"), UrlFetchRequest(b"u2"))),
    (
        parse_urlfetch,
        b' ("u1" BODYPARTSTRUCTURE BINARY)',
        (UrlFetchRequest(b"u1", (UrlFetchItem.BODYPARTSTRUCTURE, UrlFetchItem.BINARY)),),
    ),
]


@pytest.mark.parametrize(("parse", "octets", "value"), ROWS)
def test_arguments_are_parsed(parse: Parse, octets: bytes, value: object) -> None:
    check_row(parse, octets, value)


BAD: list[tuple[Parse, bytes]] = [
    (parse_getmetadata, b" INBOX /other"),
    (parse_getmetadata, b" INBOX (/shared/a*)"),
    (parse_getmetadata, b" INBOX /shared//a"),
    (parse_getmetadata, b" (DEPTH 2) INBOX /shared/a"),
    (parse_setmetadata, b" INBOX ()"),
    (parse_notify, b" SET"),
    (parse_notify, b" SET (selected (MessageNew))"),
    (parse_notify, b" SET (selected (MailboxName))"),
    (parse_notify, b" SET (inboxes (FlagChange))"),
    (parse_notify, b" SET (inboxes (MessageNew (UID) MessageExpunge))"),
    (parse_notify, b" SET (nothing NONE)"),
    (parse_urlfetch, b' ("u1" BODY BINARY)'),
    (parse_cancelupdate, b""),
]


@pytest.mark.parametrize(("parse", "octets"), BAD)
def test_anything_else_is_bad(parse: Parse, octets: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse(Scanner(octets + b"\r\n"))


def test_what_is_well_formed_but_unknown_is_refused() -> None:
    with pytest.raises(Refusal) as caught:
        parse_setquota(Scanner(b" r (NONSENSE 5)\r\n"))
    assert caught.value.code is Code.CANNOT
    with pytest.raises(Refusal) as caught:
        parse_notify(Scanner(b" SET (inboxes (Nonsense))\r\n"))
    assert caught.value.code is Code.BAD_EVENT
    assert caught.value.detail.startswith("(MessageNew ")


@given(st.binary(max_size=40))
def test_no_octets_raise_anything_else(octets: bytes) -> None:
    for parse in {row[0] for row in ROWS}:
        check_survives(parse, octets)
        check_survives(parse, b" x (" + octets + b")\r\n")
        check_survives(parse, b" SET (" + octets + b")\r\n")


def test_quota_answers() -> None:
    usages = [Usage(Resource.STORAGE, 10, 512), Usage(Resource.MESSAGE, 1, 2)]
    line = format_quota(b"user/a b", usages)
    assert line == b'* QUOTA "user/a b" (STORAGE 10 512 MESSAGE 1 2)\r\n'
    roots = format_quotaroot(b"INBOX", [b"", b"r"])
    assert roots == b'* QUOTAROOT INBOX "" r\r\n'
    assert [storage_units(octets) for octets in (0, 1, 1024, 1025)] == [0, 1, 1, 2]


def test_metadata_answers() -> None:
    assert format_metadata(b"", {"/shared/comment": b"a", "/private/x": None}) == (
        b'* METADATA "" (/shared/comment "a" /private/x NIL)\r\n'
    )
    assert format_metadata(b"INBOX", {"/shared/x": b"\x00"}) == (
        b"* METADATA INBOX (/shared/x ~{1}\r\n\x00)\r\n"
    )
    assert format_metadata_changed(b"INBOX", ["/shared/a"]) == b"* METADATA INBOX /shared/a\r\n"
    assert refuse_value_too_big(1024).detail == "MAXSIZE 1024"


def test_depth_tells_how_far_below_an_entry_counts() -> None:
    names = ["/shared/a", "/shared/a/b", "/shared/a/b/c", "/shared/ab"]
    assert [is_within(name, "/shared/a", Depth.ZERO) for name in names] == [
        True,
        False,
        False,
        False,
    ]
    assert [is_within(name, "/shared/a", Depth.ONE) for name in names] == [True, True, False, False]
    assert [is_within(name, "/shared/a", Depth.INFINITY) for name in names] == [
        True,
        True,
        True,
        False,
    ]
    assert not is_entry_name("/shared/x" * 200)


def test_context_answers() -> None:
    assert format_context_change(b"B01", True, True, [(0, ((32768, 32769),))]) == (
        b'* ESEARCH (TAG "B01") UID ADDTO (0 32768:32769)\r\n'
    )
    assert format_context_change(b"B01", False, False, [(1, ((5, 5),)), (2, ((7, 7),))]) == (
        b'* ESEARCH (TAG "B01") REMOVEFROM (1 5 2 7)\r\n'
    )


def test_urlauth_answers() -> None:
    assert format_genurlauth([b"imap://h/x"]) == b"* GENURLAUTH imap://h/x\r\n"
    assert format_urlfetch(b"u", b"a") == b'* URLFETCH u "a"\r\n'
    assert format_urlfetch(b"u", None) == b"* URLFETCH u NIL\r\n"
    part = parse_structure(b"\r\nabc")
    assert format_urlfetch_extended(b"u", UrlFetchItem.BINARY, b"abc", part) == (
        b'* URLFETCH u (BODYPARTSTRUCTURE ("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 3 0 '
        b"NIL NIL NIL NIL)) (BINARY {3}\r\nabc)\r\n"
    )
    nul = format_urlfetch_extended(b"u", UrlFetchItem.BINARY, b"a\x00", None)
    assert nul == b"* URLFETCH u (BINARY ~{2}\r\na\x00)\r\n"
    assert format_urlfetch_extended(b"u", UrlFetchItem.BODY) == b"* URLFETCH u (BODY NIL)\r\n"


def test_what_stands_around_octets_that_are_sent_in_pieces() -> None:
    octets = b"abc\r\n" * 9
    part = parse_structure(b"\r\n" + octets)
    begin, end = format_urlfetch_around(b"u", len(octets))
    assert begin + octets + end == format_urlfetch(b"u", octets)
    for item in (UrlFetchItem.BODY, UrlFetchItem.BINARY):
        for structure in (None, part):
            begin, end = format_urlfetch_around(b"u", len(octets), item, structure)
            whole = format_urlfetch_extended(b"u", item, octets, structure)
            assert begin + octets + end == whole
    begin, end = format_urlfetch_around(b"u", 2, UrlFetchItem.BINARY, has_nul=True)
    assert begin + b"a\x00" + end == format_urlfetch_extended(b"u", UrlFetchItem.BINARY, b"a\x00")
