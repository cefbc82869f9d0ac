"""`murder ctl user delete` where the backends ask no others (Cyrus): all or none, as far as they allow."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from murder.admin.operate.mailboxes import delete, doomed
from murder.admin.operate.reach import Reach
from murder.config import load_config
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.net.outgoing.exchange import Reply

HOMES = {"user.ana": "be1", "user.ana.near": "be1", "user.ana.far": "be2"}


class Told(Reach):
    """Two backends, one of which may be away or refuse; and what they were asked."""

    asked: list[str]
    away = ""
    refused = ""
    rests: tuple[str, ...] = ()

    async def backend(self, server: str, user: str = "") -> Any:
        return SimpleNamespace(capabilities=frozenset())

    async def rows(self) -> list[MailboxEntry]:
        return [row(name, "be2") for name in self.rests]

    async def execute(
        self,
        server: str,
        command: bytes,
        *,
        user: str = "",
        untagged: Callable[[bytes], None] | None = None,
    ) -> Reply:
        if server == self.away:
            raise UpstreamFailure(UpstreamKind.CONNECT, server, "refused")
        if command != b"NOOP":
            self.asked.append(f"{server} {command.decode()}")
        if self.refused and command.decode().endswith(self.refused):
            raise Refusal(Code.NO_PERMISSION, "Permission denied")
        return Reply(b"OK", b"", "Completed", b"a OK Completed\r\n")


def row(name: str, server: str) -> MailboxEntry:
    return MailboxEntry(MailboxName(name.encode()), EntryState.ACTIVE, f"{server}!d".encode())


@pytest.fixture
def told(tmp_path: Path) -> Told:
    file = tmp_path / "murder.toml"
    file.write_text(f'[node]\nname = "op"\ndata = "{tmp_path}"\n')
    reach = Told(load_config(file), lambda _: "")
    reach.asked = []
    return reach


ALL = doomed([row(name, server) for name, server in HOMES.items()], MailboxName(b"user.ana"))


async def test_each_goes_at_its_own_backend_and_the_inbox_takes_its_own_along(told: Told) -> None:
    await delete(told, ALL)
    assert told.asked == ['be2 DELETE "user/ana/far"', 'be1 DELETE "user/ana"']


@pytest.mark.parametrize("away", ["be1", "be2"])
async def test_nothing_goes_while_one_is_away(told: Told, away: str) -> None:
    told.away = away
    with pytest.raises(UpstreamFailure):
        await delete(told, ALL)
    assert told.asked == []


async def test_what_has_gone_comes_back(told: Told) -> None:
    told.refused, told.rests = (
        'DELETE "user/ana"',
        ("DELETED.user.ana.far.5F", "DELETED.user.ana.far.60"),
    )
    with pytest.raises(Refusal, match=r"denied$"):
        await delete(told, ALL)
    assert told.asked[-1] == 'be2 RENAME "DELETED/user/ana/far/60" "user/ana/far"'


async def test_what_does_not_come_back_is_named(told: Told) -> None:
    told.refused = 'DELETE "user/ana"'
    with pytest.raises(Refusal, match="denied; user/ana/far stay deleted"):
        await delete(told, ALL)
