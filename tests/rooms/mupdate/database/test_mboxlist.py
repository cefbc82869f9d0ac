"""The mailbox list on LMDB: what it keeps, in which order, for whom, through what."""

import multiprocessing
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murder.errors import Code, Misuse, Refusal
from murder.model.acl import rights_granted
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName, collation_key, owner_of
from murder.roles.mupdate.database.change import (
    PutEntry,
    PutIntent,
    PutNote,
    RemoveEntry,
    RemoveIntent,
)
from murder.roles.mupdate.database.environment import DATA, open_environment
from murder.roles.mupdate.database.mboxlist import MailboxList, mark_synchronised
from murder.roles.mupdate.database.resident import MOST_OCTETS, Resident, mapped_octets
from murder.roles.mupdate.database.transaction import LOOK_LINES

SMALL = 1 << 20


def entry(name: str, location: str = "be1!default", acl: str = "anyone\tlrs\t") -> MailboxEntry:
    return MailboxEntry(
        MailboxName(name.encode()), EntryState.ACTIVE, location.encode(), acl.encode()
    )


def reserved(name: str, location: str = "be1!default") -> MailboxEntry:
    return MailboxEntry(MailboxName(name.encode()), EntryState.RESERVED, location.encode())


def put(*entries: MailboxEntry) -> list[PutEntry]:
    return [PutEntry(one) for one in entries]


def names(entries: Iterator[MailboxEntry]) -> list[str]:
    return [one.name.decode() for one in entries]


@pytest.fixture
def mailboxes(tmp_path: Path) -> Iterator[MailboxList]:
    opened = MailboxList.open(tmp_path / "list")
    yield opened
    opened.close()


def test_a_row_comes_back_as_it_was_put_with_its_number(mailboxes: MailboxList) -> None:
    assert mailboxes.commit(put(entry("user.ana", "be1!p", "ana\tlr\t"))) == 1
    found = mailboxes.find(b"user.ana")
    assert found is not None
    assert (found.raw_location, found.raw_acl, found.seq) == (b"be1!p", b"ana\tlr\t", 1)
    assert found.is_active and found.server == "be1"
    assert mailboxes.find(b"user.an") is None


def test_the_same_row_again_is_no_change(mailboxes: MailboxList) -> None:
    mailboxes.commit(put(entry("a")))
    assert mailboxes.commit(put(entry("a"))) == 1
    assert mailboxes.commit(put(entry("a", "be2!"))) == 2


def test_the_order_is_that_of_a_cyrus_database(mailboxes: MailboxList) -> None:
    wanted = ["user.foo", "user.foo.bar", "user.foo-bar", "user.foobar", "x.org!user.a"]
    mailboxes.commit(put(*(entry(name) for name in reversed(wanted))))
    assert names(mailboxes.walk()) == wanted
    assert names(mailboxes.walk(after=b"user.foo.bar")) == wanted[2:]
    assert names(mailboxes.walk(prefix=b"user.foo")) == wanted[:4]
    assert names(mailboxes.walk(prefix=b"x.org!")) == wanted[4:]
    assert names(mailboxes.below(b"user.foo")) == ["user.foo.bar"]


def test_a_long_walk_meets_every_row_once(mailboxes: MailboxList) -> None:
    wanted = [f"user.u{i:05d}" for i in range(3000)]
    mailboxes.commit(put(*(entry(name) for name in wanted)))
    assert names(mailboxes.walk()) == wanted
    assert names(mailboxes.at_server("be1")) == wanted
    assert names(mailboxes.visible(["nobody", "anyone"])) == wanted
    assert len(list(mailboxes.changes_after(0))) == 3000


