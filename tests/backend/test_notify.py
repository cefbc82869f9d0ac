"""NOTIFY where a transcript cannot go: too much at once, a client that does not read, news as text."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from murder.backend.imap.notify import MAX_NEWS
from murder.backend.news import EVERYTHING, Kind, News, format_news, parse_news
from murder.model.name import MailboxName
from tests.backend.server import Running, running_backend

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


def play(
    folder: Path,
    scene: Callable[[Running, asyncio.StreamReader, asyncio.StreamWriter, Ask], Awaitable[None]],
) -> None:
    async def whole() -> None:
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
            await scene(running, reader, writer, ask)
            writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(whole(), 30))


def test_too_much_to_tell_ends_it(tmp_path: Path) -> None:
    async def scene(
        running: Running, reader: asyncio.StreamReader, _: asyncio.StreamWriter, ask: Ask
    ) -> None:
        await ask("NOTIFY SET (personal (MailboxName MessageNew MessageExpunge))")
        running.backend.tracker.heard(EVERYTHING)
        assert (await read_line(reader)).startswith("* OK [NOTIFICATIONOVERFLOW] ")
        running.backend.tracker.tell(News(Kind.CREATED, MailboxName(b"user.ana")))
        assert await ask("NOOP") == ["t OK Completed"]
        assert not running.backend.tracker.watchers
        await ask("NOTIFY SET (personal (MailboxName))")
        running.backend.tracker.tell(News(Kind.CREATED, MailboxName(b"user.ana")))
        assert await read_line(reader) == '* LIST (\\HasNoChildren) "/" INBOX'

    play(tmp_path, scene)


def test_who_does_not_read_is_told_that_it_was_too_much(tmp_path: Path) -> None:
    async def scene(
        running: Running, reader: asyncio.StreamReader, _: asyncio.StreamWriter, ask: Ask
    ) -> None:
        await ask("NOTIFY SET (mailboxes INBOX (MailboxName))")
        for _ in range(MAX_NEWS + 1):  # in one turn of the loop: as if the client did not read
            running.backend.tracker.tell(News(Kind.CREATED, MailboxName(b"user.ana")))
        assert (await read_line(reader)).startswith("* OK [NOTIFICATIONOVERFLOW] ")

    play(tmp_path, scene)


def test_a_client_that_has_gone_leaves_no_watcher(tmp_path: Path) -> None:
    async def scene(
        running: Running, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ask: Ask
    ) -> None:
        await ask("NOTIFY SET (personal (MessageNew MessageExpunge))")
        assert len(running.backend.tracker.watchers) == 1
        writer.write(b"t LOGOUT\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"* BYE")
        async with asyncio.timeout(10):
            while running.backend.tracker.watchers:  # noqa: ASYNC110 - the server's side ends when it ends
                await asyncio.sleep(0.001)

    play(tmp_path, scene)
