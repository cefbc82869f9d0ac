"""Names go out to a client and come back the same; the order is Cyrus' own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax, Code, Refusal
from murder.model.name import (
    MailboxName,
    Namespace,
    ancestors_of,
    check_new_name,
    collation_key,
    display,
    inbox_of,
    is_hidden,
    is_inbox,
    name_of_key,
    owner_of,
    parent_of,
)
from murder.wire.mutf7 import encode

N = MailboxName
LAYOUTS = [
    Namespace(unix, alternative, domains)
    for unix in (True, False)
    for alternative in (True, False)
    for domains in (True, False)
]
DOMAINS = Namespace(domains=True)

SEEN = [  # namespace, user, what the client sees, canonical
    (Namespace(), "ana", b"INBOX", b"user.ana"),
    (Namespace(), "ana", b"INBOX/Drafts", b"user.ana.Drafts"),
    (Namespace(), "ana", b"INBOX/a.b", b"user.ana.a^b"),
    (Namespace(), "ana.x", b"INBOX/y", b"user.ana^x.y"),
    (Namespace(), "ana", b"user/bob/z", b"user.bob.z"),
    (Namespace(), "ana", b"shared/z", b"shared.z"),
    (Namespace(), "ana@ex.org", b"INBOX/z", b"ex.org!user.ana.z"),
    (Namespace(), "ana@ex.org", b"shared/z", b"ex.org!shared.z"),
    (DOMAINS, "ana@ex.org", b"user/bob@other.org", b"other.org!user.bob"),
    (DOMAINS, "ana@ex.org", b"user/bob/a@b@ex.org", b"ex.org!user.bob.a@b"),
    (Namespace(), "ana", b"user/bob/a@b.org", b"user.bob.a@b^org"),  # an @ is a letter there
    (Namespace(True, True), "ana", b"Drafts", b"user.ana.Drafts"),
    (Namespace(True, True), "ana", b"Other Users/bob/z", b"user.bob.z"),
    (Namespace(True, True), "ana", b"Shared Folders/z", b"z"),
    (Namespace(False), "ana", b"INBOX.Drafts", b"user.ana.Drafts"),
    (Namespace(False), "ana", b"user.bob", b"user.bob"),
    (DOMAINS, "admin", b"news@ex.org", b"ex.org!news"),
    (DOMAINS, "admin", b"shared/z.1@ex.org", b"ex.org!shared.z^1"),
    (DOMAINS, "admin", b"news", b"news"),
    (DOMAINS, "ana@ex.org", b"news", b"ex.org!news"),
    (DOMAINS, "ana@ex.org", b"news@other.org", b"other.org!news"),
    (DOMAINS, "ana@ex.org", b"news@", b"news"),  # of no domain
    (DOMAINS, "ana@ex.org", b"INBOX/a@b", b"ex.org!user.ana.a@b"),
    (DOMAINS, "ana@ex.org", b"a@b@ex.org", b"ex.org!a@b"),  # made before `@` meant anything
    (Namespace(True, True, True), "admin", b"Shared Folders/news@ex.org", b"ex.org!news"),
    (Namespace(True, True, True), "ana@ex.org", b"a@b", b"ex.org!user.ana.a@b"),
    (Namespace(), "admin", b"news@ex.org", b"news@ex^org"),
]


@pytest.mark.parametrize(("namespace", "user", "external", "name"), SEEN)
def test_a_name_goes_in_and_out(
    namespace: Namespace, user: str, external: bytes, name: bytes
) -> None:
    assert namespace.internal(external, user) == name
    assert namespace.external(N(name), user) == external


def test_inbox_is_known_in_any_case_and_a_trailing_separator_is_dropped() -> None:
    assert Namespace().internal(b"inBox", "ana") == b"user.ana"
    assert Namespace().internal(b"iNbox/x/", "ana") == b"user.ana.x"


@pytest.mark.parametrize("external", [b"", b"/", b"/a", b"a//b", b"a^b", b"INBOX//x"])
def test_what_no_mailbox_can_be_called_is_refused(external: bytes) -> None:
    with pytest.raises(Refusal):
        Namespace().internal(external, "ana")


PART = st.text("abcXYZ-_ &+~=@", min_size=1, max_size=8).map(str.encode)
USERS = st.sampled_from(["ana", "ana.b", "ana@ex.org", "a.b@ex.org"])
PARTS = st.lists(PART, min_size=1, max_size=5).filter(
    lambda parts: parts[0].upper() != b"INBOX" and parts[0] != b"user"
)


@given(st.sampled_from(LAYOUTS), USERS, PARTS, st.sampled_from(["own", "other", "shared"]))
def test_every_canonical_name_survives_every_layout(
    namespace: Namespace, user: str, parts: list[bytes], kind: str
) -> None:
    domain = user.partition("@")[2].encode()
    root = {
        "own": inbox_of(user),
        "other": (domain + b"!" if domain else b"") + b"user.zed",
        "shared": (domain + b"!" if domain else b"") + b"pub",
    }[kind]
    name = N(root + b"." + b".".join(parts))
    assert namespace.internal(namespace.external(name, user), user) == name


def test_the_order_is_that_of_a_cyrus_mailboxes_db() -> None:
    names = [
        b"ex.org!user.a",
        b"user.foo-bar",
        b"user.foo.bar",
        b"user.foo",
        b"user.foo bar",
    ]
    assert sorted(names, key=collation_key) == [
        b"user.foo",
        b"user.foo.bar",
        b"user.foo bar",
        b"user.foo-bar",
        b"ex.org!user.a",
    ]


@given(
    st.binary(min_size=1, max_size=30).filter(lambda name: b"\x1f" not in name and name[0] < 255)
)
def test_a_key_gives_its_name_back(name: bytes) -> None:
    assert name_of_key(collation_key(name)) == name


def test_family_relations() -> None:
    assert parent_of(N(b"user.a")) is None
    assert parent_of(N(b"ex.org!user.a.b")) == b"ex.org!user.a"
    assert ancestors_of(N(b"user.a.b.c")) == [b"user.a.b", b"user.a"]
    assert owner_of(N(b"ex.org!user.a^b.c")) == "a.b@ex.org"
    assert owner_of(N(b"shared.x")) is None
    assert is_inbox(N(b"ex.org!user.a"))
    assert not is_inbox(N(b"user.a.b"))


@pytest.mark.parametrize(
    "name",
    [
        b"user",
        b"a..b",
        b"user.a.",
        b"a%b",
        b"a*b",
        b"a\r\nb",
        b"a\x80",
        b"DELETED.x",
        b"x" * 491,
        b"a!b!c",
    ],
)
def test_names_that_must_not_come_into_being(name: bytes) -> None:
    with pytest.raises(Refusal):
        check_new_name(N(name))


HIDING = [  # as a client may write them, by RFC 6855 §3 and RFC 5198
    "\x00", "\n", "\r", "\t", "\x1b", "\x7f", "\x80", "\x85", "\x9b", "\u200e", "\u200f", "\u061c", "\u2028",
    "\u2029", "\u202a", "\u202e", "\u2066", "\u2069", "\ufeff", "\ufffe", "\uffff", "\ufdd0", "\U0001ffff",
]  # fmt: skip


@pytest.mark.parametrize("letter", HIDING)
def test_no_new_name_has_characters_that_are_not_shown(letter: str) -> None:
    for name in (f"user.a.x{letter}y", f"user.a.{letter}", f"user.a.ü{letter}.z"):
        with pytest.raises(Refusal) as caught:
            check_new_name(N(encode(name)))
        assert caught.value.code is Code.CANNOT
        assert f"U+{ord(letter):04X}" in caught.value.text


@pytest.mark.parametrize(
    "name", [b"&AC8-", b"&2D0-", b"&AOQ", b"a&b", b"&AOR-", b"&A-", b"&==-", b"&AOQ-&AOQ-"]
)
def test_no_new_name_has_shifts_that_only_some_read(name: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        check_new_name(N(b"user.a.x" + name))
    assert caught.value.code is Code.CANNOT


@given(st.text(min_size=1, max_size=60))
def test_a_name_of_letters_that_are_shown_is_fine_whatever_they_are(text: str) -> None:
    try:
        name = N(b"user.a.x" + encode(text))
    except BadSyntax:
        return
    odd = any(is_hidden(letter) or letter in "%*!" for letter in text)
    if not odd and all(part for part in name.split(b".")):
        check_new_name(name)


def test_what_is_displayed_does_nothing_to_a_terminal() -> None:
    assert display(b"a\x1b[31m\xe2\x80\xae\xff") == "a\\x1b[31m\\u202e\\xff"
    assert display("ä日".encode()) == "ä日"


def test_no_new_name_makes_a_domain_of_a_tree() -> None:
    for external in (b"INBOX/a!b", b"INBOX/x.org!user"):
        with pytest.raises(Refusal) as caught:
            check_new_name(Namespace().internal(external, "ana"))
        assert caught.value.code is Code.CANNOT


def test_a_name_as_long_as_a_command_is_refused_by_its_length() -> None:
    with pytest.raises(Refusal) as caught:
        Namespace().internal(b"a" * 400_000, "ana")
    assert caught.value.code is Code.LIMIT
    assert len(caught.value.text) < 200


def test_ordinary_new_names_are_fine() -> None:
    for name in (b"user.a", b"shared", b"ex.org!user.a.b c", b"user.a.&AOQ-"):
        check_new_name(N(name))
