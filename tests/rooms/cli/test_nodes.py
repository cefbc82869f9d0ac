"""What nodes tell of themselves, and what is made of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from murder import __version__
from murder.admin.cli.ctl.running.doctor import Findings, _seats
from murder.admin.cli.program import system_text
from murder.admin.operate.reach import Reach
from murder.admin.operate.running import nodes
from murder.admin.operate.running.health import lines_of, namesakes, problems_of
from murder.admin.operate.running.nodes import (
    Answer,
    NodeAnswers,
    ask_all,
    clock_off,
    learn,
    places,
    waiting,
)
from murder.admin.operate.running.sessions import Connected
from murder.config import ConfigError, load_config
from murder.node.control import sockets as control
from murder.wire.nodes.control_answers import ProcessFacts, RoleFacts, Status, parse_node_status
from murder.wire.nodes.control_words import AskStatus, Request
from tests.kit.waiting import turns, until_soon


def reach(folder: Path, *named: str) -> Reach:
    file = folder / "murder.toml"
    file.write_text(f'[node]\nname = "op"\ndata = "{folder}"\n[operator]\nnodes = {list(named)}\n')
    return Reach(load_config(file), lambda user: "")


def test_a_folder_is_beside_the_file_that_names_it(tmp_path: Path) -> None:
    assert places(reach(tmp_path, "./be1/data", "/srv/be2", "be3:3906")) == [
        str(tmp_path / "be1/data"),
        "/srv/be2",
        "be3:3906",
    ]


def test_this_hosts_own_node_is_a_folder_wherever_its_file_is_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mx1/data/control").mkdir(parents=True)
    (tmp_path / "mx1/data/control/frontend-0.sock").touch()
    (tmp_path / "mx1/murder.toml").write_text('[node]\nname = "mx1"\ndata = "data"\n')
    monkeypatch.chdir(tmp_path)
    relative = Reach(load_config(Path("mx1/murder.toml")), lambda user: "")
    assert places(relative) == [str(tmp_path / "mx1/data")]


@pytest.mark.parametrize(
    ("told", "off"), [(100.0, 0), (107.0, 0), (110.0, 0), (94.0, -6.0), (130.0, 20.0)]
)
def test_a_clock_is_off_by_what_asking_and_waiting_cannot_explain(told: float, off: float) -> None:
    assert clock_off(told, 100.0, 110.0) == off


def test_a_node_that_hangs_says_nothing_of_the_others_clocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(_reach: Reach, place: str, _request: Request) -> AsyncIterator[Answer]:
        if place == "hangs.example.org":
            await asyncio.Event().wait()
        yield {"node": place, "role": "backend", "now": time.time(), "version": __version__}

    monkeypatch.setattr(nodes, "ask", ask)
    monkeypatch.setattr(nodes, "TIMEOUT_S", 0.05)
    told = asyncio.run(
        ask_all(reach(tmp_path, "hangs.example.org", "be1.example.org"), AskStatus())
    )
    assert [bool(node.problem) for node in told] == [True, False]
    assert problems_of(told[1].by_role, time.time() + 60, "") == []
    (problem,) = problems_of(
        {"backend": [replace(told[1].statuses[0], clock_off_s=-7.4)]}, time.time(), ""
    )
    assert "differs from this host's by -7 s" in problem.what


def test_a_look_may_take_longer_and_one_that_has_no_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where what checks passwords is slow: doctor said that all was well."""

    async def ask(_reach: Reach, place: str, _request: Request) -> AsyncIterator[Answer]:
        if place != "fe1.example.org":
            await asyncio.Event().wait()
        await turns(3)
        yield {"node": place, "role": "frontend", "what": "the plugin auth_ldap"}

    monkeypatch.setattr(nodes, "ask", ask)
    monkeypatch.setattr(nodes, "TIMEOUT_S", 0.0)
    monkeypatch.setattr(nodes, "PROBE_S", 0.5)
    asking = reach(tmp_path, "fe1.example.org", "hangs.example.org", "down.example.org")
    findings = Findings(as_json=True)
    asyncio.run(_seats(asking, [NodeAnswers("down.example.org", problem="refused")], findings))
    assert [(fact["state"], fact["what"]) for fact in findings.all] == [
        ("ok", "fe1.example.org: the plugin auth_ldap is well"),
        ("wrong", "hangs.example.org has not looked for itself: no answer in 0.5 s"),
    ]


