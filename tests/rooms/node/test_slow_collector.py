"""A collector of spans that takes and says nothing, or never ends: it costs nobody anything for longer than its time."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from murder.config import TracesConfig
from murder.config.value import Endpoint
from murder.node.process.otlp import MAX_ANSWER, NotTaken, post

BODY = b"x" * 12_000_000  # more than kernels take on their own


async def test_what_a_collector_does_not_take_does_not_wait_for_it() -> None:
    taken = 0
    given_up, ended = asyncio.Event(), asyncio.Event()

    async def sleepy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await given_up.wait()
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 20):
                taken += len(data)
        writer.transport.abort()
        ended.set()

    async with await asyncio.start_server(sleepy, "127.0.0.1", 0, limit=1) as server:
        host, port = server.sockets[0].getsockname()
        traces = replace(TracesConfig(), collector=Endpoint(host, port), timeout_s=0.3)
        with pytest.raises(NotTaken, match="in time"):
            await post(traces, BODY)
        given_up.set()
        await ended.wait()
    assert taken < len(BODY)


async def test_an_answer_without_end_is_broken_off() -> None:
    said = 0
    ended = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal said
        await reader.readuntil(b"}")
        with contextlib.suppress(OSError):
            while not writer.transport.is_closing():
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
                said += 2500
                await writer.drain()
        ended.set()

    async with await asyncio.start_server(endless, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        traces = replace(TracesConfig(), collector=Endpoint(host, port), timeout_s=60.0)
        with pytest.raises(NotTaken, match="without end"):
            await post(traces, b"{}")
        await ended.wait()
    assert said > MAX_ANSWER
