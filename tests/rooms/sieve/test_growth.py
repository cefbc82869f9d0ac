"""What a script and a message cost grows with their size and no faster: in lines of Python that run, and in steps told."""

import tracemalloc

import pytest

from murder.sieve import (
    PAUSED,
    BadScript,
    Circumstances,
    Envelope,
    Limits,
    LongWork,
    Outcome,
    OwnAddresses,
    compile_script,
)
from murder.sieve import start as start_run
from murder.sieve.cache import memory_of
from murder.sieve.language.fields import MAX_COUNTED
from murder.sieve.match.regex import weight_of
from murder.sieve.run.machine import MAX_ANSWERS, MAX_NOTES
from murder.sieve.run.message import MAX_FIELDS
from murder.sieve.run.parts import without_markup
from tests.kit.steps import lines_run
from tests.rooms.sieve.running import MESSAGE, NOW, Books, problems_of, run

TIMES = 4
MOST = 5.0  # times the lines for `TIMES` times the size
FEW = 3000  # lines that say nothing

TOKENS = [
    *(
        "keep;",
        "keep",
        "if true {",
        "}",
        "if not ",
        "anyof(",
        "anyof(true,",
        ")",
        '["a",',
        '"',
        '"a"',
    ),
    *(
        "text:\n",
        "text:\n.\n",
        "..\n",
        "/* ",
        "# \n",
        "${a}",
        "$",
        ":is ",
        "9",
        "[",
        "stop; elsif true {}",
    ),
    *(
        'redirect "a@b.c";',
        "unknown;",
        'require "fileinto";',
        "keep :x;",
        "\\",
        "a b ",
        ",",
        "keep 1;",
    ),
]


def compile_whatever(octets: bytes) -> None:
    try:
        compile_script(octets)
    except BadScript:
        pass


@pytest.mark.parametrize("token", TOKENS)
def test_a_script_four_times_as_long_costs_four_times_as_much(token: str) -> None:
    few = lines_run(compile_whatever, token.encode() * 400)
    many = lines_run(compile_whatever, token.encode() * 400 * TIMES)
    assert many < FEW or many <= MOST * few, (few, many)


SCRIPTS = {
    "header": 'if header :matches "x" ["*a*b*c", "?*z"] { discard; }',
    "address": 'if address :domain "to" "z" { discard; }',
    "regex": 'require "regex"; if header :regex "x" "(a*)*b$" { discard; }',
    "body": 'require "body"; if body :text :contains "needle" { discard; }',
    "raw": 'require "body"; if body :raw :matches "*a*b?c*" { discard; }',
    "mime": 'require ["mime", "foreverypart"]; foreverypart { if header :mime "Content-Type" "x" { keep; } }',
    "edit": 'require "editheader"; addheader "X-A" "b"; deleteheader "x";',
    "count": 'require "relational"; if header :count "gt" "x" "100000000" { discard; }',
}
HEADERS = ["x: aaaaaaaa\r\n", "to: a@b.c,\r\n d@e.f\r\n", "x: " + "a" * 900 + "\r\n"]
PART = "--b\r\nContent-Type: text/html\r\n\r\n<a> hello <b\r\n"


def run_over(script: str, message: bytes) -> None:
    run(script, message=message, books=Books())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_message_four_times_as_large_costs_four_times_as_much(name: str) -> None:
    for header in HEADERS:
        for body in ("plain words\r\n", PART):
            sizes = []
            for count in (40, 40 * TIMES):
                head = header * count + 'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
                message = (head + body * count).encode()
                sizes.append(lines_run(run_over, SCRIPTS[name], message))
            assert sizes[1] < FEW or sizes[1] <= MOST * sizes[0], (header, body, sizes)


def test_work_on_a_large_body_is_handed_over_in_pieces() -> None:
    """No slice looks at more than its budget and one piece; what cannot be cut is LongWork."""
    script = compile_script(b'require "body"; if body :text :contains "needle" { discard; }')
    message = MESSAGE + b"hay and stack\r\n" * 200_000 + b"needle\r\n"
    machine = start_run([script], message, Envelope("a@b.c", "d@e.f"), Circumstances(NOW))
    slices = works = 0
    while not isinstance(found := machine.advance(1000), Outcome):
        if found is PAUSED:
            slices += 1
        else:
            assert isinstance(found, LongWork)
            works += 1
            machine.answer(found.compute())
    assert [type(action).__name__ for action in found.actions] == ["Discard"]
    assert slices > len(message) // 100_000
    assert works == 2  # its parts are found, its text is compared
    assert found.steps > len(message) // 100


