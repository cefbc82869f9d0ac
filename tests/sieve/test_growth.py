"""What a script and a message cost grows with their size and no faster: in lines of Python that run, and in steps told."""

import pytest

from murder.sieve import (
    PAUSED,
    BadScript,
    Circumstances,
    Envelope,
    Limits,
    LongWork,
    Outcome,
    compile_script,
)
from murder.sieve import start as start_run
from murder.sieve.match.regex import weight_of
from murder.sieve.run.parts import without_markup
from tests.kit.steps import lines_run
from tests.sieve.running import MESSAGE, NOW, Books, problems_of, run

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
