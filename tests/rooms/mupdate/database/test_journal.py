"""Ahead of LMDB: what is durable in the journal is there after any end, once, and in the list that it belongs to only."""

import multiprocessing
import os
import resource
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from murder.errors import Refusal
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.database import settling
from murder.roles.mupdate.database.change import (
    Change,
    PutEntry,
    PutIntent,
    PutNote,
    RemoveEntry,
    RemoveIntent,
)
from murder.roles.mupdate.database.journal import BLOCK, MAGIC, NAME, format_changes, parse_changes
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.transfer import check
from tests.kit.waiting import LIMIT_S

BYTES = 64 * BLOCK
NAMES = [f"user.{who}{box}" for who in "abc" for box in ("", ".x", ".y", "-z")]


def put(name: str, number: int = 0, server: str = "be1") -> PutEntry:
    location, acl = f"{server}!p".encode(), f"anyone\tl\tn{number}\tl\t".encode()
    return PutEntry(MailboxEntry(MailboxName(name.encode()), EntryState.ACTIVE, location, acl))


def remove(name: str) -> RemoveEntry:
    return RemoveEntry(MailboxName(name.encode()))


def opened(folder: Path, bound: int = BYTES) -> MailboxList:
    return MailboxList.open(folder, journal_bytes=bound)


def write(mailboxes: MailboxList, *changes: Change) -> str:
    """Ahead of LMDB; the mark behind it."""

    def work(transaction: object) -> None:
        for change in changes:
            transaction.apply(change)  # type: ignore[attr-defined]

    return mailboxes.write(work, ahead=True)[1].mark


@contextmanager
def unsettled(mailboxes: MailboxList) -> Iterator[None]:
    """Nothing goes from the journal into LMDB by itself meanwhile."""
    with mailboxes._environment._settling._settling:
        yield


def killed(folder: Path, mailboxes: MailboxList) -> Path:
    """A copy of its files as kill -9 would leave them now."""
    copy = folder.with_name(f"{folder.name}-killed-{len(list(folder.parent.iterdir()))}")
    with unsettled(mailboxes):
        shutil.copytree(folder, copy)
    return copy


def rows(mailboxes: MailboxList) -> dict[str, bytes]:
    return {one.name.decode(): one.raw_acl for one in mailboxes.walk()}


def all_of(mailboxes: MailboxList) -> list[object]:
    """Whatever can be asked of it."""
    return [
        list(mailboxes.walk()),
        list(mailboxes.walk(b"user.b")),
        list(mailboxes.at_server("be1")),
        list(mailboxes.visible(["anyone"])),
        list(mailboxes.visible(["n3"])),
        list(mailboxes.rows_changed_after(0)),
        [mailboxes.rows_changed_after(seq, 2) for seq in range(0, mailboxes.last_seq(), 3)],
        mailboxes.count(),
        mailboxes.held_by_server(),
        mailboxes.mark(),
        mailboxes.position(),
        mailboxes.intents(),
        [mailboxes.note(f"note{i}") for i in range(3)],
        [mailboxes.row(name.encode()) for name in NAMES],
        list(check(mailboxes)),
    ]


