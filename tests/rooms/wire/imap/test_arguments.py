"""Arguments of the smaller commands: STORE, COPY, SELECT, STATUS, LIST, APPEND, CREATE, ACL; and their answers."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.model.flag import FlagChange
from murder.model.message import ModSeq, Uid, UidValidity
from murder.model.query.status import StatusItem
from murder.model.seqset import SAVED, SeqSet
from murder.wire.imap.date import format_date_time, parse_date_time
from murder.wire.imap.mail.append import (
    AppendForm,
    AppendHead,
    LiteralHead,
    parse_append_end,
    parse_append_head,
    parse_append_mailbox,
    parse_catenate_part,
    parse_localappend_mailbox,
    parse_replace_target,
    take_literal,
)
from murder.wire.imap.mail.copy import (
    CopyRequest,
    CopyUid,
    format_appenduid,
    format_copyuid,
    parse_appenduid,
    parse_copy,
    parse_copyuid,
    parse_uid_expunge,
)
from murder.wire.imap.mail.store import StoreRequest, parse_store
from murder.wire.imap.mailboxes.acl import (
    AclRequest,
    RightsChange,
    SetAclRequest,
    format_acl,
    format_listrights,
    format_myrights,
    parse_deleteacl,
    parse_setacl,
)
from murder.wire.imap.mailboxes.list import (
    ListEntry,
    ListRequest,
    Return,
    Selection,
    format_list,
    parse_list,
    parse_list_response,
)
from murder.wire.imap.mailboxes.mailbox import (
    CreateRequest,
    RenameRequest,
    parse_create,
    parse_mailbox,
    parse_rename,
)
from murder.wire.imap.mailboxes.select import Qresync, SelectRequest, parse_select
from murder.wire.imap.mailboxes.status import (
    StatusRequest,
    format_status,
    parse_counts,
    parse_status,
)
from murder.wire.imap.namespace import format_namespace
from murder.wire.token import Scanner
from tests.rooms.wire.imap.grammar import Parse, check_row, check_survives

ONE = SeqSet(((1, 1),))
UID_41_TO_43 = SeqSet(((41, 43),))

ROWS: list[tuple[Parse, bytes, Any]] = [
    (parse_store, b" 1 FLAGS ()", StoreRequest(ONE, FlagChange.REPLACE, frozenset())),
    (
        parse_store,
        b" 1 +FLAGS \\seen $x",
        StoreRequest(ONE, FlagChange.ADD, frozenset({"\\Seen", "$x"})),
    ),
    (
        parse_store,
        b" $ -flags.silent (\\Deleted)",
        StoreRequest(SAVED, FlagChange.REMOVE, frozenset({"\\Deleted"}), True),
    ),
    (
        parse_store,
        b" 1 (UNCHANGEDSINCE 0) FLAGS (a A)",
        StoreRequest(ONE, FlagChange.REPLACE, frozenset({"a"}), False, ModSeq(0)),
    ),
    (parse_copy, b" 1 {6+}\r\nArchiv", CopyRequest(ONE, b"Archiv")),
    (parse_uid_expunge, b" 41:43", UID_41_TO_43),
    (parse_mailbox, b' "a b"', b"a b"),
    (parse_create, b" x", CreateRequest(b"x")),
    (parse_create, b" x default", CreateRequest(b"x", b"default")),
    (
        parse_create,
        b" x (USE (\\Drafts \\Sent))",
        CreateRequest(b"x", None, (b"\\Drafts", b"\\Sent")),
    ),
    (parse_rename, b" a b", RenameRequest(b"a", b"b")),
    (parse_rename, b" a b p", RenameRequest(b"a", b"b", b"p")),
    (parse_select, b" INBOX", SelectRequest(b"INBOX")),
    (parse_select, b" INBOX (CONDSTORE)", SelectRequest(b"INBOX", True)),
    (
        parse_select,
        b" INBOX (QRESYNC (67890007 20050715194045000 41:43 (1:3 41,42,43)))",
        SelectRequest(
            b"INBOX",
            False,
            Qresync(
                UidValidity(67890007),
                ModSeq(20050715194045000),
                UID_41_TO_43,
                (SeqSet(((1, 3),)), SeqSet(((41, 41), (42, 42), (43, 43)))),
            ),
        ),
    ),
    (
        parse_select,
        b" INBOX (QRESYNC (1 2 (1 41)))",
        SelectRequest(
            b"INBOX",
            False,
            Qresync(UidValidity(1), ModSeq(2), None, (ONE, SeqSet(((41, 41),)))),
        ),
    ),
    (
        parse_status,
        b" blurdybloop (UIDNEXT messages)",
        StatusRequest(b"blurdybloop", (StatusItem.UIDNEXT, StatusItem.MESSAGES)),
    ),
    (parse_list, b' "" *', ListRequest(b"", (b"*",))),
    (parse_list, b' "" ""', ListRequest(b"", (b"",))),
    (parse_list, b" ~/Mail/ %", ListRequest(b"~/Mail/", (b"%",))),
    (parse_list, b' "" (INBOX "a b/%")', ListRequest(b"", (b"INBOX", b"a b/%"), True)),
    (
        parse_list,
        b' (SUBSCRIBED RECURSIVEMATCH) "" % RETURN ()',
        ListRequest(
            b"", (b"%",), True, frozenset({Selection.SUBSCRIBED, Selection.RECURSIVEMATCH})
        ),
    ),
    (
        parse_list,
        b' () "" % return (children status (messages uidnext))',
        ListRequest(
            b"",
            (b"%",),
            True,
            frozenset(),
            frozenset({Return.CHILDREN, Return.STATUS}),
            (StatusItem.MESSAGES, StatusItem.UIDNEXT),
        ),
    ),
    (
        parse_list,
        b' "" % RETURN (METADATA ("/shared/comment"))',
        ListRequest(
            b"", (b"%",), True, frozenset(), frozenset({Return.METADATA}), (), (b"/shared/comment",)
        ),
    ),
    (
        parse_setacl,
        b" m Fred rwipslda",
        SetAclRequest(b"m", "Fred", RightsChange.REPLACE, "rwipslda"),
    ),
    (parse_setacl, b' m -Fred "+cda"', SetAclRequest(b"m", "-Fred", RightsChange.ADD, "cda")),
    (parse_setacl, b' m anyone ""', SetAclRequest(b"m", "anyone", RightsChange.REPLACE, "")),
    (parse_deleteacl, b' m "group:a b"', AclRequest(b"m", "group:a b")),
]


@pytest.mark.parametrize(("parse", "octets", "value"), ROWS)
def test_arguments_are_parsed(parse: Parse, octets: bytes, value: object) -> None:
    check_row(parse, octets, value)


BAD: list[tuple[Parse, bytes]] = [
    (parse_store, b" 1 FLAGS"),
    (parse_store, b" 1 FLAGS \\Nonsense"),
    (parse_store, b" 1 FLAGS (\\Recent \\Seen)"),
    (parse_store, b" 1 +FLAGS \\recent"),
    (parse_store, b" 1 FLAGS \\*"),
    (parse_store, b" 1 *FLAGS (a)"),
    (parse_store, b" 1 FLAGS (" + b"k" * 300 + b")"),
    (parse_store, b" 1 FLAGS (" + b" ".join(b"k%d" % n for n in range(200)) + b")"),
    (parse_copy, b" 1"),
    (parse_select, b" INBOX ()"),
    (parse_select, b" INBOX (QRESYNC (1 2 1:*))"),
    (parse_status, b" INBOX ()"),
    (parse_status, b" INBOX (NONSENSE)"),
    (parse_list, b' (RECURSIVEMATCH) "" %'),
    (parse_list, b' (NONSENSE) "" %'),
    (parse_list, b' "" ()'),
    (parse_list, b' "" % CHILDREN'),
    (parse_setacl, b' m "a\tb" r'),
    (parse_setacl, b' m "" r'),
    (parse_setacl, b' m "\xff" r'),
]


@pytest.mark.parametrize(("parse", "octets"), BAD)
def test_anything_else_is_bad(parse: Parse, octets: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse(Scanner(octets + b"\r\n"))


@given(st.binary(max_size=40))
def test_no_octets_raise_anything_else(octets: bytes) -> None:
    for parse in {row[0] for row in ROWS} | {parse_append_head, parse_list_response}:
        check_survives(parse, octets)
        check_survives(parse, b" 1 " + octets + b"\r\n")
        check_survives(parse, b' "" (' + octets + b")\r\n")


DATES = [
    (
        b'" 7-Feb-1994 21:52:25 -0800"',
        datetime(1994, 2, 7, 21, 52, 25, tzinfo=timezone(-timedelta(hours=8))),
    ),
    (b'"17-Jul-1996 02:44:25 +0000"', datetime(1996, 7, 17, 2, 44, 25, tzinfo=UTC)),
    (
        b'"01-Jan-2000 00:00:00 +0530"',
        datetime(2000, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    ),
]


@pytest.mark.parametrize(("octets", "moment"), DATES)
def test_date_times_go_there_and_back(octets: bytes, moment: datetime) -> None:
    assert parse_date_time(Scanner(octets)) == moment
    assert parse_date_time(Scanner(format_date_time(moment))) == moment
    assert format_date_time(moment) == octets.replace(b'"0', b'" ')


@pytest.mark.parametrize(
    "octets",
    [
        b'"32-Feb-1994 21:52:25 -0800"',
        b'"01-Feb-0000 21:52:25 -0800"',
        b'"01-Jan-0001 00:00:00 +0800"',
        b'"01-Feb-1994 25:52:25 -0800"',
        b'"01-Feb-1994 21:52:25 -9900"',
        b'"01-Xyz-1994 21:52:25 -0800"',
        b'"01-Feb-1994 21:52:25"',
    ],
)
def test_no_time_of_the_calendar_is_bad(octets: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_date_time(Scanner(octets))


def test_append_is_parsed_in_steps() -> None:
    octets = b' "a b" (\\Seen) " 7-Feb-1994 21:52:25 -0800" {3+}\r\nabc {2}\r\nde\r\n'
    scanner = Scanner(octets)
    assert parse_append_mailbox(scanner) == b"a b"
    first = parse_append_head(scanner)
    assert first == AppendHead(
        frozenset({"\\Seen"}), DATES[0][1], AppendForm.LITERAL, LiteralHead(3)
    )
    assert first.literal is not None
    assert take_literal(scanner, first.literal) == b"abc"
    assert parse_append_end(scanner, first.form)
    second = parse_append_head(scanner)
    assert second.literal == LiteralHead(2)
    assert take_literal(scanner, LiteralHead(2)) == b"de"
    assert not parse_append_end(scanner, second.form)


def test_a_streamed_append_ends_at_its_announcement() -> None:
    octets = b" INBOX {1000000}\r\n"
    scanner = Scanner(octets)
    parse_append_mailbox(scanner)
    assert parse_append_head(scanner).literal == LiteralHead(1000000)
    assert scanner.at == len(octets)
    assert not parse_append_end(Scanner(b"\r\n"), AppendForm.LITERAL)


def test_a_literal_that_is_cut_off_is_bad() -> None:
    with pytest.raises(BadSyntax):
        take_literal(Scanner(b"abc"), LiteralHead(4))


def test_localappend_and_replace_name_their_mailbox() -> None:
    scanner = Scanner(b' {5+}\r\nINBOX "" (\\Seen) {3+}\r\nabc\r\n')
    assert parse_localappend_mailbox(scanner) == b"INBOX"
    assert parse_append_head(scanner).flags == {"\\Seen"}
    assert parse_replace_target(Scanner(b" 4 Drafts {3}\r\n")) == (4, b"Drafts")
    with pytest.raises(BadSyntax):
        parse_replace_target(Scanner(b" 0 Drafts {3}\r\n"))


def test_utf8_and_catenate_are_parsed() -> None:
    scanner = Scanner(b" UTF8 (~{2+}\r\nab)\r\n")
    head = parse_append_head(scanner)
    assert (head.form, head.literal) == (AppendForm.UTF8, LiteralHead(2, True))
    take_literal(scanner, LiteralHead(2))
    assert not parse_append_end(scanner, head.form)

    scanner = Scanner(b' CATENATE (URL "/a;UID=1" TEXT {2+}\r\nab URL /b)\r\n')
    head = parse_append_head(scanner)
    assert head.form is AppendForm.CATENATE
    assert parse_catenate_part(scanner, first=True) == b"/a;UID=1"
    assert parse_catenate_part(scanner) == LiteralHead(2)
    assert take_literal(scanner, LiteralHead(2)) == b"ab"
    assert parse_catenate_part(scanner) == b"/b"
    assert parse_catenate_part(scanner) is None
    assert not parse_append_end(scanner, head.form)


def test_copyuid_and_appenduid_go_there_and_back() -> None:
    sources, targets = [Uid(304), Uid(319), Uid(320)], [Uid(3956), Uid(3957), Uid(3958)]
    code = format_copyuid(UidValidity(38505), sources, targets)
    assert code == b"COPYUID 38505 304,319:320 3956:3958"
    assert parse_copyuid(code) == CopyUid(UidValidity(38505), sources, targets)
    assert format_appenduid(UidValidity(38505), [Uid(3955)]) == b"APPENDUID 38505 3955"
    assert parse_appenduid(b"APPENDUID 38505 3955:3957") == (38505, [3955, 3956, 3957])


@pytest.mark.parametrize(
    "code",
    [
        b"COPYUID 1 1:2 3",
        b"COPYUID 1 1:* 3",
        b"COPYUID 1 1:4294967295 1:4294967295",
        b"COPYUID 1 1",
    ],
)
def test_a_copyuid_that_cannot_be_is_bad(code: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_copyuid(code)


LIST_ENTRIES = [
    (ListEntry(("\\HasChildren",), b"/", b"INBOX"), b'* LIST (\\HasChildren) "/" INBOX\r\n'),
    (ListEntry((), None, b"a b"), b'* LIST () NIL "a b"\r\n'),
    (
        ListEntry(("\\NonExistent",), b".", b'x"\xff'),
        b'* LIST (\\NonExistent) "." {3}\r\nx"\xff\r\n',
    ),
    (
        ListEntry((), b"/", b"Foo", ("SUBSCRIBED",)),
        b'* LIST () "/" Foo ("CHILDINFO" ("SUBSCRIBED"))\r\n',
    ),
    (ListEntry((), b"/", b"new", (), b"old"), b'* LIST () "/" new ("OLDNAME" ("old"))\r\n'),
]


@pytest.mark.parametrize(("entry", "line"), LIST_ENTRIES)
def test_list_answers_go_there_and_back(entry: ListEntry, line: bytes) -> None:
    assert format_list(entry) == line
    assert parse_list_response(Scanner(line, len(b"* LIST"))) == entry


def test_unknown_extended_data_of_a_list_answer_is_skipped() -> None:
    line = (
        b' () "/" x (tablecloth (("edge" "lacy") ("color" "red")) "CHILDINFO" ("SUBSCRIBED"))\r\n'
    )
    assert parse_list_response(Scanner(line)).child_info == ("SUBSCRIBED",)


def test_status_answers() -> None:
    line = format_status(
        b"a b",
        {StatusItem.MESSAGES: 231, StatusItem.MAILBOXID: "F1", StatusItem.APPENDLIMIT: None},
    )
    assert line == b'* STATUS "a b" (MESSAGES 231 MAILBOXID (F1) APPENDLIMIT NIL)\r\n'


@pytest.mark.parametrize(
    ("octets", "counts"),
    [
        (b"x (MESSAGES 231 UNSEEN 0)\r\n", {StatusItem.MESSAGES: 231, StatusItem.UNSEEN: 0}),
        (b'"MESSAGES (7" (messages 1 )', {StatusItem.MESSAGES: 1}),
        (b"{11}\r\nMESSAGES 23 (SIZE 5000000000)\r\n", {StatusItem.SIZE: 5_000_000_000}),
        (b"x (X-COLOURS 3 MESSAGES 2)\r\n", {StatusItem.MESSAGES: 2}),
        (b"x ()\r\n", {}),
    ],
)
def test_counts_are_read_from_a_status_answer(octets: bytes, counts: dict[StatusItem, int]) -> None:
    assert parse_counts(octets) == counts


@pytest.mark.parametrize(
    "octets", [b"", b"x", b"x (", b"x (MESSAGES", b"x (MESSAGES )", b"x (MESSAGES many)"]
)
def test_what_is_no_status_answer_is_refused(octets: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_counts(octets)


def test_acl_answers() -> None:
    assert (
        format_acl(b"m", {"Fred": "rwipsldexta", "a b": "l"})
        == b'* ACL m Fred rwipsldexta "a b" l\r\n'
    )
    assert format_listrights(b"m", "anyone", "", ["l", "r"]) == b'* LISTRIGHTS m anyone "" l r\r\n'
    assert format_myrights(b"m", "rwi") == b"* MYRIGHTS m rwi\r\n"


def test_the_namespace_answer() -> None:
    assert format_namespace([(b"INBOX/", b"/")], [(b"user/", b"/")], []) == (
        b'* NAMESPACE (("INBOX/" "/")) (("user/" "/")) NIL\r\n'
    )
