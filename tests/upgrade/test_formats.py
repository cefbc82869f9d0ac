"""What is on disk: each format is in the manual's table, an older one is read, a newer one is refused in one sentence."""

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from murder import __version__
from murder.admin.manual.pages import page
from murder.errors import Refusal
from murder.kit import schema
from murder.model.versions import COMPATIBLE, line_of, misfit
from murder.roles.backend.hierarchy import intent
from murder.roles.backend.messages import content
from murder.roles.backend.moves import journal
from murder.roles.backend.records import database
from murder.roles.backend.records.deliveries import Deliveries
from murder.roles.backend.records.duplicates import Duplicates
from murder.roles.mupdate.database import environment
from murder.roles.mupdate.database import journal as list_journal
from plugins.store_maildir import tree
from plugins.store_maildir.store import MaildirStore
from plugins.store_maildir.store import Settings as MaildirSettings
from plugins.store_spool.store import Settings, SpoolStore

FORMATS = {
    "a store as a whole": schema.FORMAT,
    "a user's database, `store_spool`": schema.FORMAT,
    "a tree's index, `store_maildir`": schema.FORMAT,
    "what stands in that index besides": tree.FORMAT,
    "the mailbox list": int(environment.FORMAT),
    "the master's while changes may be in its journal only": int(environment.AHEAD_FORMAT),
    "the journal in front of the master's list": list_journal.FORMAT,
    "an operation that was begun": intent.FORMAT,
    "a move's journal": journal.FORMAT,
    "deliveries, duplicates": database.FORMAT,
    "a message's structure, kept": content.SUMMARY_VERSION,
}


def test_the_manual_has_each_format() -> None:
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| (\d+) \| \w+ \|", page("upgrade"), re.M)
    assert {what: int(number) for what, number in rows} == FORMATS


def test_the_manual_has_each_version_that_stands_beside_this_one() -> None:
    rows = re.findall(r"^\| (\d+\.\d+)[^|]*\| ([\d., ]+) \|", page("upgrade"), re.M)
    assert {version for version, _ in rows} == set(COMPATIBLE)
    assert all(beside == ", ".join(sorted(COMPATIBLE)) for _, beside in rows)
    assert line_of(__version__) == COMPATIBLE[-1]


def test_a_version_that_was_not_tried_beside_this_one_is_told() -> None:
    assert [misfit(one, "0.2.0") for one in ("0.2.0", "0.1.7", "0.2.9-rc1")] == ["", "", ""]
    assert "it is of 0.3.1, and this one, 0.2.0" in misfit("0.3.1", "0.2.0")
    for odd in ("", "x", "0", "..", "²." * 9, "0.2\r\n" * 99):
        assert "unknown version" in misfit(odd, "0.2.0") or not misfit(odd, "0.2.0")
    assert len(misfit("9.9" + "9" * 10_000, "0.2.0")) < 300


@pytest.mark.parametrize(
    ("store", "file"),
    [
        (lambda folder: SpoolStore(Settings(), folder), "format"),
        (lambda folder: MaildirStore(MaildirSettings(), folder), "maildir-format"),
    ],
)
async def test_a_store_that_a_newer_version_has_had_is_refused_at_the_start(
    store: Callable[[Path], SpoolStore | MaildirStore], file: str, tmp_path: Path
) -> None:
    first = store(tmp_path)
    await first.start()
    await first.stop()
    marked = tmp_path / file
    assert marked.read_text() == f"{schema.FORMAT}\n"
    for older in ("3\n", "", "what"):
        marked.write_text(older)
        again = store(tmp_path)
        await again.start()
        await again.stop()
        assert marked.read_text() == f"{schema.FORMAT}\n"
    marked.write_text("99\n")
    with pytest.raises(Refusal, match=r"format 99; this one knows formats up to \d+: run the"):
        await store(tmp_path).start()
    assert marked.read_text() == "99\n"


def opened_duplicates(folder: Path) -> None:
    Duplicates(folder, 60.0).close()


def opened_deliveries(folder: Path) -> None:
    Deliveries(folder).close()


@pytest.mark.parametrize(
    ("opened", "file"),
    [(opened_duplicates, "delivered.db"), (opened_deliveries, "deliveries.db")],
)
def test_records_of_a_newer_version_are_refused(
    opened: Callable[[Path], None], file: str, tmp_path: Path
) -> None:
    for number in (None, 0):  # a new one; one of a version that wrote no number
        if number is not None:
            with closing(sqlite3.connect(tmp_path / file)) as db:
                db.execute(f"PRAGMA user_version={number}")
        opened(tmp_path)
        with closing(sqlite3.connect(tmp_path / file)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (database.FORMAT,)
    with closing(sqlite3.connect(tmp_path / file)) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(Refusal, match=f"{file} has format 99"):
        opened(tmp_path)


def test_an_operation_of_a_newer_version_is_refused() -> None:
    begun = {"format": 99, "operation": "turn", "moves": [["a", "b"]], "process": "1"}
    with pytest.raises(Refusal, match="begun turn here, in format 99"):
        intent.parse_intent(json.dumps(begun).encode())


def test_a_move_of_a_newer_version_is_refused() -> None:
    with pytest.raises(ValueError, match="a newer murder wrote it"):
        journal.parse_move(json.dumps({"format": 99}).encode())


def test_a_structure_of_another_version_is_made_anew() -> None:
    kept = content.Kept(b"envelope", b"body", b"structure")
    packed = content.pack(kept)
    assert content.unpack(packed) == kept
    for version in (0, 2, content.SUMMARY_VERSION + 1):
        assert content.unpack(bytes([version]) + packed[1:]) is None


@pytest.mark.parametrize("number", [3, 4, 5])
async def test_what_was_expunged_in_an_earlier_format_is_read_on(
    number: int, tmp_path: Path
) -> None:
    """Format 3, of 0.1, has no table of it; in 4 and 5 it has, and nothing may come back."""
    file = tmp_path / "mail.db"
    with closing(sqlite3.connect(file)) as db:
        tables = schema.TABLES
        if number < 5:
            tables = tables.replace(schema.TOLD, "SELECT 1")
        if number < 4:
            tables = tables.replace(schema.GONE, "SELECT 1")
        db.executescript(tables)
        if number > 3:
            marks = ",".join("?" * 15)
            row = (1, 7, 0, "", 0, 0, 0, 10, 1, "e", 1, 0, 2, 1, "[]")
            db.execute(f"INSERT INTO gone VALUES ({marks})", row)
        db.execute(f"PRAGMA user_version={number}")
        db.commit()
    with closing(schema.connect(file, for_writing=True)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.FORMAT,)
        rows = db.execute("SELECT uid, kept FROM gone").fetchall()
        assert rows == ([(7, 0)] if number > 3 else [])
        assert dict(db.execute("SELECT key, value FROM meta WHERE key LIKE 'kept_%'")) == {
            "kept_messages": 0,
            "kept_octets": 0,
        }