def test_heads_are_the_rows_without_their_access_lists(mailboxes: MailboxList) -> None:
    rows = [entry(f"user.ana.m{i:04d}", f"be{i % 2}!p") for i in range(2500)]
    mailboxes.commit(put(entry("user.ana"), *rows, entry("user.anab"), reserved("user.ana.new")))
    heads = list(mailboxes.heads_below(b"user.ana"))
    assert [(one.name, one.server, one.is_active) for one in heads] == [
        (row.name, row.server, row.is_active) for row in mailboxes.below(b"user.ana")
    ]
    assert [one.name for one in heads if not one.is_active] == [b"user.ana.new"]
    assert not list(mailboxes.heads_below(b"user.anab"))


def test_heads_cost_the_same_however_long_access_lists_are(mailboxes: MailboxList) -> None:
    octets, count = 50_000, 200
    acl = "ana\tlr\t" * (octets // 7)
    mailboxes.commit(put(*(entry(f"user.ana.m{i}", acl=acl) for i in range(count))))
    tracemalloc.start()
    try:
        assert len(list(mailboxes.heads_below(b"user.ana"))) == count
        assert tracemalloc.get_traced_memory()[1] < 4 * octets
    finally:
        tracemalloc.stop()


def test_visible_is_what_the_acl_lets_somebody_look_up(mailboxes: MailboxList) -> None:
    mailboxes.commit(
        put(
            entry("user.ana", acl="ana\tlrs\t"),
            entry("user.ana.locked", acl="bob\tr\t-ana\tl\t"),
            entry("user.bob", acl="bob\tlrs\tgroup:staff\tlr\t"),
            entry("shared.all", acl="anyone\tlrs\t"),
            entry("shared.not-ana", acl="anyone\tlrs\t-ana\tl\t"),
            entry("shared.unread", acl="anyone\trs\t"),
            reserved("user.ana.new"),
            entry("DELETED.user.ana.x.1", acl="ana\tlrs\t"),
        )
    )
    see = mailboxes.visible
    assert names(see(["ana", "anyone"])) == ["shared.all", "user.ana", "user.ana.locked"]
    assert names(see(["ana", "anyone"], b"user.")) == ["user.ana", "user.ana.locked"]
    assert names(see(["ana", "anyone", "group:staff"], b"user.b")) == ["user.bob"]
    assert names(see(["ana"], deleted=True))[0] == "DELETED.user.ana.x.1"
    assert names(see(["carol"])) == []


def test_visible_follows_changes_of_acl_state_and_removal(mailboxes: MailboxList) -> None:
    mailboxes.commit(put(entry("a", acl="ana\tl\tbob\tl\t")))
    mailboxes.commit(put(entry("a", acl="bob\tl\t")))
    assert names(mailboxes.visible(["ana"])) == [] and names(mailboxes.visible(["bob"])) == ["a"]
    mailboxes.commit(put(reserved("a")))
    assert names(mailboxes.visible(["bob"])) == []
    mailboxes.commit([*put(entry("a", acl="bob\tl\t")), RemoveEntry(MailboxName(b"a"))])
    assert names(mailboxes.visible(["bob"])) == []


def test_rows_are_counted_and_listed_by_server(mailboxes: MailboxList) -> None:
    mailboxes.commit(put(entry("a"), entry("b", "be2!"), reserved("c", "be2!x"), entry("d", "be3")))
    assert mailboxes.count() == 4
    assert mailboxes.count_by_server() == {"be1": 1, "be2": 2, "be3": 1}
    mailboxes.commit([*put(entry("b", "be1!")), RemoveEntry(MailboxName(b"d"))])
    assert mailboxes.count_by_server() == {"be1": 2, "be2": 1}
    assert names(mailboxes.at_server("be2")) == ["c"]


def test_changes_after_a_number_are_each_row_once_and_removals(mailboxes: MailboxList) -> None:
    mailboxes.commit(put(entry("a"), entry("b"), entry("c")))
    mark = mailboxes.mark()
    mailboxes.commit([*put(entry("a", "be2!")), RemoveEntry(MailboxName(b"b"))])
    mailboxes.commit(put(entry("b", "be3!")))
    seq = mailboxes.seq_of_mark(mark)
    assert seq == 3
    steps = [
        (type(step).__name__, step.entry.name if isinstance(step, PutEntry) else step.name)
        for step in mailboxes.changes_after(seq)
        if isinstance(step, PutEntry | RemoveEntry)
    ]
    assert steps == [("PutEntry", b"a"), ("RemoveEntry", b"b"), ("PutEntry", b"b")]
    assert list(mailboxes.changes_after(mailboxes.last_seq())) == []


def test_a_mark_of_another_history_is_not_followed(tmp_path: Path) -> None:
    ours = MailboxList.open(tmp_path / "ours")
    empty = ours.mark()
    ours.commit(put(entry("a")))
    ours.compact_to(tmp_path / "copy")
    ours.commit(put(entry("b")))
    copy = MailboxList.open(tmp_path / "copy")
    assert ours.seq_of_mark(copy.mark()) == 1 and ours.seq_of_mark(empty) == 0
    assert copy.seq_of_mark(ours.mark()) is None  # further than the copy
    copy.commit(put(entry("c")))
    assert copy.epoch == ours.epoch and copy.last_seq() == ours.last_seq()
    assert copy.seq_of_mark(ours.mark()) is None  # as far as the copy, on another way
    for odd in ("", ":::", "x:1:2", f"{ours.epoch}:x:", f"{ours.epoch}:{'9' * 30}:ab"):
        assert ours.seq_of_mark(odd) is None
    ours.close()
    copy.close()


def test_intents_and_notes_share_the_commit_of_the_rows(mailboxes: MailboxList) -> None:
    mailboxes.commit([PutIntent("create:1", b"{}"), *put(entry("a")), PutNote("at", b"7")])
    assert mailboxes.intents() == {"create:1": b"{}"} and mailboxes.note("at") == b"7"
    mailboxes.commit([RemoveIntent("create:1"), RemoveIntent("never")])
    assert mailboxes.intents() == {} and mailboxes.last_seq() == 1


def test_a_commit_happens_as_a_whole_or_not_at_all(mailboxes: MailboxList) -> None:
    bad = MailboxEntry(MailboxName(b"x" * 500), EntryState.ACTIVE, b"be1!")
    with pytest.raises(Refusal):
        mailboxes.commit([*put(entry("a")), PutIntent("i", b""), PutEntry(bad)])
    assert mailboxes.find(b"a") is None and not mailboxes.intents()
    for name in (b"", b"a\x1fb", b"\xffa", b"a\0"):
        assert mailboxes.find(name) is None
        with pytest.raises(Refusal):
            mailboxes.commit([PutEntry(MailboxEntry(MailboxName(name), EntryState.ACTIVE, b"be1"))])


def test_names_servers_and_identifiers_of_full_length_fit(mailboxes: MailboxList) -> None:
    name, server, user = "u" * 490, "s" * 495, "i" * 5000
    mailboxes.commit(put(entry(name, server + "!p", f"{user}\tl\t")))
    assert names(mailboxes.visible([user])) == [name] == names(mailboxes.at_server(server))
    with pytest.raises(Refusal):
        mailboxes.commit(put(entry("a", "s" * 501)))


def test_synchronised_is_remembered(tmp_path: Path) -> None:
    first = MailboxList.open(tmp_path)
    assert not first.synchronised and first.synchronised_at is None
    first.commit([mark_synchronised(12.5)])
    first.close()
    again = MailboxList.open(tmp_path, read_only=True)
    assert again.synchronised and again.synchronised_at == 12.5
    again.close()


def test_a_reader_may_come_first_and_cannot_write(tmp_path: Path) -> None:
    reader = MailboxList.open(tmp_path / "new", read_only=True)
    assert reader.count() == 0 and reader.mark().startswith(reader.epoch)
    with pytest.raises(Misuse):
        reader.commit([])
    with pytest.raises(Misuse):
        MailboxList.open(tmp_path / "new")
    reader.close()
    writer = MailboxList.open(tmp_path / "new")
    second = MailboxList.open(tmp_path / "new", read_only=True)
    writer.commit(put(entry("a")))
    writer.close()
    assert second.find(b"a") is not None
    second.close()


def test_a_newer_format_is_refused_with_a_sentence(tmp_path: Path) -> None:
    environment = open_environment(tmp_path, read_only=False)
    meta = environment.tables[b"meta"]
    environment.write(lambda transaction: transaction.put(b"format", b"99", db=meta))
    environment.close()
    with pytest.raises(Refusal, match="has format 99, this version reads 1 and 2"):
        MailboxList.open(tmp_path)


def _fill(path: Path, start: int) -> None:
    mailboxes = MailboxList.open(path, map_bytes=SMALL)
    for i in range(start, start + 20):
        mailboxes.commit(
            put(*(entry(f"user.u{i}.b{j}", acl="x" * 200 + "\tl\t") for j in range(100)))
        )
    mailboxes.close()


def test_the_map_grows_under_several_writers_and_a_reader(tmp_path: Path) -> None:
    reader = MailboxList.open(tmp_path, map_bytes=SMALL)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_fill, args=(tmp_path, start)) for start in (0, 100)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert all(one.raw_location == b"be1!default" for one in reader.walk())
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert reader.count() == 4000 == reader.last_seq()
    assert reader.used_bytes() > SMALL
    reader.commit(put(entry("after")))
    assert reader.find(b"after") is not None
    reader.close()


