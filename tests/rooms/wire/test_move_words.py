"""What backends tell of moves: each value comes back as it was, the octets are those of earlier versions, and what is no
such response is passed over or says what is wrong with it."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.model.name import MailboxName
from murder.wire.nodes.move_words import (
    MoveCompared,
    MoveProgress,
    MoveRecord,
    format_answer,
    parse_compared,
    parse_progress,
    parse_record,
)
from murder.wire.token import Scanner

PROGRESS = MoveProgress(b"a1", 10, "copying", "3f1c", 4, 4096)
RECORD = MoveRecord("3f1c", "out", MailboxName(b"user.ana"), "be2", state="done", started_at=1.5)
COMPARED = MoveCompared(MailboxName(b"user.\xe4"), "changed", 3, 900, told=("UID 7: flags",))


def test_progress_is_on_the_wire_as_ever() -> None:
    line = b'* OK [INPROGRESS ("a1" 4 10)] copying 3f1c: 4 messages, 4096 octets'
    assert PROGRESS.format() == line + b"\r\n"
    waits = replace(PROGRESS, problem="be2: timed out; tried again")
    assert waits.format() == line + b"; be2: timed out; tried again\r\n"
    assert parse_progress(line) == PROGRESS
    assert parse_progress(waits.format()) == waits
    assert parse_progress(line.replace(b'"a1"', b"a1")) == PROGRESS, "as an atom"


@given(
    st.builds(
        MoveProgress,
        st.text("abcXYZ019.", min_size=1, max_size=14).map(str.encode),
        st.integers(0, 2**32 - 1),
        st.sampled_from(["copying", "stopped", "handing", "done"]),
        st.text("0123456789abcdef", min_size=1, max_size=12),
        st.integers(0, 2**32),
        st.integers(0, 2**60),
        st.sampled_from(["", "be2: it is away", "a; b", "4 messages, 5 octets"]),
    )
)
def test_progress_comes_back(progress: MoveProgress) -> None:
    assert parse_progress(progress.format()) == progress


# RFC 9585 lets a server say anything
OF_OTHERS = [
    b"* OK [INPROGRESS] working",
    b'* OK [INPROGRESS ("a1" NIL NIL)] working',
    b'* OK [INPROGRESS ("a1" 4 10)] 4 of 10 are through',
    b'* OK [INPROGRESS ("a1" 4 10)] copying 3f1c: few messages, 4096 octets',
    b'* OK [INPROGRESS ("a1" 4 99999999999999)] copying 3f1c: 4 messages, 4096 octets',
]


@pytest.mark.parametrize("line", [b"* OK hello", b"* 3 EXISTS", b"", *OF_OTHERS])
def test_other_responses_are_no_progress(line: bytes) -> None:
    assert parse_progress(line) is None


@given(st.binary(max_size=80))
def test_any_octets_are_progress_or_none(octets: bytes) -> None:
    parse_progress(b"* OK [INPROGRESS (" + octets)
    parse_progress(b'* OK [INPROGRESS ("a" 1 2)] ' + octets)


def test_a_record_comes_back_and_has_the_fields_of_the_journal_in_its_order() -> None:
    line = format_answer(RECORD)
    assert parse_record(line) == RECORD
    shown = json.loads(Scanner(line, len(b"* XFERS ")).string())
    assert shown == RECORD.shown()
    assert list(shown) == [
        *("id", "side", "root", "server", "partition", "state", "names", "process", "by"),
        *("started_at", "finished_at", "stop_s", "messages", "octets", "problem", "shown_seq"),
        *("owes_abort", "format"),
    ]


def test_a_comparison_comes_back() -> None:
    assert parse_compared(format_answer(COMPARED)) == COMPARED
    assert parse_compared(b"* 1 EXISTS\r\n") is None is parse_record(b"* OK\r\n")


def of(**fields: object) -> bytes:
    text = json.dumps({**RECORD.shown(), **fields}).encode()
    return b"* XFERS {%d}\r\n%b\r\n" % (len(text), text)


def test_what_a_newer_backend_adds_is_passed_over() -> None:
    assert parse_record(of(colour="blue")) == RECORD


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (of(id=7), "id is no text"),
        (of(names="user.ana"), "names is no list"),
        (of(names=[7]), "names has what is no text"),
        (of(messages="many"), "messages is no whole number"),
        (of(messages=True), "messages is no whole number"),
        (of(started_at=None), "started_at is no number"),
        (of(owes_abort=0), "owes_abort is neither true nor false"),
        (of(root="\u20ac"), "root is no mailbox's name"),
        (b"* XFERS {2}\r\n{}\r\n", "id is missing"),
        (b"* XFERS {2}\r\n[]\r\n", "a JSON object was expected"),
        (b"* XFERS {1}\r\n{\r\n", "not valid JSON"),
        (b"* XFERS {9}\r\n{}\r\n", "a whole literal"),
    ],
)
def test_what_is_no_record_says_why(line: bytes, problem: str) -> None:
    with pytest.raises(BadSyntax, match=problem):
        parse_record(line)
