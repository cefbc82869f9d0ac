"""RFC 5228: control structures, tests and actions; envelope, fileinto, variables, flags, relational."""

from email import message_from_bytes
from email.policy import default

import pytest

from murder.sieve import (
    PAUSED,
    Circumstances,
    Envelope,
    Limits,
    Notify,
    Outcome,
    ScriptCache,
    compile_script,
)
from murder.sieve import start as start_run
from murder.sieve.cache import memory_of
from tests.rooms.sieve.running import MESSAGE, NOW, Books, actions_of, problems_of, run

ACTIONS = [
    ("", ["implicit keep"]),
    ("keep;", ["keep"]),
    ("discard;", ["discard"]),
    ("discard; keep;", ["keep"]),
    ("keep; keep;", ["keep"]),
    ('redirect "bart@example.com";', ["redirect bart@example.com"]),
    (
        'redirect "Bart <bart@example.com>"; redirect "bart@example.com";',
        ["redirect bart@example.com"],
    ),
    ('require "fileinto"; fileinto "A"; fileinto "B"; fileinto "A";', ["fileinto A", "fileinto B"]),
    ('require ["fileinto", "copy"]; fileinto :copy "A";', ["fileinto A", "implicit keep"]),
    ('require "copy"; redirect :copy "a@b.example";', ["redirect a@b.example", "implicit keep"]),
    ("stop; discard;", ["implicit keep"]),
    ("if true { discard; stop; } keep;", ["discard"]),
    ("if false { discard; } elsif true { keep; } else { discard; }", ["keep"]),
    ("if false { discard; } elsif false { discard; } else { keep; }", ["keep"]),
    ("if not anyof(false, false) { keep; } else { discard; }", ["keep"]),
    ("if allof(true, not false, anyof(false, true)) { keep; }", ["keep"]),
    ("if not allof(true, false) { keep; } discard;", ["keep"]),
    ("if anyof(allof(true, false), not true) { discard; }", ["implicit keep"]),
]


@pytest.mark.parametrize(("script", "expected"), ACTIONS)
def test_what_a_script_does(script: str, expected: list[str]) -> None:
    assert actions_of(run(script)) == expected


HOLDS = [
    'header "subject" "i have a PRESENT for you"',
    'not header :comparator "i;octet" "subject" "i have a PRESENT for you"',
    'header :contains ["x-none", "subject"] ["anvil", "present"]',
    'not header :contains "subject" "anvil"',
    'header :contains "subject" ""',
    'not header :contains "x-none" ""',
    'header :matches "subject" "I have a * for yo?"',
    'not header :matches "subject" "I have a * for yo??"',
    'header :matches "subject" "*"',
    'not header :matches "subject" "?"',
    'address :localpart "from" "coyote"',
    'address :domain "from" "DESERT.example.org"',
    'address "from" "coyote@desert.example.org"',
    'address :all :contains ["to", "from"] "@"',
    'not address "from" "Coyote"',
    'exists ["from", "to"]',
    'not exists ["from", "cc"]',
    "size :over 100",
    "size :under 1K",
    "not size :over 1K",
    'envelope "from" "coyote@desert.example.org"',
    'envelope :domain ["from", "to"] "acme.example.com"',
    'header :value "gt" :comparator "i;ascii-casemap" "subject" "A"',
    'header :count "eq" :comparator "i;ascii-numeric" ["to", "from", "cc"] "2"',
    'header :count "eq" :comparator "i;ascii-numeric" ["to", "To", "from", "to"] "4"',
    'address :index 2 :localpart ["from", "from"] "coyote"',
    'string :value "lt" :comparator "i;ascii-numeric" "9x" "10"',
    'string :value "gt" :comparator "i;ascii-numeric" "nothing" "10"',
    'string :comparator "i;ascii-numeric" "007" "7 of 9"',
    'header :regex "subject" "^I have an? ([a-z]+) for"',
    'string :regex "aXb" "a[[:alpha:]]b"',
    'not string :comparator "i;octet" :regex "aXb" "axb"',
    'string :comparator "i;unicode-casemap" "Größe" "GRÖSSE"',
    'string :matches :comparator "i;unicode-casemap" "ÉTÉ" "é*"',
    'not address "X-BeenThere" "list@x.example"',
    'address :index 1 :localpart "from" "coyote"',
]


@pytest.mark.parametrize("test", HOLDS)
def test_what_holds(test: str) -> None:
    needed = (
        '"envelope", "relational", "comparator-i;ascii-numeric", "comparator-i;unicode-casemap",'
        '"regex", "variables", "index"'
    )
    assert actions_of(run(f"require [{needed}]; if {test} {{ discard; }}")) == ["discard"]


