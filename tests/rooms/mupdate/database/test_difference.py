"""A whole list against ours: whatever was there, in whatever order it comes, ours is theirs afterwards, indexes and all."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from murder.model.entry import EntryState
from murder.model.name import collation_key
from murder.roles.mupdate.database.change import PutNote
from murder.roles.mupdate.database.difference import Difference
from murder.roles.mupdate.database.indexing import IndexLines
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.record import Block, pack_plain_rows, pack_row
from murder.roles.mupdate.database.transfer import check
from murder.roles.mupdate.remote.dump import UNINDEXED
from tests.rooms.mupdate.nodes import follower, master
from tests.rooms.mupdate.remote.test_replica import fill, in_step

Row = tuple[bytes, bool, bytes, bytes]
NAMES = [
    *(b"user.u%d%b" % (i, box) for i in range(6) for box in (b"", b".a", b".a.b", b".a-b", b".c")),
    *(b"user.u%d-x" % i for i in range(3)),
    *(b"shared.s%d" % i for i in range(8)),
    *(b"x.org!user.v%d.b" % i for i in range(4)),
    b"user",
    b"zz",
]
ROWS = st.tuples(
    st.sampled_from(NAMES),
    st.booleans() | st.just(True),
    st.sampled_from([b"be1!p", b"be2!p", b"be1!q", b"be1"]),
    st.sampled_from([b"", b"u1\tlrs\t", b"anyone\tl\t-u2\tl\t", b"u1\tr\tu3\tl\t"]),
)

# Rows that replace others of the same batch, whose lines of the index were only collected: found by hypothesis.
AGAIN: list[Row] = [
    (b"user.u0", True, b"be1", b"u1\tlrs\t"),
    (b"user.u0", True, b"be1!p", b"u1\tr\tu3\tl\t"),
    (b"user.u0.a.b", True, b"be1", b"u1\tr\tu3\tl\t"),
    (b"user.u0.a", True, b"be1!q", b""),
    (b"user.u0", True, b"be1", b"anyone\tl\t-u2\tl\t"),
    (b"user.u0", False, b"be1!q", b""),
    (b"user.u0.a.b", False, b"be2!p", b"u1\tlrs\t"),
]


def block_of(rows: Sequence[Row]) -> Block:
    packed = [
        (
            collation_key(name),
            pack_row(
                name,
                EntryState.ACTIVE if active else EntryState.RESERVED,
                location,
                acl if active else b"",
            ),
        )
        for name, active, location, acl in rows
    ]
    return Block([key for key, _ in packed], [row for _, row in packed])


def rows_in(mailboxes: MailboxList) -> list[Row]:
    return [(one.name, one.is_active, one.raw_location, one.raw_acl) for one in mailboxes.walk()]


@settings(max_examples=150, deadline=None)
@given(
    before=st.lists(ROWS, max_size=30),
    dump=st.lists(ROWS, max_size=60),
    in_order=st.booleans() | st.just(True),
    size=st.integers(1, 20),
    collects=st.booleans(),
)
@example([], AGAIN, False, 16, True)
def test_ours_becomes_theirs(
    before: list[Row], dump: list[Row], in_order: bool, size: int, collects: bool
) -> None:
    if in_order:
        dump = sorted({row[0]: row for row in dump}.values(), key=lambda row: collation_key(row[0]))
    with tempfile.TemporaryDirectory() as folder:
        mailboxes = MailboxList.open(Path(folder))
        first = Difference()
        mailboxes.write(lambda transaction: first.apply(transaction, block_of(before)))
        difference = Difference(IndexLines() if collects else None)
        for at in range(0, len(dump), size):
            block = block_of(dump[at : at + size])
            mailboxes.write(lambda transaction: difference.apply(transaction, block))  # noqa: B023
        mailboxes.write(difference.finish)
        theirs = {
            name: (name, active, location, acl if active else b"")
            for name, active, location, acl in dump
        }
        assert rows_in(mailboxes) == [theirs[name] for name in sorted(theirs, key=collation_key)]
        assert list(check(mailboxes)) == []
        mailboxes.close()


@pytest.mark.parametrize(
    "name", [b"user.ana", b"x.org!user.ana", b"user." + b"n" * 485, b"n" * 491, b""]
)
@pytest.mark.parametrize("acl", [b"", b"anyone\tlr\t", b"a" * 990])
def test_rows_packed_at_once_are_the_rows_packed_alone(name: bytes, acl: bytes) -> None:
    names = [b"user.first", name, b"user.last"]
    block = pack_plain_rows(names, [b"be1!p", b"be2!p", b"be1!p"], [acl, acl, b"other\tl\t"])
    alone = [
        (collation_key(one), pack_row(one, EntryState.ACTIVE, location, rights))
        for one, location, rights in zip(
            names, [b"be1!p", b"be2!p", b"be1!p"], [acl, acl, b"other\tl\t"], strict=True
        )
        if 0 < len(one) <= 490
    ]
    assert list(zip(*block, strict=True)) == alone


async def test_a_first_synchronisation_cut_off_before_its_index_is_mended(tmp_path: Path) -> None:
    async with master(tmp_path / "m") as server:
        await fill(server, 3000)
        half = [
            (one.name, one.is_active, one.raw_location, one.raw_acl)
            for one in server.mailboxes.walk()
        ][:1500]
        mailboxes = MailboxList.open(tmp_path / "r")
        lines = IndexLines()
        mailboxes.write(lambda transaction: Difference(lines).apply(transaction, block_of(half)))
        mailboxes.commit([PutNote(UNINDEXED, b"%d" % lines.rows)])
        assert list(check(mailboxes)) != []
        mailboxes.close()
        async with follower(tmp_path / "r", server.target) as one:
            await in_step(one, server)
            assert list(check(one.mailboxes)) == []
            assert not one.mailboxes.note(UNINDEXED)
