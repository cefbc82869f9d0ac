"""What a backup asks and is answered, there and back; and what is refused."""

from typing import Any

import pytest

from murder.errors import BadSyntax, Refusal
from murder.model.message import ModSeq, Uid
from murder.model.name import MailboxName
from murder.wire.nodes.backup_words import (
    AskUser,
    Count,
    Counted,
    Fetch,
    Look,
    Looked,
    Octets,
    Page,
    Request,
    format_counted,
    format_looked,
    format_octets,
    format_page,
    format_request,
    format_subscribed,
    parse_counted,
    parse_looked,
    parse_octets,
    parse_page,
    parse_request,
    parse_subscribed,
)
from murder.wire.nodes.carry import parse_message, parse_portrait
from tests.rooms.wire.test_carry_words import PORTRAIT

NAME = MailboxName(b"user.z\xfc.Sub")
ROW = [7, ["\\Seen", "$Word"], 1_600_000_000, 90, 1_600_000_001, 12, 44, "E1"]


@pytest.mark.parametrize(
    "request_",
    [
        Look(NAME, ModSeq(2**63 - 1)),
        Page(NAME, ModSeq(5), Uid(9)),
        Fetch(NAME, [Uid(1), Uid(2**32 - 1)]),
        Count(NAME),
        AskUser("anna"),
    ],
)
def test_requests_go_there_and_back(request_: Request) -> None:
    assert parse_request(format_request(request_)) == request_


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"do": 1},
        {"do": "look"},
        {"do": "look", "name": "user.z", "since": -1},
        {"do": "look", "name": "user.z", "since": 2**63},
        {"do": "look", "name": "\u1234", "since": 0},
        {"do": "page", "name": "user.z", "since": 0, "after": 2**32},
        {"do": "page", "name": "user.z", "since": 0, "after": True},
        {"do": "fetch", "name": "user.z", "uids": "1"},
        {"do": "fetch", "name": "user.z", "uids": ["1"]},
        {"do": "fetch", "name": "user.z", "uids": [1] * 1001},
        {"do": "user", "user": ""},
        {"do": "user", "user": "a\x00b"},
    ],
)
def test_bad_requests_are_named(words: dict[str, Any]) -> None:
    with pytest.raises(BadSyntax):
        parse_request(words)


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(Refusal, match="'write' is unknown"):
        parse_request({"do": "write"})


def test_answers_go_there_and_back() -> None:
    looked = Looked(parse_portrait(PORTRAIT), b"anna\tlrs\t", {"a": b"{}", "q": b"\xff"})
    assert parse_looked(format_looked(looked)) == looked
    rows = [parse_message(ROW)]
    assert parse_page(format_page(rows)) == rows
    for told in (Octets(Uid(3), 12), Octets(Uid(3), is_gone=True), Octets(Uid(3), problem="no")):
        assert parse_octets(format_octets(told)) == told
    assert parse_counted(format_counted(Counted(3, ModSeq(9)))) == Counted(3, ModSeq(9))
    names = (NAME, MailboxName(b"shared"))
    assert parse_subscribed(format_subscribed(names)) == names


@pytest.mark.parametrize(
    ("parse", "words"),
    [
        (parse_looked, {**PORTRAIT, "acl": "", "notes": []}),
        (parse_looked, {**PORTRAIT, "acl": "", "notes": {"a": 1}}),
        (parse_page, {"rows": {}}),
        (parse_page, {"rows": [[1]]}),
        (parse_octets, {"uid": 1, "size": -1, "gone": False, "problem": ""}),
        (parse_counted, {"messages": "3", "modseq": 1}),
        (parse_subscribed, {"subscriptions": [1]}),
    ],
)
def test_bad_answers_are_named(parse: Any, words: dict[str, Any]) -> None:
    with pytest.raises(BadSyntax):
        parse(words)
