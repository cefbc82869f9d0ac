"""Who listens is told what happens, masked, whatever the log shows; nobody listens, and nothing is any slower."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import structlog

from murder import log as logs
from murder.log import listen, logger, plain_log, set_up
from tests.kit.process import serving
from tests.rooms.node.test_plugin_life import write_site

Heard = list[tuple[str, str, Mapping[str, object]]]
PLUGIN = """
from pathlib import Path
from murder.api import hookimpl

class Noted:
    def happened(self, event):
        with (Path(__file__).parent / "told").open("a") as file:
            file.write(f"{event.name} {event.facts.get('worker', '')}" + chr(10))

@hookimpl
def make_event_listener():
    return Noted()
"""


@pytest.fixture(autouse=True)
def nobody_listens_behind() -> Iterator[None]:
    yield
    listen([])


def heard_by(heard: Heard) -> logs.Listener:
    return lambda name, level, facts: heard.append((name, level, facts))


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_it_hears_what_the_log_does_not_show(level: str, capfd: pytest.CaptureFixture[str]) -> None:
    set_up(level, "json", node="be1")
    heard: Heard = []
    listen([("events_toy", heard_by(heard))])
    log = logger(cid="1-1")
    log.debug("role.stopped")
    log.info("login.succeeded", user="anna", password="x")
    log.warning("tls.failed")
    plain_log.info("login.succeeded", {"user": "bob"})
    assert [(name, level) for name, level, _ in heard] == [
        ("login.succeeded", "info"),
        ("tls.failed", "warning"),
        ("login.succeeded", "info"),
    ]
    facts = {"cid": "1-1", "user": "anna", "password": logs.MASK, "node": "be1"}
    assert heard[0][2] == facts
    shown = [line["level"] for line in lines(capfd)]
    expected = ["debug", "info", "warning", "info"]
    at_least = {"debug": 0, "info": 1, "warning": 2, "error": 3}
    assert shown == [one for one in expected if at_least[one] >= at_least[level]]


def test_one_that_raises_is_let_go_and_the_others_hear_on(
    capfd: pytest.CaptureFixture[str],
) -> None:
    set_up("info", "json")
    heard: Heard = []

    def bad(name: str, level: str, facts: Mapping[str, object]) -> None:
        raise ValueError(name)

    listen([("events_bad", bad), ("events_good", heard_by(heard))])
    logger().info("server.ready")
    logger().info("server.stopped")
    assert [name for name, _, _ in heard] == ["server.ready", "server.stopped"]
    said = lines(capfd)
    assert [line["event"] for line in said] == ["plugin.failed", "server.ready", "server.stopped"]
    assert (said[0]["plugin"], said[0]["hook"]) == ("events_bad", "happened")


def test_what_a_listener_logs_is_told_to_nobody() -> None:
    set_up("info", "json")
    heard: Heard = []

    def chatty(name: str, level: str, facts: Mapping[str, object]) -> None:
        heard.append((name, level, facts))
        logger().info("server.stopped")

    listen([("events_chatty", chatty)])
    logger().info("server.ready")
    assert [name for name, _, _ in heard] == ["server.ready"]


def test_a_reload_of_the_log_keeps_them() -> None:
    set_up("info", "json")
    heard: Heard = []
    listen([("events_toy", heard_by(heard))])
    set_up("error", "text")
    logger().info("server.ready")
    assert len(heard) == 1


def test_without_a_listener_nothing_is_in_the_way() -> None:
    set_up("warning", "json")
    before = structlog.get_config()
    listen([("events_toy", heard_by([]))])
    assert len(structlog.get_config()["processors"]) == len(before["processors"]) + 1
    assert not plain_log.is_json
    listen([])
    after = structlog.get_config()
    assert len(after["processors"]) == len(before["processors"])
    assert after["wrapper_class"] is before["wrapper_class"]
    assert plain_log.is_json


@pytest.mark.parametrize("workers", [1, 2])
def test_a_plugin_hears_every_process(tmp_path: Path, workers: int) -> None:
    file, noted = write_site(tmp_path, PLUGIN, workers)
    with serving(file, "--role", "backend") as node:
        node.until_said("server.ready")
    told = noted.read_text().splitlines()
    assert {f"role.started {worker}" for worker in range(workers)} <= set(told)
    assert {"server.ready ", "server.stopped "} <= set(told)
