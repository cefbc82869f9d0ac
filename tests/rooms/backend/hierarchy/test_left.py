"""What a failure has left locked is let go without a restart."""

from pathlib import Path

import pytest

from murder.errors import Code, Refusal
from murder.roles.backend.hierarchy import announce, left
from tests.kit.waiting import turns, until_soon
from tests.rooms.backend.hierarchy.test_announce import ACL, ANA, BELOW, CHILD, MOVED, murder


@pytest.mark.parametrize("act", ["create", "set_acl", "delete", "locked"])
async def test_what_a_full_disk_has_locked_is_free_again_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Each change of that user's mailboxes was IN_USE until the next start."""
    monkeypatch.setattr(announce, "UNDO_WAIT_S", 0.0)
    monkeypatch.setattr(announce, "UNDO_PAUSE_S", 0.0)
    monkeypatch.setattr(left, "RETRY_S", 0.0)

    async with murder(tmp_path) as (_, node):
        commit = node.ledger.commit

        async def refuse(_: object) -> None:
            raise Refusal(Code.UNAVAILABLE, "The mailbox list cannot be written")

        async def lock_and_leave() -> None:
            async with node.announcer.locked(BELOW):
                pass

        acts = {
            "create": lambda: node.announcer.create(MOVED, ACL),
            "set_acl": lambda: node.announcer.set_acl(BELOW, lambda acl: acl),
            "delete": lambda: node.announcer.delete([BELOW]),
            "locked": lock_and_leave,
        }
        node.ledger.commit = refuse  # type: ignore[method-assign, assignment]
        with pytest.raises(Refusal):
            await acts[act]()
        assert node.list.intents()
        await turns(20)
        assert node.list.intents(), "the disk is still full"
        node.ledger.commit = commit  # type: ignore[method-assign]
        await until_soon(lambda: not node.list.intents(), "it is free")
        await node.comparer.compare()
        there = {ANA, CHILD} if act == "delete" else {ANA, CHILD, BELOW}
        assert {entry.name for entry in node.list.walk()} == there
        await node.announcer.create(MOVED, ACL)
        await node.check_agreement()
