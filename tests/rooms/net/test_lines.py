"""Replies of a server that says much at once: each line costs what it has, not what stands behind it."""

import asyncio
import tracemalloc
from types import SimpleNamespace
from typing import Any, cast

import pytest

from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.outgoing import managesieve
from murder.net.outgoing.lines import MAX_HELD_OCTETS, MAX_LINES, LineUpstream
from tests.kit.waiting import pause_here


async def test_a_line_is_taken_without_a_copy_of_what_is_behind_it() -> None:
    upstream = LineUpstream(cast(Any, SimpleNamespace(server="be.test")), 60)
    upstream.received(b"250 x\r\n" * (MAX_HELD_OCTETS // 7))
    assert await upstream.line() == b"250 x"
    tracemalloc.start()
    try:
        lines = [await upstream.line() for _ in range(100)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lines == [b"250 x"] * 100
    assert peak < MAX_HELD_OCTETS // 4


async def test_a_reply_that_drips_is_waited_for_once() -> None:
    """Not once for each of its lines."""
    upstream = LineUpstream(cast(Any, SimpleNamespace(server="be.test")), 0.2)
    upstream.connection = cast(
        Any, SimpleNamespace(abort=lambda: None, acknowledge_now=lambda: None)
    )

    async def drip() -> None:
        for _ in range(MAX_LINES):
            upstream.received(b"250-x\r\n")
            await pause_here(0.02, "between two lines of a backend that drips")

    dripping = asyncio.ensure_future(drip())
    with pytest.raises(UpstreamFailure) as caught:
        await upstream.replies()
    dripping.cancel()
    assert caught.value.kind is UpstreamKind.TIMEOUT


async def test_a_capability_that_comes_again_and_again_is_no_greeting() -> None:
    upstream = LineUpstream(cast(Any, SimpleNamespace(server="be.test")), 60)
    said = b'"X" "y"\r\n' * 20_000
    upstream.received(said)
    with pytest.raises(UpstreamFailure) as caught:
        await managesieve.begin(cast(Any, None), upstream)
    assert caught.value.kind is UpstreamKind.PROTOCOL
    left = len(upstream.take_rest())
    assert left > len(said) - 9 * 2 * managesieve.MAX_CAPABILITIES


async def test_waiting_for_replies_makes_no_timer_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is enough for all connections; who says nothing is given up all the same."""
    loop = asyncio.get_running_loop()
    aborted: list[str] = []
    connection = SimpleNamespace(
        abort=lambda: aborted.append("it"), acknowledge_now=lambda: None, write=lambda _: None
    )
    upstream = LineUpstream(cast(Any, SimpleNamespace(server="be.test")), 60.0)
    upstream.connection = cast(Any, connection)
    timers: list[float] = []
    call_at = loop.call_at

    def noted(when: float, *given: Any, **named: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *given, **named)

    monkeypatch.setattr(loop, "call_at", noted)
    for _ in range(50):
        upstream.send(b"NOOP\r\n")
        loop.call_soon(upstream.received, b"250 x\r\n")
        assert await upstream.replies() == [b"250 x"]
    assert len(timers) <= 1
    upstream.timeout_s = 0.1
    with pytest.raises(UpstreamFailure) as caught:
        await upstream.replies()
    assert caught.value.kind is UpstreamKind.TIMEOUT and aborted == ["it"]
    upstream.lost(None)
    assert not upstream.sweep_slot
