"""Every example that an RFC prints, from its own text: taken or refused, and where the RFC says what comes of it, that.

The older tables (`test_rfc_examples.py`, `test_rfc_examples_more.py`) go further in single ones.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from murder.sieve import (
    Circumstances,
    FileInto,
    Notify,
    Once,
    Outcome,
    Policy,
    Remember,
    Reply,
    Scale,
)
from tests.rooms.sieve.rfc_texts import Example, Run, examples
from tests.rooms.sieve.running import NOW, Books, actions_of, problems_of, run

POLICY: Final = Policy(
    spam=Scale("X-Spam-Score", maximum="10"),
    virus=Scale("X-Virus", kind="text", texts={1: "clean", 4: "perhaps", 5: "infected"}),
)
EXAMPLES: Final = list(examples())


def books_of(example: Example) -> Books:
    books = Books(scripts={name: text.encode() for name, text in example.scripts.items()})
    for word, values in example.world:
        match word:
            case "mailbox":
                books.mailboxes.add(values[0])
            case "list":
                books.lists.setdefault(values[0], set()).update(values[1:])
            case "metadata":
                books.metadata[None if values[0] == "-" else values[0], values[1]] = values[2]
            case "use":
                books.uses[values[0]] = values[1]
            case "id":
                books.mailbox_ids.add(values[0])
            case "address":
                books.addresses = (values[0],)
    return books


def circumstances_of(example: Example, options: Mapping[str, str]) -> Circumstances:
    now = datetime.fromisoformat(options["now"]).replace(tzinfo=UTC) if "now" in options else NOW
    items = {values[0]: values[1] for word, values in example.world if word == "item"}
    around = {"location": "MDA", "phase": "during", **items}
    flags = tuple(values[0] for word, values in example.world if word == "flag")
    words = ("roadrunner", "mail.example.com")
    return Circumstances(now, *words, environment=around, flags=flags, may_reply=not items)


def outcome_of(example: Example, one: Run, books: Books) -> Outcome:
    octets = example.messages[one.message]
    if "big" in one.options:
        octets += b"x" * (int(one.options["big"]) - len(octets) - 2) + b"\r\n"
        assert len(octets) == int(one.options["big"])
    return run(
        example.script,
        message=octets,
        sender=one.options.get("from", "coyote@desert.example.org"),
        recipient=one.options.get("to", "roadrunner@acme.example.com"),
        books=books,
        policy=POLICY,
        circumstances=circumstances_of(example, one.options),
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.title for example in EXAMPLES])
def test_an_example_is_taken_and_does_what_its_rfc_says(example: Example) -> None:
    problems = problems_of(example.script)
    if example.refused:
        assert problems and example.refused in problems[0]
        return
    assert problems == []
    books, came = books_of(example), dict[str, Outcome]()
    for one in example.runs:
        books.seen = books.seen if "again" in one.options else set()
        outcome = came[one.message] = outcome_of(example, one, books)
        actions = actions_of(outcome)
        if one.actions[0].startswith("failure "):
            _, _, words = one.actions[0].partition(" ")
            assert actions[0].startswith("failure ") and words in actions[0], one
        else:
            assert actions == one.actions, one
        remembered = [action for action in outcome.actions if isinstance(action, Remember)]
        books.seen |= {action.once.handle for action in remembered}
        for message, fact, words in one.facts:
            for name in {message, fact} & example.messages.keys() - came.keys():
                other = replace(books, seen=set())
                came[name] = outcome_of(example, replace(one, message=name), other)
            check_fact(example, came, message, fact, words)


def check_fact(
    example: Example, came: Mapping[str, Outcome], message: str, fact: str, words: str
) -> None:
    """`words` are what the fact is about."""
    outcome = came[message]
    if fact in OF_TEXTS:
        octets = (text_of if fact in ("becomes", "lacks", "unchanged") else sent_by)(outcome)
        assert OF_TEXTS[fact](octets.decode(), words, example.messages[message].decode()), octets
        return
    if words in ("same", "differ"):  # `fact` is the other message
        assert (once_of(outcome).handle == once_of(came[fact]).handle) is (words == "same")
        return
    if fact == "period":
        assert once_of(outcome).period_s == int(words)
        return
    (action,) = (one for one in outcome.actions if isinstance(one, FileInto | Reply | Notify))
    target = action.target if isinstance(action, FileInto) else action.copy
    match fact:
        case "sender":
            assert isinstance(action, Notify) and action.sender == words
        case "copy":
            assert target is not None and target.mailbox == words
        case "use":
            assert target is not None and target.special_use == words
        case "id":
            assert target is not None and target.mailbox_id == words
        case "creates":
            assert target is not None and target.create
        case _:
            raise AssertionError(fact)


OF_TEXTS: Final[Mapping[str, Callable[[str, str, str], bool]]] = {
    "becomes": lambda text, words, _: words in text,
    "lacks": lambda text, words, _: words not in text,
    "unchanged": lambda text, _, original: text == original,
    "says": lambda text, words, _: words in text,
    "hushes": lambda text, words, _: words.lower() not in text.lower(),
}


def text_of(outcome: Outcome) -> bytes:
    """The message as the last action has it."""
    return bytes(outcome.messages[getattr(outcome.actions[-1], "version", 0)])


def sent_by(outcome: Outcome) -> bytes:
    """What its last reply or notification sends."""
    return [one for one in outcome.actions if isinstance(one, Reply | Notify)][-1].octets


def once_of(outcome: Outcome) -> Once:
    """By which what it remembers is known again, and for how long."""
    (once,) = (one.once for one in outcome.actions if isinstance(one, Reply | Remember))
    return once


COUNTED: Final = {
    "3894": 4,
    "5173": 12,
    "5183": 2,
    "5228": 42,
    "5229": 19,
    "5230": 8,
    "5231": 6,
    "5232": 14,
    "5233": 2,
    "5235": 5,
    "5260": 9,
    "5293": 11,
    "5429": 6,
    "5435": 10,
    "5436": 3,
    "5437": 8,
    "5463": 17,
    "5490": 10,
    "5703": 13,
    "6009": 4,
    "6131": 3,
    "6133": 7,
    "6134": 13,
    "6558": 1,
    "6609": 20,
    "6785": 3,
    "7352": 10,
    "8579": 6,
    "8580": 5,
    "9042": 5,
    "9671": 1,
}


def test_every_rfc_is_there_with_so_many_examples() -> None:
    """None goes missing unseen."""
    assert Counter(example.title.split()[0] for example in EXAMPLES) == COUNTED
