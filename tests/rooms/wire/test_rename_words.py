"""What backends say while a hierarchy on several of them is renamed: there and back, and what is no such word."""

import json
from dataclasses import replace

import pytest

from murder.errors import BadSyntax, Code, Refusal
from murder.model.name import MailboxName
from murder.wire.nodes.rename_words import (
    Abort,
    Act,
    Answer,
    AskFate,
    Commit,
    Done,
    Fate,
    Prepare,
    Refused,
    Request,
    Told,
    format_answer,
    format_request,
    parse_answer,
    parse_request,
)

PREPARE = Prepare("a1", MailboxName(b"user.ana"), MailboxName(b"user.an\xe4"), "ana", False)


RESTING = MailboxName(b"DELETED.user.ana.65F3AB00")
DELETE = replace(PREPARE, new=RESTING, act=Act.DELETE)
UNDELETE = replace(PREPARE, old=RESTING, new=MailboxName(b"user.ana"), act=Act.UNDELETE)


@pytest.mark.parametrize(
    "request_", [PREPARE, DELETE, UNDELETE, Commit("a1"), Abort("Z9"), AskFate("0" * 64)]
)
def test_requests_come_back_as_they_were(request_: Request) -> None:
    assert parse_request(json.dumps(format_request(request_)).encode()) == request_


@pytest.mark.parametrize(
    "answer",
    [
        Done(),
        *(Told(fate) for fate in Fate),
        Refused(Code.IN_USE, "not now", (MailboxName(b"a.b"),)),
    ],
)
def test_answers_come_back_as_they_were(answer: Answer) -> None:
    assert parse_answer(json.dumps(format_answer(answer)).encode()) == answer


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "../x"},
        {"id": ""},
        {"id": "a" * 65},
        {"id": 7},
        {"old": "user..ana"},
        {"old": "user.ana\r\n"},
        {"new": "\u20ac"},
        {"new": None},
        {"user": ""},
        {"user": "a\nb"},
        {"is_admin": 1},
    ],
)
def test_a_field_that_is_wrong_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(BadSyntax):
        parse_request(json.dumps(format_request(PREPARE) | changed).encode())


@pytest.mark.parametrize(
    "octets", [b"", b"[]", b"{}", b'{"fate": "maybe"}', b'{"ok": false}', b'{"no": 1}']
)
def test_what_is_no_answer_is_refused(octets: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_answer(octets)


def test_a_word_of_a_later_version_is_refused_and_a_code_of_one_passed_over() -> None:
    with pytest.raises(Refusal, match="'undo' is unknown here"):
        parse_request(b'{"do": "undo", "id": "a1"}')
    assert parse_answer(b'{"no": "x", "code": "NEWER"}') == Refused(Code.NONE, "x")


@pytest.mark.parametrize(
    "request_",
    [
        replace(DELETE, new=MailboxName(b"DELETED.user.bob.65F3AB00")),
        replace(DELETE, new=MailboxName(b"user.bob")),
        replace(DELETE, old=RESTING, new=MailboxName(b"user.ana")),
        replace(UNDELETE, old=MailboxName(b"DELETED.user.ana.never")),
        replace(UNDELETE, new=MailboxName(b"user.bob")),
    ],
)
def test_what_is_deleted_rests_at_its_own_place(request_: Prepare) -> None:
    with pytest.raises(BadSyntax, match="does not rest at"):
        parse_request(json.dumps(format_request(request_)).encode())