WEIGHTS = [
    ("abc", 3),
    ("a{3}b", 4),
    ("(ab){3}", 12),
    ("([0-9]{1,3}\\.){3}[0-9]{1,3}", 21),
    ("[]a]{2,}[[:alpha:]]", 4),
    (".{1000}", 10_000),
]


@pytest.mark.parametrize(("expression", "weight"), WEIGHTS)
def test_what_an_expression_weighs_is_about_what_it_becomes(expression: str, weight: int) -> None:
    assert weight <= weight_of(expression) <= weight + 2


def test_expressions_that_would_take_long_are_refused_or_run_aside() -> None:
    assert problems_of('require "regex"; if header :regex "a" "((x{100}){100}){2}" {}')
    many = 'if header :regex "a" "b" {} '
    assert problems_of('require "regex";' + many * 3, limits=Limits(patterns=2))
    script = compile_script(b'require "regex"; if header :regex "x" "(.*a){90}b" { discard; }')
    message = b"x: " + b"a" * 20_000 + b"\r\n\r\n"
    machine = start_run([script], message, Envelope("a@b.c", "d@e.f"), Circumstances(NOW))
    found = machine.advance()
    assert isinstance(found, LongWork)
    machine.answer(found.compute())
    found = machine.advance()
    assert isinstance(found, Outcome)
    assert found.steps > 20_000 * 90 // 64


HTML = [
    ("<p>a &amp; b</p>", "a & b"),
    ("a <b class='x'>c</b> 1 < 2 <", "a c 1 < 2 <"),
    ("x<SCRIPT type=y>if (a<b) z</Script >y", "xy"),
    ("x<!-- <p> -- > -->y<style>s", "xy"),
    ("x<!doctype html><?xml?>y<br", "xy"),
    ("<title>Bill</title><table><tr><td>Sum:</td> <TD>42</td></tr></table>", "Bill Sum: 42"),
    ("<p>&#" + "9" * 5000 + "; &#" + "0" * 5000 + "65;&#65;", "\ufffd AA"),
    ("a<br/>b<br>\r\nc<h2>d</h2><pan>e", "a b\r\nc d e"),
]


@pytest.mark.parametrize(("markup", "text"), HTML)
def test_what_is_read_of_markup(markup: str, text: str) -> None:
    assert without_markup(markup) == text


@pytest.mark.parametrize(
    "unit", ["<", "<a", "<!--", "<script>", "</script>", "&", "&amp;", "-->", "x" * 50]
)
def test_markup_four_times_as_long_costs_four_times_as_much(unit: str) -> None:
    few, many = (lines_run(without_markup, unit * 500 * times) for times in (1, TIMES))
    assert many < FEW or many <= MOST * few


def test_a_text_is_found_across_the_pieces_of_a_long_one() -> None:
    hay = "h" * 200_000
    for at in (0, 65_530, 65_536, 131_071, 199_990):
        body = hay[:at] + "needle" + hay[at:]
        outcome = run(
            'require "body"; if body :contains "NEEDLE" { discard; }',
            message=b"a: b\r\n\r\n" + body.encode(),
        )
        assert [type(action).__name__ for action in outcome.actions] == ["Discard"]


def test_steps_end_a_script_that_would_go_on_for_ever() -> None:
    script = (
        'require "variables"; set "a" "aaaaaaaaaaaaaaaa";' + 'set "a" "${a}${a}${a}${a}";' * 2000
    )
    outcome = run(script, limits=Limits(steps=20_000))
    assert outcome.failure is not None
    assert outcome.steps <= 21_000