CHANGES = st.one_of(
    st.builds(put, st.sampled_from(NAMES), st.integers(0, 4), st.sampled_from(["be1", "be2"])),
    st.builds(remove, st.sampled_from(NAMES)),
    st.builds(PutNote, st.sampled_from(["note0", "note1", "note2"]), st.binary(max_size=4)),
    st.builds(PutIntent, st.sampled_from(["one", "two"]), st.binary(max_size=4)),
    st.builds(RemoveIntent, st.sampled_from(["one", "two"])),
)
COMMITS = st.lists(
    st.tuples(
        st.lists(CHANGES, min_size=1, max_size=4),
        st.sampled_from(["", "", "freeze", "settle", "directly"]),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(COMMITS)
def test_what_is_ahead_of_lmdb_is_seen_as_if_it_were_in_it(
    commits: list[tuple[list[Change], str]],
) -> None:
    with TemporaryDirectory() as scratch:
        mailboxes = opened(Path(scratch) / "list")
        inside = mailboxes._environment._settling
        for changes, then in commits:
            if then == "directly":
                mailboxes.commit(changes)
            else:
                write(mailboxes, *changes)
            if then == "freeze" and len(inside.layers) == 1:  # as while a chapter is being settled
                lowest = inside.layers[0]
                assert inside._journal is not None
                inside._put_on(inside._journal, inside._names[lowest].name, lowest.stands_on + 1)
            elif then == "settle":
                with inside.alone():
                    pass
        with unsettled(mailboxes):
            seen = all_of(mailboxes)
            copy = Path(scratch) / "copy"
            shutil.copytree(Path(scratch) / "list", copy)
            reader = MailboxList.open(copy, read_only=True)
            assert all_of(reader) == seen
            reader.close()
        with inside.alone():
            assert not inside.layers
        assert all_of(mailboxes) == seen and seen[-1] == []
        mailboxes.close()
        after = opened(copy)
        assert all_of(after) == seen
        after.close()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 6),
            st.dictionaries(st.binary(max_size=20), st.none() | st.binary(max_size=20), min_size=1),
        ),
        max_size=4,
    )
)
def test_changes_come_back_as_they_were_written(
    changes: list[tuple[int, dict[bytes, bytes | None]]],
) -> None:
    found = parse_changes(format_changes(changes))
    assert list(found) == changes
    assert [list(one) for _, one in found] == [list(one) for _, one in changes]


def test_a_torn_tail_takes_nothing_with_it_that_was_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "list"
    mailboxes = opened(folder)
    assert mailboxes.ahead_bytes == 0
    with unsettled(mailboxes):
        marks = [write(mailboxes, put(f"user.n{i}", i)) for i in range(5)]
        assert mailboxes.ahead_bytes == 5 * BLOCK
    copy = killed(folder, mailboxes)
    whole = (copy / NAME).read_bytes()
    last = 4 * BLOCK
    length = len(whole[last : last + BLOCK].rstrip(b"\0"))
    assert length > 200
    for at in range(last, last + length, 13):
        for torn in (
            whole[:at] + bytes(last + length - at),
            whole[:at] + b"\xff" + whole[at + 1 :],
        ):
            (copy / NAME).write_bytes(torn + whole[len(torn) :])
            reader = MailboxList.open(copy, read_only=True)
            assert len(rows(reader)) in (4, 5) and reader.mark() in marks[3:]
            if torn[last:] != whole[last : len(torn)]:
                assert reader.mark() == marks[3]
            reader.close()
    mailboxes.close()


def test_without_a_thread_that_settles_a_commit_is_one_and_the_next_begins_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is durable already: who is told that it failed would do it again."""

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    mailboxes = opened(tmp_path / "list")
    inside = mailboxes._environment._settling
    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", no_thread)
        write(mailboxes, put("user.a"))
    write(mailboxes, put("user.b"))
    assert inside._thread is not None and inside._thread.is_alive()
    assert mailboxes.count() == 2
    mailboxes.close()


def test_what_a_log_has_is_flushed_before_a_chapter_begins_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then a power cut may take the last of it, and never something in between."""
    monkeypatch.setattr(settling, "SETTLE_S", 3600)
    folder, copy = tmp_path / "list", tmp_path / "copy"
    mailboxes = opened(folder)
    environment = mailboxes._environment
    flushed: list[bytes] = []
    begun, may_go_on = threading.Event(), threading.Event()

    def fdatasync(_: int) -> None:
        flushed.append((folder / NAME).read_bytes())

    def write_below(work: Any, *, owed: bool = False) -> Any:
        if threading.current_thread().name == "settling":
            begun.set()
            assert may_go_on.wait(LIMIT_S)
        return below(work, owed=owed)

    def write_soon(change: Change) -> None:
        mailboxes.write(lambda transaction: transaction.apply(change), ahead=True, flush=False)

    below = environment.write_below
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(environment, "write_below", write_below)
    for i in range(3):
        write_soon(put(f"user.n{i}"))
    assert not flushed
    environment._settling._wake(hurry=True)
    assert begun.wait(LIMIT_S)  # they go into LMDB,
    write_soon(put("user.n3"))  # and this is behind them
    whole = (folder / NAME).read_bytes()
    shutil.copytree(folder, copy)
    # the disk has this one, and of what was before it only what it had to take
    half = len(whole) // 2
    (copy / NAME).write_bytes((flushed[-1] if flushed else bytes(half))[:half] + whole[half:])
    may_go_on.set()
    mailboxes.close()
    after = opened(copy)
    assert rows(after).keys() == {f"user.n{i}" for i in range(4)}
    assert list(check(after)) == []
    after.close()


