"""Cyclic garbage is looked for in what is new, and at all once an hour; who has been served leaves none."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from murder.auth.gate import Gate
from murder.auth.penalty import Penalties
from murder.net.connection import Connection
from murder.node.process import garbage
from tests.kit.waiting import until_soon
from tests.rooms.serve.test_ways_in import New, dialogues, is_good, told


@pytest.fixture
def generations() -> Iterator[list[int]]:
    """Which are looked at, as that is done."""
    looked: list[int] = []

    def heard(phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            looked.append(info["generation"])

    before = gc.get_threshold()
    garbage.settle()
    gc.callbacks.append(heard)
    try:
        yield looked
    finally:
        gc.callbacks.remove(heard)
        gc.set_threshold(*before)
        gc.unfreeze()


def test_what_stands_is_not_looked_at_again_as_more_comes(generations: list[int]) -> None:
    kept = [[] for _ in range(200 * garbage.NEW_AT_A_TIME)]  # type: ignore[var-annotated]
    assert len(generations) > 100
    assert set(generations) == {0}
    assert kept


class Over(Exception):
    pass


@pytest.mark.parametrize(
    ("grown_at", "seconds", "waits", "looks"),
    [
        (None, [0.5, 0.5, 0.01], 360, 3),
        (None, [0.5] * 1000, 360, 600),
        (7, [0.5, 0.01], 8, 2),
        (7, [0.5] * 1000, 8, 20),
    ],
)
async def test_all_is_looked_at_once_an_hour_or_when_there_is_much_more_in_a_quiet_second(
    grown_at: int | None, seconds: list[float], waits: int, looks: int, generations: list[int]
) -> None:
    """The hour is 360 looks at the memory; in the eighth it has grown by a quarter and 32 MiB."""
    slept: list[float] = []
    worked = iter([at for one in seconds for at in (0.0, one)])

    async def sleep(delay_s: float) -> None:
        if delay_s == garbage.LOOK_S and 1.0 in slept:
            raise Over
        slept.append(delay_s)

    def octets() -> int:
        before = 400 << 20
        has_grown = grown_at is not None and len(slept) > grown_at
        return (
            before * 5 // 4 + garbage.GROWN_OCTETS + (1 if has_grown else 0)
            if len(slept) > 1
            else before
        )

    generations.clear()
    with pytest.raises(Over):
        await garbage.reclaim(sleep, lambda: next(worked), octets)
    assert slept == [garbage.LOOK_S] * waits + [1.0] * looks
    assert generations.count(2) == 1


def test_how_much_there_is_in_memory() -> None:
    before = garbage.octets_in_memory()
    block = bytearray(b"x" * (64 << 20))
    assert garbage.octets_in_memory() - before > 60 << 20
    assert block


@pytest.mark.parametrize("role", ["frontend", "backend"])
@pytest.mark.parametrize("kind", ["imap", "pop3", "lmtp", "sieve"])
async def test_who_was_served_leaves_no_cycle(
    kind: str, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[weakref.ref[Connection]] = []
    begin = Connection.connection_made

    def noted(connection: Connection, transport: asyncio.BaseTransport) -> None:
        served.append(weakref.ref(connection))
        begin(connection, transport)

    monkeypatch.setattr(Connection, "connection_made", noted)
    gate = Gate(
        New(),
        allow_plaintext=True,
        penalties=Penalties(0),
        keep_admin_password=role == "frontend",
    )
    gc.disable()
    try:
        async with dialogues(kind, gate, tmp_path) as connect:
            for password in (b"secret", b"guess"):
                peer = await connect()
                line = await told(peer, kind, "PLAIN", password)
                assert is_good(kind, line) == (password == b"secret")
                await peer.close()
                await until_soon(lambda: served[-1]() is None)
    finally:
        gc.enable()
