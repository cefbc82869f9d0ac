"""What other software did to a folder, brought into the index: new files, removed ones, renamed flags, UIDs it gave.

Runs inside a write transaction, with `dovecot-uidlist` locked, and only where `cur` or `new` has changed.
"""

import contextlib
import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from murder.errors import Refusal
from murder.kit.epoch import renew_boxes, renew_rows
from murder.kit.expunged import release_gone
from murder.kit.rows import (
    INSERT_MESSAGE,
    NEW_BOX_ID,
    Box,
    insert_body,
    load_box,
    next_uid_validity,
    remove_messages,
    spelled,
)
from murder.kit.sizes import note_size
from murder.model.message import MAX_UID, UNSEEN_SIZE, Uid
from murder.model.ordering import in_order
from plugins.store_maildir.files import (
    UIDLIST,
    UidList,
    add_to_uidlist,
    flags_of,
    open_plain,
    read_keywords,
    read_uidlist,
    sizes_of,
    split_name,
    to_crlf,
    write_uidlist,
)
from plugins.store_maildir.tree import Tree, files_in, stamps

NO_FILE = "-"
FEW_NEW = 1000  # messages that others have put there at once: each is looked through for NUL
PIECE_OCTETS = 1024 * 1024
LOOKED_AGAIN = 2  # for what seems gone
MOST_PLACES = 1000  # that are told apart
LINE_OCTETS = 80
STALE_LINES = 200  # in a UID list, beyond twice the messages: then it is written anew


@dataclass(slots=True)
class Differences:
    """Between a folder and the index. A place is `cur/` or `new/` with what stands behind a base name: few are different,
    and a hundred thousand messages share them."""

    new: dict[str, str]  # place by base name
    changed: list[tuple[int, str]]  # UID and place
    gone: list[int]


@contextlib.contextmanager
def changing(db: sqlite3.Connection, tree: Tree, box_id: int) -> Iterator[bytes]:
    """Around every change of a mailbox: others are kept out, what they did is noticed, new UIDs are told to them."""
    folder = tree.folder_of(db, box_id)
    stamps(folder)  # it is there
    tree.keep_others_out(folder)
    if box_id not in tree.synchronised:  # else files of this transaction are still to come
        tree.synchronised.add(box_id)
        synchronise(db, tree, box_id, folder)
    yield folder
    publish(db, box_id, folder)


def synchronise(db: sqlite3.Connection, tree: Tree, box_id: int, folder: bytes) -> bool:
    """Whether anything was found. The caller holds the lock and has a transaction."""
    row = db.execute(
        "SELECT cur_at, new_at, read_at, uidlist FROM folder WHERE mailbox=?", (box_id,)
    ).fetchone() or (0, 0, 0, "")
    listed = _take_uidlist(db, box_id, folder, row[3])
    now = stamps(folder)
    if now == row[:2] and not (row[2] - max(now) < 10**9 <= time.time_ns() - row[2]):
        return False
    differences = _differences(db, box_id, folder)
    box = load_box(db, box_id, even_frozen=True)
    words = read_keywords(folder)
    new = differences.new
    has_changed = bool(differences.gone or new)
    if differences.gone:
        _remove(db, box, differences.gone)
    modseq = box.modseq + 1
    for uid, place in differences.changed:
        if _take_place(db, box, uid, place, words, modseq):
            box.modseq, has_changed = modseq, True
    if new:
        if listed is None:
            listed = read_uidlist(folder)
        add = partial(_add, db, box, folder, words, modseq, len(new) <= FEW_NEW)
        for uid, base in listed.rows(last_first=True) if listed is not None else ():
            if (known_place := new.pop(base, None)) is not None:
                add(base, known_place, uid)
        for base in in_order(list(new)):
            add(base, new[base], None)
        box.modseq = modseq
    box.save(db)
    tree.note_read(db, box_id, now)
    return has_changed


def _differences(db: sqlite3.Connection, box_id: int, folder: bytes) -> Differences:
    """A file that is renamed while the folder is read may be seen under neither name, so what seems gone is looked for
    twice more."""
    new: dict[str, str] = {}
    for base, place in _places(folder):
        new[base] = place
    changed: list[tuple[int, str]] = []
    missing: dict[str, int] = {}
    rows = db.execute(
        "SELECT uid, file FROM message JOIN body ON body.id=message.body WHERE mailbox=?",
        (box_id,),
    )
    for uid, file in rows:
        base, before = _apart(*file.split("/", 2)[1:])
        place = new.pop(base, "")
        if not place:
            missing[base] = uid
        elif place != before:
            changed.append((uid, place))
    for _ in range(LOOKED_AGAIN):
        for base, place in _places(folder) if missing else ():
            if (found_again := missing.pop(base, None)) is not None:
                changed.append((found_again, place))
    return Differences(new, changed, sorted(missing.values()))


