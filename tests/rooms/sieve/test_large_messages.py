"""What a script makes of a large message is in memory once, and what must be looked for in all of it is looked for piece by
piece: sizes, steps and objects are counted."""

import pytest

from murder.sieve import (
    PAUSED,
    Circumstances,
    Discard,
    Envelope,
    FileInto,
    Keep,
    Limits,
    LongWork,
    Machine,
    Outcome,
    RunProgram,
    compile_script,
    start,
)
from murder.sieve.problem import RunProblem
from murder.sieve.run.message import LOOK_OCTETS, Message
from murder.sieve.run.parts import without_markup
from tests.kit.steps import lines_run
from tests.rooms.sieve.running import NOW, Books, run

HEAD = b"Subject: one\r\n"
MULTIPART = HEAD + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
EDITS = 'require ["editheader", "fileinto"];' + "".join(
    f'addheader "X-A" "{number}"; fileinto "v{number}";' for number in range(31)
)


def test_dozens_of_versions_have_one_body() -> None:
    message = HEAD + b"\r\n" + b"y" * 100_000
    outcome = run(EDITS, message=message, books=Books())
    bodies = [version.pieces[-1] for version in outcome.messages[1:]]
    assert len(bodies) == 31
    assert {id(body.obj) for body in bodies if isinstance(body, memoryview)} == {id(message)}
    last = [action for action in outcome.actions if isinstance(action, FileInto)][-1]
    expected = b"".join(b"X-A: %d\r\n" % number for number in reversed(range(31))) + message
    assert bytes(outcome.messages[last.version]) == expected


def test_a_version_that_is_past_has_nothing_but_its_octets() -> None:
    script = EDITS.replace('"fileinto"]', '"fileinto", "mime"]')
    script = script.replace("; fileinto", '; if header :mime :anychild "x-q" "q" {} fileinto')
    outcome = run(script, message=MULTIPART + b"--b\r\n\r\nx\r\n--b--\r\n", books=Books())
    *past, _ = outcome.messages[1:]
    assert all(len(version.pieces) == 3 for version in past)  # nobody keeps them joined
    assert not any(version.named("x-a") for version in past)


@pytest.mark.parametrize("blank_line", [b"\n\n", b"\n\r\n", b"\r\n\r\n"])
def test_the_end_of_a_header_is_found_wherever_pieces_end(blank_line: bytes) -> None:
    for before in range(LOOK_OCTETS - 6, LOOK_OCTETS + 3):
        message = Message(b"x" * before + blank_line + b"body")
        steps = sum(1 for _ in message.read())
        assert bytes(message.body) == b"body" and steps <= 1


@pytest.mark.parametrize("octets", [b"", b"\n", b"\r\nbody", b"\nbody", b"x", b"x\n", b"\r"])
def test_short_messages_have_the_body_that_they_had(octets: bytes) -> None:
    message = Message(octets)
    assert list(message.read()) == []
    assert bytes(message.body) == (b"body" if octets.endswith(b"body") else b"")


def test_a_message_without_an_end_of_its_header_is_looked_through_in_steps() -> None:
    for pieces in (4, 8):
        message = Message(b"x" * (pieces * LOOK_OCTETS))
        assert pieces - 1 <= sum(1 for _ in message.read()) <= pieces
        assert bytes(message.body) == b""


def steps_of(outcome: Outcome) -> int:
    assert outcome.failure is None
    return outcome.steps


AROUND = 'require "body"; if body :content "multipart" :contains "needle" { discard; }'


def test_what_stands_around_parts_is_paid_for() -> None:
    parts = b"--b\r\n\r\nhello\r\n--b--\r\n"
    few, many = (
        steps_of(run(AROUND, message=MULTIPART + b"--bb\r\n" * count + parts))
        for count in (3000, 12_000)
    )
    assert 3 < many / few < 5


