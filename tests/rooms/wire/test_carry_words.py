"""What a source may ask its target: every field is judged before anything is done with it."""

import json
from typing import Any

import pytest

from murder.errors import BadSyntax, Refusal
from murder.wire.nodes.carry import HEAD, JSON, LONG, Frame, are_many, format_words
from murder.wire.nodes.carry_words import (
    Begin,
    Commit,
    Hold,
    Kept,
    Prepare,
    Rows,
    format_request,
    parse_request,
)

PORTRAIT: dict[str, Any] = {
    "mailbox_id": "a1b2-_C",
    "uid_validity": 7,
    "uid_next": 3,
    "highest_modseq": 9,
    "expunged": [[9, [[1, 1]]]],
    "seen": {"bob": [[2, 2]]},
    "recent_from": 1,
}
HOLD = {"do": "hold", "name": "user.ana", **PORTRAIT}
ROW = [1, ["\\Seen", "$Work"], 1700000000, 60, 0, 100, 5, "Mabc", True]
KEPT: dict[str, Any] = {
    "do": "kept",
    "name": "user.ana",
    "after": 0,
    "up_to": 9,
    "rows": [[*ROW[:-1], 1700000001, True], [7, *ROW[1:-1], 1700000002, False]],
}
PREPARE = {
    "do": "prepare",
    "rows": [["user.ana", "ana\tlrs\t"]],
    "notes": {"a/user.ana": "{}"},
    "subscriptions": ["user.ana.x"],
}


def test_what_is_right_becomes_a_value() -> None:
    begin = parse_request({"do": "begin", "id": "a1B2", "root": "user.ana", "partition": ""})
    assert begin == Begin("a1B2", b"user.ana", "")  # type: ignore[arg-type] # a name is octets
    assert isinstance(parse_request(HOLD), Hold)
    rows = parse_request({"do": "rows", "name": "user.ana", "rows": [ROW]})
    assert isinstance(rows, Rows) and rows.rows[0][0].flags == {"\\Seen", "$Work"}
    assert isinstance(parse_request(PREPARE), Prepare)
    kept = parse_request(KEPT)
    assert isinstance(kept, Kept) and [row[1:] for row in kept.rows] == [
        (1700000001, True),
        (1700000002, False),
    ]
    assert parse_request(format_request(kept)) == kept
    assert parse_request({"do": "commit", "id": "abc"}) == Commit("abc")


@pytest.mark.parametrize(
    "move_id",
    ["/../escaped", "../x", "x/../y", "ok1\0", "", "a" * 65, "ä1", "a.b", 7, None, ["a"]],
)
def test_an_id_that_could_lead_elsewhere_is_refused(move_id: object) -> None:
    for word in ("begin", "commit", "abort", "fate", "compare"):
        with pytest.raises(BadSyntax, match="id of a move"):
            parse_request({"do": word, "id": move_id, "root": "user.ana", "name": "x", "what": ""})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "user.ana\r\nx"),
        ("name", "user..x"),
        ("name", "x" * 491),
        ("name", ".".join("x" * 101)),
        ("name", "a!b!c"),
        ("name", "user.\u1234"),
        ("mailbox_id", "x) INJECTED (y"),
        ("mailbox_id", ""),
        ("mailbox_id", "x" * 256),
        ("uid_validity", 0),
        ("uid_validity", 2**32),
        ("uid_next", 0),
        ("uid_next", 2**40),
        ("highest_modseq", 2**63),
        ("highest_modseq", -1),
        ("expunged", [[2**63, [[1, 1]]]]),
        ("expunged", [[1, [[1, 2**32]]]]),
        ("expunged", [[1, [[0, 1]]]]),
        ("expunged", "x"),
        ("seen", {"bob": [[1, 4_000_000_000]]}),
        ("seen", {f"u{number}": [[1, 1_000_000]] for number in range(11)}),
        ("seen", {"bob\r\n": [[1, 1]]}),
        ("seen", {"x" * 401: [[1, 1]]}),
        ("seen", [1]),
        ("recent_from", -1),
    ],
)
def test_a_portrait_that_lies_is_refused(field: str, value: object) -> None:
    for word in ("hold", "complete"):
        with pytest.raises(BadSyntax):
            parse_request(HOLD | {"do": word, field: value})


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 0),
        (0, 2**32),
        (1, ["a b"]),
        (1, ["x)\r\n* 1 EXPUNGE"]),
        (1, ["\\Odd"]),
        (1, ["\\Recent"]),
        (1, ["x" * 256]),
        (1, [""]),
        (1, [f"k{number}" for number in range(1001)]),
        (2, 2**70),
        (5, -1),
        (5, 2**32),
        (6, 2**63),
        (7, "a) X ("),
    ],
)
def test_a_message_that_would_speak_to_clients_is_refused(at: int, value: object) -> None:
    row: list[object] = [*ROW]
    row[at] = value
    with pytest.raises(BadSyntax):
        parse_request({"do": "rows", "name": "user.ana", "rows": [row]})


