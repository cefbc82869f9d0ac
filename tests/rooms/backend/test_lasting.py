"""A command that lasts says so (RFC 9585), to a client at a backend, and through a frontend: nobody gives it up."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from murder.model.name import MailboxName
from murder.net.sweep import SLOT_S
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.lasting import STILL, Lasting
from murder.roles.backend.imap.mail import fetch
from plugins.store_memory import MemoryStore
from tests.kit.peer import Peer
from tests.rooms.backend.server import running_backend
from tests.rooms.frontend.cluster import running_cluster

SAID = STILL.rstrip(b"\r\n")
LONG = b"Subject: long\r\n\r\n" + b"It goes on and on.\r\n" * 20_000


class Held(MemoryStore):
    """Renames nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()
        self.begun = asyncio.Event()

    async def rename(self, old: MailboxName, new: MailboxName) -> None:
        self.begun.set()
        await self.may.wait()
        await super().rename(old, new)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lasting, "tell_every_s", SLOT_S)


async def logged_in(*where: str | int) -> Peer:
    client = await Peer.at(*where)
    await client.line()
    await client.ok("LOGIN ana secret")
    return client


async def test_a_command_that_lasts_says_so_until_it_is_done(tmp_path: Path) -> None:
    store = Held()
    async with running_backend(tmp_path, lambda: store) as running:
        client = await logged_in(*running.address)
        await client.ok("CREATE INBOX/old")
        client.send(b"a RENAME INBOX/old INBOX/new\r\n")
        assert [await client.line() for _ in range(2)] == [SAID, SAID]
        store.may.set()
        said = await client.until(b"a ")
        assert said[-1].startswith(b"a OK") and set(said[:-1]) <= {SAID}
        assert await client.command("NOOP") == [b"t OK Completed"]
        await client.close()


async def test_nothing_is_said_within_a_response(tmp_path: Path) -> None:
    store = Held()
    async with running_backend(tmp_path, lambda: store) as running:
        client = await logged_in(*running.address)
        await client.ok("CREATE INBOX/old")
        (dialogue,) = running.backend.sessions
        assert isinstance(dialogue, BackendImap)
        seen = []
        flush = dialogue.flush

        async def watched() -> None:
            seen.append(dialogue.is_inside)
            await flush()

        dialogue.flush = watched  # type: ignore[method-assign]
        await client.ok(b"APPEND INBOX {%d+}\r\n%s" % (len(LONG), LONG))
        await client.ok("SELECT INBOX")
        await client.ok("FETCH 1 (UID BODY[])")
        assert True in seen and not dialogue.is_inside

        client.send(b"a RENAME INBOX/old INBOX/new\r\n")
        await store.begun.wait()
        dialogue.is_inside = True
        dialogue.connection.send_gathered()
        dialogue.look(dialogue.loop.time() + 2 * SLOT_S)
        assert not dialogue.connection.gathered
        dialogue.is_inside = False
        dialogue.look(dialogue.loop.time() + 2 * SLOT_S)
        assert dialogue.connection.gathered == [STILL]
        store.may.set()
        assert (await client.until(b"a "))[-1].startswith(b"a OK")
        await client.close()


async def test_nothing_is_said_behind_the_head_of_a_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which has just filled what is sent at once; the rest of the response waits for more."""
    monkeypatch.setattr(fetch, "GATHER", 25)
    async with running_backend(tmp_path) as running:
        client = await logged_in(*running.address)
        (dialogue,) = running.backend.sessions
        assert isinstance(dialogue, BackendImap)
        await client.ok("APPEND INBOX {5+}\r\n\r\nabc")
        await client.ok("SELECT INBOX")
        flush, seen = dialogue.flush, list[bool]()

        async def watched() -> None:
            seen.append(dialogue.is_inside)
            await flush()

        dialogue.flush = watched  # type: ignore[method-assign]
        await client.ok("FETCH 1 (UID INTERNALDATE BODY.PEEK[TEXT]<0.2>)")
        assert seen[0] and not dialogue.is_inside
        await client.close()


async def test_nothing_is_said_within_the_octets_of_a_url(tmp_path: Path) -> None:
    async with running_backend(tmp_path) as running:
        client = await logged_in(*running.address)
        (dialogue,) = running.backend.sessions
        assert isinstance(dialogue, BackendImap)
        await client.ok(b"APPEND INBOX {%d+}\r\n%s" % (len(LONG), LONG))
        url = "imap://ana@be1.test/INBOX/;uid=1;urlauth=anonymous"
        (told,) = await client.ok(f'GENURLAUTH "{url}" INTERNAL')
        flush, loop = dialogue.flush, dialogue.loop

        async def long_after() -> None:
            await flush()
            dialogue.look(loop.time() + 2 * SLOT_S)

        dialogue.flush = long_after  # type: ignore[method-assign]
        answer, *behind = await client.ok(f'URLFETCH "{told.split(b" ")[2].decode()}"')
        assert answer.endswith(b"{%d}\r\n%s" % (len(LONG), LONG))
        assert set(behind) == {SAID}
        await client.close()


async def test_nothing_is_said_to_a_backend_that_speaks_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An INPROGRESS between them would end a RENAME of several backends that takes longer than it takes to say so."""
    async with running_backend(tmp_path) as running:
        client = await logged_in(*running.address)
        (dialogue,) = running.backend.sessions
        assert isinstance(dialogue, BackendImap)
        connection, gathered, heard = dialogue.connection, [], asyncio.Event()

        async def serve(*_: object) -> None:
            connection.send_gathered()
            dialogue.look(dialogue.loop.time() + 2 * SLOT_S)
            gathered.append(list(connection.gathered))
            await heard.wait()

        monkeypatch.setattr(type(dialogue.renames.parts), "serve", serve)
        certificate = SimpleNamespace(name="be2.test", roles=("backend",))
        monkeypatch.setattr(connection, "certificate", certificate)
        client.send(b"x XPART\r\n")
        assert await client.line() == b"x OK Frames now"
        heard.set()
        assert gathered == [[]]
        await client.close()


async def test_a_client_of_a_frontend_hears_it_too(tmp_path: Path) -> None:
    store = Held()
    homes = {"be1.test": ("ana",)}
    async with running_cluster(tmp_path, homes, make_store=lambda _: store) as cluster:
        client = await logged_in(*cluster.address)
        await client.ok("CREATE INBOX/old")
        client.send(b"a RENAME INBOX/old INBOX/new\r\n")
        assert [await client.line() for _ in range(2)] == [SAID, SAID]
        store.may.set()
        assert (await client.until(b"a "))[-1].startswith(b"a OK")
        assert b'* LIST (\\HasNoChildren) "/" INBOX/new' in await client.ok('LIST "" INBOX/%')
        await client.close()