@pytest.mark.parametrize(
    ("before", "behind", "is_there"),
    [
        (b"needle\r\n", b"", True),
        (b"--bb needle\r\n", b"", True),
        (b"", b"needle\r\n", True),
        (b"", b"", False),
    ],
)
def test_what_is_around_parts_is_what_stands_outside_the_boundaries(
    before: bytes, behind: bytes, is_there: bool
) -> None:
    message = MULTIPART + before + b"--b\r\n\r\nhello\r\n--b--\r\n" + behind
    (action,) = run(AROUND, message=message).actions
    assert isinstance(action, Discard if is_there else Keep)


def test_a_header_within_is_looked_at_as_before() -> None:
    within = b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: needle\r\n\r\nx\r\n--b--\r\n"
    script = 'require "body"; if body :content "message" :contains "needle" { discard; }'
    (action,) = run(script, message=MULTIPART + within).actions
    assert isinstance(action, Discard)


def test_a_body_that_was_replaced_is_looked_at_anew() -> None:
    script = 'require ["replace", "body"];' + "".join(
        f'replace "text {number}"; if not body :contains "text {number}" {{ discard; stop; }}'
        for number in range(10)
    )
    (action,) = run(script, message=HEAD + b"\r\nfirst\r\n").actions
    assert isinstance(action, Keep)


def test_large_messages_are_put_together_anew_a_few_times() -> None:
    script = 'require "enclose";' + 'enclose "x";' * 4
    message = HEAD + b"\r\n" + b"y" * 10_000
    assert run(script, message=message).failure is None
    failure = run(script, message=message, limits=Limits(rebuilt_octets=25_000)).failure
    assert failure is not None and "too large to be replaced or enclosed" in str(failure)
    once = run('require "enclose"; enclose "x";', message=message, limits=Limits(rebuilt_octets=1))
    assert once.failure is None


LOOP = """require ["foreverypart", "mime", "editheader"];
foreverypart { addheader "X-A" "b"; if header :mime "x-part" "last" { stop; } deleteheader "X-A"; }"""
EDITED = LOOP.replace('"last"', '"none"')


def parts_of(count: int) -> bytes:
    parts = b"".join(b"--b\r\nX-Part: %d\r\n\r\nhi\r\n" % number for number in range(count))
    return MULTIPART + parts + b"--b\r\nX-Part: last\r\n\r\nhi\r\n--b--\r\n"


def test_an_edit_for_each_part_moves_them_all_at_once() -> None:
    few, many = (
        lines_run(lambda count=count: run(EDITED, message=parts_of(count))) for count in (50, 200)
    )
    assert many < 5 * few, (few, many)


def test_parts_are_found_where_edits_have_moved_them() -> None:
    (action,) = run(LOOP, message=parts_of(9)).actions
    assert isinstance(action, Keep) and action.version  # stopped at the last, edited


def test_parts_that_are_looked_at_together_are_bounded() -> None:
    script = 'require "body"; if body :contains "needle" { discard; }'
    message = parts_of(3).replace(b"last\r\n\r\nhi", b"last\r\n\r\nneedle")
    (action,) = run(script, message=message).actions
    assert isinstance(action, Discard)
    (action,) = run(script, message=message, limits=Limits(body_octets=8)).actions
    assert isinstance(action, Keep)


def test_a_part_is_where_it_is_after_it_was_replaced_between_two_edits() -> None:
    """The same part, moved by as many octets as before, and elsewhere."""
    script = """require ["foreverypart", "mime", "editheader", "replace", "variables", "extracttext"];
        foreverypart {
            if header :mime "x-part" "0" {
                addheader "X-A" "b";
                if header :mime "x-part" "0" { replace :mime "X-Part: 7\r\n\r\nwords\r\n"; }
                addheader "X-A" "c";
                if header :mime "x-part" "7" { extracttext "text"; }
            }
        }
        if string "${text}" "words" { discard; }"""
    (action,) = run(script, message=parts_of(3)).actions
    assert isinstance(action, Discard)


def test_of_a_body_that_is_larger_than_what_is_looked_at_the_beginning_is() -> None:
    """It was an error of the server's, for which the sender came again in vain."""
    script = 'require ["body"]; if body :raw :contains "%s" { discard; }'
    limits = Limits(body_octets=100_000)
    octets = HEAD + b"\r\n" + b"x" * 50_000 + b"early" + b"x" * 50_000 + b"late"
    for word, kind in (("early", Discard), ("late", Keep)):
        outcome = run(script % word, message=octets, limits=limits)
        assert outcome.failure is None and [type(one) for one in outcome.actions] == [kind]
        assert outcome.notes == ("the body is longer than what is looked at",)


