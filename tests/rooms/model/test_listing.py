"""LIST as a computation: rows for a user, from names in collation order."""

import re

import pytest

from murder.errors import Code, Refusal
from murder.model.name import MailboxName, Namespace, collation_key
from murder.model.query.listing import ListQuery, ListWalk
from murder.model.query.listmatch import compile_pattern
from tests.kit.steps import lines_run

UNIX = Namespace()
ALTERNATIVE = Namespace(alternative=True)

NAMES = [
    MailboxName(name)
    for name in sorted(
        [
            b"news",
            b"news.comp.lang",
            b"user.ana",
            b"user.ana.Sent",
            b"user.ana.work.2024",
            b"user.ana.work.2025",
            b"user.ana-b",
            b"user.bob.shared",
            b"user.zoe",
        ],
        key=collation_key,
    )
]


def shown(namespace: Namespace, reference: bytes, *patterns: bytes) -> list[str]:
    query = ListQuery(namespace, "ana", reference, patterns)
    names = [name for name in NAMES if name.startswith(query.prefixes)]
    rows = ListWalk(query).rows(names)
    return [
        row.external.decode() + ("+" if row.has_children else "") + ("" if row.exists else " -")
        for row in rows
    ]


CASES = [
    (
        (b"", b"*"),
        "news+|news/comp/lang|INBOX+|INBOX/Sent|INBOX/work/2024|INBOX/work/2025"
        "|user/ana-b|user/bob/shared|user/zoe",
    ),
    ((b"", b"%"), "news+|INBOX+|user+ -"),
    ((b"", b"user/%"), "user/ana-b|user/bob+ -|user/zoe"),
    ((b"", b"INBOX/%"), "INBOX/Sent|INBOX/work+ -"),
    ((b"INBOX/", b"%"), "INBOX/Sent|INBOX/work+ -"),
    ((b"inbox/", b"/work/*"), "INBOX/work/2024|INBOX/work/2025"),
    ((b"", b"inbox"), "INBOX+"),
    ((b"", b"INB*"), "INBOX+|INBOX/Sent|INBOX/work/2024|INBOX/work/2025"),
    ((b"", b"news/%"), "news/comp+ -"),
    ((b"", b"news/%/%"), "news/comp/lang"),
    ((b"", b"*/Sent"), "INBOX/Sent"),
    ((b"", b"nothing"), ""),
    ((b"", b"in%"), "INBOX+"),
]


@pytest.mark.parametrize(("asked", "answer"), CASES)
def test_a_list_in_the_unix_namespace(asked: tuple[bytes, bytes], answer: str) -> None:
    assert "|".join(shown(UNIX, *asked)) == answer


ALTERNATIVE_CASES = [
    ((b"", b"%"), "Shared Folders+ -|INBOX|Sent|work+ -|Other Users+ -"),
    ((b"", b"work/*"), "work/2024|work/2025"),
    ((b"", b"Other Users/%"), "Other Users/ana-b|Other Users/bob+ -|Other Users/zoe"),
    ((b"Shared Folders/", b"*"), "Shared Folders/news+|Shared Folders/news/comp/lang"),
    ((b"", b"INBOX"), "INBOX"),
]


@pytest.mark.parametrize(("asked", "answer"), ALTERNATIVE_CASES)
def test_a_list_in_the_alternative_namespace(asked: tuple[bytes, bytes], answer: str) -> None:
    assert "|".join(shown(ALTERNATIVE, *asked)) == answer


def test_several_patterns_show_a_mailbox_once() -> None:
    assert shown(UNIX, b"", b"INBOX/S%", b"INBOX/*ent") == ["INBOX/Sent"]


