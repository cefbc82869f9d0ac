"""Spans on their way to a collector: OTLP/HTTP with JSON (opentelemetry-proto, docs/specification.md, "OTLP/HTTP").

Written here and not by opentelemetry-sdk with its exporter: those send in a thread of each process, through requests and
urllib3, and make spans by context variables, where ours have the ids that frontend and backend agree on by the session's
own. What is sent is some forty lines of JSON; a test holds it to the official protobuf definitions.

Nobody waits for any of this. A collector that is away is asked again, later and later, while spans wait in their bounded
queue (`trail.spans`).
"""

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import h11

from murder import __version__
from murder.config import Config, TracesConfig
from murder.log import logger
from murder.net.outgoing.resolve import open_streams
from murder.net.turns import aside, line_up
from murder.trail.spans import Span, Spans, Value

PATH: Final = "/v1/traces"
EVERY_S: Final = 1.0
RETRY_MIN_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
LAST_S: Final = 1.0  # for what waits when the role ends
# What may be taken later, by the specification
AGAIN: Final = frozenset({429, 502, 503, 504})
MAX_ANSWER: Final = 64 * 1024  # octets
# of it, in one turn: HTTP's grammar takes its time for each provisional answer
READ_OCTETS: Final = 1024
STATUS_ERROR: Final = 2  # trace.proto, Status.StatusCode


@runtime_checkable
class HasSpans(Protocol):
    """A role whose sessions may be traced."""

    @property
    def spans(self) -> Spans: ...


class NotTaken(Exception):
    """The collector has not taken them; `is_for_good`: and never will."""

    def __init__(self, text: str, *, is_for_good: bool = False) -> None:
        super().__init__(text)
        self.is_for_good = is_for_good


