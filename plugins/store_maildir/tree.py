"""One Maildir++ tree with its index: a root of the spool whose octets stand in the tree's own files.

The index (`murder-index.db`) has the spool's tables; a body's `file` is `MAILBOX/cur/NAME`, MAILBOX being the row number.
What a transaction wants done to files stands in `todo` and is done right behind the commit; after a crash, before the
next transaction. So a change has happened as a whole or not at all, whatever number of files it touches.
"""

import contextlib
import logging
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from murder.errors import Code, Refusal
from murder.kit.root import Root
from murder.model.name import MailboxName, before_deletion, is_below
from plugins.store_maildir.files import (
    FILE_MODE,
    FOLDER_MODE,
    KEPT,
    OF_INBOX,
    OPENED,
    is_own_maildir,
    join_name,
    names_in,
    split_name,
    sync_path,
    uidlist_lock,
)

FOLLOWED: Final = 5  # times that a file is looked for which somebody renames again and again
ASIDE: Final = "tmp"  # what was expunged and is still read
INDEX: Final = "murder-index.db"
RESTING: Final = b"deleted"  # begins the names of what was deleted, and is kept for a while
FORMAT: Final = 1  # of what stands here besides the spool's tables
OF_MESSAGE: Final = re.compile("[0-9]+/[^/]+/[^/]+")  # as in `body.file`
UP: Final = 3  # folders from one tree's top to what it has in common with others' (`%u/Maildir`)
FEW_FILES: Final = 4
SYNC_THREADS: Final = 16
# a folder that changed so shortly before it was read is read once more
RACY_NS: Final = 1_000_000_000
TABLES: Final = """
CREATE TABLE IF NOT EXISTS todo (
    id INTEGER PRIMARY KEY AUTOINCREMENT, old TEXT NOT NULL, new TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS folder (
    mailbox INTEGER PRIMARY KEY,
    cur_at INTEGER NOT NULL DEFAULT 0,
    new_at INTEGER NOT NULL DEFAULT 0,
    read_at INTEGER NOT NULL DEFAULT 0,
    first_modseq INTEGER NOT NULL DEFAULT 0,
    uidlist TEXT NOT NULL DEFAULT '',
    told INTEGER NOT NULL DEFAULT 0
) STRICT
"""


