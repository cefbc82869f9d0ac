"""What a running node takes of a changed murder.toml (SIGHUP), and what only a restart can change.

Taken: certificates, limits and timeouts, admins, proxies, trusted networks, capabilities, where other servers are and how
they are reached, the log level. New connections have them, those that are there keep what they began with. Not: what is
bound, opened, forked or agreed on with other nodes at the start.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from murder.config.load import NAMED, header_of
from murder.config.sections import Config
from murder.model.protocol import client_keys

_PORTS: Final = (*(key.name for key in client_keys()), "services", "workers")
RESTART_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "node": ("name", "data", "roles", "user", "group", "control", "keytab"),
    "mupdate": (
        *("listen", "master", "master_auth", "master_user", "master_password", "master_tls"),
        *(
            "connect_timeout_s",
            "command_timeout_s",
            "ping_interval_s",
            "retry_min_s",
            "retry_max_s",
        ),
        *("max_connections", "max_stream_backlog_bytes", "max_list_bytes", "journal_bytes"),
    ),
    "frontend": (*_PORTS, "mupdate"),
    "backend": (*_PORTS, "store", "partition"),
    "namespace": ("unix_hierarchy", "alternative", "domains"),
    "auth": ("plugin", "plugins"),
    "plugins": ("path", "use", "settings"),
    "metrics": ("listen",),
    "web": ("listen",),
}


def take_changes(running: Config, fresh: Config) -> tuple[Config, list[str]]:
    """The fresh configuration with what needs a restart as it was; and those keys, dotted, that wait for it."""
    waiting = []
    sections: dict[str, Any] = {}
    for section, keys in RESTART_KEYS.items():
        old, new = getattr(running, section), getattr(fresh, section)
        kept = {key: getattr(old, key) for key in keys if getattr(old, key) != getattr(new, key)}
        if section in ("frontend", "backend"):
            listens = bool(old.proxy_protocol_from), bool(new.proxy_protocol_from)
            if listens[0] != listens[1]:  # decides who does the TLS handshake of a listener
                kept["proxy_protocol_from"] = old.proxy_protocol_from
        if kept:
            sections[section] = replace(new, **kept)
            waiting += [f"{section}.{key}" for key in kept]
    return replace(fresh, **sections), waiting


def changed_keys(running: Config, fresh: Config) -> list[str]:
    """All keys that differ, dotted; `[servers]` and `[expiry]` as one."""
    changed = []
    for section in fields(Config):
        old, new = getattr(running, section.name), getattr(fresh, section.name)
        if old == new or section.name == "file":
            continue
        if section.name in NAMED:
            changed.append(header_of(section.name))
            continue
        changed += [
            f"{section.name}.{key.name}"
            for key in fields(old)
            if getattr(old, key.name) != getattr(new, key.name)
        ]
    return changed
