"""Access lists: the text form that MUPDATE carries, and who may do what (RFC 4314)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import Refusal
from murder.model.acl import (
    Acl,
    expand_rights,
    format_acl,
    identifiers_of,
    parse_acl,
    parse_rights,
)


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
    acl = parse_acl(b"group:staff\tlrs\tana\tw\t-ana\tr\t")
    assert acl.rights_for(identifiers_of("ana", ["staff"])) == frozenset("lsw")
    assert acl.rights_for(identifiers_of("bob", ["staff"])) == frozenset("lrs")
    assert acl.rights_for(identifiers_of("eve")) == frozenset()


def test_the_obsolete_rights_stand_for_the_new_ones() -> None:
    assert expand_rights("lc") == frozenset("lkxc")
    assert expand_rights("ld") == frozenset("lted")
    assert "d" in expand_rights("t")


def test_a_letter_that_is_no_right_is_refused() -> None:
    with pytest.raises(Refusal, match="'Z'"):
        parse_rights("lrZ")


def test_taking_all_rights_removes_the_identifier() -> None:
    assert Acl({"ana": frozenset("l")}).changed("ana", frozenset()) == Acl({})
