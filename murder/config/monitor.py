"""What a node tells of itself, and to whom: the sections [log], [metrics], [traces] and [web]."""

# ruff: noqa: RUF009 (`option` is dataclasses.field with a doc, not a shared value)

from dataclasses import dataclass
from typing import Literal

from murder.config.value import MIB, Endpoint, Network, option, parse_network
from murder.model.protocol import METRICS, WEB


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Figures for a monitoring system (OpenMetrics, as Prometheus reads it): /metrics, /healthz, /readyz."""

    listen: tuple[Endpoint, ...] = option(
        (),
        "Where they are told, over HTTP.",
        example='["*:9190"]',
        default_port=METRICS.keys[0].port,
    )
    allow: tuple[Network, ...] = option(
        (parse_network("127.0.0.0/8"), parse_network("::1")), "Networks that may ask."
    )


@dataclass(frozen=True, slots=True)
class TracesConfig:
    """Some sessions as OpenTelemetry traces, sent to a collector (OTLP/HTTP): client, frontend, backend and its store in
    one. Set it at frontends, which choose the sessions, and at backends, which add to them; nothing waits for it."""

    collector: Endpoint | None = option(
        None,
        "Where it takes them; no traces without.",
        example='"127.0.0.1:4318"',
        default_port=4318,
    )
    tls: bool = option(
        False, "Speak TLS with it; its certificate is checked against those that the system trusts."
    )
    share: float = option(
        0.01, "Of a frontend's sessions, so many are traced: 1.0 is all.", least=0
    )
    max_waiting: int = option(
        2048,
        "Spans that may wait for a collector that is slow or away, in each worker; more are dropped, and counted.",
        least=1,
    )
    timeout_s: float = option(10.0, "What the collector has to take some of them.", least=0.1)


@dataclass(frozen=True, slots=True)
class WebConfig:
    """A page for operators in a browser, over TLS with the node's certificate: what `murder ctl` shows and does. Who logs in
    by an operator's certificate acts by [operator] of this file; who does by a password, as that administrator."""

    listen: tuple[Endpoint, ...] = option(
        (), "Where it is served.", example='["*:9443"]', default_port=WEB.keys[0].port
    )
    allow: tuple[Network, ...] = option(
        (parse_network("0.0.0.0/0"), parse_network("::/0")), "Networks that may come."
    )
    admins: tuple[str, ...] = option(
        (),
        "Administrators who may log in with their password; empty: all `admins` of [frontend], [backend] and [mupdate]. "
        "They see what operators see, and change what the master and the backends let them.",
        example='["admin"]',
    )
    session_idle_s: float = option(
        900.0, "Who does nothing for so long must log in again.", least=1
    )
    session_s: float = option(28800.0, "And so long after the login in any case.", least=1)
    max_connections: int = option(256, "Connections at once.", least=1)
    max_strangers_per_address: int = option(
        32, "Of those, from one address, so many that have not logged in. 0: no limit.", least=0
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = option(
        "info", "The least that is logged."
    )
    format: Literal["auto", "text", "json"] = option(
        "auto", "`auto`: text on a terminal, JSON otherwise."
    )
    mail: Literal["off", "delivery", "full"] = option(
        "delivery",
        "A line for each recipient of a message and what became of it, in the log and in files of `node.data` that "
        "`murder ctl message trace` reads. `full`: backends also tell each APPEND, COPY, MOVE and EXPUNGE of a message, and "
        "POP3's DELE.",
    )
    audit_keep_bytes: int = option(
        64 * MIB,
        "So much is kept, for each worker, of the files that say who made, removed, renamed or moved mailboxes, changed "
        "rights, quotas, annotations and passwords, or ended sessions: `murder ctl audit`. 0: none.",
        least=0,
    )
    mail_keep_bytes: int = option(
        64 * MIB, "So much of these files is kept, for each worker; 0: none, only the log.", least=0
    )