class Tree(Root):
    """See the module. `name` is the mailbox that is the tree's top (a user's INBOX), `key` what its store calls it."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor, name: MailboxName, key: str) -> None:
        self.name = name
        self.top = os.fsencode(folder)
        self._unsynced: list[bytes] = []  # files that the next commit names
        self._unsynced_folders: set[bytes] = set()
        self.looked_at = 0  # the top folder's date when its subfolders were last looked at
        self._locked: set[bytes] = set()  # folders that others wait for until it is over
        self._locks = contextlib.ExitStack()
        self.synchronised: set[int] = set()  # mailboxes looked at in the present transaction
        super().__init__(folder, pool, INDEX, key)
        _make_tables(self._writer, folder / INDEX)
        _make_whole(self._writer, folder)

    # --- where things are

    def path_of(self, name: MailboxName) -> bytes:
        """The folder of a mailbox. What rests since it was deleted is none to other software: its name has no dot before
        it."""
        if name == self.name:
            return self.top
        if not is_below(name, self.name):
            before = before_deletion(name)
            assert before is not None, name
            below = before[0][len(self.name) :] + name[name.rindex(b".") :]
            return self.top + b"/" + RESTING + below
        return self.top + b"/." + name[len(self.name) + 1 :]

    def is_maildir(self, name: MailboxName) -> bool:
        """Whether its folder is there."""
        return is_own_maildir(self.path_of(name), self.top)

    def folder_of(self, db: sqlite3.Connection, box_id: int) -> bytes:
        """As `path_of`. Raises Refusal(NONEXISTENT)."""
        row = db.execute("SELECT name FROM mailbox WHERE id=?", (box_id,)).fetchone()
        if row is None:
            raise Refusal(Code.NONEXISTENT, "This mailbox has been deleted")
        return self.path_of(MailboxName(bytes(row[0])))

    def locate(self, folder: bytes, file: str) -> bytes | None:
        """A message's path: where the row says, or where somebody has moved it meanwhile."""
        _, sub, name = file.split("/", 2)
        path = folder + b"/" + sub.encode() + b"/" + name.encode("latin-1")
        if os.path.exists(path):
            return path
        base = split_name(name)[0].encode("latin-1")
        for place in OPENED:
            try:
                for entry in names_in(folder + b"/" + place):
                    if entry.partition(b":")[0] == base:
                        return folder + b"/" + place + b"/" + entry
            except FileNotFoundError:
                continue
        return None

    def locate_again(self, path: bytes) -> bytes | None:
        """A message that was there until just now."""
        folder, place, name = path.rsplit(b"/", 2)
        return self.locate(folder, f"/{place.decode()}/{name.decode('latin-1')}")

    # --- what others may have changed

    def is_dirty(self, box_id: int) -> bool:
        """Whether `cur` or `new` may have changed since they were read. Raises Refusal(NONEXISTENT)."""
        row = self.reader.execute(
            "SELECT name, cur_at, new_at, read_at FROM mailbox "
            "LEFT JOIN folder ON folder.mailbox=mailbox.id WHERE id=?",
            (box_id,),
        ).fetchone()
        if row is None:
            raise Refusal(Code.NONEXISTENT, "This mailbox has been deleted")
        name, cur_at, new_at, read_at = row
        if read_at is None:
            return True
        now = stamps(self.path_of(MailboxName(bytes(name))))
        if now != (cur_at, new_at):
            return True
        return bool(read_at - max(now) < RACY_NS <= time.time_ns() - read_at)

    def note_read(self, db: sqlite3.Connection, box_id: int, at: tuple[int, int]) -> None:
        """The folder is as the index has it, as of these stamps."""
        db.execute(
            "INSERT INTO folder (mailbox, cur_at, new_at, read_at) VALUES (?,?,?,?) "
            "ON CONFLICT (mailbox) DO UPDATE SET cur_at=excluded.cur_at, new_at=excluded.new_at, "
            "read_at=excluded.read_at",
            (box_id, *at, time.time_ns()),
        )

    # --- what is to be done to files

    def keep_others_out(self, folder: bytes) -> None:
        """Until the transaction is over and its files are in place: what Dovecot finds in the list and not in the folder, it
        takes for gone, and for another message when it comes. Raises Refusal(IN_USE)."""
        if folder not in self._locked:
            self._locks.enter_context(uidlist_lock(folder))
            self._locked.add(folder)

    def file_is_coming(self, path: bytes, is_written: bool) -> None:
        """A file, just written or linked, is to be durable before the commit that names it."""
        if is_written:
            self._unsynced.append(path)
        self._unsynced_folders.add(os.path.dirname(path))

    def _after_begin(self) -> None:
        self.synchronised.clear()
        self._unsynced.clear()
        self.perform(self._writer)  # what a crash has left

    def _job_begins(self) -> Callable[[], None]:
        looked_at = frozenset(self.synchronised)
        return lambda: self.synchronised.intersection_update(looked_at)

    def _after_end(self) -> None:
        self._locks.close()
        self._locked.clear()

    def _before_commit(self) -> None:
        paths, self._unsynced = self._unsynced, []
        # the file system commits those together that are waited for together
        if len(paths) > FEW_FILES:
            with ThreadPoolExecutor(SYNC_THREADS) as pool:
                list(pool.map(sync_path, paths))
        else:
            for path in paths:
                sync_path(path)
        for folder in self._unsynced_folders:
            sync_path(folder)
        self._unsynced_folders.clear()

    def _sweep(self) -> None:
        try:
            self._settle()
        except (sqlite3.Error, OSError):
            with contextlib.suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")  # the next commit does it

    def _settle(self) -> None:
        db = self._writer
        done = [row[0] for row in db.execute("SELECT id FROM todo")]
        removed = [row[0] for row in db.execute("SELECT file FROM garbage")]
        if not done and not removed:
            return
        boxes = self.perform(db)
        self._after_end()  # another worker's transaction may wait for that, and this one for its end
        db.execute("PRAGMA synchronous=NORMAL")  # lost in a power cut: done once more, that is all
        try:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("DELETE FROM todo WHERE id=?", [(number,) for number in done])
            db.executemany("DELETE FROM garbage WHERE file=?", [(file,) for file in removed])
            for box_id, folder in boxes.items():
                with contextlib.suppress(Refusal):
                    self.note_read(db, box_id, stamps(folder))
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
            db.execute("PRAGMA synchronous=FULL")

    def perform(self, db: sqlite3.Connection) -> dict[int, bytes]:
        """Do what is to be done; doing it twice changes nothing. The mailboxes whose files were touched."""
        touched: set[bytes] = set()
        boxes: dict[int, bytes] = {}
        todo = db.execute("SELECT old, new FROM todo ORDER BY id").fetchall()
        if any(not old or old.startswith("/") for old, _ in todo):
            self._after_end()  # a lock in a folder that is renamed would go along
        news: set[int] = set()  # mailboxes of which the index has yet to learn something
        for _ in range(2):  # what stands before the renaming of its folder is done behind it
            todo = [step for step in todo if not self._do(db, step, boxes, touched, news)]
        for (file,) in db.execute("SELECT file FROM garbage").fetchall():
            number, sub, _ = file.split("/", 2)
            # nobody takes it for a message: `cur` and `new` stay as they are
            if sub in (ASIDE, KEPT):
                path = self._real(db, file, {})
            else:
                place = self._real(db, file, boxes)
                path = self.locate(boxes[int(number)], file) if place else None
            for _ in range(FOLLOWED):
                if path is None or _act(path, None, touched) or sub == ASIDE:
                    break
                path = self.locate(boxes[int(number)], file)  # under other flags
        for folder in touched:
            with contextlib.suppress(FileNotFoundError):
                sync_path(folder)
        return {box_id: folder for box_id, folder in boxes.items() if box_id not in news}

    def _do(
        self,
        db: sqlite3.Connection,
        step: tuple[str, str],
        boxes: dict[int, bytes],
        touched: set[bytes],
        news: set[int],
    ) -> bool:
        """Whether that is done, or was."""
        old, new = step
        source, target = self._real(db, old, boxes), self._real(db, new, boxes)
        for _ in range(FOLLOWED):
            if _act(source, target, touched):
                return True
            if not _is_message(old):
                break
            # somebody has given it other flags meanwhile; or this is done already
            box_id = int(old.partition("/")[0])
            source = self.locate(boxes[box_id], old)
            if source is not None and target is not None:
                planned, target = target, _with_theirs(old, source, target)
                if planned != target:
                    news.add(box_id)
            if source is None:
                break
            if source == target:
                return True
        if old.startswith("/"):
            return True
        return target is not None and self.locate_again(target) is not None

    def _real(self, db: sqlite3.Connection, path: str, boxes: dict[int, bytes]) -> bytes | None:
        """An absolute path, or one of a mailbox (None where that has gone)."""
        if not path or path.startswith("/"):
            return path.encode("latin-1") or None
        number, _, rest = path.partition("/")
        try:
            folder = self.folder_of(db, int(number))
        except Refusal:
            return None
        boxes[int(number)] = folder
        return folder + b"/" + rest.encode("latin-1")