VARIABLES = [
    ('set "a" "b"; fileinto "x${a}${A}${none}";', "xbb"),
    ('set "a" "${a}"; fileinto "x${a";', "x${a"),
    ('set :upper "a" "juMBlE"; fileinto "${a}";', "JUMBLE"),
    ('set :lowerfirst :upper "a" "juMBlE"; fileinto "${a}";', "jUMBLE"),
    ('set :length "a" "été"; fileinto "${a}";', "3"),
    ('set :quotewildcard "a" "R*s?\\\\"; fileinto "${a}";', "R\\*s\\?\\\\"),
    (
        'if header :matches "subject" "* have ? * for *" {} fileinto "${1}${2}${3}${4}${5}";',
        "Iapresentyou",
    ),
    (
        'if header :matches "subject" "*e*" {} fileinto "${0}|${1}|${2}";',
        "I have a present for you|I hav| a present for you",
    ),
    (
        'if header :regex "subject" "(present) (for) (x)?" {} fileinto "${1}.${2}.${3}";',
        "present.for.",
    ),
    ('set "a" "1"; if string "${a}" "1" { fileinto "yes"; }', "yes"),
    ('fileinto "${hex:e4 bd a0}${unicode:21}";', "你!"),
]


@pytest.mark.parametrize(("script", "mailbox"), VARIABLES)
def test_what_variables_are(script: str, mailbox: str) -> None:
    needed = 'require ["fileinto", "variables", "regex", "encoded-character"];'
    assert actions_of(run(needed + script))[0] == f"fileinto {mailbox}"


FLAGS = [
    ('keep :flags ["\\\\seen", "$A b"];', "keep [\\Seen $A b]"),
    ('setflag "a"; addflag ["b", "A"]; removeflag "c"; keep;', "keep [a b]"),
    ('addflag "x"; removeflag "X";', "implicit keep []"),
    ('set "v" "p q"; addflag "v" "r"; keep :flags "${v}";', "keep [p q r]"),
    ('setflag "a b"; if hasflag :count "eq" "2" { discard; }', "discard"),
    ('setflag "a b"; if hasflag :contains "B" { discard; }', "discard"),
]


@pytest.mark.parametrize(("script", "expected"), FLAGS)
def test_what_flags_are_set(script: str, expected: str) -> None:
    assert actions_of(run(f'require ["imap4flags", "variables", "relational"]; {script}')) == [
        expected
    ]


PROBLEMS = [
    (
        "keep",
        [
            "1:5 expected end of command ';' or the beginning of a compound block '{', but found the end of the script"
        ],
    ),
    (
        'if true {\n  fileinto "A";\n}',
        ["2:3 unknown command 'fileinto' (only reported once at first occurrence)"],
    ),
    (
        "\n  nonsense;\nkeep 3;\n",
        [
            "2:3 unknown command 'nonsense' (only reported once at first occurrence)",
            "3:1 the keep command requires 0 positional argument(s), but 1 is/are specified",
        ],
    ),
    ('require "nothing";', ["1:1 require command: unknown Sieve capability 'nothing'"]),
    (
        'keep; require "fileinto";',
        ["1:7 require commands can only be placed at top level at the beginning"],
    ),
    (  # RFC 6609 §3.4.1
        'require ["variables", "include"]; global "a"; set "a" "1"; global "a"; set "B" "2"; global "b";',
        ["1:85 variable 'b' was set before, and is local to this script"],
    ),
    (
        'if header :comparator "i;ascii-numeric" "a" "1" {}',
        ["1:4 comparator 'i;ascii-numeric' for the header test is not required"],
    ),
    ('redirect "nobody";', ["1:1 specified redirect address 'nobody' is not a valid address"]),
    (
        'if header :comparator "i;nothing" "a" "b" {}',
        ["1:4 unknown comparator 'i;nothing' for the header test"],
    ),
    (
        'require "regex"; if header :regex "a" "(" {}',
        ["1:21 invalid key for the :regex match type: missing ): ("],
    ),
    (b'keep "\xff";', ["1:6 quoted string is not UTF-8"]),
    (
        'if header :is :contains "a" "b" {}',
        ["1:15 encountered duplicate match argument (:contains) for the header test"],
    ),
]


@pytest.mark.parametrize(("script", "expected"), PROBLEMS)
def test_what_is_wrong_is_told_with_its_place(script: str | bytes, expected: list[str]) -> None:
    assert problems_of(script) == expected


LIMITS = [
    (
        'redirect "a@e.org"; redirect "b@e.org"; redirect "c@e.org";',
        Limits(redirects=2),
        "number of redirect actions exceeds policy limit",
    ),
    (
        'require "fileinto"; fileinto "a"; fileinto "b"; fileinto "c";',
        Limits(actions=2),
        "total number of actions exceeds policy limit",
    ),
    (
        "if false {} " * 50,
        Limits(steps=20),
        "execution exceeded its time: the script takes too many steps",
    ),
    (
        'require "variables"; set "a" "1"; set "b" "1"; set "c" "1";',
        Limits(variables=2),
        "there are too many variables",
    ),
]


