"""A long list is looked at some at a time: what is here of it at once, and what each page goes over, is bounded."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from murder.admin.operate.parts import rows_about
from murder.admin.operate.reach import Reach
from murder.admin.web.pages import moving, walks
from murder.admin.web.pages.mailboxes import known_backends, plan_deletion, plan_return
from murder.admin.web.pages.moving import confirm, do, show_plan
from murder.admin.web.pages.moving import show as show_moves
from murder.admin.web.pages.walks import mailboxes_behind, short_list, users_behind
from murder.errors import Code, Refusal
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName, Namespace, deleted_name
from murder.roles.mupdate.remote.client import MasterClient
from tests.rooms.mupdate.nodes import master

USERS = [f"u{number}" for number in range(10, 22)]
FOLDERS = ("", ".a", ".b")


class Reached:
    """The master, and what it was asked for."""

    def __init__(self, client: MasterClient) -> None:
        self.master = self
        self._client = client
        self.asked: list[int] = []

    async def heads(self, after: bytes = b"", count: int = 0) -> list[MailboxEntry] | None:
        rows = await self._client.heads(after, count)
        assert rows is not None
        self.asked.append(len(rows))
        return rows


@asynccontextmanager
async def reached(folder: Path) -> AsyncIterator[tuple[Reach, Reached]]:
    async with master(folder) as server:
        client = MasterClient(server.target)
        await client.activate(b"shared", b"be1.test!default", b"anyone\tl\t")
        for user in USERS:
            for below in FOLDERS:
                name = f"user.{user}{below}".encode()
                await client.activate(name, b"be1.test!default", b"x\tl\t")
        reach = Reached(client)
        yield cast(Any, reach), reach
        await client.close()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "BATCH", 5)
    monkeypatch.setattr(walks, "MOST_AT_ONCE", 10)


async def test_of_a_long_list_no_more_is_fetched_than_tells_that_it_is_long(tmp_path: Path) -> None:
    async with reached(tmp_path) as (reach, counted):
        assert await short_list(reach) is None
        assert counted.asked == [11]


async def test_pages_follow_each_other_to_the_end(tmp_path: Path) -> None:
    async with reached(tmp_path) as (reach, counted):

        def fits(rows: Any) -> list[MailboxEntry]:
            return [row for row in rows if row.name.endswith(b".b")]

        seen, after = [], b""
        while True:
            rows, after = await mailboxes_behind(reach, after, fits, 5)
            seen += [row.name for row in rows]
            if not after:
                break
            assert len(rows) == 5
        assert seen == [f"user.{user}.b".encode() for user in USERS]
        assert max(counted.asked) == 5


async def test_a_user_is_counted_whole_wherever_a_batch_ends(tmp_path: Path) -> None:
    async with reached(tmp_path) as (reach, _):
        for most in (1, 2, 5):
            seen, after = [], b""
            while True:
                lines, after = await users_behind(reach, after, "U", most)
                seen += [(line.user, line.mailboxes) for line in lines]
                if not after:
                    break
            assert seen == [(user, len(FOLDERS)) for user in USERS]
        lines, _ = await users_behind(reach, b"", "u15", 5)
        assert [line.user for line in lines] == ["u15"]


async def test_a_page_that_finds_little_goes_over_so_many_rows_and_says_where_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "MOST_LOOKED", 10)
    async with reached(tmp_path) as (reach, counted):
        rows, after = await mailboxes_behind(reach, b"", lambda _: [])
        assert not rows and after and sum(counted.asked) == 10
        counted.asked.clear()
        lines, after = await users_behind(reach, b"", "nobody")
        assert not lines and after and sum(counted.asked) == 10
        lines, _ = await users_behind(reach, after, "")
        assert lines[0].mailboxes == len(FOLDERS)


# --- what pages that act fetch


class Counted(Reached):
    """What a part of the list was asked for, and that nobody asks for all of it."""

    def __init__(self, client: MasterClient) -> None:
        super().__init__(client)
        self.config = SimpleNamespace(servers={"be1.test": None, "be2.test": None})
        self.namespace = Namespace()

    async def below(self, name: bytes) -> list[MailboxEntry]:
        rows = await self._client.below(name)
        assert rows is not None
        self.asked.append(len(rows))
        return rows

    async def servers(self) -> dict[str, int] | None:
        return await self._client.servers()

    async def granted(self, identifier: bytes) -> list[MailboxEntry]:
        rows = await self._client.granted(identifier)
        assert rows is not None
        self.asked.append(len(rows))
        return rows

    def name(self, external: str) -> MailboxName:
        return self.namespace.internal(external.encode(), "")

    def external(self, name: MailboxName) -> bytes:
        return self.namespace.external(name, "")

    def shown(self, name: MailboxName) -> str:
        return self.external(name).decode()


class Asking(SimpleNamespace):
    """Who asks for a page, and gets what it would show."""

    async def reach(self) -> Any:
        return self.reached

    def field(self, name: str) -> str:
        return str(self.fields[name])

    def page(self, _: str, **words: Any) -> dict[str, Any]:
        return words


@pytest.mark.parametrize(
    ("handler", "fields", "shows", "most"),
    [
        (plan_deletion, {"name": "user/u15/a"}, {"total": 1}, 1),
        (plan_deletion, {"name": "user/u15"}, {"total": 3, "all_grants": 1}, 4),
        (plan_return, {"name": "user/u15/gone"}, {"total": 2}, 3),
        (show_plan, {"what": "u15", "to": "be2.test"}, {"to": "be2.test"}, 3),
        (show_plan, {"what": "user/u15/a", "to": "be2.test"}, {"to": "be2.test"}, 1),
    ],
)
async def test_a_page_that_acts_fetches_what_it_shows_and_no_more(
    handler: Any, fields: dict[str, str], shows: dict[str, Any], most: int, tmp_path: Path
) -> None:
    async with reached(tmp_path) as (reach, _):
        client = cast(Any, reach)._client
        place = b"be1.test!default"
        for gone, at in ((b"gone", 2), (b"gone.x", 2), (b"gone", 1)):
            name = deleted_name(MailboxName(b"user.u15." + gone), at)
            await client.activate(name, place, b"x\tl\t")
        await client.activate(b"posted", place, b"-u15\tp\tu155\tp\t")
        counted = Counted(client)
        desk = Asking(reached=counted, fields=fields, form={}, path="/x")
        words = await handler(desk)
        assert shows.items() <= words.items()
        assert 0 < sum(counted.asked) <= most


async def test_an_older_master_is_asked_for_all_of_the_list_once() -> None:
    """It knows BELOW, and not GRANTED."""
    asked: list[str] = []

    async def granted(_: bytes) -> None:
        asked.append("granted")

    async def rows() -> list[MailboxEntry]:
        asked.append("all")
        return []

    reach = SimpleNamespace(master=SimpleNamespace(granted=granted), rows=rows)
    assert await rows_about(cast(Any, reach), "ana") == []
    assert asked == ["granted", "all"]


async def no_part(*_: object) -> None:
    """What a master answers that does not know the command."""


async def test_a_form_knows_all_backends_or_takes_the_name_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration need not name all of them, and a long list is not fetched for that."""
    async with reached(tmp_path) as (_, reach):
        counted = cast(Any, Counted(reach._client))
        counted.config = SimpleNamespace(servers={"be2.test": None})
        told = await known_backends(counted, [])
        assert told == {"backends": ["be1.test", "be2.test"], "all_backends": True}
        assert counted.asked == []  # no row
        counted.servers = no_part  # of an older master
        long = await known_backends(counted, [])
        assert long == {"backends": ["be2.test"], "all_backends": False}
        monkeypatch.setattr(walks, "MOST_AT_ONCE", 100)
        short = await known_backends(counted, [])
        assert short == {"backends": ["be1.test", "be2.test"], "all_backends": True}


