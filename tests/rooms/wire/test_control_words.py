"""What operators ask nodes: each request comes back as it was, the octets are those of earlier versions, and what is none
says why."""

import json

import pytest

from murder.errors import BadSyntax
from murder.model.name import MailboxName
from murder.wire.nodes.control_answers import SessionShown
from murder.wire.nodes.control_words import (
    AskConflicts,
    Asker,
    AskLog,
    AskPlace,
    AskPorts,
    AskProbe,
    AskSessions,
    AskStatus,
    AskTrace,
    Candidate,
    Kick,
    NotPlaced,
    Placement,
    Reload,
    Request,
    Wanted,
    format_request,
    parse_asker,
    parse_control_request,
    parse_placement,
)

NAME = MailboxName(b"user.\xe4")
LOADS = (Candidate("be1", 7, 1.5), Candidate("be2", 0, 0.0))
REQUESTS: list[tuple[Request, dict[str, object]]] = [
    (AskStatus(), {"do": "status"}),
    (AskSessions(), {"do": "sessions"}),
    (AskSessions(Wanted(user="ana")), {"do": "sessions", "user": "ana"}),
    (Kick(Wanted(cid="1f-2")), {"do": "kick", "cid": "1f-2"}),
    (
        Kick(Wanted(backend="be1", address="192.0.2.7"), only="frontend"),
        {"do": "kick", "only": "frontend", "backend": "be1", "address": "192.0.2.7"},
    ),
    (Kick(Wanted(user="ana"), but="frontend"), {"do": "kick", "but": "frontend", "user": "ana"}),
    (AskConflicts(), {"do": "conflicts"}),
    (AskConflicts(forget=True), {"do": "conflicts", "forget": True}),
    (
        AskPlace(NAME, {"be1": 1.5, "be2": 0}),
        {"do": "place", "name": "user.\xe4", "weights": {"be1": 1.5, "be2": 0}},
    ),
    (
        AskPlace(NAME, {}, LOADS),
        {"do": "place", "name": "user.\xe4", "candidates": [["be1", 7, 1.5], ["be2", 0, 0.0]]},
    ),
    (AskPlace(NAME, {}, ()), {"do": "place", "name": "user.\xe4", "candidates": []}),
    (AskProbe(), {"do": "probe"}),
    (AskTrace("ana"), {"do": "trace", "user": "ana"}),
    (AskLog("ana", "error"), {"do": "log", "text": "ana", "least": "error"}),
    (AskPorts(), {"do": "ports"}),
    (Reload(), {"do": "reload"}),
]


@pytest.mark.parametrize(("request_", "shown"), REQUESTS)
def test_a_request_comes_back_and_is_on_the_wire_as_ever(
    request_: Request, shown: dict[str, object]
) -> None:
    line = format_request(request_)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert json.loads(line) == shown
    assert parse_control_request(line) == request_


def test_on_whose_behalf_a_node_passes_it_on_and_from_where_is_said() -> None:
    asker = Asker("anna-admin", "192.0.2.7")
    line = format_request(Kick(Wanted(user="ana")), asker)
    assert json.loads(line) == {
        "do": "kick",
        "by": "anna-admin",
        "from": "192.0.2.7",
        "user": "ana",
    }
    assert parse_asker(line) == asker
    assert parse_asker(format_request(Reload())) == Asker()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"", "not valid JSON"),
        (b"[]", "a JSON object was expected"),
        (b"{}", "None is no request"),
        (b'{"do": "fly"}', "'fly' is no request"),
        (b'{"do": ["status"]}', "is no request"),
        (b'{"do": "trace"}', "a trace needs a user"),
        (b'{"do": "sessions", "user": 7}', "user is no text"),
        (b'{"do": "conflicts", "forget": "yes"}', "forget is neither true nor false"),
        (b'{"do": "place"}', "name is missing"),
        (b'{"do": "place", "name": "a", "weights": [1]}', "weights is no object"),
        (b'{"do": "place", "name": "a", "weights": {"b": "1"}}', "b is no number"),
        (b'{"do": "place", "name": "a", "weights": {"b": 1e999}}', "b is out of range"),
        (b'{"do": "place", "name": "a", "weights": {"b": NaN}}', "b is out of range"),
        (b'{"do": "place", "name": "a", "candidates": 7}', "candidates is no list"),
        (b'{"do": "place", "name": "a", "candidates": [["b"]]}', "no list of 3"),
        (b'{"do": "place", "name": "a", "candidates": [[1, 2, 3]]}', "0 is no text"),
    ],
)
def test_what_is_no_request_says_why(line: bytes, problem: str) -> None:
    with pytest.raises(BadSyntax, match=problem):
        parse_control_request(line)


WHO = {"node": "fe1", "role": "frontend", "worker": 0}


def test_a_placement_comes_back_with_the_node_that_answers() -> None:
    for placed in (Placement("be1", "its parent is there", LOADS), Placement("be1")):
        told = parse_placement({**WHO, **placed.shown()})
        assert told == Placement(placed.server, placed.reason, placed.candidates, "fe1")
    assert Placement(None).shown() == {"server": None}
    assert parse_placement({**WHO, "server": None}) == Placement(None, node="fe1")
    refused = NotPlaced("no room")
    assert refused.shown() == {"refused": "no room"}
    assert parse_placement({**WHO, **refused.shown()}) == refused
    assert parse_placement({**WHO, "done": True}) is None
    with pytest.raises(BadSyntax):
        parse_placement({**WHO, "server": 7})


def test_sessions_are_those_that_all_of_the_given_fit() -> None:
    session = SessionShown("1-1", "192.0.2.7", user="ana")
    assert Wanted().fits(session) and Wanted(user="ana", cid="1-1").fits(session)
    assert not Wanted(user="ana", cid="1-2").fits(session)
    assert not Wanted(backend="be1").fits(session)