def _with_theirs(old: str, source: bytes, target: bytes) -> bytes:
    """The name of a message for which flags were planned when it was called `old`, and that others have called `source`
    since: with what they have added, and without what they have removed. The index takes that up with its next look."""
    folder, place, name = target.rsplit(b"/", 2)
    if place not in (b"cur", b"new"):
        return target  # on its way out
    base, ours = split_name(name.decode("latin-1"))
    before = set(split_name(old)[1])
    theirs = set(split_name(os.path.basename(source).decode("latin-1"))[1])
    letters = set(ours) | (theirs - before)
    letters -= before - theirs
    if letters == set(ours):
        return target
    place = b"cur" if letters else place
    return b"/".join((folder, place, join_name(base, sorted(letters)).encode("latin-1")))


def _is_message(path: str) -> bool:
    """Whether it is a message's that other software may rename."""
    return not path.startswith("/") and path.split("/", 2)[1:2] in (["cur"], ["new"])


def _act(old: bytes | None, new: bytes | None, touched: set[bytes]) -> bool:
    """Rename; without `new` remove; without `old` make a folder. Whether there was something to do it with."""
    if old is None:
        if new is not None:
            for name in (b"", b"/cur", b"/new", b"/tmp"):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(new + name, FOLDER_MODE)
            if os.path.basename(new).startswith(b"."):  # Maildir++: a folder, not a tree
                flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                with contextlib.suppress(OSError):  # something else stands there: it is a mark only
                    os.close(os.open(new + b"/maildirfolder", flags, FILE_MODE))
            touched.update((new, os.path.dirname(new)))
        return True
    touched.add(os.path.dirname(old))
    if new is not None and os.path.basename(os.path.dirname(new)) == KEPT.encode():
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(new), FOLDER_MODE)
            touched.add(os.path.dirname(os.path.dirname(new)))
    try:
        if new is None:
            if os.path.isdir(old):
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.unlink(old)
            return True
        os.rename(old, new)
    except FileNotFoundError:
        return False
    touched.add(os.path.dirname(new))
    return True