class Exporter:
    """Sends what the parts of one role in this process have; `config` is asked each time, so a reload counts at once."""

    def __init__(
        self, config: Callable[[], Config], worker: int, parts: Mapping[str, HasSpans]
    ) -> None:
        self._config = config
        self._worker = worker
        self._parts = parts
        self._task: asyncio.Task[None] | None = None
        self._is_away = False
        self._retry_s = RETRY_MIN_S
        self._context: ssl.SSLContext | None = None  # kept: the system's authorities are many

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """What waits is sent, if the collector takes it at once; the rest is counted, and the log says so."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        problem = ""
        try:
            async with asyncio.timeout(LAST_S):
                while await self._send_some():
                    pass
        except NotTaken as not_taken:
            problem = str(not_taken)
        except TimeoutError:
            problem = "it did not answer in time"
        for name, part in self._parts.items():
            if lost := part.spans.give_up():
                log = logger(role=name)
                collector = str(self._config().traces.collector)
                log.warning("traces.lost", collector=collector, spans=lost, problem=problem)

    async def _run(self) -> None:
        pause_s = EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = EVERY_S
            try:
                while await self._send_some():
                    pass
            except NotTaken as problem:
                pause_s = self._say_away(str(problem))
            else:
                self._retry_s = RETRY_MIN_S

    def _say_away(self, problem: str) -> float:
        """In the log, once until it is there again; how long to wait."""
        self._context = None  # it may be another authority's now
        if not self._is_away:
            self._is_away = True
            collector = str(self._config().traces.collector)
            log = logger()
            log.warning("traces.not_sent", collector=collector, problem=problem)
        pause_s = self._retry_s
        self._retry_s = min(RETRY_MAX_S, 2 * self._retry_s)
        return pause_s

    async def _send_some(self) -> bool:
        """Whether there were any. Raises NotTaken."""
        config, sent = self._config(), False
        for name, part in self._parts.items():
            batch = part.spans.take()
            if not batch:
                continue
            sent, left = True, batch  # also where the role ends in the middle of it
            try:
                body = await aside(format_spans, batch, self._resource(config, name))
                await post(config.traces, body, await self._tls(config.traces))
                left = []
            except NotTaken as problem:
                if problem.is_for_good:
                    part.spans.note_lost(len(batch))
                    left = []
                raise
            finally:
                part.spans.put_back(left)
            part.spans.note_sent(len(batch))
            self._is_away = False
        return sent

    async def _tls(self, traces: TracesConfig) -> ssl.SSLContext | None:
        if traces.tls and self._context is None:
            self._context = await aside(ssl.create_default_context)
        return self._context if traces.tls else None

    def _resource(self, config: Config, role: str) -> Mapping[str, Value]:
        """Who tells, by the semantic conventions of resources."""
        return {
            "service.name": f"murder-{role}",
            "service.namespace": "murder",
            "service.instance.id": f"{config.node.name}/{role}/{self._worker}",
            "service.version": __version__,
            "host.name": config.node.name,
        }


def format_spans(spans: Sequence[Span], resource: Mapping[str, Value]) -> bytes:
    """An ExportTraceServiceRequest in the JSON of OTLP: ids in hexadecimal, 64-bit integers as strings."""
    return json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes(resource)},
                    "scopeSpans": [
                        {
                            "scope": {"name": "murder", "version": __version__},
                            "spans": [_span(span) for span in spans],
                        }
                    ],
                }
            ]
        }
    ).encode()


def _span(span: Span) -> dict[str, Any]:
    return {
        "traceId": span.trace.rjust(32, "0"),
        "spanId": span.id,
        **({"parentSpanId": span.parent} if span.parent else {}),
        "name": span.name,
        "kind": int(span.kind),
        "startTimeUnixNano": str(int(span.began * 1e9)),
        "endTimeUnixNano": str(int(span.ended * 1e9)),
        "attributes": _attributes(span.attributes),
        "status": {"code": STATUS_ERROR} if span.is_error else {},
    }


def _attributes(facts: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in facts.items()]


def _value(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case str():
            return {"stringValue": value}


async def post(traces: TracesConfig, body: bytes, context: ssl.SSLContext | None = None) -> None:
    """One request on a connection of its own, under TLS with this context. Raises NotTaken."""
    collector = traces.collector
    if collector is None:
        raise NotTaken("no collector is configured", is_for_good=True)
    host = str(collector)
    request = h11.Request(
        method="POST",
        target=PATH,
        headers=[
            ("Host", host),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("User-Agent", f"murder/{__version__}"),
            ("Connection", "close"),
        ],
    )
    try:
        async with asyncio.timeout(traces.timeout_s):
            reader, writer = await open_streams(collector.host, collector.port, context)
            try:
                status = await _exchange(reader, writer, request, body)
            finally:
                writer.transport.abort()  # what it does not take would wait for it for ever
    except TimeoutError as error:
        raise NotTaken("it did not answer in time") from error
    except (OSError, h11.RemoteProtocolError) as error:
        raise NotTaken(str(error)) from error
    if status >= 300:
        raise NotTaken(f"it answers {status}", is_for_good=status not in AGAIN)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: h11.Request, body: bytes
) -> int:
    """The status of the answer. Raises OSError, h11.RemoteProtocolError."""
    grammar, left = h11.Connection(h11.CLIENT), MAX_ANSWER
    for event in (request, h11.Data(data=body), h11.EndOfMessage()):
        writer.write(grammar.send(event) or b"")
    await writer.drain()
    while True:
        reply: object = grammar.next_event()
        if isinstance(reply, h11.Response):
            return reply.status_code
        if reply is h11.NEED_DATA:
            await line_up()
            data = await reader.read(min(left, READ_OCTETS))
            left -= len(data)
            grammar.receive_data(data)
            if left <= 0:
                raise h11.RemoteProtocolError("an answer without end")
        elif not isinstance(reply, h11.InformationalResponse):
            raise h11.RemoteProtocolError("it closed the connection without an answer")