def test_a_record_is_not_taken_without_those_before_it(tmp_path: Path) -> None:
    folder = tmp_path / "list"
    mailboxes = opened(folder)
    assert mailboxes.ahead_bytes == 0
    with unsettled(mailboxes):
        marks = [write(mailboxes, put(f"user.n{i}", i)) for i in range(5)]
        assert mailboxes.ahead_bytes == 5 * BLOCK
    copy = killed(folder, mailboxes)
    octets = bytearray((copy / NAME).read_bytes())
    octets[2 * BLOCK + 30] ^= 1
    (copy / NAME).write_bytes(octets)

    again = opened(copy)
    assert again.mark() == marks[1] and len(rows(again)) == 2
    write(again, put("user.after"))
    again.close()
    reader = MailboxList.open(copy, read_only=True)
    assert sorted(rows(reader)) == ["user.after", "user.n0", "user.n1"] and not list(check(reader))
    reader.close()
    mailboxes.close()


def test_a_journal_of_a_newer_version_is_refused_with_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "list"
    mailboxes = opened(folder)
    with unsettled(mailboxes):
        write(mailboxes, put("user.n"))
        copy = folder.with_name("copy")
        shutil.copytree(folder, copy)
    mailboxes.close()
    octets = (copy / NAME).read_bytes()
    (copy / NAME).write_bytes(octets.replace(MAGIC, b"mlj2"))
    for read_only in (False, True):
        with pytest.raises(Refusal, match="has format 2, this version reads 1"):
            MailboxList.open(copy, read_only=read_only)


def test_a_mark_that_a_replica_was_told_is_known_after_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "list"
    mailboxes = opened(folder)
    marks = []
    copies = []
    for i in range(40):  # through several chapters
        marks.append(write(mailboxes, put(f"user.n{i % 7}", i)))
        if i % 10 == 9:
            copies.append((len(marks), killed(folder, mailboxes)))
    mailboxes.close()
    for number, copy in copies:
        again = opened(copy)
        assert [again.seq_of_mark(mark) is not None for mark in marks[:number]] == [True] * number
        assert again.mark() == marks[number - 1] and not list(check(again))
        again.close()


def test_an_older_list_takes_nothing_of_a_younger_ones_journal(tmp_path: Path) -> None:
    folder = tmp_path / "list"
    mailboxes = opened(folder)
    write(mailboxes, put("user.old"))
    mailboxes.compact_to(tmp_path / "backup")
    write(mailboxes, put("user.young"))
    with mailboxes._environment._settling.alone():
        pass
    write(mailboxes, put("user.youngest"))
    copy = killed(folder, mailboxes)
    mailboxes.close()

    shutil.copyfile(tmp_path / "backup" / "data.mdb", copy / "data.mdb")
    restored = opened(copy)
    assert list(rows(restored)) == ["user.old"]
    restored.close()


def test_after_a_clean_end_nothing_is_left_in_the_journal(tmp_path: Path) -> None:
    folder = tmp_path / "list"
    mailboxes = opened(folder)
    shutil.copytree(folder, tmp_path / "before")
    write(mailboxes, put("user.young"))
    mailboxes.close()

    shutil.copyfile(folder / NAME, tmp_path / "before" / NAME)
    before = opened(tmp_path / "before")
    assert not rows(before)
    before.close()


def _come_and_go(folder: Path) -> None:
    MailboxList.open(folder).close()