def test_a_batch_has_an_end() -> None:
    with pytest.raises(BadSyntax, match="rows"):
        parse_request({"do": "rows", "name": "user.ana", "rows": [ROW] * 5001})


@pytest.mark.parametrize(
    "more",
    [
        {"rows": [["user.ana", "ana\tlrs\r\n"]]},
        {"rows": [["user.ana", "x" * (256 * 1024 + 1)]]},
        {"rows": [["user.ana\0", ""]]},
        {"rows": [["user.ana"]]},
        {"subscriptions": ["x" * 491]},
        {"subscriptions": ["x"] * 100_001},
        {"notes": []},
        {"notes": {"a/user.ana": 7}},
    ],
)
def test_rows_of_the_list_are_judged(more: dict[str, object]) -> None:
    with pytest.raises(BadSyntax):
        parse_request(PREPARE | more)


def test_what_is_missing_or_unknown_is_named() -> None:
    with pytest.raises(BadSyntax, match="root is missing"):
        parse_request({"do": "begin", "id": "a"})
    with pytest.raises(BadSyntax, match="do is missing"):
        parse_request({})
    with pytest.raises(Refusal, match="unknown"):
        parse_request({"do": "x" * 1000})


def test_nesting_without_end_is_no_json() -> None:
    with pytest.raises(BadSyntax):
        Frame(JSON, b"[" * 200_000).words()


@pytest.mark.parametrize(
    "wrong",
    [
        {"after": -1},
        {"after": 10},
        {"up_to": 6},  # a UID lies above it
        {"up_to": 2**32},
        {"after": 1},  # a UID does not lie above it
        {"rows": [KEPT["rows"][1], KEPT["rows"][0]]},
        {"rows": [KEPT["rows"][0], KEPT["rows"][0]]},
        {"rows": [[*ROW[:-1], 2**60, True]]},
        {"rows": [[*ROW[:-1], "soon", True]]},
        {"rows": [ROW]},
        {"rows": [KEPT["rows"][0]] * 5001},
    ],
)
def test_what_may_come_back_is_judged_as_well(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadSyntax):
        parse_request({**KEPT, **wrong})


@pytest.mark.parametrize("count", [0, 1, LONG, LONG + 1, 3 * LONG])
def test_words_are_written_in_pieces_as_at_once(count: int) -> None:
    words = {"do": "complete", "expunged": [[number, [[1, 2]]] for number in range(count)], "x": {}}
    frame = format_words(words)
    assert json.loads(frame[HEAD.size :]) == words
    assert frame[HEAD.size :] == json.dumps(words, separators=(",", ":")).encode()
    assert HEAD.unpack(frame[: HEAD.size]) == (b"J", len(frame) - HEAD.size)
    assert are_many(words) == (count > LONG)
