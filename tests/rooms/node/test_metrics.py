"""What a monitoring system sees of a node: a real one, asked over HTTP."""

import asyncio
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from murder.model.protocol import LITTLE_OCTETS
from murder.node.pages.metrics import FORMER, Together, exposed
from murder.trail.figures import CLASSES_S, Figures
from tests.kit.demo import Demo, running_demo
from tests.kit.process import run_murder
from tests.kit.waiting import until, until_soon
from tests.kit.wires import segment_octets


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", "2", "--workers", "2", "--no-tls-required") as running:
        yield running


def got(node: dict[str, Any], path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{node['metrics']}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def figures(node: dict[str, Any]) -> dict[str, float]:
    """Of each sample its sum over the workers, its labels but those in its name."""
    found: dict[str, float] = {}
    page = got(node, "/metrics")[1]
    for family in text_string_to_metric_families(page):  # type: ignore[no-untyped-call]  # a library
        for sample in family.samples:
            own = {k: v for k, v in sample.labels.items() if k not in ("role", "worker")}
            key = sample.name + "".join(f" {k}={v}" for k, v in sorted(own.items()))
            found[key] = found.get(key, 0) + sample.value
    return found


def test_what_clients_do_is_counted_over_all_workers(demo: Demo) -> None:
    home = demo.home(1)
    before = {node["node"]: figures(node) for node in (demo.frontend, home)}
    for _ in range(6):
        with demo.imap(demo.frontend, "user1") as client:
            client.select("INBOX")
            client.noop()
    with pytest.raises(Exception, match="AUTHENTICATIONFAILED"):
        demo.imap(demo.frontend, "user1", "wrong")
    assert "saved" in demo.deliver(demo.frontend, "user1", b"Subject: x\r\n\r\nx\r\n")
    assert "550" in demo.deliver(demo.frontend, "nobody", b"")

    def grown(node: dict[str, Any], key: str) -> float:
        return figures(node).get(key, 0) - before[node["node"]].get(key, 0)

    login = "murder_logins_total mechanism=LOGIN protocol=imap result="
    assert grown(demo.frontend, f"{login}succeeded") == 6
    assert grown(demo.frontend, f"{login}failed") == 1
    took = "murder_logins_duration_seconds_{} mechanism=LOGIN protocol=imap result=failed"
    assert grown(demo.frontend, took.format("count")) == 1
    assert grown(demo.frontend, took.format("sum")) > 0
    assert grown(home, "murder_logins_total mechanism=EXTERNAL protocol=imap result=succeeded") > 0
    assert any(
        one.startswith("murder_upstream_connects_duration") for one in figures(demo.frontend)
    )
    assert grown(demo.frontend, "murder_messages_total outcome=relayed") == 1
    assert grown(demo.frontend, "murder_messages_total outcome=refused") == 1
    assert grown(home, "murder_messages_total outcome=delivered") == 1
    took = "murder_commands_duration_seconds_count command={} protocol=imap"
    assert grown(home, took.format("NOOP")) == 6 and grown(home, took.format("SELECT")) == 6
    told = figures(home)
    assert told["process_memory_usage_bytes"] > 1_000_000
    assert told["murder_certificate_left_seconds"] > 0
    assert told["murder_list_bytes"] > 0 and told["murder_store_journal_bytes"] > 0
    assert 0 < told["murder_store_disk_free_bytes"] <= told["murder_store_disk_size_bytes"]
    assert told["murder_store_messages"] >= 0 and told["murder_store_bytes"] >= 0
    for now, former in FORMER.items():  # what alert rules of before look at
        kind = "_total" if "cpu" in now else ""
        assert f"{now}{kind}" in told and f"{former}{kind}" in told


@pytest.mark.parametrize("port", ["port", "metrics"])
def test_ports_of_nodes_take_little_at_a_time(demo: Demo, port: str) -> None:
    with socket.create_connection(("127.0.0.1", demo.info["mupdate"][port])) as sock:
        assert 0 < segment_octets(sock) <= LITTLE_OCTETS


def test_a_master_tells_its_list_and_every_node_that_it_lives(demo: Demo) -> None:
    master = demo.info["mupdate"]
    told = figures(master)
    assert told["murder_list_mailboxes"] >= 2
    assert told["murder_list_bytes"] > 0 and "murder_list_journal_bytes" in told
    for node in (master, demo.frontend, *demo.backends):
        assert got(node, "/healthz") == (200, "It lives\n")
        assert got(node, "/readyz") == (200, "ready\n")


def test_a_backend_that_keeps_no_mail_is_not_ready_until_it_does(demo: Demo) -> None:
    home, config = demo.home(1), str(demo.info["operator"])
    spool = demo.folder / home["node"] / "data" / "spool"
    spool.rename(spool.with_name("away"))
    try:
        until(lambda: got(home, "/readyz")[0] == 503)
        problem = f"{spool}: No such file or directory; mail cannot be kept there"
        assert got(home, "/readyz")[1] == f"backend: {problem}\n"
        until(lambda: figures(home)["murder_store_usable"] == 0, "of two workers")
        assert problem in run_murder("ctl", "status", "--config", config, code=1).stdout
        assert problem in run_murder("ctl", "doctor", "--config", config, code=1).stdout
    finally:
        spool.with_name("away").rename(spool)
    until(lambda: got(home, "/readyz") == (200, "ready\n"))
    until(lambda: figures(home)["murder_store_usable"] == 2)


def test_what_else_is_asked_is_refused(demo: Demo) -> None:
    assert got(demo.frontend, "/")[0] == 404
    assert got(demo.frontend, "/metrics", "POST")[0] == 405
    assert got(demo.frontend, "/metrics", "HEAD") == (200, "")


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, b"431"),
        (b"nonsense\r\n\r\n", b"400"),
        (
            b"GET /healthz HTTP/1.1\r\nContent-Length: 99999\r\nHost: x\r\n\r\n" + b"x" * 99_999,
            b"413",
        ),
        (
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1\r\na\r\n" * 1000
            + b"0\r\n\r\n",
            b"413",
        ),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
    ],
)
def test_what_is_no_request_is_told_and_ends_the_connection(
    demo: Demo, octets: bytes, status: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", demo.frontend["metrics"]), timeout=20) as sock:
        sock.sendall(octets)
        said = b""
        try:
            while got_more := sock.recv(65536):
                said += got_more
        except ConnectionResetError:
            pass
    assert re.match(rb"HTTP/1.1 %b " % status, said), said[:100]


def test_pipelined_requests_are_answered_in_order(demo: Demo) -> None:
    one = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", demo.frontend["metrics"]), timeout=20) as sock:
        sock.sendall(one % b"healthz" + one % b"nothing" + one % b"readyz")
        sock.shutdown(socket.SHUT_WR)
        said = b""
        while got_more := sock.recv(65536):
            said += got_more
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"200", b"404", b"200"]