VARIABLE = 'require "variables"; set "a" "b";'
MANY = ",".join(['"${a}"'] * 5000)
SOME = ",".join(['"${a}*"'] * 1000)
FROM = ",".join(['"from"'] * 5000)
METHODS = ",".join(['"mailto:a@b"'] * 2000)
ADDRESSES = ",".join(f'"a{number}@b"' for number in range(2000))
FLAGS = 'require ["variables", "imap4flags"];' + "".join(
    f'set "a{number}" "{" ".join(map(str, range(900)))}";' for number in range(40)
)
VARIABLES = ",".join(f'"a{number}"' for number in range(40))
SLOW = {  # a script, what it is run over, and the least that it costs
    "keys with variables": (
        f'{VARIABLE} if header :is "x" [{MANY}] {{ discard; }}',
        MESSAGE,
        5000,
    ),
    "patterns with variables": (
        f'{VARIABLE} if header :matches "x" [{SOME}] {{ discard; }}',
        MESSAGE,
        1000,
    ),
    "names": (f"if exists [{FROM}] {{ discard; }}", MESSAGE, 1000),
    "fields": ('if header :is "x" "y" { discard; }', b"x: a\r\n" * 5000 + MESSAGE, 5000),
    "addresses": ('if address :is "to" "y" { discard; }', b"to: a\r\n" * 5000 + MESSAGE, 20_000),
    "methods": (
        f'require "enotify"; if valid_notify_method [{METHODS}] {{ discard; }}',
        MESSAGE,
        20_000,
    ),
    "flags of variables": (
        f'{FLAGS} if hasflag [{VARIABLES}] "q" {{ discard; }}',
        MESSAGE,
        20_000,
    ),
    "own addresses": (
        f'require "vacation"; vacation :addresses [{ADDRESSES}] "away";',
        b"List-Id: x\r\n" + MESSAGE,
        20_000,
    ),
    "quoted wildcards": (
        'require "variables"; set :quotewildcard "a" "' + "*" * 4000 + '";',
        MESSAGE,
        2000,
    ),
}


@pytest.mark.parametrize("name", SLOW)
def test_what_is_long_costs_as_much_in_steps_and_is_not_done_in_one_slice(name: str) -> None:
    source, message, least = SLOW[name]
    script = compile_script(source.encode())
    machine = start_run([script], message, Envelope("a@b.c", "d@e.f"), Circumstances(NOW))
    slices = 1
    while not isinstance(found := machine.advance(500), Outcome):
        if isinstance(found, OwnAddresses):
            machine.answer(())
        elif isinstance(found, LongWork):
            machine.answer(found.compute())
        else:
            assert found is PAUSED
            slices += 1
    assert found.failure is None
    assert found.steps >= least
    assert slices > 1


def test_a_part_of_the_envelope_that_is_named_often_is_looked_at_once() -> None:
    """And counts as often as it is named."""
    lines = []
    for count in (10, 1010):
        names = ", ".join(['"from"'] * count)
        script = compile_script(
            f'require "envelope"; if envelope [{names}] "q" {{ keep; }}'.encode()
        )
        envelope = Envelope("coyote@desert.example.org", "d@e.f")
        machine = start_run([script], MESSAGE, envelope, Circumstances(NOW))
        lines.append(lines_run(machine.advance, 10_000))
    assert lines[1] - lines[0] <= 10 * 1000
    asked = 'require ["envelope", "relational"]; if envelope :count "eq" ["from", "from"] "2" { discard; }'
    assert [type(action).__name__ for action in run(asked).actions] == ["Discard"]


LONG_LISTS = {
    "texts": 'if string ["${a}", "${a}"] "q" { discard; }',
    "keys": 'if string "q" ["${a}", "${a}"] { discard; }',
    "options": 'notify :options ["x=${a}", "x=${a}"] "mailto:a@b.c";',
    "flags": 'setflag ["${a}", "${a}"];',
    "more flags": 'keep :flags ["${a}", "${a}"];',
    "flags that are looked for": 'if hasflag ["${a}", "${a}"] { discard; }',
}


@pytest.mark.parametrize("name", LONG_LISTS)
def test_a_list_of_texts_is_bounded_with_its_variables(name: str) -> None:
    """Each of them may have as much as a text may have, and there may be ten thousand."""
    needs = 'require ["variables", "enotify", "imap4flags"];'
    script = f'{needs} set "a" "{"x" * 4000}"; {LONG_LISTS[name]}'
    outcome = run(script, limits=Limits(string_octets=7000))
    assert outcome.failure is not None
    assert "too long" in outcome.failure.problem.text
    assert run(script).failure is None


FLAG_LISTS = ("setflag", "addflag", "removeflag", "keep :flags")


@pytest.mark.parametrize("command", FLAG_LISTS)
def test_a_list_of_flags_is_no_longer_than_flags_can_be(command: str) -> None:
    needs = 'require ["variables", "imap4flags"];'
    texts = ",".join(['"${a}"'] * 10)
    outcome = run(f'{needs} set "a" "{"x " * 2000}"; {command} [{texts}];')
    assert outcome.failure is not None
    assert "16384 characters" in outcome.failure.problem.text


LONG_FIELDS = {
    "vacation": 'vacation :subject "%s" "away";',
    "replace": 'replace :subject "%s" "new";',
    "enclose": 'enclose :subject "%s" "new";',
    "headers": 'enclose :headers "X-A: %s" "new";',
}


