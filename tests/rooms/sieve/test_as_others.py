"""What other interpreters read of a message and of a script, and ours has read otherwise."""

import pytest

from murder.sieve import BadScript, compile_script
from murder.sieve.match.regex import Pattern
from tests.rooms.sieve.running import actions_of, problems_of, run

MESSAGE = (
    b"From: a@b.example\r\nX-T: a\tb\r\n\tc\r\n \td\r\nContent-Type: this is none\r\n"
    b"Content-Disposition: inline\r\nContent-Language: de; variant=low\r\n\r\nx\r\n"
)
TESTS = [
    # a tab is a blank only where it folds the field
    'header "x-t" "a\tb c \td"',
    'header :matches "x-t" "?\t*"',
    # RFC 5703 §4.1: of other fields than Content-Type and Content-Disposition a blank string is tested
    'header :mime :contenttype "content-language" ""',
    'not header :mime :type "content-language" "de"',
    'header :mime :param "variant" "content-language" "low"',
    'header :mime :type "from" ""',
    'header :mime :type "content-disposition" "inline"',
    'header :mime :subtype "content-disposition" ""',
    'header :mime :type "content-type" ""',
    # and the fields are counted that could be understood
    'header :mime :type :count "eq" ["content-type", "content-language"] "0"',
    'header :mime :type :count "eq" ["content-type", "content-disposition"] "1"',
    'header :mime :count "eq" ["content-type", "content-disposition"] "2"',
]


@pytest.mark.parametrize("test", TESTS)
def test_what_holds(test: str) -> None:
    needed = 'require ["mime", "relational"];'
    script = f"{needed} if {test} {{ discard; }}"
    assert actions_of(run(script, message=MESSAGE)) == ["discard"]


@pytest.mark.parametrize("number", ["32", "4294967296", "1" * 100])
def test_a_match_value_beyond_those_that_are_kept_is_an_error(number: str) -> None:
    (problem,) = problems_of(f'require "variables"; set "a" "${{{number}}}";')
    assert problem.startswith("1:30 match value index ")


def test_a_match_value_may_have_any_number_of_zeros() -> None:
    zeros = "0" * 50
    script = 'require ["variables", "fileinto"]; if header :matches "from" "*@*" {}'
    assert actions_of(run(f'{script} fileinto "${{{zeros}1}}";', message=MESSAGE)) == ["fileinto a"]


@pytest.mark.parametrize(
    ("expression", "text", "place"),
    [
        ("xa{,3}b", "xaab", 0),
        ("xa{,3}b", "xaaaab", None),
        ("\\{,3}", "{,3}", 0),
        ("[{,3}]+$", "{,3}", 0),
        ("[[:alpha:][=]+$", "a=b", 0),
    ],
)
def test_an_expression_of_posix_means_what_it_says(
    expression: str, text: str, place: int | None
) -> None:
    assert Pattern(expression).search(text, 0, len(text)) == place


@pytest.mark.parametrize("expression", ["[[=e=]]", "x[a[.space.]]"])
def test_a_collating_element_is_refused_and_not_read_as_letters(expression: str) -> None:
    with pytest.raises(BadScript, match="collating element"):
        run(f'require "regex"; if header :regex "from" "{expression}" {{}}')


def test_an_own_address_that_is_none_is_taken_with_a_warning() -> None:
    script = 'require "vacation"; vacation :addresses ["ana", "a@b.example"] "away"; discard;'
    (warning,) = compile_script(script.encode()).warnings
    assert "'ana' is not a valid address" in warning.text
    mail = b"From: x@y.example\r\nTo: A@B.example\r\n\r\nx\r\n"
    assert actions_of(run(script, message=mail))[0].startswith("reply")


def test_a_tab_of_a_header_is_a_blank_in_the_name_of_a_mailbox() -> None:
    script = (
        'require ["variables", "fileinto"]; if header :matches "x-t" "*c*" {} fileinto "L/${1}x";'
    )
    assert actions_of(run(script, message=MESSAGE)) == ["fileinto L/a b x"]
