"""A MOVE or REPLACE across backends whose source removes the message and then says NO: it is still somewhere."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from murder.errors import Code, Refusal
from murder.model.message import Changes, ModSeq, Uid
from murder.model.name import inbox_of
from plugins.store_memory import MemoryMailbox
from tests.rooms.frontend.names.test_list import logged_in
from tests.rooms.frontend.names.test_rivals import prepare, subjects, two_frontends

MAIL = "Subject: only\r\n\r\n"
COMMANDS = {
    "MOVE": "UID MOVE 1 user/bob/t0",
    "REPLACE": f"UID REPLACE 1 user/bob/t0 {{{len(MAIL)}+}}\r\n{MAIL}",
}


class Failing:
    """A store that, behind a removal, cannot be read so many times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.left, self._times, self.is_armed = 0, times, False
        expunge, changes = MemoryMailbox.expunge, MemoryMailbox.changes

        async def removed(mailbox: MemoryMailbox, uids: Sequence[Uid]) -> Sequence[Uid]:
            gone = await expunge(mailbox, uids)
            if self.is_armed and gone:
                self.is_armed, self.left = False, self._times
            return gone

        async def read(mailbox: MemoryMailbox, since: ModSeq) -> Changes:
            if self.left and mailbox.name == inbox_of("ana"):
                self.left -= 1
                raise Refusal(Code.UNAVAILABLE, "The disk cannot be read")
            return await changes(mailbox, since)

        monkeypatch.setattr(MemoryMailbox, "expunge", removed)
        monkeypatch.setattr(MemoryMailbox, "changes", read)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("how", ["remove", "claim"])
@pytest.mark.parametrize("by", COMMANDS)
async def test_what_may_have_been_removed_is_kept_where_it_is_now(
    by: str, how: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(monkeypatch, times)
    async with two_frontends(tmp_path, how) as cluster:
        ana = await prepare(cluster)
        await ana.ok(f"APPEND INBOX {{{len(MAIL)}+}}\r\n{MAIL}")
        await ana.ok("SELECT INBOX")
        failing.is_armed = True
        answer = await ana.ask(COMMANDS[by])
        assert not failing.is_armed
        assert b"t NO [UNAVAILABLE]" in answer or by == "REPLACE"
        failing.left = 0
        other = await logged_in(cluster.address, "ana")
        there = [name for box in ("INBOX", "user/bob/t0") for name in await subjects(other, box)]
        assert there == ["only"]


@pytest.mark.parametrize("how", ["remove", "claim"])
@pytest.mark.parametrize("by", COMMANDS)
async def test_what_has_not_been_removed_is_not_there_twice(
    by: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expunge = MemoryMailbox.expunge

    async def refused(mailbox: MemoryMailbox, uids: Sequence[Uid]) -> Sequence[Uid]:
        if mailbox.name == inbox_of("ana"):
            raise Refusal(Code.UNAVAILABLE, "The disk is full")
        return await expunge(mailbox, uids)

    async with two_frontends(tmp_path, how) as cluster:
        ana = await prepare(cluster)
        await ana.ok(f"APPEND INBOX {{{len(MAIL)}+}}\r\n{MAIL}")
        await ana.ok("SELECT INBOX")
        monkeypatch.setattr(MemoryMailbox, "expunge", refused)
        assert (await ana.ask(COMMANDS[by])).endswith(b"t NO [UNAVAILABLE] The disk is full\r\n")
        assert await subjects(ana, "INBOX") == ["only"]
        assert await subjects(ana, "user/bob/t0") == []