def test_a_node_of_a_demo_is_cured_as_one(tmp_path: Path) -> None:
    place = str(tmp_path / "be1" / "data")
    (problem,) = problems_of(
        {"backend": [parse_node_status({"replaced": True, "version": __version__})]}, 0.0, place
    )
    assert "systemctl restart" in problem.cure
    (tmp_path / nodes.DEMO_SOCKET).touch()
    (problem,) = problems_of(
        {"backend": [parse_node_status({"replaced": True, "version": __version__})]}, 0.0, place
    )
    assert problem.cure.endswith(f"`murder demo --dir {tmp_path}`")


def test_a_process_that_does_not_answer_is_told_of_by_role() -> None:
    """A frontend's third has just begun and has no socket yet."""
    facts = {"node": "n", "version": __version__}
    node = nodes.NodeAnswers("n")
    node.answers = [{**facts, "role": "frontend", "processes": 3} for _ in range(2)]
    node.answers.append({**facts, "role": "backend", "processes": 1})
    (problem,) = problems_of(node.by_role, 0.0, "")
    assert problem.what == "only 2 of the frontend's 3 processes answer"
    node.answers.append(node.answers[0])
    assert problems_of(node.by_role, 0.0, "") == []
    first, second = lines_of([node], 0.0)
    assert (first.role, first.workers, second.role, second.workers) == ("backend", 1, "frontend", 3)


CERTIFICATE = """
[node]
name = "anna"
data = "data"
[operator]
certificate = "anna.pem"
key = "anna.key"
[mupdate]
master = "mupdate.example.org"
[servers."be9.example.org"]
address = "192.0.2.9"
"""


def by_certificate(folder: Path) -> Reach:
    """Anna, who has named no node."""
    for name in ("anna.pem", "anna.key"):
        (folder / name).write_text("")
    file = folder / "murder.toml"
    file.write_text(CERTIFICATE)
    return Reach(load_config(file), lambda user: "")


def test_nodes_are_learnt_from_the_master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def ask(_reach: Reach, place: str, _request: Request) -> AsyncIterator[Answer]:
        asked.append(place)
        if place == "mupdate.example.org:3906":
            servers, followers = ["be1.example.org"], ["fe1.example.org", "be1.example.org"]
            yield {"role": "mupdate", "servers": servers, "followers": followers}

    monkeypatch.setattr(nodes, "ask", ask)
    reach = by_certificate(tmp_path)
    places = asyncio.run(learn(reach))
    assert places == [
        f"{host}:3906"
        for host in ("mupdate.example.org", "be1.example.org", "192.0.2.9", "fe1.example.org")
    ]
    assert asyncio.run(learn(reach)) == places and len(asked) == 1
    # its certificate carries where we reach it
    assert "mupdate.example.org:3906" not in reach.tls_names
    assert reach.tls_names["192.0.2.9:3906"] == "be9.example.org"


def test_a_masters_own_folder_is_asked_wherever_its_file_is_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def ask(_reach: Reach, place: str, _request: Request) -> AsyncIterator[Answer]:
        asked.append(place)
        yield {"role": "mupdate", "servers": ["be1.example.org"]}

    by_certificate(tmp_path)
    text = CERTIFICATE.replace('data = "data"', 'data = "data"\nroles = ["mupdate"]')
    (tmp_path / "murder.toml").write_text(text.replace("[mupdate]\nmaster", "[mupdate]\n#"))
    (tmp_path / "data/control").mkdir(parents=True)
    (tmp_path / "data/control/mupdate-0.sock").touch()
    monkeypatch.setattr(nodes, "ask", ask)
    monkeypatch.chdir(tmp_path)
    relative = Reach(load_config(Path("murder.toml")), lambda user: "")
    places = asyncio.run(learn(relative))
    assert asked == [str(tmp_path / "data")]
    assert places == ["be1.example.org:3906", "192.0.2.9:3906", str(tmp_path / "data")]


