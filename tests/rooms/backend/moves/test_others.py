"""Others go first: mail that moves here comes a batch at a time while they work, in threads that give way."""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from murder.api.turns import NICENESS, behind
from murder.errors import UpstreamFailure
from murder.model.message import MailboxStatus, Message, ModSeq, Uid, UidValidity
from murder.model.name import inbox_of
from murder.net.frames import FrameChannel
from murder.roles.backend.moves.arriving import Arriving
from murder.roles.backend.moves.others import WORKED_S, Others
from murder.roles.backend.moves.outgoing import sum_of
from murder.roles.backend.shared import Backend
from murder.trail.figures import Figures
from murder.wire.nodes.carry import OCTETS, Frame
from murder.wire.nodes.carry_words import Rows, format_request
from tests.rooms.backend.moves.test_xtake import Master, Source, begin
from tests.rooms.backend.server import running_backend, spool_store
from tests.rooms.wire.test_carry_words import PORTRAIT

CONTENT = b"Subject: one\r\n\r\nOne\r\n"
BATCHES = 4


def a_command(figures: Figures) -> None:
    figures.took("commands", 0.001, "imap", "NOOP")


def a_login(figures: Figures) -> None:
    figures.count_login(None, "pop3", "ok")


def a_delivery(figures: Figures) -> None:
    figures.add("messages", "delivered")


@pytest.mark.parametrize("work", [a_command, a_login, a_delivery])
def test_who_has_worked_lately_is_at_work(work: Callable[[Figures], None]) -> None:
    figures, now = Figures(), 100.0
    work(figures)  # before the move
    others = Others(figures, lambda: now)
    assert not others.are_at_work()
    work(figures)
    assert others.are_at_work()
    now += WORKED_S / 2
    assert others.are_at_work()
    now += WORKED_S
    assert not others.are_at_work()
    work(figures)
    assert others.are_at_work()


class Noted(Source):
    """Notes in which order it is heard and answered: each batch as its last frame is taken, and its answer."""

    def __init__(self, *asked: dict[str, Any]) -> None:
        super().__init__(*asked)
        self._frames = [
            frame
            for asked_frame in self._frames
            for frame in (asked_frame, *self._octets_of(asked_frame))
        ]
        self.course: list[str] = []

    @staticmethod
    def _octets_of(frame: Frame) -> list[Frame]:
        return [Frame(OCTETS, CONTENT)] if b'"rows"' in frame.octets else []

    async def receive(self) -> Frame:
        frame = await super().receive()
        if frame.kind == OCTETS:
            self.course.append("came")
        return frame

    async def send(self, words: dict[str, Any]) -> None:
        await super().send(words)
        if "digest" in words:
            self.course.append("stored")


def batch(number: int) -> dict[str, Any]:
    moment = datetime.fromtimestamp(0, UTC)
    flags = frozenset[str]()
    message = Message(
        Uid(number), flags, moment, len(CONTENT), ModSeq(number), moment, f"M{number}"
    )
    return dict(format_request(Rows(inbox_of("zoe"), [(message, True)])))


async def course_of(folder: Path, *, is_busy: bool) -> list[str]:
    asked = [
        begin("user.zoe"),
        {"do": "hold", "name": "user.zoe", **PORTRAIT},
        *(batch(number) for number in range(1, BATCHES + 1)),
    ]
    async with running_backend(folder, lambda: spool_store(folder)) as one:
        one.backend.master = Master()
        source = Noted(*asked)
        arriving = Arriving(one.backend, one.mover.journal, cast(FrameChannel, source), "be2.test")
        if is_busy:
            a_command(one.backend.figures)
        with pytest.raises(UpstreamFailure):
            await arriving.serve()
        assert not any("no" in answer for answer in source.answers), source.answers
        return source.course


async def test_while_others_work_a_batch_is_stored_before_the_next_one_comes(
    tmp_path: Path,
) -> None:
    assert await course_of(tmp_path, is_busy=True) == ["came", "stored"] * BATCHES


async def test_where_nobody_works_the_next_one_comes_meanwhile(tmp_path: Path) -> None:
    course = await course_of(tmp_path, is_busy=False)
    assert course[:2] == ["came", "came"]


async def test_what_is_done_behind_gives_way_with_all_that_it_starts() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def with_its_own() -> tuple[int, int]:
        with ThreadPoolExecutor(1) as pool:
            return niceness(), pool.submit(niceness).result()

    before = niceness()
    more = min(before + NICENESS, 19)
    assert await behind(with_its_own) == (more, more)
    assert niceness() == before == await asyncio.to_thread(niceness)


class Numbers(Sequence[Uid]):
    """UIDs, and in which threads they were taken."""

    def __init__(self, count: int) -> None:
        self._all = range(1, count + 1)
        self.taken_in: set[int] = set()

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, which: Any) -> Any:
        self.taken_in.add(threading.get_ident())
        return self._all[which]


class Numbered:
    """A mailbox of so many messages, as far as both ends are compared."""

    def __init__(self, uids: Numbers) -> None:
        self._uids = uids

    async def status(self) -> MailboxStatus:
        return MailboxStatus(
            messages=len(self._uids),
            unseen=0,
            deleted=0,
            size=0,
            uid_next=Uid(len(self._uids) + 1),
            uid_validity=UidValidity(1),
            highest_modseq=ModSeq(1),
        )

    async def uids(self) -> Numbers:
        return self._uids

    def close(self) -> None:
        pass


async def test_the_uids_of_a_mailbox_are_summed_up_in_a_thread() -> None:
    """Of a million it took 120 ms at both ends, in which nobody there was answered."""
    uids = Numbers(30_000)

    async def open_mailbox(*_: object) -> Numbered:
        return Numbered(uids)

    backend = SimpleNamespace(store=SimpleNamespace(open=open_mailbox))
    told = await sum_of(cast(Backend, backend), inbox_of("ana"))
    assert told.messages == 30_000 and told.uids
    assert uids.taken_in and threading.get_ident() not in uids.taken_in
