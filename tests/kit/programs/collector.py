"""A collector of traces: OTLP/HTTP as the specification has it, and each request read by the official definitions."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.kit.threads import in_a_thread

Span = dict[str, Any]
IDS = (("traceId", 16), ("spanId", 8), ("parentSpanId", 8))


class Collector:
    """`spans` that have come, each with the `service` that told it; ids in hexadecimal."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.refuses = 0  # so many requests, with 503
        self.wrong: list[str] = []
        self.port = 0

    def take(self, path: str, kind: str, body: bytes) -> int:
        """The status of the answer."""
        if self.refuses:
            self.refuses -= 1
            return 503
        if path != "/v1/traces" or kind != "application/json":
            self.wrong.append(f"{kind} to {path}")
            return 415
        told = ExportTraceServiceRequest()
        try:
            json_format.Parse(with_octets(body.decode()), told)
        except (json_format.ParseError, ValueError) as error:
            self.wrong.append(str(error))
            return 400
        for resource in told.resource_spans:
            who = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [shown(who["service.name"], span) for span in scope.spans]
        return 200


def shown(service: str, span: Any) -> Span:
    """What tests look at."""
    return {
        "service": service,
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "name": span.name,
        "kind": span.kind,
        "began": span.start_time_unix_nano,
        "ended": span.end_time_unix_nano,
        "is_error": span.status.code == span.status.STATUS_CODE_ERROR,
        "facts": {one.key: one.value.string_value for one in span.attributes},
    }


def with_octets(text: str) -> str:
    """OTLP's JSON has ids in hexadecimal, where protobuf's has base64. Raises ValueError where one is not as long as it
    must be, or all zero."""
    told = json.loads(text)
    for resource in told["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for key, octets in IDS:
                    if key in span:
                        raw = bytes.fromhex(span[key])
                        if len(raw) != octets or not any(raw):
                            raise ValueError(f"{key} {span[key]!r}")
                        span[key] = base64.b64encode(raw).decode()
    return json.dumps(told)


@contextmanager
def collecting() -> Iterator[Collector]:
    """On a port of its own, in threads."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = collector.take(self.path, self.headers["Content-Type"], body)
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.port = server.server_address[1]
    with in_a_thread(server):
        yield collector