def _places(folder: bytes) -> Iterator[tuple[str, str]]:
    """Base name and place of each file; of one that is seen twice the last counts."""
    known: dict[str, str] = {}
    for part, name in files_in(folder):
        base, place = _apart(part, name)
        yield base, known.setdefault(place, place) if len(known) < MOST_PLACES else place


def _apart(part: str, name: str) -> tuple[str, str]:
    """Base name and place of a file. See `Differences`."""
    base, colon, info = name.partition(":")
    return base, f"{part}/{colon}{info}"


def _put_together(base: str, place: str) -> tuple[str, str]:
    """The part of the folder and the name, of what `_apart` has made."""
    part, _, info = place.partition("/")
    return part, base + info


def _remove(db: sqlite3.Connection, box: Box, uids: list[int]) -> None:
    """Out of the index; no file is touched."""
    db.executemany(
        "UPDATE body SET file=NULL WHERE id=(SELECT body FROM message WHERE mailbox=? AND uid=?)",
        ((box.id, uid) for uid in uids),
    )
    remove_messages(db, box, [Uid(uid) for uid in uids])


def _path(folder: bytes, part: str, name: str) -> bytes:
    return folder + b"/" + part.encode() + b"/" + name.encode("latin-1")


def _take_uidlist(db: sqlite3.Connection, box_id: int, folder: bytes, seen: str) -> UidList | None:
    """Read it where it has changed; a new UIDVALIDITY makes the mailbox another one. None: not read."""
    signature = _signature(folder)
    if signature == seen:
        return None
    listed = read_uidlist(folder)
    highest = listed.highest if listed is not None else 0
    _note_uidlist(db, box_id, signature, highest if signature != NO_FILE else 0)
    if listed is None:
        return None
    validity, uid_next = db.execute(
        "SELECT uid_validity, uid_next FROM mailbox WHERE id=?", (box_id,)
    ).fetchone()
    if listed.validity != validity:
        box = load_box(db, box_id, even_frozen=True)
        uids = db.execute("SELECT uid FROM message WHERE mailbox=?", (box_id,)).fetchall()
        _remove(db, box, [uid for (uid,) in uids])
        box.uid_next = 1
        box.save(db)
        db.execute("DELETE FROM expunged WHERE mailbox=?", (box_id,))
        release_gone(db, box_id)
        db.execute(
            "UPDATE folder SET read_at=0, cur_at=0, first_modseq=? WHERE mailbox=?",
            (box.modseq, box_id),
        )
        db.execute(
            "UPDATE mailbox SET uid_validity=?, recent_from=1 WHERE id=?", (listed.validity, box_id)
        )
        uid_next = 1
    if listed.next > uid_next:
        db.execute("UPDATE mailbox SET uid_next=? WHERE id=?", (listed.next, box_id))
    return listed


def _signature(folder: bytes) -> str:
    try:
        stat = os.stat(folder + b"/" + UIDLIST)
    except FileNotFoundError:
        return NO_FILE
    return f"{stat.st_mtime_ns}:{stat.st_size}:{stat.st_ino}"


def _note_uidlist(db: sqlite3.Connection, box_id: int, signature: str, highest: int) -> None:
    """`told` is the last UID in Dovecot's file: it must ascend there."""
    db.execute(
        "INSERT INTO folder (mailbox, uidlist, told) VALUES (?,?,?) "
        "ON CONFLICT (mailbox) DO UPDATE SET uidlist=excluded.uidlist, told=excluded.told",
        (box_id, signature, highest),
    )


def _take_place(
    db: sqlite3.Connection, box: Box, uid: int, place: str, words: list[str], modseq: int
) -> bool:
    """Where the file is now, and flags as its name has them; whether these have changed. Keywords without a letter stay as
    they are."""
    old_bits, old_keywords, body, file = db.execute(
        "SELECT flags, keywords, body, file FROM message JOIN body ON body.id=message.body "
        "WHERE mailbox=? AND uid=?",
        (box.id, uid),
    ).fetchone()
    part, name = _put_together(_apart(*file.split("/", 2)[1:])[0], place)
    db.execute("UPDATE body SET file=? WHERE id=?", (f"{box.id}/{part}/{name}", body))
    bits, named = flags_of(split_name(name)[1], words)
    lettered = {word.lower() for word in words[:26]}
    kept = [word for word in old_keywords.split() if word.lower() not in lettered]
    keywords = spelled(db, box.id, [*kept, *named])
    if (bits, keywords) == (old_bits, old_keywords):
        return False
    db.execute(
        "UPDATE message SET flags=?, keywords=?, modseq=? WHERE mailbox=? AND uid=?",
        (bits, keywords, modseq, box.id, uid),
    )
    box.count_flags(old_bits, -1)
    box.count_flags(bits, 1)
    return True


