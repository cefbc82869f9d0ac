"""An administrator's LIST of everything is what `ListWalk` would say, however the names are cut into batches."""

from hypothesis import given
from hypothesis import strategies as st

from murder.model.name import MailboxName, Namespace, collation_key
from murder.model.query.listing import ListQuery, ListWalk
from murder.roles.frontend.imap.mailboxes.list_all import ListAll
from murder.wire.imap.mailboxes.list import ListEntry, attributes_of, format_list

PARTS = st.sampled_from([b"a", b"b", b"nil", b"x y", b"a^b", b'q"', b"ab", b"Entw&APw-rfe"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(b".".join)


@given(
    st.frozensets(st.one_of(NAMES, NAMES.map(b"user.".__add__)), max_size=30),
    st.integers(1, 9),
    st.booleans(),
)
def test_all_is_listed_as_by_the_walk(names: frozenset[bytes], size: int, unix: bool) -> None:
    namespace = Namespace(unix_hierarchy=unix)
    query = ListQuery(namespace, "admin", b"", [b"*"])
    assert query.shows_all
    ordered = sorted((MailboxName(name) for name in names), key=collation_key)
    expected = b"".join(
        format_list(ListEntry(attributes_of(row, False), namespace.separator, row.external))
        for row in ListWalk(query, own_levels=True).rows(ordered)
    )
    listing = ListAll(query, b"LIST")
    keys = [collation_key(name) for name in ordered]
    pieces = [listing.lines(keys[at : at + size]) for at in range(0, len(keys), size)]
    assert b"".join(pieces) + listing.lines((), following=b"") == expected
