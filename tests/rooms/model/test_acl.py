"""Access lists: the text form that MUPDATE carries, and who may do what (RFC 4314)."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.api.auth import Identity
from murder.errors import Refusal
from murder.model.acl import (
    Acl,
    expand_rights,
    format_acl,
    identifiers_of,
    parse_acl,
    parse_default_acl,
    parse_rights,
    rights_granted,
)
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.model.rights import rights_in


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"ana\tlrs\t", {"ana": "lrs"}),
        (
            b"ana\tlrswipkxtecdan\tanyone\tlr\t",
            {"ana": "lrswipkxtecdan", "anyone": "lr"},
        ),
        (b"ana\tlr", {"ana": "lr"}),
        (b"", {}),
        (b"ana\t", {"ana": ""}),
    ],
)
def test_the_text_form_is_read_leniently(raw: bytes, expected: dict[str, str]) -> None:
    assert {who: set(rights) for who, rights in parse_acl(raw).entries.items()} == {
        who: set(rights) for who, rights in expected.items()
    }


@given(
    st.dictionaries(
        st.text("ab-:@", min_size=1),
        st.frozensets(st.sampled_from("lrswipkxtea"), min_size=1),
    )
)
def test_an_acl_is_written_and_read_back(entries: dict[str, frozenset[str]]) -> None:
    assert parse_acl(format_acl(Acl(entries))) == Acl(entries)


def test_negative_rights_take_away_what_a_group_gives() -> None:
    raw = b"group:staff\tlrs\tana\tw\t-ana\tr\t"
    assert rights_granted(raw, identifiers_of("ana", ["staff"])) == frozenset("lsw")
    assert rights_granted(raw, identifiers_of("bob", ["staff"])) == frozenset("lrs")
    assert rights_granted(raw, identifiers_of("eve")) == frozenset()


def test_the_obsolete_rights_stand_for_the_new_ones() -> None:
    assert expand_rights("lc") == frozenset("lkxc")
    assert expand_rights("ld") == frozenset("lted")
    assert "d" in expand_rights("t")


def test_a_letter_that_is_no_right_is_refused() -> None:
    with pytest.raises(Refusal, match="'Z'"):
        parse_rights("lrZ")


def test_taking_all_rights_removes_the_identifier() -> None:
    assert Acl({"ana": frozenset("l")}).changed("ana", frozenset()) == Acl({})


@given(
    st.dictionaries(
        st.sampled_from(["ana", "-ana", "anyone", "-anyone", "group:staff", "lrs"]),
        st.frozensets(st.sampled_from("lrswipkxtea")),
    )
)
def test_what_is_granted_is_what_the_whole_list_says(entries: dict[str, frozenset[str]]) -> None:
    raw = format_acl(Acl(entries))
    identifiers = identifiers_of("ana", ["staff"])
    all_of_it = parse_acl(raw).entries
    nothing: frozenset[str] = frozenset()
    granted = nothing.union(*[all_of_it.get(who, nothing) for who in identifiers])
    denied = nothing.union(*[all_of_it.get("-" + who, nothing) for who in identifiers])
    assert rights_granted(raw, identifiers) == granted - denied


def test_thousands_of_lists_leave_nothing_behind() -> None:
    """Each of another user, with a thousand identifiers: 40 MB of lists, and more as they are read."""
    entry = MailboxEntry(MailboxName(b"user.ana"), EntryState.ACTIVE, b"be1!default")
    tracemalloc.start()
    try:
        for number in range(1000):
            raw = b"".join(b"user%d.%d\tlrs\t" % (number, one) for one in range(1000))
            rights_in(entry._replace(raw_acl=raw), Identity(f"user{number}.7"))
            parse_acl(raw)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 16 * 1024 * 1024


def test_a_default_list_is_written_as_cyrus_has_it() -> None:
    assert format_acl(parse_default_acl("anyone lrs")) == b"anyone\tlrs\t"
    assert format_acl(parse_default_acl("")) == b""
    for bad in ("anyone", "anyone lrq", "anyone lrs staff"):
        with pytest.raises(ValueError, match="anyone"):
            parse_default_acl(bad)