def test_another_process_that_ends_takes_nothing_from_the_journal(tmp_path: Path) -> None:
    folder = tmp_path / "list"
    mailboxes = opened(folder)
    with unsettled(mailboxes):
        write(mailboxes, put("user.acknowledged"))
        other = multiprocessing.get_context("spawn").Process(target=_come_and_go, args=(folder,))
        other.start()
        other.join()
        assert other.exitcode == 0
        shutil.copytree(folder, tmp_path / "killed")
    mailboxes.close()
    again = opened(tmp_path / "killed")
    assert list(rows(again)) == ["user.acknowledged"]
    again.close()


def _write_ahead_and_die(folder: Path) -> None:
    mailboxes = opened(folder)
    mailboxes._environment._settling._settling.acquire()
    write(mailboxes, put("user.acknowledged"))
    os._exit(0)


def test_who_ends_behind_one_that_died_settles_what_that_one_left(tmp_path: Path) -> None:
    folder = tmp_path / "list"
    bystander = MailboxList.open(folder)
    other = multiprocessing.get_context("spawn").Process(
        target=_write_ahead_and_die, args=(folder,)
    )
    other.start()
    other.join()
    assert not rows(bystander)
    bystander.close()
    again = opened(folder)
    assert list(rows(again)) == ["user.acknowledged"]
    again.close()


def _format_of(folder: Path) -> bytes:
    """As a version reads it that knows no journal."""
    with lmdb.open(str(folder), max_dbs=1, readonly=True, lock=False) as environment:
        meta = environment.open_db(b"meta", create=False)
        with environment.begin(db=meta) as transaction:
            return transaction.get(b"format") or b""


def test_a_version_that_knows_no_journal_refuses_a_list_that_has_one_ahead(tmp_path: Path) -> None:
    folder = tmp_path / "list"
    mailboxes = opened(folder)
    write(mailboxes, put("user.first"))
    copy = killed(folder, mailboxes)
    mailboxes.close()
    assert (_format_of(copy), _format_of(folder)) == (b"2", b"1")
    again = opened(copy)
    assert list(rows(again)) == ["user.first"]
    again.close()
    assert _format_of(copy) == b"1"


def test_the_journal_stays_within_its_bound_and_large_changes_pass_it_by(tmp_path: Path) -> None:
    folder = tmp_path / "list"
    mailboxes = opened(folder)
    for i in range(200):
        write(mailboxes, put(f"user.n{i}", i))
    write(mailboxes, *[put(f"user.m{i:05}", i) for i in range(3000)])
    assert (folder / NAME).stat().st_size == BYTES
    copy = killed(folder, mailboxes)
    mailboxes.close()
    again = opened(copy)
    assert again.count() == 3200 and not list(check(again))
    again.close()