@pytest.mark.parametrize(("script", "limits", "problem"), LIMITS)
def test_what_is_beyond_a_limit_keeps_the_message_and_says_so(
    script: str, limits: Limits, problem: str
) -> None:
    outcome = run(script, limits=limits)
    assert actions_of(outcome) == [f"failure {problem}"]
    assert [type(action).__name__ for action in outcome.actions] == ["Keep"]


def test_what_goes_wrong_in_a_run_has_the_place_of_the_command() -> None:
    text = 'require "ihave";\nkeep; if true {\n    keep; error "oh"; }'
    assert str(run(text).failure) == "line 3, column 11: oh"
    redirects = (
        'require "copy"; ' + 'redirect :copy "a@x.example"; redirect :copy "b@x.example";' * 3
    )
    assert run(redirects).failure is None
    many = "".join(f'redirect :copy "{one}@x.example"; ' for one in "abcdef")
    problem = "number of redirect actions exceeds policy limit"
    assert str(run(f'require "copy";\n{many}').failure) == f"line 2, column 121: {problem}"


def test_a_script_has_so_many_commands_at_most() -> None:
    limits = Limits(commands=5)
    assert problems_of("keep;" * 5, limits=limits) == []
    told = problems_of("if true { keep; } " * 3, limits=limits)
    assert told == ["1:29 the script has more than 5 commands and tests"]


def test_a_long_script_hands_back() -> None:
    script = compile_script(b'if header "a" "b" {}\n' * 3000)
    run_ = start_run([script], MESSAGE, Envelope("a@b.org", "c@d.org"), Circumstances(NOW))
    slices = 0
    while (found := run_.advance(500)) is PAUSED:
        slices += 1
    assert isinstance(found, Outcome)
    assert 3000 * 8 // 520 <= slices <= 3000 * 8 // 500


def test_a_key_is_the_same_when_the_message_comes_again() -> None:
    script = 'require "fileinto"; fileinto "A"; redirect "a@b.example"; keep;'
    again = b"Received: from elsewhere\r\n" + MESSAGE
    one, other = run(script), run(script, message=again)
    assert one.key == other.key
    assert [action.key for action in one.actions] == [action.key for action in other.actions]
    assert len({action.key for action in one.actions}) == 3
    assert run(script, message=MESSAGE.replace(b"<one@", b"<two@")).key != one.key


def test_the_next_script_runs_if_the_message_would_be_kept() -> None:
    assert actions_of(run("keep;", 'redirect "a@b.org";')) == ["redirect a@b.org"]
    assert actions_of(run("discard;", 'redirect "a@b.org";')) == ["discard"]


def test_a_trace_says_what_was_run() -> None:
    trace = run('if exists "from" {\n  discard;\n}', is_traced=True).trace
    assert [(step.line, step.word, step.outcome) for step in trace] == [
        (1, "exists", "true"),
        (2, "discard", "done"),
    ]


def test_programs_are_kept_by_content_and_within_bounds() -> None:
    compiled: list[bytes] = []

    def compiler(octets: bytes) -> "object":
        compiled.append(octets)
        return compile_script(octets)

    two = 2 * memory_of(compile_script(b"discard;"))
    cache = ScriptCache(compiler, max_octets=two)  # type: ignore[arg-type] # as compile_script
    for octets in (b"keep;", b"stop;", b"keep;", b"discard;", b"stop;"):
        cache.compile(octets)
    assert compiled == [b"keep;", b"stop;", b"discard;", b"stop;"]


def test_nothing_is_asked_that_need_not_be() -> None:
    books = Books()
    run("keep;", books=books)
    assert not books.asked


def test_a_comparator_that_belongs_to_the_core_elsewhere_is_taken_with_a_warning() -> None:
    script = 'if header :comparator "i;unicode-casemap" "subject" "GRÖSSE" { discard; }'
    (warning,) = compile_script(script.encode()).warnings
    assert "i;unicode-casemap" in warning.text and "not required" in warning.text
    assert actions_of(run(script, message="Subject: Größe\r\n\r\n".encode())) == ["discard"]


def test_the_subject_of_a_notification_is_no_longer_than_a_subject() -> None:
    outcome = run(f'require "enotify"; notify :message "{"é" * 300}" "mailto:a@b.example";')
    (notify,) = (one for one in outcome.actions if isinstance(one, Notify))
    message = message_from_bytes(notify.octets, policy=default)
    assert message["Subject"] == "é" * 255 + "\u2026"
    assert "é" * 300 in message.get_content()