@pytest.mark.parametrize("name", LONG_FIELDS)
def test_a_long_text_of_a_script_becomes_a_field_aside(name: str) -> None:
    needs = 'require ["vacation", "replace", "enclose"];'
    for size, is_aside in ((10, False), (20_000, True)):
        script = compile_script((needs + LONG_FIELDS[name] % ("\u00e9" * size)).encode())
        circumstances = Circumstances(NOW, "roadrunner", "mail.example.com")
        own = "roadrunner@acme.example.com"
        machine = start_run(
            [script], MESSAGE, Envelope("coyote@desert.example.org", own), circumstances
        )
        works = 0
        while not isinstance(found := machine.advance(), Outcome):
            if isinstance(found, LongWork):
                works += 1
                machine.answer(found.compute())
            elif isinstance(found, OwnAddresses):
                machine.answer((own,))
            else:
                assert found is PAUSED
        assert found.failure is None
        assert bool(works) is is_aside


def test_a_header_that_is_named_often_is_looked_at_once() -> None:
    """And counts as often as it is named, as Pigeonhole has it, up to `MAX_COUNTED`."""
    names = ",".join(['"x"'] * 1000)
    script = f'require "relational"; if header :count "eq" [{names}] "{MAX_COUNTED}" {{ discard; }}'
    outcome = run(script, message=b"x: y\r\n" * 1000 + MESSAGE)
    assert [type(action).__name__ for action in outcome.actions] == ["Discard"]


def test_answers_that_are_known_are_gone_through_in_slices_and_few_are_kept() -> None:
    names = ",".join(f'"tag:{number}"' for number in range(50))
    script = compile_script(
        f'require "extlists"; if header :list "x" [{names}] {{ discard; }}'.encode()
    )
    for value in (b"x: same\r\n" * 1000, b"".join(b"x: %d\r\n" % number for number in range(100))):
        machine = start_run(
            [script], value + MESSAGE, Envelope("a@b.c", "d@e.f"), Circumstances(NOW)
        )
        pauses = 0
        while not isinstance(found := machine.advance(500), Outcome):
            if found is PAUSED:
                pauses += 1
            else:
                machine.answer(False)
        assert found.failure is None
        if b"same" in value:
            assert pauses >= 50 * 1000 // 500
        assert len(machine._answers) <= MAX_ANSWERS


def test_a_pattern_that_copies_a_text_for_each_of_its_parts_runs_aside() -> None:
    parts = "*".join("\u00e9?" for _ in range(249))
    script = compile_script(f'if header :matches "subject" "*{parts}*" {{ keep; }}'.encode())
    message = b"Subject: " + "\u00e9".encode() * 5500 + b"\r\n\r\n"
    machine = start_run([script], message, Envelope("a@b.c", "d@e.f"), Circumstances(NOW))
    assert isinstance(machine.advance(), LongWork)


def test_a_run_notes_no_more_than_anybody_reads() -> None:
    wrong = 'if header :regex "x" "${a}" { keep; }'
    script = f'require ["variables", "regex"]; set "a" "("; {wrong * 500}'
    assert len(run(script).notes) == MAX_NOTES


HEAVY = {
    "wildcards": 'if header :matches "x" "%s" { keep; }' % "*".join("a" * 20_000),  # noqa: UP031 # braces
    "values of wildcards": 'if header :matches "x" "%s" { keep; }' % ("?" * 20_000),  # braces
    "texts": 'if header :matches "x" [%s] { keep; }' % ",".join(['"a*"'] * 9000),  # noqa: UP031 # braces
    "variables": 'require "variables"; set "a" "%s";' % ("${a}" * 20_000),
}


@pytest.mark.parametrize("name", HEAVY)
def test_what_a_program_takes_in_memory_is_counted(name: str) -> None:
    source = HEAVY[name].encode()
    compile_script(source)
    tracemalloc.start()
    try:
        script = compile_script(source)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert memory_of(script) >= taken / 2, (memory_of(script), taken)


def test_no_more_fields_of_a_header_are_kept_than_a_mail_has() -> None:
    script = compile_script(b'require "editheader"; if exists "last" { addheader "X-A" "b"; }')
    message = b"a:\n" * (MAX_FIELDS + 1) + b"last: x\n\nbody\n"
    machine = start_run([script], message, Envelope("a@b.c", "d@e.f"), Circumstances(NOW))
    while not isinstance(found := machine.advance(), Outcome):
        assert found is PAUSED
    assert len(machine.message.fields) == MAX_FIELDS
    assert not machine.message.is_known
    assert [bytes(version) for version in found.messages] == [message]
    assert any("header fields" in note for note in found.notes)
