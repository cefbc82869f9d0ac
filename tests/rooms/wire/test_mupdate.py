"""MUPDATE's grammar: rows of octets and values, both directions, whole and octet by octet (RFC 3656 §5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.session.mupdate_client import MupdateClientSession
from murder.session.mupdate_server import MupdateServerSession, Owed
from murder.wire.mupdate import (
    OUR_LISTS,
    Banner,
    Command,
    Kind,
    Response,
    Verb,
    format_banner,
    format_command,
    format_delete,
    format_lacking,
    format_mailbox,
    format_position,
    format_reserve,
    format_status,
    parse_command,
    parse_response,
    string,
    tag_of,
)

COMMANDS: list[tuple[bytes, Command]] = [
    # RFC 3656's own examples
    (b"N01 NOOP\r\n", Command(b"N01", Verb.NOOP, ())),
    (b'A01 AUTHENTICATE "PLAIN"\r\n', Command(b"A01", Verb.AUTHENTICATE, (b"PLAIN",))),
    (b"L01 LOGOUT\r\n", Command(b"L01", Verb.LOGOUT, ())),
    (b'F01 FIND "user.rjs3.xyzzy"\r\n', Command(b"F01", Verb.FIND, (b"user.rjs3.xyzzy",))),
    (b'L02 LIST "mail4.example.org!"\r\n', Command(b"L02", Verb.LIST, (b"mail4.example.org!",))),
    (b"L01 LIST\r\n", Command(b"L01", Verb.LIST, ())),
    (
        b'R01 RESERVE "user.rjs3.new" "mail3.example.org!u4"\r\n',
        Command(b"R01", Verb.RESERVE, (b"user.rjs3.new", b"mail3.example.org!u4")),
    ),
    (
        b'A01 ACTIVATE "user.rjs3.new" "mail3.example.org!u4" "rjs3 lrswipcda"\r\n',
        Command(
            b"A01", Verb.ACTIVATE, (b"user.rjs3.new", b"mail3.example.org!u4", b"rjs3 lrswipcda")
        ),
    ),
    (
        b'A01 DEACTIVATE "user.rjs3.new" "mail3.example.org!u4"\r\n',
        Command(b"A01", Verb.DEACTIVATE, (b"user.rjs3.new", b"mail3.example.org!u4")),
    ),
    (b"S01 STARTTLS\r\n", Command(b"S01", Verb.STARTTLS, ())),
    (b"U01 UPDATE\r\n", Command(b"U01", Verb.UPDATE, ())),
    # as Cyrus sends them
    (
        b"X0 ACTIVATE {10+}\r\nuser.user1 {23+}\r\nbe1.murder.test!default {9+}\r\nuser1\tlr\t\r\n",
        Command(b"X0", Verb.ACTIVATE, (b"user.user1", b"be1.murder.test!default", b"user1\tlr\t")),
    ),
    (b"X1 RESERVE {1+}\r\na {4+}\r\nbe1!\r\n", Command(b"X1", Verb.RESERVE, (b"a", b"be1!"))),
    (
        b"X2 ACTIVATE {1+}\r\na {4+}\r\nbe1! {0+}\r\n\r\n",
        Command(b"X2", Verb.ACTIVATE, (b"a", b"be1!", b"")),
    ),
    (
        b'A01 AUTHENTICATE "PLAIN" {4+}\r\nAG0A\r\n',
        Command(b"A01", Verb.AUTHENTICATE, (b"PLAIN", b"AG0A")),
    ),
    (b'C01 COMPRESS "DEFLATE"\r\n', Command(b"C01", Verb.COMPRESS, (b"DEFLATE",))),
    (b'U01 UPDATE "h1" "h2"\r\n', Command(b"U01", Verb.UPDATE, (b"h1", b"h2"))),
    # what must be read all the same
    (b"a noop\n", Command(b"a", Verb.NOOP, ())),
    (b"a AUTHENTICATE plain\r\n", Command(b"a", Verb.AUTHENTICATE, (b"plain",))),
    (b'a  FIND  "x"\r\n'[:1] + b' FIND  "x" \r\n', Command(b"a", Verb.FIND, (b"x",))),
    (b'a FIND "say \\"hi\\" \\\\o"\r\n', Command(b"a", Verb.FIND, (b'say "hi" \\o',))),
    (b'a FIND "back\\slash"\r\n', Command(b"a", Verb.FIND, (b"back\\slash",))),
    (b"a FIND {3}\r\nx\r\n\r\n", Command(b"a", Verb.FIND, (b"x\r\n",))),
    (b'a FIND "\xc3\xa4"\r\n', Command(b"a", Verb.FIND, (b"\xc3\xa4",))),
    (b'a FOLLOW "e:1:ab"\r\n', Command(b"a", Verb.FOLLOW, (b"e:1:ab",))),
]


@pytest.mark.parametrize(("octets", "command"), COMMANDS)
def test_a_command_is_read_whole_and_octet_by_octet(octets: bytes, command: Command) -> None:
    assert parse_command(octets) == command
    for sizes in (len(octets), 1, 3):
        session = MupdateServerSession()
        found = []
        for at in range(0, len(octets), sizes):
            session.receive(octets[at : at + sizes])
            while (event := session.next_event()) is not None:
                found.append(event)
        assert [event for event in found if not isinstance(event, Owed)] == [command]


BAD: list[tuple[bytes, str, int | None]] = [
    (b"\r\n", "Need command", 0),
    (b" NOOP\r\n", "tag", 0),
    (b"abcdefghijklmno NOOP\r\n", "tag", 0),
    (b'a"b NOOP\r\n', "tag", 0),
    (b"a\r\n", "Null command", 1),
    (b"a \r\n", "Null command", 2),
    (b"a SELECT INBOX\r\n", "Unrecognized", 2),
    (b"a NOOP x\r\n", "Extra", 6),
    (b"a FIND\r\n", "Missing", 6),
    (b"a FIND x\r\n", "Missing", 6),
    (b'a FIND "x\r\n', "Missing", 6),
    (b'a FIND "x" "y"\r\n', "Extra", 10),
    (b'a RESERVE "x"\r\n', "Missing", 13),
    (b'a ACTIVATE "x" "y"\r\n', "Missing", 18),
    (b"a LIST x\r\n", "Badly formed", 6),
    (b"a FIND {9}\r\nx\r\n", "cut off", 12),
    (b'a FIND "a\0b"\r\n', "Missing", 6),
]


@pytest.mark.parametrize(("octets", "text", "offset"), BAD)
def test_bad_input_is_refused_with_its_place(octets: bytes, text: str, offset: int | None) -> None:
    with pytest.raises(BadSyntax, match=text) as caught:
        parse_command(octets)
    assert caught.value.offset == offset


def test_the_tag_to_answer_with() -> None:
    assert [tag_of(b"a1 X\r\n"), tag_of(b"a1\r\n"), tag_of(b"\r\n")] == [b"a1", b"a1", b"*"]
    assert tag_of(b"much.too.long.tag NOOP\r\n") == b"*"


RESPONSES: list[tuple[bytes, Response]] = [
    (b'U01 MAILBOX "a" "b!c" "d"\r\n', Response(b"U01", Kind.MAILBOX, (b"a", b"b!c", b"d"))),
    (
        b"tag MAILBOX {10+}\r\nuser.user1 {4+}\r\nbe1! {3+}\r\na\tb\r\n",
        Response(b"tag", Kind.MAILBOX, (b"user.user1", b"be1!", b"a\tb")),
    ),
    # RFC 3656 §4.11 shows three strings, §5 has two
    (
        b'U01 RESERVE "a" "b" "anyone lrs"\r\n',
        Response(b"U01", Kind.RESERVE, (b"a", b"b", b"anyone lrs")),
    ),
    (b'U01 RESERVE "a" "b"\r\n', Response(b"U01", Kind.RESERVE, (b"a", b"b"))),
    (b'U01 DELETE "a"\r\n', Response(b"U01", Kind.DELETE, (b"a",))),
    (b'N01 OK "NOOP Complete"\r\n', Response(b"N01", Kind.OK, (b"NOOP Complete",))),
    (
        b"* mailbox {1+}\r\na {1+}\r\nb {1+}\r\nc\r\n",
        Response(b"*", Kind.MAILBOX, (b"a", b"b", b"c")),
    ),
    # Cyrus' bare texts
    (b"C OK DEFLATE active\r\n", Response(b"C", Kind.OK, (b"DEFLATE active",))),
    (
        b"A NO Client canceled authentication\r\n",
        Response(b"A", Kind.NO, (b"Client canceled authentication",)),
    ),
    (b"A OK\r\n", Response(b"A", Kind.OK, (b"",))),
    (b'* BYE "x"\r\n', Response(b"*", Kind.BYE, (b"x",))),
    (b"+ go ahead\r\n", Response(b"+", Kind.GO_AHEAD, (b"go ahead",))),
    (b'U POSITION "e:5:ab"\r\n', Response(b"U", Kind.POSITION, (b"e:5:ab",))),
    (b'U LACKING "100" "7"\r\n', Response(b"U", Kind.LACKING, (b"100", b"7"))),
    (b'U NOVELTY "x"\r\n', Response(b"U", Kind.UNKNOWN, (b"x",))),
]


@pytest.mark.parametrize(("octets", "response"), RESPONSES)
def test_a_response_is_read(octets: bytes, response: Response) -> None:
    assert parse_response(octets) == response


@pytest.mark.parametrize(
    "octets",
    [b"\r\n", b"a\r\n", b'a MAILBOX "x" "y"\r\n', b"a DELETE\r\n", b'a MAILBOX "x" "y" z\r\n'],
)
def test_a_response_that_is_none_is_refused(octets: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_response(octets)


ANY = st.binary(max_size=60)
TAGS = st.from_regex(rb"[A-Za-z0-9]{1,14}", fullmatch=True)


@given(TAGS, ANY, ANY, ANY)
def test_whatever_the_octets_there_and_back(
    tag: bytes, name: bytes, location: bytes, acl: bytes
) -> None:
    line = format_command(tag, Verb.ACTIVATE, name, location, acl)
    assert parse_command(line) == Command(tag, Verb.ACTIVATE, (name, location, acl))
    for octets, kind, args in (
        (format_mailbox(tag, name, location, acl), Kind.MAILBOX, (name, location, acl)),
        (format_reserve(tag, name, location), Kind.RESERVE, (name, location)),
        (format_delete(tag, name), Kind.DELETE, (name,)),
    ):
        assert parse_response(octets) == Response(tag, kind, args)
    client = MupdateClientSession()
    client.receive(format_banner(Banner("h", "i", "v")))
    assert isinstance(client.next_event(), Banner)
    client.receive(format_mailbox(tag, name, location, acl) + format_delete(tag, name))
    assert client.next_event() == Response(tag, Kind.MAILBOX, (name, location, acl))
    assert client.next_event() == Response(tag, Kind.DELETE, (name,))


@given(st.binary(max_size=200))
def test_no_octets_do_more_than_raise_bad_syntax(octets: bytes) -> None:
    for parse in (parse_command, parse_response):
        try:
            parse(octets + b"\r\n")
        except BadSyntax:
            pass


def test_strings_are_quoted_only_where_every_reader_agrees() -> None:
    assert string(b"a\tb") == b'"a\tb"'
    for octets in (b'a"b', b"a\\b", b"a\r\nb", b"\x80", b"\x00", b"x" * 901):
        assert string(octets) == b"{%d+}\r\n%b" % (len(octets), octets)
    long = format_mailbox(b"t", b"n" * 400, b"l" * 400, b"a" * 400)
    assert all(len(line) < 1024 for line in long.split(b"\r\n"))


def test_a_status_has_exactly_one_string_whatever_the_text() -> None:
    said = format_status(b"t", Kind.NO, 'no "x"\r\n\\ ü' + "y" * 2000)
    assert parse_response(said).kind is Kind.NO and said.count(b'"') == 2
    assert len(said) < 1024
    assert format_position(b"t", "") == b't POSITION ""\r\n'
    assert format_lacking(b"t", 100, 7) == b't LACKING "100" "7"\r\n'


BANNERS = [
    (
        b"* AUTH KERBEROS_V4 GSSAPI\r\n* STARTTLS\r\n"
        b'* OK MUPDATE "mupdate.example.org" "Cyrus" "v2.1.2" "(master)"\r\n',
        Banner(
            "mupdate.example.org", "Cyrus", "v2.1.2", "(master)", ("KERBEROS_V4", "GSSAPI"), True
        ),
    ),
    (
        b'* AUTH "PLAIN"\r\n* COMPRESS "DEFLATE"\r\n* PARTIAL-UPDATE\r\n'
        b'* OK MUPDATE "m" "Cyrus IMAP" "3.6.1-Debian-3.6.1-4+deb12u5" "mupdate://m2/"\r\n',
        Banner(
            "m",
            "Cyrus IMAP",
            "3.6.1-Debian-3.6.1-4+deb12u5",
            "mupdate://m2/",
            ("PLAIN",),
            compress=True,
            partial_update=True,
        ),
    ),
    (b'* AUTH\r\n* OK MUPDATE "" "" "" "(master)"\r\n', Banner()),
    (
        format_banner(Banner("h", "murder", "0", lists=OUR_LISTS)),
        Banner("h", "murder", "0", lists=OUR_LISTS),
    ),
    (
        b'* AUTH\r\n* FORCE\r\n* below\r\n* FIND\r\n* HEADS\r\n* NEWER "x"\r\n'
        b'* OK MUPDATE "h" "murder" "0" "(master)"\r\n',
        Banner("h", "murder", "0", force=True, lists=(Verb.BELOW, Verb.HEADS)),
    ),
    (
        format_banner(Banner("h", "murder", "0", "(master)", ("EXTERNAL",), mark="e:1:2")),
        Banner("h", "murder", "0", "(master)", ("EXTERNAL",), mark="e:1:2"),
    ),
]


@pytest.mark.parametrize(("octets", "banner"), BANNERS)
def test_banners_of_all_kinds_are_read(octets: bytes, banner: Banner) -> None:
    session = MupdateClientSession()
    session.receive(octets.replace(b"* OK", b"* X-NEW {3+}\r\nabc 5\r\n* OK"))
    assert session.next_event() == banner
    assert banner.is_master == (banner.master == "(master)")


def test_a_master_may_say_bye_in_place_of_its_banner() -> None:
    session = MupdateClientSession()
    session.receive(b'* BYE "full"\r\n')
    assert session.next_event() == Response(b"*", Kind.BYE, (b"full",))


@pytest.mark.parametrize("octets", [b"* OK IMAP4rev1\r\n", b"220 smtp\r\n"])
def test_another_protocol_is_noticed(octets: bytes) -> None:
    session = MupdateClientSession()
    session.receive(octets)
    with pytest.raises(BadSyntax):
        session.next_event()
