"""Maildir++ folders of many messages: what others have done to them is taken up with little in memory at once."""

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from murder.model.name import MailboxName
from plugins.store_maildir import sync
from plugins.store_maildir.files import UidList, read_uidlist
from plugins.store_maildir.store import MaildirStore, Settings
from plugins.store_maildir.tree import files_in

INBOX = MailboxName(b"user.ana")
ONE = b"From: a@b.example\r\nSubject: one\r\n\r\nhello\r\n"
MANY = 6000
MOST_OCTETS = 450  # of memory for each message, whose file's name takes 110 of them


def by_hand(folder: Path, many: int) -> Path:
    tree = folder / "mail" / "ana" / "Maildir"
    for name in ("cur", "new", "tmp"):
        (tree / name).mkdir(parents=True)
    one = tree / "tmp" / "one"
    one.write_bytes(ONE)
    for at in range(many):
        os.link(one, tree / "cur" / f"{name_of(at)}:2,{'S' * (at % 2)}")
    one.unlink()
    return tree


def name_of(at: int) -> str:
    return f"{1_700_000_000 + at}.M123456P12345.host.example,S={len(ONE)},W={len(ONE)}"


def has_changed(tree: Path) -> None:
    """Its date is another one, whatever the clock's tick."""
    at = (tree / "cur").stat().st_mtime_ns + 1
    os.utime(tree / "cur", ns=(at, at))


async def most_octets(store: MaildirStore) -> float:
    """What a look takes at once, for each message there may be."""
    tracemalloc.start()
    try:
        box = await store.open(INBOX, "ana")
        await box.status()
        return tracemalloc.get_traced_memory()[1] / MANY
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("has_list", [False, True])
async def test_many_messages_are_taken_up_with_little_in_memory(
    tmp_path: Path, has_list: bool
) -> None:
    tree = by_hand(tmp_path, MANY)
    listed = "".join(f"{2 * at + 1} :{name_of(at)}\n" for at in range(MANY))
    if has_list:
        (tree / "dovecot-uidlist").write_text(f"3 V7 N{2 * MANY}\n{listed}")
    step = 2 if has_list else 1
    store = MaildirStore(Settings(users="mail/%u/Maildir", shared="mail/+%n"), tmp_path)
    await store.start()
    try:
        assert await most_octets(store) < MOST_OCTETS
        box = await store.open(INBOX, "ana")
        assert list(await box.uids()) == list(range(1, step * MANY + 1, step))
        assert (await box.status()).unseen == MANY // 2
        told = read_uidlist(os.fsencode(tree))
        assert told is not None and dict(told.rows())[1] == name_of(0) and told.lines == MANY

        for path in (tree / "cur").iterdir():  # others give all of them other flags
            path.rename(path.with_name(path.name.partition(":")[0] + ":2,FS"))
        has_changed(tree)
        assert await most_octets(store) < MOST_OCTETS
        assert (await box.status()).unseen == 0
        rows = await box.messages()
        assert {row.flags for row in rows} == {frozenset({"\\Flagged", "\\Seen"})}

        for path in (tree / "cur").iterdir():
            path.unlink()
        has_changed(tree)
        assert await most_octets(store) < MOST_OCTETS
        assert (await box.status()).messages == 0
    finally:
        await store.stop()


async def test_of_several_lines_for_one_message_the_last_counts(tmp_path: Path) -> None:
    tree = by_hand(tmp_path, 3)
    lines = (3, 1), (4, 0), (5, 2), (7, 1), (9, 0)
    text = "".join(f"{uid} :{name_of(at)}\n" for uid, at in lines)
    (tree / "dovecot-uidlist").write_text(f"3 V7 N4\n{text}")
    store = MaildirStore(Settings(users="mail/%u/Maildir", shared="mail/+%n"), tmp_path)
    await store.start()
    try:
        box = await store.open(INBOX, "ana")
        assert list(await box.uids()) == [5, 7, 9]
        seen = {row.uid for row in await box.messages() if "\\Seen" in row.flags}
        assert seen == {7}, "the one in the middle"
    finally:
        await store.stop()


@pytest.mark.parametrize("listed", [b"", b"\n", b"1 :a\n\n2 :b", b"1 :a\n2 :b\n"])
def test_lines_are_the_same_from_the_end(listed: bytes) -> None:
    for header in (b"3 V7 N1\n", b"1 7 1\n"):
        uidlist = UidList(7, 1, octets=header + listed)
        assert [*uidlist.rows(last_first=True)] == [*uidlist.rows()][::-1]
    assert not [*UidList(7, 1, octets=b"3 V7 N1").rows(last_first=True)]


async def test_a_message_that_is_renamed_while_the_folder_is_read_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = by_hand(tmp_path, 3)
    store = MaildirStore(Settings(users="mail/%u/Maildir", shared="mail/+%n"), tmp_path)
    await store.start()
    try:
        box = await store.open(INBOX, "ana")
        uids = list(await box.uids())
        looks = 0

        def some(folder: bytes) -> Iterator[tuple[str, str]]:
            """Some of them are just being renamed, once as long as two looks take."""
            nonlocal looks
            looks += 1
            hidden = {1: (name_of(0), name_of(1)), 2: (name_of(1),)}.get(looks, ())
            return ((part, name) for part, name in files_in(folder) if not name.startswith(hidden))

        monkeypatch.setattr(sync, "files_in", some)
        (tree / "cur" / f"{name_of(0)}:2,").rename(tree / "cur" / f"{name_of(0)}:2,F")
        (tree / "cur" / f"{name_of(2)}:2,").unlink()
        has_changed(tree)
        assert list(await box.uids()) == uids[:2]
        assert looks == 3
        flagged = {row.uid for row in await box.messages() if "\\Flagged" in row.flags}
        assert flagged == {uids[0]}
    finally:
        await store.stop()
