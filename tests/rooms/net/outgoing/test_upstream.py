"""The circuit breaker of a way to another server."""

from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from murder import __version__
from murder.config import Config, FrontendConfig
from murder.config.sections import NodeConfig
from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.outgoing.upstream import Upstreams


def upstreams(retry_s: float) -> Upstreams:
    frontend = replace(FrontendConfig(), breaker_failures=3, breaker_retry_s=retry_s)
    node = NodeConfig(name="fe1.test", data=Path("/nowhere"))
    return Upstreams(Config(file=Path("murder.toml"), node=node, frontend=frontend))


def sick(kind: UpstreamKind = UpstreamKind.CONNECT) -> UpstreamFailure:
    return UpstreamFailure(kind, "be1", "no")


def test_a_server_that_failed_in_a_row_is_left_alone() -> None:
    ways = upstreams(retry_s=60)
    ways.failed(sick())
    ways.failed(sick())
    assert ways.is_tried("be1")
    ways.worked("be1")
    for _ in range(3):
        assert ways.is_tried("be1")
        ways.failed(sick())
    assert not ways.is_tried("be1")
    assert ways.is_tried("be2")


def test_one_connection_tests_it_and_lets_all_others_in() -> None:
    ways = upstreams(retry_s=0)
    for _ in range(3):
        ways.failed(sick(UpstreamKind.TIMEOUT))
    assert ways.is_tried("be1"), "the test"
    assert not ways.is_tried("be1"), "while it goes on"
    ways.failed(sick())
    assert ways.is_tried("be1"), "the next test"
    ways.worked("be1")
    assert ways.is_tried("be1") and ways.is_tried("be1")


@pytest.mark.parametrize("kind", [UpstreamKind.AUTH, UpstreamKind.DOWN])
def test_who_is_not_let_in_does_not_shut_the_others_out(kind: UpstreamKind) -> None:
    ways = upstreams(retry_s=60)
    for _ in range(9):
        ways.failed(sick(kind))
    assert ways.is_tried("be1")


def test_every_kind_has_its_reply() -> None:
    assert len({kind.reply for kind in UpstreamKind}) == len(UpstreamKind)


def test_a_backend_of_a_version_that_was_not_tried_is_told_once() -> None:
    these = upstreams(1.0)
    with capture_logs() as logged:
        for _ in range(2):
            these.met("be1.test", "be1.test murder 9.9.1 server ready")
            these.met("be2.test", f"be2.test murder {__version__} server ready")
            these.met("cyrus.test", "cyrus.test Cyrus IMAP 3.6.1-Debian server ready")
        these.met("be1.test", f"be1.test murder {__version__} server ready")
        these.met("be1.test", "be1.test murder 9.9.1 server ready")
    told = [(one["event"], one["backend"], "9.9.1" in one["problem"]) for one in logged]
    assert told == [("version.misfit", "be1.test", True)] * 2