def test_the_masters_own_host_needs_no_mupdate_master(tmp_path: Path) -> None:
    file = tmp_path / "murder.toml"
    file.write_text(
        '[node]\nname = "m"\ndata = "data"\nroles = ["mupdate"]\n'
        '[mupdate]\nlisten = ["*:4905"]\nmaster_tls = "none"\n'
    )
    assert Reach(load_config(file), lambda user: "").target.name == "127.0.0.1:4905"


@pytest.mark.parametrize("key", ["certificate", "key"])
def test_an_operators_file_that_is_away_is_named_by_its_key(tmp_path: Path, key: str) -> None:
    names = {"certificate": "anna.pem", "key": "anna.key"}
    for one, name in names.items():
        if one != key:
            (tmp_path / name).write_text("")
    file = tmp_path / "murder.toml"
    file.write_text(CERTIFICATE)
    with pytest.raises(ConfigError) as caught:
        Reach(load_config(file), lambda user: "")
    (problem,) = caught.value.problems
    assert problem.key == f"operator.{key}"
    assert problem.text == f"{tmp_path / names[key]}: No such file or directory"


def test_what_the_system_refuses_is_said_without_its_number() -> None:
    assert system_text(PermissionError(13, "Permission denied", "/k")) == "/k: Permission denied"
    assert system_text(OSError("odd")) == "odd"


def test_a_node_of_this_host_that_may_not_be_asked_tells_who_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(nodes, "sockets_in", refuse)
    monkeypatch.setattr(control, "sockets_in", refuse)
    (told,) = asyncio.run(ask_all(reach(tmp_path), AskStatus()))
    assert "Permission denied" in told.problem and "sudo -u murder" in told.cure


async def test_who_looks_is_told_who_is_waited_for(tmp_path: Path) -> None:
    """A node whose port is open and which does not answer yet, as one that was just started."""
    asking = reach(tmp_path)
    said: list[str] = []
    asking.notice = said.append
    with waiting(asking, ["fe1:3906", "be1:3906", "m:3906"]) as heard:
        heard("m:3906")
        await until_soon(lambda: bool(said))
        heard("fe1:3906")
        heard("be1:3906")
    assert said == ["no answer yet from fe1:3906, be1:3906: waiting for 10 s at most"]


async def test_so_is_who_waits_for_the_master_that_is_to_tell_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    async def ask(_reach: Reach, place: str, _request: Request) -> AsyncIterator[Answer]:
        await until_soon(lambda: bool(said))
        yield {"node": place, "role": "mupdate", "version": __version__}

    monkeypatch.setattr(nodes, "ask", ask)
    monkeypatch.setattr(nodes, "PATIENCE_S", 0.01)
    asking = by_certificate(tmp_path)
    asking.notice = said.append
    await learn(asking)
    assert said == ["no answer yet from mupdate.example.org:3906: waiting for 10 s at most"]


