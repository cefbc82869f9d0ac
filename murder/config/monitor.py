"""What a node tells of itself: the sections [log] and [metrics]."""

from dataclasses import dataclass
from typing import Literal

from murder.config.value import MIB, Endpoint, Network, option, parse_network
from murder.model.protocol import METRICS


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
class LogConfig:
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = option(
        "info", "The least that is logged."
    )
    format: Literal["auto", "text", "json"] = option(
        "auto", "`auto`: text on a terminal, JSON otherwise."
    )
    mail: Literal["off", "delivery"] = option(
        "delivery",
        "A line for each recipient of a message and what became of it, in the log and in files of `node.data` that "
        "`murder ctl message trace` reads.",
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