def started(script: str, octets: bytes) -> Machine:
    program = compile_script(script.encode())
    envelope = Envelope("a@b.example", "c@d.example")
    return start([program], octets, envelope, Circumstances(NOW, "c", "d.example"))


@pytest.mark.parametrize(
    "script",
    [
        'if header :contains "subject" "x" { discard; }',
        'if address :domain "to" "x" { discard; }',
        'require "duplicate"; if duplicate :header "subject" { discard; }',
        'require ["vacation"]; vacation "away";',
        'require ["enotify"]; notify "mailto:a@b.example";',
        'require ["notify"]; notify :options "a@b.example" :message "$subject$";',
        'require ["editheader"]; deleteheader "subject" "x";',
    ],
)
def test_a_large_field_is_taken_apart_in_a_thread(script: str) -> None:
    """A megabyte of encoded words takes a fifth of a second, of addresses a fiftieth."""
    value = b"=?utf-8?q?a?= " * 5000 + b"c@d.example, " * 2500
    machine = started(
        script, b"From: a@b.example\r\nSubject: %b\r\nTo: %b\r\n\r\n" % (value, value)
    )
    works = 0
    while not isinstance(step := machine.advance(), Outcome):
        if isinstance(step, LongWork):
            works += 1
            machine.answer(step.compute())
        elif step is not PAUSED:
            machine.answer(Books().answer(step))
    assert works and step.failure is None


def test_a_large_header_is_read_in_a_thread() -> None:
    machine = started("discard;", b"Subject: " + b"x" * 300_000 + b"\r\nX-A: b\r\n\r\n")
    while not isinstance(step := machine.advance(), LongWork):
        assert step is PAUSED
    machine.answer(step.compute())
    assert isinstance(machine.advance(), Outcome)
    assert len(machine.message.fields) == 2


@pytest.mark.parametrize("octets", [b"\0" * 2_000_000, b"Subject: x\r\n" * 200_000 + b"\r\n"])
def test_what_a_program_makes_of_a_message_is_read_in_turns_as_the_message_was(
    octets: bytes,
) -> None:
    """The end of its header was looked for in all of it at once: 4 MiB took a twentieth of a second."""
    script = b'require "vnd.dovecot.filter"; filter "any";'
    program = compile_script(script, capabilities={"vnd.dovecot.filter"})
    envelope = Envelope("a@b.example", "c@d.example")
    machine = start([program], HEAD + b"\r\n", envelope, Circumstances(NOW, "c", "d.example"))
    while not isinstance(step := machine.advance(), RunProgram):
        assert step is PAUSED
    machine.answer(octets)
    turns = 0
    while (step := machine.advance()) is PAUSED:
        turns += 1
    assert isinstance(step, LongWork)
    machine.answer(step.compute())
    assert turns >= len(octets) // (4 * LOOK_OCTETS)
    while not isinstance(step := machine.advance(), Outcome):
        assert step is PAUSED
    assert step.failure is None and bytes(step.messages[-1]) == octets


def test_what_goes_wrong_in_a_thread_is_the_scripts() -> None:
    def breaks() -> None:
        raise RunProblem("it broke")

    machine = started("discard;", HEAD + b"\r\n")
    machine._work = (work for work in [LongWork(breaks)])
    step = machine.advance()
    assert isinstance(step, LongWork)
    machine.answer(step.compute())
    step = machine.advance()
    assert isinstance(step, Outcome) and step.failure is not None
    assert step.failure.problem.text == "it broke"


def test_html_of_nothing_but_angles_is_read_in_large_pieces() -> None:
    text = "<" * 300_000 + "<b>x</b>" + "a < b <"
    read: list[str] = []
    assert lines_run(lambda: read.append(without_markup(text))) < 1000
    assert read == ["<" * 300_000 + "xa < b <"]
