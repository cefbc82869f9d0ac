"""Other software at work in a Maildir++ tree at the same time as the store: it waits, and what it does is kept."""

import asyncio
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from murder.api import FlagChange
from murder.errors import Code, Refusal
from murder.model.name import MailboxName
from plugins.store_maildir import tree
from plugins.store_maildir.mailbox import MaildirMailbox
from plugins.store_maildir.sync import changing
from tests.kit.waiting import turns, until_soon
from tests.plugins.test_store_maildir import (
    INBOX,
    ONE,
    SUB,
    append,
    by_hand,
    flags_in,
    stored,
)


async def test_others_wait_until_files_are_where_the_list_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dovecot takes what it finds in the list and not in the folder for gone, and gives it another UID when it comes."""
    act, locked = tree._act, []

    def noting(old: bytes | None, new: bytes | None, touched: set[bytes]) -> bool:
        if new is not None and new.split(b"/")[-2] in (b"cur", b"new"):
            locked.append(os.path.exists(new.rsplit(b"/", 2)[0] + b"/dovecot-uidlist.lock"))
        return act(old, new, touched)

    monkeypatch.setattr(tree, "_act", noting)
    async with stored(tmp_path) as store:
        await store.create(INBOX, "default")
        await store.create(SUB, "default")
        box = await store.open(SUB, "ana")
        uid = await append(store, box, ONE)
        await box.change_flags([uid], FlagChange.ADD, frozenset({"\\Seen"}))
        assert locked and all(locked)
        flagged = box.change_flags([uid], FlagChange.ADD, frozenset({"\\Flagged"}))
        await asyncio.gather(flagged, store.rename(SUB, MailboxName(SUB + b".x")))
        box.close()
        assert not [*tmp_path.rglob("*.lock")]


@pytest.mark.parametrize(("letters", "flags"), [("FT", "FST"), ("", "S")])
async def test_flags_that_others_change_meanwhile_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letters: str, flags: str
) -> None:
    """Between our commit and our rename of the file, which had been called `:2,F`."""
    act, rivals = tree._act, [letters]

    def after_theirs(old: bytes | None, new: bytes | None, touched: set[bytes]) -> bool:
        if rivals and old is not None and old.endswith(b":2,F"):
            os.rename(old, old.removesuffix(b"F") + rivals.pop().encode())
        return act(old, new, touched)

    async with stored(tmp_path) as store:
        await store.create(INBOX, "default")
        box = await store.open(INBOX, "ana")
        uid = await append(store, box, ONE, frozenset({"\\Flagged"}))
        monkeypatch.setattr(tree, "_act", after_theirs)
        await box.change_flags([uid], FlagChange.ADD, frozenset({"\\Seen"}))
        assert not rivals
        (file,) = [one for one in tmp_path.rglob("*:2,*") if one.parent.name == "cur"]
        assert file.name.rpartition(",")[2] == flags
        told = (await flags_in(box))[int(uid)]
        assert {"\\Seen": "S", "\\Flagged": "F", "\\Deleted": "T"}.keys() >= told
        assert {one[1] for one in told} == {{"F": "F", "S": "S", "T": "D"}[one] for one in flags}
        box.close()


async def test_what_a_refused_change_had_found_is_found_again(tmp_path: Path) -> None:
    """By the next one, in the same transaction: its rows were undone."""
    maildir = by_hand(tmp_path)
    async with stored(tmp_path) as store:
        box = await store.open(INBOX, "ana")
        assert isinstance(box, MaildirMailbox)
        (maildir / "new" / "1.a").write_bytes(ONE)
        root, box_id, may_begin = box.tree, box.box_id, threading.Event()

        def refuse(db: sqlite3.Connection) -> None:
            with changing(db, root, box_id):
                raise Refusal(Code.CANNOT, "no")

        def count(db: sqlite3.Connection) -> int:
            with changing(db, root, box_id):
                row = db.execute("SELECT count(*) FROM message WHERE mailbox=?", (box_id,))
                return int(row.fetchone()[0])

        first = asyncio.create_task(root.write(lambda _: may_begin.wait(60)))
        await turns()
        refused, counted = (
            asyncio.create_task(root.write(refuse)),
            asyncio.create_task(root.write(count)),
        )
        await turns()
        may_begin.set()
        assert await first
        with pytest.raises(Refusal):
            await refused
        assert await counted == 1
        box.close()


RENAMED = MailboxName(b"user.ana.Other")


async def test_what_changes_just_before_its_folder_is_renamed_is_so_behind_it(
    tmp_path: Path,
) -> None:
    """In the same transaction: files are where the folder was until that has been renamed."""
    async with stored(tmp_path) as store:
        await store.create(INBOX, "default")
        await store.create(SUB, "default")
        box = await store.open(SUB, "ana")
        assert isinstance(box, MaildirMailbox)
        uid = await append(store, box, ONE)
        root, has_begun, may_begin = box.tree, threading.Event(), threading.Event()

        def wait(_: object) -> bool:
            has_begun.set()
            return may_begin.wait(60)

        steps = [asyncio.create_task(root.write(wait))]
        await until_soon(has_begun.is_set)  # what comes now is behind it, all in one transaction
        for number, step in enumerate(
            (
                append(store, box, ONE),
                box.change_flags([uid], FlagChange.ADD, frozenset({"\\Flagged"})),
                store.rename(SUB, RENAMED),
            ),
            start=1,
        ):
            steps.append(asyncio.create_task(step))  # type: ignore[arg-type] # of one kind or another
            await until_soon(lambda number=number: len(root._jobs) >= number)  # type: ignore[misc] # its default
        may_begin.set()
        await asyncio.gather(*steps)
        box.close()
        after = await store.open(RENAMED, "ana")
        assert await flags_in(after) == {1: {"\\Flagged"}, 2: set()}
        assert not [*tmp_path.rglob("tmp/*")]
        after.close()