def test_two_nodes_of_one_name_are_told_and_one_that_is_asked_twice_is_not() -> None:
    def answers(place: str, pid: int, uptime_s: float) -> NodeAnswers:
        shown = Status(ProcessFacts(pid=pid, now=1000.0, uptime_s=uptime_s), RoleFacts()).shown()
        return NodeAnswers(place, [{"node": "be1", "role": "backend", "worker": 0, **shown}])

    assert namesakes([answers("/srv/be1", 7, 60.0), answers("be1:3906", 7, 60.2)]) == []
    for other in (answers("b:3906", 8, 60.0), answers("b:3906", 7, 300.0)):  # 7: in a container
        ((whose, problem),) = namesakes([answers("a:3906", 7, 60.0), other])
        assert (whose, problem.what) == (
            "be1",
            "two nodes call themselves so, at a:3906 and b:3906",
        )


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        (
            RoleFacts(master="away", master_problem="m9: cannot be called"),
            "it cannot reach the master (m9: cannot be called)",
        ),
        (RoleFacts(master="away"), "it cannot reach the master"),
        (
            RoleFacts(master="connected", master_problem="The list cannot be written"),
            "it could not compare its mailboxes with the master's: The list cannot be written",
        ),
        (RoleFacts(master="connected"), None),
    ],
)
def test_why_a_backend_does_not_reach_its_master_is_told(
    facts: RoleFacts, what: str | None
) -> None:
    status = parse_node_status(Status(ProcessFacts(__version__), facts).shown())
    said = [problem.what for problem in problems_of({"backend": [status]}, 0.0, "be1:3906")]
    assert said == ([] if what is None else [what])


def test_few_descriptors_are_told_before_they_are_used_up() -> None:
    def said(most: int) -> list[str]:
        status = Status(
            ProcessFacts(__version__, descriptors=20, descriptors_most=most), RoleFacts()
        )
        return [problem.what for problem in problems_of({"frontend": [status]}, 0.0, "fe1:3906")]

    assert said(256) == [
        "it may have 256 file descriptors, of which each connection takes one or two"
    ]
    assert said(1024) == []


def test_a_session_through_a_frontend_counts_once_and_at_its_backend_alone_too() -> None:
    there, here = {"cid": "1-1", "proxy": "fe1"}, {"cid": "2-1", "proxy": ""}
    assert Connected([there, here], []).clients == 1
    assert Connected([there], []).clients == 1
    assert Connected([], []).clients == 0


@pytest.mark.parametrize(
    ("data", "mail", "told"),
    [
        ((50 << 20, 100 << 20), (1 << 20, 90 << 20), ["the disk of its mail has 1 MiB left"]),
        ((1 << 20, 100 << 20), (1 << 20, 100 << 20), ["its disk has 1 MiB left"]),
        ((1 << 20, 100 << 20), (50 << 20, 90 << 20), ["its disk has 1 MiB left"]),
        ((50 << 20, 100 << 20), (50 << 20, 100 << 20), []),
        ((50 << 20, 100 << 20), (None, None), []),
    ],
)
def test_a_disk_that_fills_is_told_that_of_mail_too(
    data: tuple[int, int], mail: tuple[int | None, int | None], told: list[str]
) -> None:
    process = ProcessFacts(__version__, disk_free=data[0], disk_size=data[1])
    role = RoleFacts(store_disk_free=mail[0], store_disk_size=mail[1])
    answer = {"node": "be1", "role": "backend", "worker": 0, **Status(process, role).shown()}
    (line,) = lines_of([NodeAnswers("be1:3906", [answer])], 0.0)
    assert [problem.what for problem in line.problems] == told
    parts = [free / size for free, size in (data, mail) if free is not None and size]
    assert line.disk_used == 1 - min(parts)


def test_a_store_that_keeps_no_mail_is_told_once_for_all_workers() -> None:
    facts = RoleFacts(store_problem="/srv/spool: Read-only file system; mail cannot be kept there")
    status = parse_node_status(Status(ProcessFacts(__version__, processes=2), facts).shown())
    (problem,) = problems_of({"backend": [status, status]}, 0.0, "be1:3906")
    assert str(problem) == (
        "/srv/spool: Read-only file system; mail cannot be kept there: see that its file system is mounted there, "
        "writable, and has room; no restart is needed"
    )
    facts = RoleFacts(store_problem="")
    status = parse_node_status(Status(ProcessFacts(__version__), facts).shown())
    assert problems_of({"backend": [status]}, 0.0, "be1:3906") == []