def test_a_list_that_may_not_grow_refuses_more_and_takes_what_makes_room(tmp_path: Path) -> None:
    mailboxes = MailboxList.open(tmp_path, map_bytes=SMALL, may_grow=False)
    kept: list[str] = []
    with pytest.raises(Refusal, match="max_list_bytes") as caught:
        for number in range(4000):
            mailboxes.commit(put(entry(f"user.u{number}", acl="x" * 200 + "\tl\t")))
            kept.append(f"user.u{number}")
    assert caught.value.code is Code.LIMIT and len(kept) > 10
    assert mailboxes.used_bytes() <= SMALL
    for name in kept[:10]:
        mailboxes.commit([RemoveEntry(MailboxName(name.encode()))])
    assert mailboxes.count() == len(kept) - 10
    mailboxes.commit(put(entry("user.new")))
    mailboxes.close()


WORDS = st.sampled_from(["user", "ana", "bob", "a", "b-", "^", "DELETED"])
NAMES = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
ACLS = st.lists(
    st.tuples(
        st.sampled_from(["ana", "-ana", "anyone", "-anyone", "group:g"]),
        st.sampled_from(["l", "lrs", "rs", ""]),
    ),
    max_size=3,
).map(lambda pairs: "".join(f"{who}\t{rights}\t" for who, rights in pairs))
ROWS = st.builds(entry, NAMES, st.sampled_from(["be1!p", "be2!"]), ACLS) | st.builds(
    reserved, NAMES
)
STEPS = st.builds(PutEntry, ROWS) | st.builds(
    lambda name: RemoveEntry(MailboxName(name.encode())), NAMES
)


