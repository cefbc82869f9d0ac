"""A dashboard for Grafana: first what is looked at daily, then a panel of every other figure that a node tells."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from murder.node.pages.metrics import COUNTERS, GAUGES

COLUMNS: Final = 24  # of Grafana's grid
HEIGHT: Final = 8
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN: Final = '{instance=~"$instance",role!=""}'  # others tell process_… as well

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Panel:
    """`lines`: an expression (PromQL; `{c}` stands for the nodes that were chosen) and how its lines are called, each."""

    title: str
    unit: str
    lines: Sequence[tuple[str, str]]


OVERVIEW: Final = (
    Panel(
        "Nodes that answer",
        "short",
        [("count(count by (instance) (murder_build{c}))", "nodes")],
    ),
    Panel(
        "Backends that somebody cannot reach",
        "short",
        [("max by (backend) (murder_backend_down{c})", "{{backend}}")],
    ),
    Panel(
        "Sessions of clients, connections of all kinds",
        "short",
        [
            ("sum by (instance, role) (murder_sessions{c})", "{{role}} {{instance}}: sessions"),
            ("sum by (instance, role) (murder_connections{c})", "{{role}} {{instance}}"),
        ],
    ),
    Panel(
        "Logins",
        "reqps",
        [
            (
                "sum by (protocol, result) (rate(murder_logins_total{c}[$__rate_interval]))",
                "{{protocol}} {{result}}",
            )
        ],
    ),
    Panel(
        "How long 95 % of logins take, at most",
        "s",
        [
            (
                "histogram_quantile(0.95, sum by (le, mechanism, result) "
                "(rate(murder_logins_duration_seconds_bucket{c}[$__rate_interval])))",
                "{{mechanism}} {{result}}",
            )
        ],
    ),
    Panel(
        "Commands",
        "reqps",
        [
            (
                "sum by (command) (rate(murder_commands_duration_seconds_count{c}[$__rate_interval]))",
                "{{command}}",
            )
        ],
    ),
    Panel(
        "How long commands take",
        "s",
        [
            (
                f"histogram_quantile({share}, sum by (le) "
                "(rate(murder_commands_duration_seconds_bucket{c}[$__rate_interval])))",
                f"{name} of them, at most",
            )
            for share, name in ((0.5, "half"), (0.95, "95 %"), (0.99, "99 %"))
        ],
    ),
    Panel(
        "Recipients of messages",
        "reqps",
        [
            (
                "sum by (role, outcome) (rate(murder_messages_total{c}[$__rate_interval]))",
                "{{role}} {{outcome}}",
            )
        ],
    ),
    Panel(
        "What the stores hold",
        "decbytes",
        [("max by (instance) (murder_store_bytes{c})", "{{instance}}")],
    ),
    Panel(
        "How long a store's commits take",
        "s",
        [
            (
                "histogram_quantile(0.99, sum by (le, flushed) "
                "(rate(murder_store_commits_duration_seconds_bucket{c}[$__rate_interval])))",
                "99 % of them, at most; flushed: {{flushed}}",
            )
        ],
    ),
    Panel(
        "How long backends take for relayed commands",
        "s",
        [
            (
                "histogram_quantile(0.99, sum by (le, backend) "
                "(rate(murder_relays_duration_seconds_bucket{c}[$__rate_interval])))",
                "{{backend}}: 99 % of them, at most",
            )
        ],
    ),
    Panel(
        "How late event loops are",
        "s",
        [
            (
                "histogram_quantile(0.99, sum by (le, instance, role) "
                "(rate(murder_loop_lag_duration_seconds_bucket{c}[$__rate_interval])))",
                "{{role}} {{instance}}: 99 % of the times, at most",
            )
        ],
    ),
    Panel(
        "Spans of traces",
        "reqps",
        [("sum by (result) (rate(murder_spans_total{c}[$__rate_interval]))", "{{result}}")],
    ),
    Panel(
        "Connections to backends that were opened",
        "reqps",
        [
            (
                "sum by (backend) (rate(murder_upstream_connects_duration_seconds_count{c}[$__rate_interval]))",
                "{{backend}}",
            )
        ],
    ),
    Panel(
        "Failures of backends",
        "reqps",
        [
            (
                "sum by (backend, kind) (rate(murder_upstream_failures_total{c}[$__rate_interval]))",
                "{{backend}} {{kind}}",
            )
        ],
    ),
    Panel(
        "Processors in use",
        "percentunit",
        [
            (
                "sum by (instance) (rate(process_cpu_time_seconds_total{c}[$__rate_interval]))",
                "{{instance}}",
            )
        ],
    ),
    Panel(
        "Memory",
        "bytes",
        [("sum by (instance, role) (process_memory_usage_bytes{c})", "{{role}} {{instance}}")],
    ),
    Panel(
        "Disk in use",
        "percentunit",
        [
            (
                "1 - min by (instance) (murder_disk_free_bytes{c} / murder_disk_size_bytes{c})",
                "{{instance}}",
            ),
            (
                "1 - min by (instance) (murder_store_disk_free_bytes{c} / murder_store_disk_size_bytes{c})",
                "{{instance}}: mail",
            ),
        ],
    ),
    Panel(
        "Until a certificate ends",
        "s",
        [("min by (instance) (murder_certificate_left_seconds{c})", "{{instance}}")],
    ),
    Panel(
        "How far mailbox lists are behind the master",
        "s",
        [("max by (instance) (murder_list_lag_seconds{c})", "{{instance}}")],
    ),
    Panel("Versions", "short", [("count by (version) (murder_build{c})", "{{version}}")]),
)
_UNITS: Final = {"seconds": "s", "bytes": "bytes"}


def make_dashboard() -> Json:
    """As Grafana imports it (JSON); it asks for the data source there."""
    everything = [*_rest(OVERVIEW)]
    panels: list[Json] = []
    at = 0
    for title, members in (("At a glance", OVERVIEW), ("Every other figure", everything)):
        panels.append(_heading(len(panels) + 1, title, at))
        panels += _placed(members, len(panels) + 1, at + 1)
        at += 1 + HEIGHT * -(-len(members) // 2)
    return {
        "title": "murder",
        "uid": "murder",
        "tags": ["mail"],
        "schemaVersion": 38,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "editable": True,
        "templating": {"list": [_source_variable(), _instance_variable()]},
        "panels": panels,
    }


def _rest(panels: Sequence[Panel]) -> Iterator[Panel]:
    """A panel for each figure that none of these shows."""
    text = " ".join(expression for panel in panels for expression, _ in panel.lines)
    for _, name, unit, meaning in GAUGES:
        if f"{name}{{c}}" not in text:
            line = (f"max by (instance, role) ({name}{{c}})", "{{role}} {{instance}}")
            yield Panel(meaning.rstrip("."), _UNITS.get(unit, "short"), [line])
    for _, name, _, meaning in COUNTERS:
        if f"{name}_total{{c}}" not in text:
            rate = f"rate({name}_total{{c}}[$__rate_interval])"
            line = (f"sum by (instance, role) ({rate})", "{{role}} {{instance}}")
            yield Panel(meaning.rstrip("."), "reqps", [line])


def _placed(members: Sequence[Panel], first: int, top: int) -> Iterator[Json]:
    """Two beside each other."""
    half = COLUMNS // 2
    for number, panel in enumerate(members):
        place = {"x": half * (number % 2), "y": top + HEIGHT * (number // 2)}
        yield {
            "id": first + number,
            "type": "timeseries",
            "title": panel.title,
            "datasource": SOURCE,
            "gridPos": {**place, "w": half, "h": HEIGHT},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
            "targets": [*_targets(panel)],
        }


def _targets(panel: Panel) -> Iterator[Mapping[str, object]]:
    for letter, (expression, legend) in zip("ABCDEFGH", panel.lines, strict=False):
        yield {
            "refId": letter,
            "datasource": SOURCE,
            "expr": expression.replace("{c}", CHOSEN),
            "legendFormat": legend,
        }


def _heading(number: int, title: str, at: int) -> Json:
    place = {"x": 0, "y": at, "w": COLUMNS, "h": 1}
    return {"id": number, "type": "row", "title": title, "gridPos": place, "panels": []}


def _source_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }


def _instance_variable() -> Json:
    query = "label_values(murder_build, instance)"
    return {
        "name": "instance",
        "label": "Nodes",
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "instance"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
    }
