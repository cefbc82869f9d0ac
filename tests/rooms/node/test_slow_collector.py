"""A collector of spans that takes and says nothing, or never ends: it costs nobody anything for longer than its time, and
what it has not taken is told."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from murder.config import Config, NodeConfig, TracesConfig
from murder.config.value import Endpoint
from murder.node.process.otlp import MAX_ANSWER, Exporter, NotTaken, post
from murder.trail.figures import Figures
from murder.trail.spans import MAX_BATCH, Kind, Span, Spans, new_id
from tests.kit.steps import Calls

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
            async with Calls("next_event") as looked:
                await post(traces, b"{}")
        await ended.wait()
    assert said > MAX_ANSWER
    assert 10 < looked.longest < 300


@dataclass
class Traced:
    """A role that has so many spans to tell of."""

    spans: Spans


@dataclass
class Deaf:
    """A collector that answers no request, but for those after the first where it `wakes`."""

    wakes: bool
    came: list[list[str]] = field(default_factory=list)  # the ids of each request
    has_come: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split()[0])
            told = json.loads(await reader.readexactly(length))
            spans = told["resourceSpans"][0]["scopeSpans"][0]["spans"]
            self.came.append([span["spanId"] for span in spans])
            self.has_come.set()
            if self.wakes and len(self.came) > 1:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await reader.read()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def exporting(
    deaf: Deaf, count: int, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Exporter, Figures, list[str]]]:
    """An exporter whose first request is under way; the ids of its spans."""
    monkeypatch.setattr("murder.node.process.otlp.EVERY_S", 0.0)
    figures = Figures()
    spans = Spans(figures)
    spans.configure(1.0, count)
    ids = [new_id() for _ in range(count)]
    for id in ids:
        spans.add(Span(new_id(), id, "", "x", Kind.SERVER, 1.0, 2.0))
    async with await asyncio.start_server(deaf.serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        traces = replace(TracesConfig(), collector=Endpoint(host, port), timeout_s=60.0)
        node = NodeConfig("fe1.example.org", Path("/nowhere"))
        config = Config(Path("murder.toml"), node, traces=traces)
        exporter = Exporter(lambda: config, 0, {"frontend": Traced(spans)})
        exporter.start()
        await deaf.has_come.wait()
        assert deaf.came == [ids[:MAX_BATCH]]
        yield exporter, figures, ids


async def test_what_a_role_had_under_way_at_its_end_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("murder.node.process.otlp.LAST_S", 60.0)
    deaf, count = Deaf(wakes=True), 2 * MAX_BATCH + 1
    async with exporting(deaf, count, monkeypatch) as (exporter, figures, ids):
        await exporter.stop()
    assert [id for batch in deaf.came[1:] for id in batch] == ids
    assert figures.numbers["spans"] == {("sent",): count}
    assert "traces.lost" not in "".join(capfd.readouterr())


async def test_what_nobody_takes_at_the_end_of_a_role_is_counted_and_logged(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("murder.node.process.otlp.LAST_S", 0.05)
    deaf, count = Deaf(wakes=False), MAX_BATCH + 1
    async with exporting(deaf, count, monkeypatch) as (exporter, figures, _):
        await exporter.stop()
    assert figures.numbers["spans"] == {("dropped",): count}
    said = "".join(capfd.readouterr())
    assert said.count("traces.lost") == 1 and str(count) in said