def _add(
    db: sqlite3.Connection,
    box: Box,
    folder: bytes,
    words: list[str],
    modseq: int,
    is_read: bool,
    base: str,
    place: str,
    listed: int | None,
) -> None:
    """A message that somebody else has put there. `is_read`: it is looked through in any case."""
    part, name = _put_together(base, place)
    try:
        with open_plain(_path(folder, part, name)) as file:
            stat = os.fstat(file.fileno())
            size, has_nul = _virtual_size(file, base, stat.st_size, is_read)
    except (FileNotFoundError, PermissionError):
        return  # gone again, no plain file, or not for us
    uid = listed if listed is not None and _is_free(db, box.id, listed) else None
    if uid is None:
        uid = box.take_uid()
    box.uid_next = max(box.uid_next, uid + 1)
    bits, named = flags_of(split_name(name)[1], words)
    keywords = spelled(db, box.id, named)
    body = insert_body(db, None, f"{box.id}/{part}/{name}")
    if has_nul:
        note_size(db, body, UNSEEN_SIZE)
    email_id = hashlib.sha256(base.partition(",")[0].encode("latin-1")).hexdigest()[:20]
    saved = int(stat.st_ctime)
    values = (
        box.id,
        uid,
        bits,
        keywords,
        int(stat.st_mtime),
        0,
        saved,
        size,
        modseq,
        email_id,
        body,
    )
    db.execute(INSERT_MESSAGE, values)
    box.count(bits, size, 1)


def _is_free(db: sqlite3.Connection, box_id: int, uid: int) -> bool:
    """Whether a UID that a list gives was never ours to another message."""
    taken = db.execute(
        "SELECT 1 FROM message WHERE mailbox=:box AND uid=:uid UNION ALL "
        "SELECT 1 FROM expunged WHERE mailbox=:box AND uid=:uid",
        {"box": box_id, "uid": uid},
    ).fetchone()
    return taken is None and 0 < uid < MAX_UID


def _virtual_size(file: BinaryIO, base: str, size: int, is_read: bool) -> tuple[int, bool]:
    """Octets with CRLF line ends, from the name, else by reading; and whether there is NUL, as far as it was read."""
    named, virtual = sizes_of(base)
    if virtual is None or named != size:
        octets = file.read()
        return len(to_crlf(octets)), b"\0" in octets
    pieces = iter(lambda: file.read(PIECE_OCTETS), b"")
    return virtual, is_read and any(b"\0" in piece for piece in pieces)


def publish(db: sqlite3.Connection, box_id: int, folder: bytes) -> None:
    """UIDs that `dovecot-uidlist` does not have yet stand there too; stale lines are cleared now and then."""
    (highest,) = db.execute("SELECT told FROM folder WHERE mailbox=?", (box_id,)).fetchone() or (0,)
    last = _last_uid(db, box_id)
    has_file = os.path.exists(folder + b"/" + UIDLIST)
    if last <= highest and has_file:
        return
    validity, uid_next, messages = db.execute(
        "SELECT uid_validity, uid_next, messages FROM mailbox WHERE id=?", (box_id,)
    ).fetchone()
    most = LINE_OCTETS * (2 * messages + STALE_LINES)
    try:
        if has_file and os.stat(folder + b"/" + UIDLIST).st_size < most:
            add_to_uidlist(folder, UidList(validity, uid_next), _rows_after(db, box_id, highest))
        else:
            return publish_all(db, box_id, folder)
    except OSError:
        return  # a hint for others; ours is the index, and the next change tells it again
    _note_uidlist(db, box_id, _signature(folder), max(last, highest))


def publish_all(db: sqlite3.Connection, box_id: int, folder: bytes) -> None:
    """The list anew, with the UID that comes next."""
    validity, uid_next = db.execute(
        "SELECT uid_validity, uid_next FROM mailbox WHERE id=?", (box_id,)
    ).fetchone()
    known = read_uidlist(folder) or UidList(validity, uid_next)
    known.next = max(known.next, uid_next)
    _write_whole(db, box_id, folder, known)


def _write_whole(db: sqlite3.Connection, box_id: int, folder: bytes, known: UidList) -> None:
    """The caller holds the lock. `known` tells the header."""
    known.octets = b""
    write_uidlist(folder, known, _rows_after(db, box_id, 0))
    _note_uidlist(db, box_id, _signature(folder), _last_uid(db, box_id))


