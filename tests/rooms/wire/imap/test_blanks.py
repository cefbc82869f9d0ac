"""More blanks than the grammar has, and fewer beside parentheses, mean the same in every command."""

import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from murder.errors import BadSyntax
from murder.wire.imap.enable import parse_enable
from murder.wire.imap.id import parse_id
from murder.wire.imap.mail.append import parse_append_head
from murder.wire.imap.mail.copy import parse_copy, parse_uid_expunge
from murder.wire.imap.mail.fetch import parse_fetch
from murder.wire.imap.mail.search import parse_search, parse_sort, parse_thread
from murder.wire.imap.mail.store import parse_store
from murder.wire.imap.mail.urlauth import parse_urlfetch
from murder.wire.imap.mailboxes.acl import parse_setacl
from murder.wire.imap.mailboxes.list import parse_list
from murder.wire.imap.mailboxes.mailbox import parse_create, parse_mailbox, parse_rename
from murder.wire.imap.mailboxes.metadata import parse_getmetadata, parse_setmetadata
from murder.wire.imap.mailboxes.quota import parse_setquota
from murder.wire.imap.mailboxes.select import parse_select
from murder.wire.imap.mailboxes.status import parse_status
from murder.wire.imap.notify import parse_notify
from murder.wire.token import Scanner

COMMANDS: list[tuple[Callable[[Scanner], object], bytes]] = [
    (parse_id, b' ("name" "x" "version" NIL)'),
    (parse_id, b" NIL"),
    (parse_enable, b" CONDSTORE UTF8=ACCEPT"),
    (parse_mailbox, b' "a b"'),
    (parse_create, b" x (USE (\\Drafts \\Sent) PARTITION p)"),
    (parse_rename, b" x y"),
    (parse_select, b" x (CONDSTORE QRESYNC (1 2 1:5 (1,2 3,4)))"),
    (parse_select, b" x (QRESYNC (1 2 1:5))"),
    (parse_select, b" x (QRESYNC (1 2 (1,2 3,4)))"),
    (parse_status, b" x (MESSAGES UNSEEN)"),
    (parse_list, b' "" %'),
    (
        parse_list,
        b' (SUBSCRIBED RECURSIVEMATCH) "" (a% b%) RETURN (CHILDREN STATUS (MESSAGES UNSEEN) METADATA ("/shared/comment"))',
    ),
    (parse_fetch, b" 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (From To)]<0.5> PREVIEW (LAZY))"),
    (parse_fetch, b" 1 FLAGS (CHANGEDSINCE 5)"),
    (parse_fetch, b" 1 PREVIEW (CHANGEDSINCE 5)"),
    (partial(parse_fetch, by_uid=True), b" 1 (UID) (CHANGEDSINCE 5 VANISHED)"),
    (parse_store, b" 1:2 (UNCHANGEDSINCE 7) +FLAGS.SILENT (\\Seen x)"),
    (parse_store, b" 1 FLAGS \\Seen x"),
    (parse_store, b" 1 FLAGS ()"),
    (parse_copy, b" 1,2 x"),
    (parse_uid_expunge, b" 1:4"),
    (parse_search, b' RETURN (MIN COUNT) OR (FROM "a" NOT (SEEN)) (1:3)'),
    (parse_search, b" CHARSET UTF-8 SUBJECT x UNSEEN"),
    (parse_sort, b" (REVERSE DATE SUBJECT) UTF-8 ALL"),
    (parse_thread, b" REFERENCES UTF-8 ALL"),
    (parse_setacl, b" x anna lrs"),
    (parse_setquota, b' "" (STORAGE 10 MESSAGE 5)'),
    (parse_getmetadata, b' (DEPTH 1 MAXSIZE 10) "" (/private/a /shared/b)'),
    (parse_getmetadata, b' "" (DEPTH 1) /private/a'),
    (parse_setmetadata, b' "" (/private/a "x" /shared/b NIL)'),
    (parse_notify, b" SET STATUS (SELECTED (MessageNew (UID FLAGS) MessageExpunge))"),
    (parse_notify, b" SET (SUBTREE (a b) (MailboxName))"),
    (parse_urlfetch, b' ("imap:///x" BODY BODYPARTSTRUCTURE)'),
    (parse_append_head, b' (\\Seen x) "17-Jul-1996 02:44:25 -0700" {3+}'),
    (parse_append_head, b" (\\Seen) UTF8 (~{3+}"),
    (parse_append_head, b" CATENATE ("),
]


def spellings(arguments: bytes) -> Iterator[bytes]:
    """As a client may write the same: each place by itself, then all at once."""
    rules = [(rb"\(", b"( "), (rb"(?<!\()\)", b" )"), (rb" ", b"  "), (rb"\Z", b"  ")]
    if arguments.endswith((b"}", b"(")):
        rules.pop()  # it is not the end of the command
    for pattern, replacement in rules:
        for place in re.finditer(pattern, arguments):
            if not is_quoted(arguments, place.start()):
                yield arguments[: place.start()] + replacement + arguments[place.end() :]
    for bare in (rb" (?=\()", rb"(?<=\)) "):
        for place in re.finditer(bare, arguments):
            if place.start():
                yield arguments[: place.start()] + arguments[place.end() :]


def is_quoted(arguments: bytes, at: int) -> bool:
    """Also in a section, which is one word."""
    inside = arguments.rfind(b"[", 0, at) > arguments.rfind(b"]", 0, at)
    return arguments.count(b'"', 0, at) % 2 == 1 or (inside and arguments[at : at + 1] == b" ")


def read(parse: Callable[[Scanner], object], arguments: bytes) -> object:
    return parse(Scanner(arguments + b"\r\n"))


@pytest.mark.parametrize(("parse", "arguments"), COMMANDS)
def test_blanks_change_nothing(parse: Callable[[Scanner], object], arguments: bytes) -> None:
    meant = read(parse, arguments)
    for spelt in spellings(arguments):
        assert read(parse, spelt) == meant, spelt


def test_blanks_behind_the_fields_of_a_section() -> None:
    meant = read(parse_fetch, b" 1 BODY[HEADER.FIELDS (From)]")
    assert read(parse_fetch, b" 1 BODY[HEADER.FIELDS  ( From )  ]") == meant


@pytest.mark.parametrize("arguments", [b"", b" ", b" x", b" (", b" ( ", b" )", b" x )"])
def test_blanks_alone_are_no_arguments(arguments: bytes) -> None:
    for parse in (parse_id, parse_status, parse_fetch, parse_store, parse_select):
        if (parse, arguments) != (parse_select, b" x"):
            with pytest.raises(BadSyntax):
                read(parse, arguments)


def test_a_run_of_blanks_is_read_once() -> None:
    """As many as a line may have: work that looked at all of them for each would not end."""
    for parse, arguments in COMMANDS:
        blanks = b" " * 100_000
        spelt = arguments.replace(b"(", b"(" + blanks).replace(b")", blanks + b")")
        try:
            read(parse, spelt)
        except BadSyntax:
            pass
