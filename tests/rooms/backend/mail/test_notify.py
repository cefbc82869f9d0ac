"""NOTIFY where a transcript cannot go: too much at once, a client that does not read, news as text."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from murder.api.auth import Identity
from murder.errors import BadSyntax
from murder.model.entry import EntryState, MailboxEntry
from murder.model.identity import Login
from murder.model.name import MailboxName
from murder.model.query.notify import Event, EventGroup, Which
from murder.net.turns import Turn
from murder.roles.backend.changes.news import EVERYTHING, Kind, News, format_news, parse_news
from murder.roles.backend.imap.notify.filters import Filters
from murder.roles.backend.imap.notify.notify import MAX_NEWS
from murder.wire.imap.notify import parse_notify
from murder.wire.token import Scanner
from tests.kit.waiting import until_soon
from tests.rooms.backend.server import Running, running_backend

Ask = Callable[[str], Awaitable[list[str]]]
NAME = MailboxName(b"user.ana.caf\xe9")
NEWS = [
    News(Kind.CREATED, NAME),
    News(Kind.RENAMED, NAME, MailboxName(b"user.ana.old")),
    News(Kind.ANNOTATED, MailboxName(b""), user="ana", entries=("/private/comment", "/shared/x")),
]


@pytest.mark.parametrize("news", NEWS)
def test_news_travel_as_text(news: News) -> None:
    assert parse_news(format_news(news)) == news


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"kind": 1, "name": "x"}', "5e1f"])
def test_what_is_no_news_is_passed_over(text: str) -> None:
    assert parse_news(text) is None


async def read_line(reader: asyncio.StreamReader) -> str:
    line = await asyncio.wait_for(reader.readline(), 10)
    assert line, "the server has closed"
    return line.decode().removesuffix("\r\n")


@asynccontextmanager
async def playing(
    folder: Path,
) -> AsyncIterator[tuple[Running, asyncio.StreamReader, asyncio.StreamWriter, Ask]]:
    """A client of ana's at a backend, and how it asks."""
    async with running_backend(folder) as running:
        reader, writer = await asyncio.open_connection(*running.address)

        async def ask(command: str) -> list[str]:
            writer.write(f"t {command}\r\n".encode())
            lines = [await read_line(reader)]
            while not lines[-1].startswith("t "):
                lines.append(await read_line(reader))
            return lines

        await read_line(reader)
        await ask("LOGIN ana secret")
        yield running, reader, writer, ask
        writer.close()


async def test_too_much_to_tell_ends_it(tmp_path: Path) -> None:
    async with playing(tmp_path) as (running, reader, _, ask):
        await ask("NOTIFY SET (personal (MailboxName MessageNew MessageExpunge))")
        running.backend.tracker.heard(EVERYTHING)
        assert (await read_line(reader)).startswith("* OK [NOTIFICATIONOVERFLOW] ")
        running.backend.events.publish(News(Kind.CREATED, MailboxName(b"user.ana")))
        assert await ask("NOOP") == ["t OK Completed"]
        assert not running.backend.tracker.watchers
        await ask("NOTIFY SET (personal (MailboxName))")
        running.backend.events.publish(News(Kind.CREATED, MailboxName(b"user.ana")))
        assert await read_line(reader) == '* LIST (\\HasNoChildren) "/" INBOX'


async def test_who_does_not_read_is_told_that_it_was_too_much(tmp_path: Path) -> None:
    async with playing(tmp_path) as (running, reader, _, ask):
        await ask("NOTIFY SET (mailboxes INBOX (MailboxName))")
        for _ in range(MAX_NEWS + 1):  # in one turn of the loop: as if the client did not read
            running.backend.events.publish(News(Kind.CREATED, MailboxName(b"user.ana")))
        assert (await read_line(reader)).startswith("* OK [NOTIFICATIONOVERFLOW] ")