@settings(max_examples=60, deadline=None)
@given(commits=st.lists(st.lists(STEPS, max_size=12), max_size=5))
def test_the_list_and_its_indexes_agree_with_a_plain_dictionary(
    commits: list[list[PutEntry | RemoveEntry]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    mailboxes = MailboxList.open(tmp_path_factory.mktemp("list"), map_bytes=SMALL)
    model: dict[bytes, MailboxEntry] = {}
    copies: list[tuple[int, dict[bytes, MailboxEntry]]] = [(0, {})]
    for commit in commits:
        mailboxes.commit(commit)
        for step in commit:
            if isinstance(step, PutEntry):
                model[step.entry.name] = step.entry
            else:
                model.pop(step.name, None)
        copies.append((mailboxes.last_seq(), dict(model)))
    ordered = sorted(model, key=collation_key)
    assert [one.name for one in mailboxes.walk()] == ordered
    who = ["ana", "anyone", "group:g"]
    shown = [
        name
        for name in ordered
        if model[name].is_active
        and not name.startswith(b"DELETED.")
        and (owner_of(model[name].name) == "ana" or "l" in rights_granted(model[name].raw_acl, who))
    ]
    assert [one.name for one in mailboxes.visible(who)] == shown
    for server in ("be1", "be2"):
        there = [name for name in ordered if model[name].server == server]
        assert [one.name for one in mailboxes.at_server(server)] == there
        assert mailboxes.count_by_server().get(server, 0) == len(there)
    for seq, old in copies:  # following from any point leads here
        for change in mailboxes.changes_after(seq):
            if isinstance(change, PutEntry):
                old[change.entry.name] = change.entry
            elif isinstance(change, RemoveEntry):
                old.pop(change.name, None)
        assert {name: one.raw_acl for name, one in old.items()} == {
            name: one.raw_acl for name, one in model.items()
        }
    mailboxes.close()


# Of a map that is read, what a process has looked at counts as its memory: who has written much lets go of it

IDENTIFIERS = 400
LONG_ACL = b"".join(b"%s%d\tl\t" % (b"u" * 200, number) for number in range(IDENTIFIERS))
LONG_ROWS = 2 * MOST_OCTETS // len(LONG_ACL)


def long_named(number: int, home: bytes) -> MailboxName:
    return MailboxName(b"user.%s.m%d" % (home, number))


def put_long(numbers: range, home: bytes) -> list[PutEntry]:
    return [
        PutEntry(
            MailboxEntry(long_named(number, home), EntryState.ACTIVE, b"be1!default", LONG_ACL)
        )
        for number in numbers
    ]


def test_who_writes_looks_as_often_as_it_touches_many_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailboxes = MailboxList.open(tmp_path)
    looked: list[int] = []

    def octets() -> int:
        looked.append(1)
        return 0

    monkeypatch.setattr("murder.roles.mupdate.database.resident.mapped_octets", octets)
    mailboxes.commit(
        [PutEntry(MailboxEntry(long_named(1, b"ana"), EntryState.ACTIVE, b"be1!p", b""))]
    )
    assert not looked
    mailboxes.commit(put_long(range(1), b"bob"))
    assert len(looked) == 1 + IDENTIFIERS // LOOK_LINES
    mailboxes.commit(put_long(range(1, 3), b"bob"))
    assert len(looked) == 2 + 3 * (IDENTIFIERS // LOOK_LINES)
    mailboxes.close()


def test_who_writes_long_rows_lets_go_of_those_that_were_read(tmp_path: Path) -> None:
    mailboxes = MailboxList.open(tmp_path)
    before = mapped_octets()
    for at in range(0, LONG_ROWS, 10):
        mailboxes.commit(put_long(range(at, min(at + 10, LONG_ROWS)), b"ana"))
    for number in range(LONG_ROWS):
        row = mailboxes.find(long_named(number, b"ana"))
        assert row is not None and row.raw_acl == LONG_ACL
    assert mapped_octets() - before > MOST_OCTETS
    mailboxes.commit(put_long(range(10), b"bob"))
    assert mapped_octets() - before < MOST_OCTETS
    found = [mailboxes.find(long_named(number, b"ana")) for number in range(LONG_ROWS)]
    assert all(row is not None and row.raw_acl == LONG_ACL for row in found)
    mailboxes.close()


def test_a_file_that_is_not_mapped_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = Resident(tmp_path / DATA)
    monkeypatch.setattr(
        "murder.roles.mupdate.database.resident.mapped_octets", lambda: 10 * MOST_OCTETS
    )
    resident.look()
    resident.end()
