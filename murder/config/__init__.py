"""The configuration: murder.toml as frozen dataclasses.

`sections` says what there is, `load` reads it, `problem` is what can be wrong, `value` the kinds of value.
Knows no roles and no sockets.
"""

from murder.config.auth import AuthConfig
from murder.config.load import ROLES, UNIFIED, load_config, parts_of, processes_of
from murder.config.monitor import LogConfig, MetricsConfig, TracesConfig, WebConfig
from murder.config.mupdate import MupdateConfig
from murder.config.problem import ConfigError, Problem
from murder.config.sections import (
    BackendConfig,
    ClientConfig,
    Config,
    FrontendConfig,
    NamespaceConfig,
    NodeConfig,
    PluginsConfig,
    ServerConfig,
    TlsConfig,
)
from murder.config.value import (
    Endpoint,
    Network,
    TlsMode,
    UpstreamAuth,
    contains,
    parse_endpoint,
    parse_network,
)

__all__ = [
    "ROLES",
    "UNIFIED",
    "AuthConfig",
    "BackendConfig",
    "ClientConfig",
    "Config",
    "ConfigError",
    "Endpoint",
    "FrontendConfig",
    "LogConfig",
    "MetricsConfig",
    "MupdateConfig",
    "NamespaceConfig",
    "Network",
    "NodeConfig",
    "PluginsConfig",
    "Problem",
    "ServerConfig",
    "TlsConfig",
    "TlsMode",
    "TracesConfig",
    "UpstreamAuth",
    "WebConfig",
    "contains",
    "load_config",
    "parse_endpoint",
    "parse_network",
    "parts_of",
    "processes_of",
]