def test_prefixes_bound_the_search() -> None:
    assert ListQuery(UNIX, "ana", b"", [b"INBOX/Se%"]).prefixes == (b"user.ana.Se",)
    assert ListQuery(UNIX, "ana", b"", [b"INBOX"]).prefixes == (b"user.ana",)
    assert ListQuery(UNIX, "ana", b"", [b"user/bo.b/%"]).prefixes == (b"user.bo^b.",)
    assert ListQuery(UNIX, "ana", b"", [b"*"]).prefixes == (b"",)
    assert ListQuery(UNIX, "a@x.org", b"", [b"news*"]).prefixes == (b"x.org!news",)
    domains = Namespace(domains=True)
    assert ListQuery(domains, "adm", b"", [b"user/c%@y.org"]).prefixes == (b"y.org!user.c",)
    assert b"y.org!news" in ListQuery(domains, "adm", b"", [b"news%@y.org"]).prefixes
    assert b"y.org!" in ListQuery(domains, "a@x.org", b"", [b"*@y.org"]).prefixes
    apart = Namespace(True, True, True)
    assert ListQuery(apart, "a@x.org", b"", [b"n@y.org"]).prefixes == (b"x.org!user.a.n@y^org",)
    assert b"y.org!" in ListQuery(apart, "a@x.org", b"", [b"*@y.org"]).prefixes
    everywhere = [
        (domains, b"user/c%"),
        (domains, b"n*"),
        (domains, b"user/*.org"),
        (Namespace(unix_hierarchy=False, domains=True), b"user.c*.org"),
        (apart, b"Other Users/c*"),
        (apart, b"Other U*"),
    ]
    for namespace, pattern in everywhere:
        assert ListQuery(namespace, "adm", b"", [pattern]).prefixes == (b"",)  # of all domains
    assert ListQuery(domains, "adm", b"", [b"user/*/Sent"]).prefixes == (b"user.",)  # of none
    assert ListQuery(domains, "adm", b"", [b"INBOX/*"]).prefixes == (b"user.adm.",)


def test_recursive_matching_shows_what_has_a_chosen_mailbox_below() -> None:
    query = ListQuery(UNIX, "ana", b"", [b"%"])
    walk = ListWalk(query, levels=False, recursive=True)
    rows = []
    for name in NAMES:
        rows += walk.push(name, chosen=name == b"user.ana.work.2024")
    rows += walk.end()
    assert [(row.external, row.chosen, row.chosen_below) for row in rows] == [
        (b"INBOX", False, True)
    ]


def test_selection_without_recursion_shows_the_chosen_only() -> None:
    query = ListQuery(UNIX, "ana", b"", [b"*"])
    walk = ListWalk(query, levels=False)
    rows = []
    for name in NAMES:
        rows += walk.push(name, chosen=name == b"user.ana.work.2024")
    rows += walk.end()
    assert [row.external for row in rows] == [b"INBOX/work/2024"]


@pytest.mark.parametrize(
    "patterns",
    [
        [b"*a" * 11],
        [b"a%" * 11],
        [b"%d*x" % number for number in range(101)],
        [b"a" * 400 + b"%d%%" % number for number in range(50)],
        [b"x" * 2001],
    ],
)
def test_patterns_that_cost_too_much_are_refused(patterns: list[bytes]) -> None:
    with pytest.raises(Refusal) as caught:
        ListQuery(UNIX, "ana", b"", patterns)
    assert caught.value.code is Code.LIMIT


@pytest.mark.parametrize("pattern", [b"a%" * 990, b"%*" * 990])
def test_what_is_refused_for_its_length_is_not_looked_through_before(pattern: bytes) -> None:
    def refused() -> None:
        with pytest.raises(Refusal):
            ListQuery(UNIX, "ana", b"", [b"%d" % number + pattern for number in range(100)])

    assert lines_run(refused) < 2000  # a hundred patterns, and not each of their wildcards


def test_a_hundred_names_and_deep_patterns_are_no_cost() -> None:
    ListQuery(UNIX, "ana", b"", [b"INBOX/%d" % number for number in range(100)])
    ListQuery(UNIX, "ana", b"", [b"%/%/%/%/%/%/%/%/%/%", b"**%%*%"])
    assert shown(UNIX, b"", b"news", b"user/zoe", b"inbox", b"new_") == [
        "news+",
        "INBOX+",
        "user/zoe",
    ]


def test_a_pattern_that_comes_again_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []

    def count(pattern: bytes, separator: bytes) -> "re.Pattern[bytes]":
        made.append(pattern)
        return compile_pattern(pattern, separator)

    monkeypatch.setattr("murder.model.query.listing.compile_pattern", count)
    ListQuery(UNIX, "ana", b"", [b"A%"] * 100)
    assert len(made) <= 2
