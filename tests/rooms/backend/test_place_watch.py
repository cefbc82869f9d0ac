"""A backend whose mail is away says so, whoever asks and however often, and whatever its disk does."""

import asyncio
import threading
from typing import cast

import pytest
from structlog.testing import capture_logs

from murder.api.store import MailboxStore, Room
from murder.errors import Code, Refusal
from murder.roles.backend.reconcile import place
from murder.roles.backend.reconcile.place import PlaceWatch
from tests.kit.waiting import turns, until_soon


class Store:
    """Its disk can be away, and hang."""

    def __init__(self) -> None:
        self.looks = 0
        self.problem: Exception | None = None
        self.answers = threading.Event()
        self.answers.set()

    def check_place(self) -> None:
        self.looks += 1
        self.answers.wait()
        if self.problem is not None:
            raise self.problem


def watch_of(store: object) -> PlaceWatch:
    return PlaceWatch(cast(MailboxStore, store))


class StoreOnADisk(Store):
    """Its disk is that of a computer."""

    left: Room | None = Room(10, 100)

    def room(self) -> Room:
        if self.left is None:
            raise FileNotFoundError
        return self.left


async def test_a_store_is_looked_at_once_however_many_ask() -> None:
    store = Store()
    store.problem = Refusal(Code.UNAVAILABLE, "/srv: it is away")
    watch = watch_of(store)
    for _ in range(3):
        await asyncio.gather(*(watch.look() for _ in range(100)))
        assert (store.looks, watch.problem) == (1, "/srv: it is away")


async def test_it_is_looked_at_again_and_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "LOOK_EVERY_S", 0.0)
    store, said = Store(), []
    watch = watch_of(store)
    for problem in (None, ValueError("a bug"), None):
        store.problem = problem
        await watch.look()
        said.append(watch.problem)
    assert said == ["", "its store cannot say whether mail can be kept: ValueError('a bug')", ""]


async def test_room_is_told_of_what_is_on_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "LOOK_EVERY_S", 0.0)
    store, on_none = StoreOnADisk(), watch_of(Store())
    watch = watch_of(store)
    await watch.look()
    await on_none.look()
    assert watch.room == Room(10, 100) and on_none.room is None
    store.left = None
    await watch.look()
    assert watch.room is None and watch.problem == "", "the other look says what is the matter"


async def test_the_log_has_it_though_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(place, "KEEP_EVERY_S", 0.0)
    store = Store()
    store.problem = Refusal(Code.UNAVAILABLE, "/srv: it is away")
    with capture_logs() as logged:
        keeping = asyncio.create_task(watch_of(store).keep_looking())
        await until_soon(lambda: logged, "that it is away is told")
        store.problem = None
        await until_soon(lambda: len(logged) > 1, "that it is back is told")
        keeping.cancel()
        await asyncio.wait([keeping])
    assert [line["event"] for line in logged] == ["store.away", "store.back"]


async def test_a_disk_that_does_not_answer_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "WAIT_S", 0.0)
    monkeypatch.setattr(place, "LOOK_EVERY_S", 0.0)
    store = Store()
    store.answers.clear()
    watch = watch_of(store)
    await watch.look()
    assert watch.problem == "", "it may be busy"
    monkeypatch.setattr(place, "LATE_S", 0.0)
    await watch.look()
    assert watch.problem == "the disk that mail is kept on does not answer"
    assert store.looks == 1
    store.answers.set()
    monkeypatch.setattr(place, "WAIT_S", 60.0)
    await watch.look()
    await turns(1)
    assert watch.problem == ""


async def test_without_a_thread_it_is_looked_at_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is wrong with the disk then."""
    monkeypatch.setattr(place, "LATE_S", 0.0)
    monkeypatch.setattr(place, "LOOK_EVERY_S", 0.0)
    store = Store()
    watch = watch_of(store)
    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", no_thread)
        await watch.look()
    assert (store.looks, watch.problem) == (0, "")
    await watch.look()
    assert (store.looks, watch.problem) == (1, "")


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_a_store_that_cannot_say_says_nothing() -> None:
    watch = watch_of(object())
    await watch.look()
    assert watch.problem is None