def test_what_is_ahead_goes_into_lmdb_with_what_is_written_there_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One commit, of two flushes, in place of two."""
    monkeypatch.setattr(settling, "SETTLE_S", 3600)
    folder = tmp_path / "list"
    mailboxes = opened(folder)
    below = mailboxes._environment
    write(mailboxes, put("user.ahead", 1))
    write(mailboxes, put("user.both", 1))
    copy = killed(folder, mailboxes)
    before, seq = below.stamp_below(), mailboxes.last_seq()
    mailboxes.commit([put("user.both", 2), put("user.direct", 2)])
    assert below.stamp_below() == before + 1 and not below._settling.layers
    assert rows(mailboxes).keys() == {"user.ahead", "user.both", "user.direct"}
    assert b"n2" in rows(mailboxes)["user.both"] and mailboxes.last_seq() == seq + 2
    shutil.copy(folder / "data.mdb", copy)  # as a power cut behind the commit may leave it
    again = opened(copy)
    assert all_of(again) == all_of(mailboxes)
    again.close()

    def fails(_: object) -> None:
        raise ZeroDivisionError

    write(mailboxes, put("user.kept"))
    before = below.stamp_below()
    with pytest.raises(ZeroDivisionError):
        mailboxes.write(fails)
    assert below.stamp_below() == before and below._settling.layers
    assert "user.kept" in rows(mailboxes) and not list(check(mailboxes))
    mailboxes.close()


def test_a_list_that_is_nearly_full_is_written_directly(tmp_path: Path) -> None:
    mailboxes = MailboxList.open(
        tmp_path / "list", map_bytes=16 << 20, may_grow=False, journal_bytes=BYTES
    )
    write(mailboxes, put("user.n"))
    assert not mailboxes._environment._settling.layers and mailboxes.count() == 1
    mailboxes.close()


def _write_here(folder: Path, name: str) -> None:
    mailboxes = MailboxList.open(folder)
    mailboxes.commit([put(name)])
    mailboxes.close()


def test_another_process_writes_between_two_chapters(tmp_path: Path) -> None:
    folder = tmp_path / "list"
    mailboxes = opened(folder)
    write(mailboxes, put("user.first"))
    other = multiprocessing.get_context("spawn").Process(
        target=_write_here, args=(folder, "user.other")
    )
    other.start()
    number = 0
    while other.is_alive():
        number += 1
        write(mailboxes, put("user.mine", number))
        other.join(0.001)
    assert other.exitcode == 0
    write(mailboxes, put("user.last"))
    assert sorted(rows(mailboxes)) == ["user.first", "user.last", "user.mine", "user.other"]
    assert not list(check(mailboxes)) and mailboxes.last_seq() == number + 3
    copy = killed(folder, mailboxes)
    mailboxes.close()
    again = opened(copy)
    assert len(rows(again)) == 4 and not list(check(again))
    again.close()


def test_a_disk_that_takes_no_more_keeps_what_was_acknowledged_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list's file cannot grow; the journal is there already."""
    monkeypatch.setattr(settling, "SETTLE_S", 3600)
    folder = tmp_path / "list"
    mailboxes = opened(folder)
    write(mailboxes, *[put(f"user.n{i:04}", i) for i in range(2000)])
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "data.mdb").stat().st_size, hard))
    try:
        acknowledged = ["user.n0000"]
        failure = ""
        for i in range(200):
            acknowledged.append(f"user.m{i}")
            try:
                write(mailboxes, *[put(f"user.m{i}.{j}", j) for j in range(10)], put(f"user.m{i}"))
            except Exception as error:  # noqa: BLE001 - looked at below
                failure = str(error)
                acknowledged.pop()
                break
        assert "cannot be written" in failure and len(acknowledged) > 3
        assert str(tmp_path) not in failure  # users are told it
        with capture_logs() as logged:  # it has been said, and is not at each try
            for _ in range(3):
                with pytest.raises(Refusal):
                    write(mailboxes, *[put(f"user.l{j}", j) for j in range(2000)])
        assert all(line["event"] != "list.not_written" for line in logged)
        assert set(acknowledged) <= set(rows(mailboxes))
        copy = killed(folder, mailboxes)
        reader = opened(copy)  # as after a kill: it can be read, and takes nothing
        assert set(acknowledged) <= set(rows(reader))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, before)
    with capture_logs() as logged:
        for _ in range(2):
            write(mailboxes, *[put(f"user.l{j}", j) for j in range(2000)])
    events = [line["event"] for line in logged]  # the thread that settles says its own
    assert [event for event in events if "written" in event] == ["list.written_again"]
    write(reader, put("user.after"))
    assert {*acknowledged, "user.after"} <= set(rows(reader)) and not list(check(reader))
    reader.close()
    write(mailboxes, put("user.after"))
    assert {*acknowledged, "user.after"} <= set(rows(mailboxes)) and not list(check(mailboxes))
    mailboxes.close()


def test_readers_see_whole_commits_while_chapters_are_settled(tmp_path: Path) -> None:
    mailboxes = opened(tmp_path / "list")
    over = threading.Event()
    faults: list[object] = []

    def look() -> None:
        while not over.is_set():
            found = mailboxes.rows_changed_after(0)
            numbers = {row[-5:] for _, _, row in found if row is not None}
            if len(numbers) > 1 or len(found) not in (0, 3):
                faults.append(found)

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(300):
        write(mailboxes, *[put(f"user.n{one}", 10_000 + i) for one in range(3)])
    over.set()
    reader.join()
    assert not faults
    mailboxes.close()
