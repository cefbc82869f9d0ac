"""What a reload takes, and what waits for a restart."""

from dataclasses import fields, replace
from pathlib import Path

from murder.config import Config
from murder.config.reload import RESTART_KEYS, changed_keys, take_changes
from murder.config.sections import NodeConfig
from murder.config.value import parse_endpoint, parse_network
from tests.kit.sections import frontend_section, server_section

OLD = Config(Path("murder.toml"), NodeConfig("fe1.test", Path("/data")))


def test_limits_admins_and_servers_are_taken() -> None:
    fresh = replace(
        OLD,
        frontend=replace(OLD.frontend, max_connections=7, admins=("ana",)),
        servers={"be1": server_section(imap=144)},
    )
    assert take_changes(OLD, fresh) == (fresh, [])
    assert changed_keys(OLD, fresh) == ["frontend.admins", "frontend.max_connections", "servers"]


def test_what_is_bound_or_opened_waits_for_a_restart() -> None:
    fresh = replace(
        OLD,
        node=NodeConfig("other.test", Path("/data"), drain_timeout_s=1),
        frontend=frontend_section(
            imap=(parse_endpoint("*:143"),),
            workers=9,
            idle_timeout_s=99,
            proxy_protocol_from=(parse_network("192.0.2.1"),),
        ),
    )
    taken, waiting = take_changes(OLD, fresh)
    assert waiting == [
        "node.name",
        "frontend.imap",
        "frontend.workers",
        "frontend.proxy_protocol_from",
    ]
    assert taken.node == replace(OLD.node, drain_timeout_s=1)
    assert taken.frontend == replace(OLD.frontend, idle_timeout_s=99)


def test_every_key_that_waits_exists() -> None:
    for section, keys in RESTART_KEYS.items():
        assert set(keys) <= {key.name for key in fields(getattr(OLD, section))}