def _last_uid(db: sqlite3.Connection, box_id: int) -> int:
    """The largest of a message that is there; 0 where there is none."""
    (last,) = db.execute("SELECT max(uid) FROM message WHERE mailbox=?", (box_id,)).fetchone()
    return last or 0


def _rows_after(db: sqlite3.Connection, box_id: int, last: int) -> Iterator[tuple[int, str]]:
    """UID and base name, ascending."""
    rows = db.execute(
        "SELECT uid, file FROM message JOIN body ON body.id=message.body "
        "WHERE mailbox=? AND uid>? ORDER BY uid",
        (box_id, last),
    )
    return ((uid, split_name(file.split("/", 2)[2])[0]) for uid, file in rows)


def discover(db: sqlite3.Connection, tree: Tree, name: bytes) -> None:
    """A folder that other software has made becomes a mailbox, with its UIDs where a list tells them.

    Its mod-sequences begin above any that the other software can have told clients."""
    folder = tree.path_of(name)  # type: ignore[arg-type] # MailboxName is bytes
    if db.execute("SELECT 1 FROM mailbox WHERE name=?", (name,)).fetchone():
        return
    stamps(folder)
    listed = read_uidlist(folder)
    now = int(time.time())
    validity = listed.validity if listed else next_uid_validity(db, now)
    guid = listed.guid if listed else ""
    if not guid or db.execute("SELECT 1 FROM mailbox WHERE mailbox_id=?", (guid,)).fetchone():
        guid = secrets.token_hex(10)
    cursor = db.execute(
        f"INSERT INTO mailbox (id, name, mailbox_id, uid_validity, highest_modseq) VALUES ({NEW_BOX_ID},?,?,?,?)",
        (name, guid, validity, now),
    )
    assert cursor.lastrowid is not None
    box_id = cursor.lastrowid
    db.execute(
        "INSERT INTO meta VALUES ('uid_validity',?) "
        "ON CONFLICT (key) DO UPDATE SET value=max(value, excluded.value)",
        (validity,),
    )
    db.execute("INSERT INTO folder (mailbox, first_modseq) VALUES (?,?)", (box_id, now))
    tree.keep_others_out(folder)
    synchronise(db, tree, box_id, folder)
    publish(db, box_id, folder)
    db.execute("UPDATE mailbox SET recent_from=uid_next WHERE id=?", (box_id,))
    if listed is None:
        db.execute("UPDATE mailbox SET recent_from=1 WHERE id=?", (box_id,))


def forget(db: sqlite3.Connection, tree: Tree, name: bytes) -> None:
    """A mailbox whose folder other software has removed."""
    row = db.execute("SELECT id FROM mailbox WHERE name=?", (name,)).fetchone()
    if row is None:
        return
    if db.execute("SELECT 1 FROM todo").fetchone():
        return  # it may be about to be made
    try:
        stamps(tree.path_of(name))  # type: ignore[arg-type] # MailboxName is bytes
    except Refusal:
        for table in ("message", "gone", "expunged", "seen", "keyword", "folder"):
            db.execute(f"DELETE FROM {table} WHERE mailbox=?", row)
        db.execute("DELETE FROM body WHERE file LIKE ?", (f"{row[0]}/%",))
        db.execute("DELETE FROM told WHERE body NOT IN (SELECT id FROM body)")
        db.execute("DELETE FROM mailbox WHERE id=?", row)


def is_wanted(name: str) -> bool:
    """Whether an entry of a tree's top is a Maildir++ subfolder."""
    return (
        name.startswith(".")
        and name.strip(".") != ""
        and ".." not in name
        and not name.endswith(".")
    )


def renew_tree(db: sqlite3.Connection, tree: Tree, renewed: int) -> None:
    """As `renew_rows`; what others read of UIDs is written anew, too."""
    _write_uidlists(db, tree, renew_rows(db, renewed))


def renew_whole(db: sqlite3.Connection, tree: Tree) -> int:
    """As `renew_boxes`, likewise; how many."""
    boxes = renew_boxes(db)
    _write_uidlists(db, tree, boxes)
    return len(boxes)


def _write_uidlists(db: sqlite3.Connection, tree: Tree, boxes: Iterable[int]) -> None:
    for box_id in boxes:
        folder = tree.folder_of(db, box_id)
        try:
            stamps(folder)
        except Refusal:
            continue  # the folder has gone
        validity, uid_next = db.execute(
            "SELECT uid_validity, uid_next FROM mailbox WHERE id=?", (box_id,)
        ).fetchone()
        tree.keep_others_out(folder)
        known = read_uidlist(folder) or UidList(validity, uid_next)
        known.validity, known.next = validity, max(known.next, uid_next)
        _write_whole(db, box_id, folder, known)
