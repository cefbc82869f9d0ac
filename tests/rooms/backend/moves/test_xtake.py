"""The target's side of a move against a source that lies: nothing outside the folder, nothing of others, nothing planted."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from murder.errors import UpstreamFailure, UpstreamKind
from murder.model.entry import EntryState, MailboxEntry
from murder.model.message import Message, ModSeq, Uid
from murder.model.name import MailboxName, inbox_of
from murder.net.frames import FrameChannel
from murder.roles.backend.moves.arriving import Arriving
from murder.roles.backend.moves.batches import Taken
from murder.wire.nodes.carry import OCTETS, Frame, FrameCutter, format_words
from tests.rooms.backend.server import Running, running_backend, spool_store
from tests.rooms.wire.test_carry_words import PORTRAIT, PREPARE


class Source:
    """What has shown the certificate of be2.test, and asks one thing after the other."""

    def __init__(self, *asked: dict[str, Any]) -> None:
        self._frames: list[Frame] = []
        cutter = FrameCutter()
        for words in asked:
            cutter.feed(format_words(words))
            frame = cutter.next()
            assert frame is not None
            self._frames.append(frame)
        self.answers: list[dict[str, Any]] = []

    async def receive(self) -> Frame:
        if not self._frames:
            raise UpstreamFailure(UpstreamKind.LOST, "be2.test", "it has gone")
        return self._frames.pop(0)

    async def send(self, words: dict[str, Any]) -> None:
        self.answers.append(words)


class Master:
    """Says that everybody called z… is at be2, all others at be1."""

    async def find(self, name: bytes) -> MailboxEntry | None:
        if name == b"user.nobody":
            return None
        server = b"be2.test" if name.startswith(b"user.z") else b"be1.test"
        return MailboxEntry(MailboxName(name), EntryState.ACTIVE, server + b"!default")


async def taking(
    folder: Path, asked: list[dict[str, Any]], look: Callable[[Running], object]
) -> Any:
    """The answers of a backend; and what is then seen there."""
    async with running_backend(folder, lambda: spool_store(folder)) as one:
        one.backend.master = Master()
        source = Source(*asked)
        channel = cast(FrameChannel, source)
        taken = Arriving(one.backend, one.mover.journal, channel, "be2.test")
        with pytest.raises(UpstreamFailure):
            await taken.serve()
        return source.answers, look(one)


def begin(root: str, move_id: str = "a1", **more: Any) -> dict[str, Any]:
    return {"do": "begin", "id": move_id, "root": root, "partition": "", **more}


async def test_only_what_the_master_says_is_at_the_source_may_come(tmp_path: Path) -> None:
    asked = [begin(f"user.{user}") for user in ("carl", "nobody", "ana", "ana.planted")]
    answers, moves = await taking(tmp_path, asked, lambda one: list(one.mover.journal.moves()))
    assert [answer["code"] for answer in answers] == ["NOPERM"] * 4
    assert moves == []


async def test_no_file_is_written_beside_the_journal(tmp_path: Path) -> None:
    wrong = ["/../escaped", "x/../../escaped", "in-a.json", "a\0"]
    asked = [begin("user.zoe", one) for one in wrong]
    asked += [{"do": word, "id": wrong[0]} for word in ("commit", "abort")]
    before = {file for file in tmp_path.rglob("*") if "spool" not in file.parts}
    answers, found = await taking(tmp_path, asked, lambda _: list(tmp_path.rglob("*escaped*")))
    assert all("id of a move" in answer["no"] for answer in answers), answers
    assert found == [] and not any("escaped" in file.name for file in before)


async def test_a_whole_move_and_what_does_not_belong_to_it(tmp_path: Path) -> None:
    name = {"name": "user.zoe"}
    notes = {"a/user.zoe": '{"": {"/shared/comment": "x"}}'}
    rows = {"rows": [["user.zoe", "zoe\tlrs\t"]], "subscriptions": ["user.zoe"]}
    asked = [
        begin("user.zoe", partition="nosuch"),
        begin("user.zoe"),
        {"do": "hold", "name": "user.ana", **PORTRAIT},
        {"do": "hold", **name, **PORTRAIT, "mailbox_id": "x) INJECTED (y"},
        {"do": "hold", **name, **PORTRAIT},
        {"do": "complete", **name, **PORTRAIT},
        {**PREPARE, **rows, "notes": {"a/user.ana": "{}"}},
        {**PREPARE, **rows, "notes": {"a/user.zoe": '{"": {"no entry": "x"}}'}},
        {**PREPARE, **rows, "notes": {"q/user.zoe": '{"STORAGE": "much"}'}},
        {**PREPARE, **rows, "notes": {"u/user.zoe": "[]"}},
        {"do": "compare", "what": "tree", "id": "a1", "root": "user.ana", "name": "user.ana"},
        {**PREPARE, **rows, "notes": notes},
        {"do": "commit", "id": "a1"},
    ]
    answers, entry = await taking(
        tmp_path, asked, lambda one: one.backend.mailboxes.find(inbox_of("zoe"))
    )
    said = [answer.get("no", "") for answer in answers]
    expected = [
        *("no partition nosuch", "", "is no part of", "can be no mailbox's id", "", ""),
        *("belongs to no mailbox", "no entry's name", "cannot be read", "cannot be read"),
        *("is not known here", "", ""),
    ]
    assert len(said) == len(expected)
    for text, part in zip(said, expected, strict=True):
        assert (part in text) if part else not text, (part, text)
    assert entry is not None and entry.raw_acl == b"zoe\tlrs\t"


async def test_a_batch_of_many_messages_does_not_stay_in_memory() -> None:
    """What is beyond a few batches of our own goes to the disk as it comes."""
    size = 1024 * 1024
    written: list[int] = []

    class Incoming:
        async def write(self, octets: bytes) -> None:
            written.append(len(octets))

        async def close(self) -> None:
            pass

    class Octets:
        async def receive(self) -> Frame:
            return Frame(OCTETS, b"x" * size)

    moment = datetime.fromtimestamp(0, UTC)
    message = Message(Uid(1), frozenset(), moment, size, ModSeq(1), moment, "M1")
    taken = Taken([(message, True)] * 40)
    await taken.take(cast(FrameChannel, Octets()), lambda: cast(Any, Incoming()))
    assert sum(written) == 24 * size
    await taken.write()
    assert sum(written) == 40 * size
