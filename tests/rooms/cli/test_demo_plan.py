"""What a demo is made of: the contract of `--json`, the ports, the lines to paste. Nothing runs here."""

from pathlib import Path

import pytest

from murder.admin.cli.demo import paste_lines
from murder.admin.cli.template import format_plugin
from murder.admin.demo.plan import (
    Node,
    Options,
    describe,
    last_port,
    members_of,
    nodes_of,
    prepare,
    with_plugins,
)
from murder.admin.demo.process import MemberProcess
from murder.api.kinds.table import BY_NAME
from murder.config import ConfigError, load_config
from murder.errors import Refusal
from murder.node.process.preflight import check_start


def made(folder: Path) -> tuple[Options, list[Node]]:
    options = Options(folder)
    return options, nodes_of(options)


def test_ports_count_up_master_frontends_backends(tmp_path: Path) -> None:
    options = Options(tmp_path, frontends=2, backends=1, port_base=20000)
    nodes = nodes_of(options)
    assert [node.label for node in nodes] == ["mupdate", "fe1", "fe2", "be1"]
    assert nodes[0].ports == {"mupdate": 20000}
    assert nodes[1].ports == {
        "imap": 20001,
        "imaps": 20002,
        "pop3": 20003,
        "pop3s": 20004,
        "lmtp": 20005,
        "sieve": 20006,
        "mupdate": 20019,  # behind all others
    }
    assert nodes[2].ports["mupdate"] == 20020
    assert [node.pages["metrics"] for node in nodes] == [20021, 20022, 20023, 20024]
    assert [node.pages["web"] for node in nodes] == [20025, 20026, 20027, 20028]
    assert last_port(options) == 20028
    assert nodes[3].ports["lmtp"] == 20017


def test_the_json_line_keeps_its_contract(tmp_path: Path) -> None:
    options, nodes = made(tmp_path)
    shown = describe(options, nodes, {node.label: 7 for node in nodes})
    assert list(shown) == [
        "ready",
        "dir",
        "ca",
        "admin",
        "users",
        "user_format",
        "password",
        "namespace",
        "partition",
        "mupdate",
        "frontends",
        "backends",
        "operator",
        "mupdates",
        "engine",
    ]
    assert shown["mupdates"] == [shown["mupdate"]]
    assert shown["engine"] == []
    assert shown["ready"] is True
    assert shown["users"] == 20
    assert shown["admin"] == {"user": "admin", "password": "secret"}
    assert shown["namespace"] == {
        "separator": "/",
        "personal": "INBOX/",
        "users": "user/",
        "shared": "",
    }
    mupdate, frontends, backends = shown["mupdate"], shown["frontends"], shown["backends"]
    assert isinstance(mupdate, dict)
    assert isinstance(frontends, list)
    assert isinstance(backends, list)
    assert list(mupdate) == ["name", "node", "host", "port", "metrics", "web", "pid"]
    keys = ["name", "node", "host", "imap", "imaps", "pop3", "pop3s", "lmtp", "sieve"]
    assert [list(one) for one in backends] == [[*keys, "metrics", "web", "pid"]] * 2
    assert [list(one) for one in frontends] == [[*keys, "mupdate", "metrics", "web", "pid"]]
    assert [one["node"] for one in backends] == ["be1", "be2"]


def test_every_node_gets_a_configuration_that_an_operator_could_use(tmp_path: Path) -> None:
    options, nodes = made(tmp_path)
    prepare(options, nodes)
    for node in nodes:
        config = load_config(node.config_file)
        check_start(config, config.node.roles)
        assert config.node.roles == node.roles
        assert not config.frontend.allow_plaintext


def test_unified_nodes_share_their_ports_and_with_etcd_each_is_a_master(tmp_path: Path) -> None:
    options = Options(tmp_path, unified=3, is_ha=True, port_base=20000)
    nodes, members = nodes_of(options), members_of(options)
    assert [node.roles for node in nodes] == [("mupdate", "unified")] * 3
    assert [node.ports["mupdate"] for node in nodes] == [20000, 20007, 20014]
    ports = [port for node in nodes for port in (*node.ports.values(), *node.pages.values())]
    ports += [port for member in members for port in (member.port, member.peer_port)]
    assert sorted(ports) == list(range(20000, last_port(options) + 1))
    labels = [*(node.label for node in nodes), *(member.label for member in members)]
    pids = {label: number for number, label in enumerate(labels, 1)}
    shown = describe(options, nodes, pids)
    assert shown["frontends"] == shown["backends"]
    assert shown["engine"] == [
        {
            "name": f"etcd{number}",
            "host": "127.0.0.1",
            "port": 20025 + 2 * number,
            "pid": 3 + number,
        }
        for number in (1, 2, 3)
    ]
    prepare(options, nodes)
    moved = Options(tmp_path, unified=3, is_ha=True, port_base=21000)
    with pytest.raises(Refusal, match="use the --port-base of then"):
        prepare(moved, nodes_of(moved))


async def test_without_etcd_an_operator_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(tmp_path, unified=3, is_ha=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refusal, match="`apt install etcd-server`"):
        await MemberProcess(members_of(options)[0], options).start()


def test_a_second_start_keeps_the_certificates(tmp_path: Path) -> None:
    options, nodes = made(tmp_path)
    prepare(options, nodes)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pem")}
    prepare(options, nodes)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pem")} == before


def test_there_are_three_lines_to_paste_with_or_without_curl(tmp_path: Path) -> None:
    options, nodes = made(tmp_path)
    for with_curl in (True, False):
        lines = paste_lines(options, nodes, with_curl=with_curl)
        assert len(lines) == 3
        assert all("\n" not in line for line in lines)


def of_kind(folder: Path, kind: str) -> Path:
    file = folder / f"{kind}_toy.py"
    file.write_text(format_plugin(BY_NAME[kind], "toy"))
    return file


def test_plugins_are_named_by_the_keys_of_their_kinds(tmp_path: Path) -> None:
    toys = tuple(of_kind(tmp_path, kind) for kind in ("store", "list", "auth", "sasl", "service"))
    options = with_plugins(Options(tmp_path / "demo", plugins=toys))
    assert [service.protocol.name for service in options.services] == ["toy"]
    nodes = nodes_of(options)
    prepare(options, nodes)
    by_label = {node.label: load_config(node.config_file) for node in nodes}
    for config in by_label.values():
        assert config.plugins.use[:2] == ("sasl_toy", "service_toy")
        assert config.auth.plugins == ("auth_toy", "auth_file")  # which has the demo's users
    assert by_label["be1"].backend.store == "store_toy"
    assert by_label["mupdate"].mupdate.engine == "toy"
    assert by_label["be1"].mupdate.engine == "embedded"


def test_two_plugins_for_one_job_are_refused(tmp_path: Path) -> None:
    first = of_kind(tmp_path, "store")
    second = tmp_path / "store_other.py"
    second.write_text(first.read_text())
    with pytest.raises(ConfigError, match=r"a plugin for backend\.store already"):
        with_plugins(Options(tmp_path / "demo", plugins=(first, second)))
