"""What a client can name in one command has an end."""

from collections.abc import Callable

import pytest

from murder.errors import BadSyntax
from murder.wire.imap.enable import parse_enable
from murder.wire.imap.id import MAX_ID_OCTETS, parse_id
from murder.wire.imap.mail.append import parse_append_head
from murder.wire.imap.mail.fetch import parse_fetch
from murder.wire.imap.mail.search import parse_cancelupdate
from murder.wire.imap.mail.store import parse_store
from murder.wire.imap.mail.urlauth import parse_genurlauth, parse_resetkey, parse_urlfetch
from murder.wire.imap.mailboxes.acl import parse_setacl
from murder.wire.imap.mailboxes.list import parse_list
from murder.wire.imap.mailboxes.mailbox import parse_create, parse_tree_request
from murder.wire.imap.mailboxes.metadata import parse_getmetadata, parse_setmetadata
from murder.wire.imap.mailboxes.quota import parse_setquota
from murder.wire.imap.mailboxes.select import parse_select
from murder.wire.imap.mailboxes.status import parse_status
from murder.wire.imap.notify import parse_notify
from murder.wire.token import Scanner


def many(form: bytes, count: int = 2000) -> bytes:
    return b" ".join(form % number if b"%" in form else form for number in range(count))


MANY: list[tuple[Callable[[Scanner], object], bytes]] = [
    (parse_enable, b" " + many(b"X%d")),
    (parse_fetch, b" 1 (" + many(b"BODY[]<%d.1>") + b")"),
    (parse_fetch, b" 1 BODY[HEADER.FIELDS (" + many(b"X%d") + b")]"),
    (parse_list, b' "" (' + many(b"x%d") + b")"),
    (parse_list, b' "" x RETURN (METADATA (' + many(b"/shared/%d") + b"))"),
    (parse_getmetadata, b' "" (' + many(b"/shared/%d") + b")"),
    (parse_setmetadata, b' "" (' + many(b"/shared/%d NIL") + b")"),
    (parse_notify, b" SET " + many(b"(SUBTREE x%d (MailboxName))")),
    (parse_notify, b" SET (SUBTREE (" + many(b"x%d") + b") (MailboxName))"),
    (parse_genurlauth, b" " + many(b"imap:///%d INTERNAL")),
    (parse_urlfetch, b" " + many(b"imap:///%d")),
    (parse_resetkey, b" x " + many(b"X%d")),
    (parse_id, b" (" + many(b'"x%d" "y"') + b")"),
    (parse_store, b" 1 FLAGS (" + many(b"x%d") + b")"),
    (parse_store, b" 1 FLAGS (" + many(b"x") + b")"),
    (parse_store, b" 1 FLAGS " + many(b"x")),
    (parse_append_head, b" (" + many(b"x") + b") {1}\r\n"),
    (parse_notify, b" SET (PERSONAL (" + many(b"MessageNew") + b" MessageExpunge))"),
    (parse_setquota, b" x (" + many(b"STORAGE %d") + b")"),
    (parse_list, b" (" + many(b"SUBSCRIBED") + b') "" x'),
    (parse_list, b' "" x RETURN (' + many(b"CHILDREN") + b")"),
    (parse_enable, b" " + many(b"CONDSTORE")),
    (parse_id, b" (" + many(b'"x" "y"') + b")"),
    (parse_create, b" x (USE (" + many(b"\\Sent") + b"))"),
    (parse_create, b" x (" + many(b"PARTITION y") + b")"),
    (parse_setmetadata, b' "" (' + many(b"/shared/x NIL") + b")"),
    (parse_getmetadata, b" (" + many(b"MAXSIZE 1") + b') "" /shared/x'),
    (parse_select, b" x (" + many(b"CONDSTORE") + b")"),
    (parse_status, b" x (" + many(b"MESSAGES") + b")"),
    (parse_list, b' "" x RETURN (STATUS (' + many(b"MESSAGES") + b"))"),
    (parse_cancelupdate, b" " + many(b'"x%d"')),
    (parse_urlfetch, b" (imap:///x " + many(b"BODY") + b")"),
    (parse_tree_request, b" x (" + many(b"x%d") + b")"),
    (parse_fetch, b" 1 BODY[" + b"1." * 2000 + b"1]"),
    (parse_setacl, b" x y " + b"lrs" * 100),
]


@pytest.mark.parametrize(("parse", "arguments"), MANY)
def test_too_many_are_bad_syntax(parse: Callable[[Scanner], object], arguments: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse(Scanner(arguments + b"\r\n"))


def test_what_is_named_again_is_one() -> None:
    request = parse_status(Scanner(b" x (" + many(b"MESSAGES", 50) + b")\r\n"))
    assert len(request.items) == 1
    assert len(parse_fetch(Scanner(b" 1 (" + many(b"FLAGS", 50_000) + b")\r\n")).items) == 1


def test_of_a_long_value_of_id_the_beginning_is_kept() -> None:
    fields = parse_id(Scanner(b' ("name" {5000}\r\n' + b"x" * 5000 + b")\r\n"))
    assert fields == {"name": "x" * MAX_ID_OCTETS}