async def test_a_client_that_has_gone_leaves_no_watcher(tmp_path: Path) -> None:
    async with playing(tmp_path) as (running, reader, writer, ask):
        await ask("NOTIFY SET (personal (MessageNew MessageExpunge))")
        assert len(running.backend.tracker.watchers) == 1
        writer.write(b"t LOGOUT\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"* BYE")
        await until_soon(lambda: not running.backend.tracker.watchers)


def test_however_many_groups_name_a_subtree_the_list_is_read_once() -> None:
    """100 groups about nested trees: the work grows with the mailboxes, not with mailboxes times names."""
    roots = [b"user", b"user.ana", b"user.ana.a", b"user.ana.a.b", *(b"z%d" % n for n in range(46))]

    def looked_at(mailboxes: int) -> tuple[int, int]:
        rows = [
            MailboxEntry(MailboxName(b"user.ana.a.m%d" % number), EntryState.ACTIVE, b"be1!default")
            for number in range(mailboxes)
        ]
        asked: list[bytes] = []
        given: list[MailboxEntry] = []

        class Mailboxes:
            def visible(self, _: object, prefixes: list[bytes]) -> list[MailboxEntry]:
                asked.extend(prefixes)
                found = [row for row in rows if row.name.startswith(prefixes[0])]
                given.extend(found)
                return found

        groups = [
            EventGroup(Which.SUBTREE, tuple(roots), frozenset({Event.MAILBOX_NAME}))
            for _ in range(100)
        ]
        login = Login("ana", Identity("ana"))
        filters = Filters(groups, login, Mailboxes(), MailboxName)  # type: ignore[arg-type] # so much of it
        moments = iter(range(10**9))
        turn = Turn(share_s=100, clock=lambda: float(next(moments)))
        found = asyncio.run(filters.candidates(turn, 10_000))
        assert len(found) == mailboxes
        assert turn.rests >= mailboxes // 200
        return len(asked), len(given)

    assert looked_at(1000) == (47, 1000)
    assert looked_at(2000) == (47, 2000)


def test_too_many_names_are_bad() -> None:
    names = b" ".join(b"m%d" % number for number in range(900))
    group = b"(MAILBOXES (" + names + b") (MessageNew MessageExpunge))"
    with pytest.raises(BadSyntax, match="in all groups"):
        parse_notify(Scanner(b" SET " + b" ".join([group] * 6) + b"\r\n", 0))


async def test_news_that_come_late_from_another_worker_are_told(tmp_path: Path) -> None:
    """A hierarchy was renamed, and a mailbox of it deleted, before this worker has heard of either."""
    other, below = MailboxName(b"user.ana.other"), MailboxName(b"user.ana.other.below")
    old, old_below = MailboxName(b"user.ana.new"), MailboxName(b"user.ana.new.below")
    async with playing(tmp_path) as (running, reader, _, ask):
        for name in ("new", "new/below"):
            await ask(f"CREATE INBOX/{name}")
        await ask("NOTIFY SET (personal (MailboxName))")
        tracker, events = running.backend.tracker, running.backend.events
        watchers = set(tracker.watchers)
        tracker.watchers.clear()
        elsewhere, writer = await asyncio.open_connection(*running.address)
        writer.write(b"a LOGIN ana secret\r\nb RENAME INBOX/new INBOX/other\r\n")
        writer.write(b"c DELETE INBOX/other/below\r\n")
        while not (await read_line(elsewhere)).startswith("c OK"):
            pass
        writer.close()
        tracker.watchers.update(watchers)
        events.publish(News(Kind.RENAMED, other, old))
        events.publish(News(Kind.RENAMED_BELOW, below, old_below))
        events.publish(News(Kind.DELETED, below))
        assert [await read_line(reader) for _ in range(3)] == [
            '* LIST (\\HasNoChildren) "/" INBOX/other ("OLDNAME" ("INBOX/new"))',
            '* LIST (\\NonExistent) "/" INBOX/other/below',
            '* LIST (\\HasNoChildren) "/" INBOX/other',
        ]
