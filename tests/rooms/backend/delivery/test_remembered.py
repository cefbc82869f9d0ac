"""What scripts remember: found again within its period, and no more of it than there is room for."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from murder.roles.backend.records import remembered
from murder.roles.backend.records.deliveries import Deliveries, Mail
from murder.roles.backend.records.remembered import Entry, book_of

DAY_S = 86_400.0


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deliveries]:
    monkeypatch.setattr(remembered, "MAX_ENTRIES", 3)
    deliveries = Deliveries(tmp_path)
    yield deliveries
    deliveries.close()


def entry(number: int, book: str) -> Entry:
    return Entry(b"%b %d" % (book.encode(), number), DAY_S, book)


async def seen(books: Deliveries, book: str, most: int = 9) -> list[int]:
    return [number for number in range(most) if await books.was_seen(entry(number, book))]


async def test_a_book_has_so_many_entries_and_the_oldest_goes(books: Deliveries) -> None:
    one, other = book_of("seen", "ana"), book_of("seen", "bob")
    await books.end(b"", (), [entry(0, other)])
    for number in range(5):
        await books.end(b"", (), [entry(number, one)])
    assert await seen(books, one) == [2, 3, 4]
    assert await seen(books, other) == [0]


async def test_a_flood_of_duplicates_takes_no_reply_out_of_its_book(books: Deliveries) -> None:
    replied = entry(0, book_of("vacation", "ana"))
    mail = Mail(b"reply", "ana", "", ("x@y.example",), b"x", replied)
    assert await books.end(b"", [mail]) == {b"reply"}
    await books.end(b"", (), [entry(number, book_of("seen", "ana")) for number in range(9)])
    again = Mail(b"reply2", "ana", "", ("x@y.example",), b"x", replied)
    assert await books.end(b"", [again]) == frozenset()


async def test_what_is_seen_once_more_is_no_longer_the_oldest(books: Deliveries) -> None:
    book = book_of("seen", "ana")
    for number in range(3):
        await books.see(entry(number, book))
    assert await books.was_seen(entry(0, book), renew=True)
    await books.see(entry(3, book))
    assert await seen(books, book) == [0, 2, 3]


async def test_what_an_older_version_has_noted_is_known_and_is_no_entry_of_a_book(
    books: Deliveries, tmp_path: Path
) -> None:
    book = book_of("seen", "ana")
    await books.see(entry(0, book))
    with sqlite3.connect(tmp_path / "deliveries.db") as database:
        for number in (0, 1):
            row = (entry(number, book).key, 4e9, 5e9)
            database.execute("INSERT OR REPLACE INTO seen VALUES (?,?,?)", row)
    database.close()
    for number in range(2, 6):
        await books.see(entry(number, book))
    assert await seen(books, book) == [0, 1, 3, 4, 5]


async def test_what_is_over_is_forgotten_in_both_tables(tmp_path: Path) -> None:
    books = Deliveries(tmp_path)
    try:
        await books.see(Entry(b"short", -1.0, "seen ana"))
        await books.see(Entry(b"long", DAY_S, "seen ana"))
        await books.end(b"")
        with sqlite3.connect(tmp_path / "deliveries.db") as database:
            for table in ("seen", "books"):
                assert database.execute(f"SELECT key FROM {table}").fetchall() == [(b"long",)]
        database.close()
    finally:
        books.close()


async def test_who_leaves_takes_no_answer_from_those_that_failed_with_it(books: Deliveries) -> None:
    """All that is done in one transaction hears of its error, also where one of them waits no more."""
    begun, may = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        may.wait()

    def fail() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    held = asyncio.create_task(books._do(hold))
    await asyncio.to_thread(begun.wait)
    left, waits = (asyncio.create_task(books._do(fail)) for _ in range(2))
    await asyncio.sleep(0)  # both are behind the first now
    left.cancel()
    await asyncio.wait([left])
    may.set()
    async with asyncio.timeout(10):
        with pytest.raises(OSError):
            await waits
    await held
