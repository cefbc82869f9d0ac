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
from tests.serve.test_ways_in import New, is_good, listening, told


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


@pytest.mark.parametrize(("seconds", "looks"), [([0.5, 0.5, 0.01], 3), ([0.5] * 1000, 600)])
async def test_all_is_looked_at_once_an_hour_in_a_quiet_second(
    seconds: list[float], looks: int, generations: list[int]
) -> None:
    slept: list[float] = []
    worked = iter([at for one in seconds for at in (0.0, one)])

    async def sleep(delay_s: float) -> None:
        if delay_s == garbage.EVERY_S and slept:
            raise Over
        slept.append(delay_s)

    generations.clear()
    with pytest.raises(Over):
        await garbage.reclaim(sleep, lambda: next(worked))
    assert slept == [garbage.EVERY_S, *[1.0] * looks]
    assert generations.count(2) == 1


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
        async with listening(kind, gate, tmp_path) as connect:
            for password in (b"secret", b"guess"):
                peer = await connect()
                line = await told(peer, kind, "PLAIN", password)
                assert is_good(kind, line) == (password == b"secret")
                await peer.close()
                await until_soon(lambda: served[-1]() is None)
    finally:
        gc.enable()