async def test_a_form_needs_no_whole_list_of_a_master_that_tells_no_part_of_it() -> None:
    """Each page of a mailbox would fetch it from a Cyrus."""

    servers = {"be2.test": None}
    reach = SimpleNamespace(
        master=SimpleNamespace(heads=no_part, servers=no_part),
        config=SimpleNamespace(servers=servers),
    )
    known = await known_backends(cast(Any, reach), [])
    assert known == {"backends": ["be2.test"], "all_backends": False}


@pytest.mark.parametrize("to", ["be2.test", "be1.test"])  # known by the configuration; by the list
@pytest.mark.parametrize("what", ["u1", "user/u1", "user/*"])
async def test_who_tells_no_part_of_the_list_is_asked_for_all_of_it_once(
    what: str, to: str
) -> None:
    """As a Cyrus master; a single word may be a user, or a mailbox."""
    asked: list[bytes] = []

    async def heads() -> list[MailboxEntry]:
        asked.append(b"all")
        rows = {b"user.u1": b"be3.test!default", b"user.u2": b"be1.test!default"}
        return [
            MailboxEntry(MailboxName(name), EntryState.ACTIVE, place, b"")
            for name, place in rows.items()
        ]

    namespace = Namespace()
    reach = SimpleNamespace(
        config=SimpleNamespace(servers={"be2.test": None}),
        namespace=namespace,
        master=SimpleNamespace(below=no_part, prefixed=no_part, servers=no_part),
        heads=heads,
        name=lambda text: namespace.internal(text.encode(), ""),
        external=lambda name: namespace.external(name, ""),
        shown=lambda name: namespace.external(name, "").decode(),
    )
    desk = Asking(reached=reach, fields={"what": what, "to": to}, form={}, path="/move")
    words = cast(Any, await show_plan(cast(Any, desk)))
    assert "user/u1" in repr(words["page"].rows)
    assert asked == [b"all"]


@pytest.mark.parametrize("handler", [show_moves, confirm, do])
async def test_a_move_of_a_backend_that_no_configuration_names_is_there(
    handler: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration need not name all of them."""

    async def told(_: Any, servers: list[str], move_id: str = "") -> Any:
        raise Refusal(Code.NONEXISTENT, " ".join(servers))

    monkeypatch.setattr(moving, "records", told)
    monkeypatch.setattr(moving, "find_record", told)
    async with reached(tmp_path) as (_, counted):
        names = SimpleNamespace(servers={"be2.test": None})
        reach = SimpleNamespace(config=names, master=counted._client)
        fields = {"verb": "undo", "id": "a1"}
        desk = Asking(reached=reach, fields=fields, form={}, path="/moves")
        with pytest.raises(Refusal, match=r"be1.test be2.test"):
            await handler(desk)