def add_todo(db: sqlite3.Connection, old: str | bytes, new: str | bytes) -> None:
    """See `_act`: paths as in `body.file`, or absolute."""
    texts = [path if isinstance(path, str) else path.decode("latin-1") for path in (old, new)]
    db.execute("INSERT INTO todo (old, new) VALUES (?,?)", texts)


def plan_rename(
    db: sqlite3.Connection, source: Tree, old: MailboxName, target: Tree, new: MailboxName
) -> None:
    """What is to be renamed. A folder from or to a tree's top goes part by part."""
    before, after = source.path_of(old), target.path_of(new)
    if source.top != before and target.top != after:
        add_todo(db, before, after)
        return
    if target.top != after:
        os.makedirs(after, FOLDER_MODE, exist_ok=True)
    for part in OF_INBOX:
        if os.path.exists(before + b"/" + part):
            add_todo(db, before + b"/" + part, after + b"/" + part)
    if source.top != before:
        add_todo(db, before, "")


def stamps(folder: bytes) -> tuple[int, int]:
    """When `cur` and `new` changed, in nanoseconds. Raises Refusal(NONEXISTENT) where it is no maildir any more."""
    try:
        return os.stat(folder + b"/cur").st_mtime_ns, os.stat(folder + b"/new").st_mtime_ns
    except FileNotFoundError:
        raise Refusal(Code.NONEXISTENT, "This mailbox has been deleted") from None


def files_in(folder: bytes) -> Iterator[tuple[str, str]]:
    """`(cur or new, name)` of all messages."""
    for place in ("new", "cur"):
        for name in names_in(folder + b"/" + place.encode()):
            if not name.startswith(b"."):
                yield place, name.decode("latin-1")


def _make_tables(db: sqlite3.Connection, file: Path) -> None:
    row = db.execute("SELECT value FROM meta WHERE key='maildir'").fetchone()
    if row is not None and row[0] > FORMAT:
        raise Refusal(
            Code.UNAVAILABLE,
            f"{file} has maildir format {row[0]}; this murder knows formats up to {FORMAT}: run the newer one",
        )
    if row is not None and row[0] == FORMAT:
        return
    db.execute("BEGIN IMMEDIATE")
    for statement in TABLES.split(";"):
        db.execute(statement)
    db.execute("INSERT OR REPLACE INTO meta VALUES ('maildir',?)", (FORMAT,))
    db.execute("COMMIT")


def _make_whole(db: sqlite3.Connection, top: Path) -> None:
    """Version 0.1, started with a configuration named from the current folder, wrote half of a path down, and did nothing of
    it: it is done now. Raises Refusal where that half leads to nothing of ours."""
    steps = db.execute("SELECT id, old, new FROM todo").fetchall()  # most often none
    for number, *paths in steps:
        whole = [_whole(path, top) for path in paths]
        if whole != paths:
            db.execute("UPDATE todo SET old=?, new=? WHERE id=?", (*whole, number))


def _whole(path: str, top: Path) -> str:
    """Raises Refusal."""
    if not path or path.startswith("/") or OF_MESSAGE.fullmatch(path):
        return path
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    ours = os.fsencode(top).decode("latin-1").split("/")[1:]
    for above in range(UP):  # this tree; or one beside it, for a mailbox that goes to another user
        base = ours[: len(ours) - above]
        for known in range(len(parts), above, -1):
            if base[-known:] == parts[:known]:
                return "/" + "/".join(base + parts[known:])
    file, cure = (
        top / INDEX,
        "stop the node, remove that file (it is made anew, UIDs stay), and start",
    )
    logging.getLogger("store").error("%s names %r, which is nothing of ours: %s", file, path, cure)
    raise Refusal(
        Code.UNAVAILABLE, "The mail of this mailbox is damaged; its administrator has been told"
    )


def parts_of(tree: Tree, name: MailboxName) -> list[bytes]:
    """A mailbox's files: its folder, or what in the tree's top is INBOX."""
    folder = tree.path_of(name)
    if folder != tree.top:
        return [folder]
    return [folder + b"/" + part for part in OF_INBOX]
