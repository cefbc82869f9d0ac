"""Tests of header fields are made ready when a script is compiled: they say the same as those that are not, for less."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest

from murder.sieve import (
    Circumstances,
    Envelope,
    Outcome,
    Script,
    compile_script,
    run_to_end,
    start,
)
from murder.sieve.check.program import Instruction
from murder.sieve.check.spec import Call
from murder.sieve.language.plain import MAX_FIELDS, MAX_OCTETS
from tests.bench.sieve import RULES
from tests.kit.steps import lines_run
from tests.rooms.sieve.running import NOW, Books

REQUIRED: Final = 'require ["variables", "regex", "relational", "subaddress", "imap4flags"];\n'
NAMES: Final = ("Subject", "from", "To", '["to", "CC", "TO"]', "x-absent", "Received", "x-long")
KEYS: Final = (
    *('"list"', '"*"', '"a@x.example"', '"X.EXAMPLE"', '["nobody", "B@X.example"]', '""'),
    *('"*[ticket #*]*"', '"Grüße"', '"ÉTÉ"', '"été"', '"?"', '"no address"'),
)
PATTERNS: Final = ('"list"', '"(a|b)@(.+)"', '["nobody", "(.)X"]')
MATCHES: Final = ("", ":is", ":contains", ":matches", ":regex", ':value "ge"')
COMPARATORS: Final = ("", ':comparator "i;octet"', ':comparator "i;ascii-casemap"')
PARTS: Final = ("", ":all", ":localpart", ":domain", ":user", ":detail")
VALUES: Final = (
    *(b"a@x.example", b"A <B+d@X.Example>, c@y.example", b"no address", b"", b"<>"),
    *(b"[Ticket #12] a LIST", b"=?utf-8?q?Gr=C3=BC=C3=9Fe?=", b"=?utf-8?q?=C3=89T=C3=89?=", b"*"),
)


def in_general(script: Script) -> Script:
    """With each test as its word says, not made ready."""
    instructions: list[Instruction] = []
    for kind, call, target in script.instructions:
        if call is not None and call.run is not call.word.run:
            call = Call(call.word, call.at, call.line, call.column, call.arguments, call.tags)
            call.matching = script.instructions[len(instructions)][1].matching  # type: ignore[union-attr]
        instructions.append((kind, call, target))
    return replace(script, instructions=tuple(instructions))


def outcome_of(script: Script, message: bytes) -> Outcome:
    run = start([script], message, Envelope("a@x.example", "b@x.example"), Circumstances(NOW))
    return run_to_end(run, Books())


def is_ready(script: Script) -> bool:
    return any(
        call is not None and call.run is not call.word.run for _, call, _ in script.instructions
    )


def a_test(chance: random.Random) -> str:
    word = chance.choice(["header", "header", "address", "exists"])
    names = chance.choice(NAMES)
    if word == "address":
        names = chance.choice(['"from"', '["to", "cc"]', '"reply-to"'])
    elif not names.startswith("["):
        names = f'"{names}"'
    if word == "exists":
        return f"exists {names}"
    kind = chance.choice(MATCHES)
    words = [word, kind, chance.choice(COMPARATORS)]
    if word == "address":
        words.append(chance.choice(PARTS))
    keys = chance.choice(PATTERNS if kind == ":regex" else KEYS)
    return " ".join([*words, names, keys])


def a_script(chance: random.Random) -> str:
    """What each test matched is seen by the flags."""
    lines = [
        f'if {a_test(chance)} {{ addflag "t{number}"; addflag "m${{0}}${{1}}"; }}'
        for number in range(8)
    ]
    return REQUIRED + "\n".join(lines)


def a_message(chance: random.Random) -> bytes:
    fields: list[bytes] = []
    for name in (b"Subject", b"From", b"To", b"Cc", b"Reply-To", b"Received"):
        many = chance.choice([0, 1, 1, 2, MAX_FIELDS + 1])
        fields += [name + b": " + chance.choice(VALUES) for _ in range(many)]
    fields.append(b"X-Long: list" + b"x" * chance.choice([0, MAX_OCTETS, 4 * MAX_OCTETS]))
    chance.shuffle(fields)
    return b"\r\n".join(fields) + b"\r\n\r\nbody\r\n"


@pytest.mark.parametrize("seed", range(4))
def test_a_test_that_is_made_ready_says_what_the_others_say(seed: int) -> None:
    chance = random.Random(seed)
    compared = 0
    for _ in range(60):
        source = a_script(chance)
        script = compile_script(source.encode())
        compared += is_ready(script)
        for message in (a_message(chance) for _ in range(4)):
            found, wanted = outcome_of(script, message), outcome_of(in_general(script), message)
            assert (found.actions, found.failure) == (wanted.actions, wanted.failure), source
    assert compared > 50


@pytest.mark.parametrize(
    ("test", "is_quick"),
    [
        ('header :contains "list-id" "a"', True),
        ('header ["to", "cc"] ["a", "b"]', True),
        ('address :localpart "from" "a"', True),
        ('exists ["to", "cc"]', True),
        ('address :detail "from" "a"', False),  # the site says what parts the two
        ('header :contains "${a}" "a"', False),
        ('header "to" "${a}"', False),
        ('header :index 1 "to" "a"', False),
        ('header :comparator "i;octet" "to" "a"', False),
        ('header :count "ge" "to" "1"', False),
    ],
)
def test_what_depends_on_nothing_but_the_message_is_made_ready(test: str, is_quick: bool) -> None:
    required = 'require ["variables", "relational", "subaddress", "index"];\n'
    script = compile_script(f'{required}set "a" "b"; if {test} {{ stop; }}'.encode())
    assert is_ready(script) is is_quick


def lines_of(rules: Sequence[str], message: bytes) -> int:
    script = compile_script("\n".join(rules).encode())
    outcome_of(script, message)
    return lines_run(lambda: outcome_of(script, message))


def test_a_rule_takes_a_few_lines_where_its_field_is_known() -> None:
    message = b"From: a@x.test\r\nTo: b@x.test\r\nSubject: load\r\n\r\nbody\r\n"
    rules = RULES.splitlines()
    assert len(compile_script(RULES.encode()).instructions) > 60
    one = lines_of([rules[0], *rules[1:3]], message)
    all_of_them = lines_of(rules, message)
    assert all_of_them - one < 25 * (len(rules) - 3)