def test_who_sends_on_without_reading_answers_is_cut_off(demo: Demo) -> None:
    address = ("127.0.0.1", demo.frontend["metrics"])
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(address, timeout=10) as peer, pytest.raises(ConnectionError):
        for _ in range(2000):  # 80 MB; what sockets hold is less than 20
            peer.sendall(request * 1000)


def test_durations_are_told_by_class_and_in_sum() -> None:
    mine = Figures()
    for seconds in (0.0, CLASSES_S[0], 0.002, 99.0):
        mine.took("commands", seconds, "imap", "NOOP")
    page = exposed([{"role": "backend", "worker": 0, **mine.shown()}], 0.0).decode()
    assert 'le="0.0001",' in page or 'le="0.0001"}' in page
    told = dict(re.findall(r'le="([^"]+)"[^}]*\} (\S+)', page))
    assert float(told["0.0001"]) == 2 and float(told["0.005"]) == 3 and float(told["+Inf"]) == 4


async def test_however_many_ask_at_once_two_questions_are_asked() -> None:
    asked: list[asyncio.Event] = []

    async def ask() -> int:
        asked.append(asyncio.Event())
        await asked[-1].wait()
        return len(asked)

    together = Together(ask)
    first = asyncio.ensure_future(together.answer())
    await until_soon(lambda: len(asked) == 1, "it is asked")
    others = [asyncio.ensure_future(together.answer()) for _ in range(300)]
    others[0].cancel()
    await asyncio.sleep(0)
    asked[0].set()
    assert await first == 1
    await until_soon(lambda: len(asked) == 2, "it is asked for all others")
    asked[1].set()
    assert set(await asyncio.gather(*others[1:])) == {2} and len(asked) == 2
    last = asyncio.ensure_future(together.answer())
    await until_soon(lambda: len(asked) == 3, "it is asked anew")
    asked[2].set()
    assert await last == 3
