"""The dashboard and the alert rules: each names what nodes tell, and a real Prometheus computes them of a real murder."""

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from murder.admin.operate.watching.dashboard import make_dashboard
from murder.admin.operate.watching.rules import RULES, expression_of, format_rules
from murder.node.pages.metrics import COUNTERS, FORMER, GAUGES, exposed
from murder.trail.figures import NAMES, Figures
from tests.conftest import cannot_run
from tests.kit.demo import Demo, running_demo
from tests.kit.ports import ports_held
from tests.kit.process import ROOT, murder_command
from tests.kit.waiting import until

STATUS = {
    "role": "backend",
    "worker": 0,
    "memory_kib": 1,
    "version": "1",
    "down": ["be1"],
    "store_problem": "",
}


def said(*words: str) -> str:
    done = subprocess.run(
        [*murder_command(), *words], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout


def told() -> dict[str, set[str]]:
    """Each sample that a node can tell, with its labels."""
    figures = Figures()
    for name, (labels, _) in NAMES.items():
        figures.add(name, *labels)
        figures.took(name, 1.0, *labels)
    keys = ("certificate_until", "synchronised", *(row[0] for row in (*GAUGES, *COUNTERS)))
    status = {**STATUS, **dict.fromkeys(keys, 1)}
    page = exposed([{**status, **figures.shown()}], 0.0).decode()
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^((?:murder|process)_\w+)\{(.*)\} ", page, re.MULTILINE):
        found.setdefault(name, {"instance", "job"}).update(re.findall(r'(\w+)="', labels))
    return found


def expressions() -> list[str]:
    panels = make_dashboard()["panels"]
    shown = [one["expr"] for panel in panels for one in panel.get("targets", ())]
    return [*shown, *(expression_of(rule, "murder") for rule in RULES)]


def test_all_that_dashboard_and_rules_name_is_told_by_nodes() -> None:
    tells = told()
    for expression in expressions():
        names = set(re.findall(r"\b(?:murder|process)_\w+", expression))
        assert names <= tells.keys(), expression
        used = set(re.findall(r"(\w+)=~?\"", expression))
        for group in re.findall(r"by \((.*?)\)", expression):
            used |= set(group.split(", "))
        used -= {"le"} if any(one.endswith("_bucket") for one in names) else set()
        for name in names:
            assert used <= tells[name], f"{expression}: {name} has only {tells[name]}"


def test_the_dashboard_shows_every_figure() -> None:
    text = " ".join(expressions())
    shown = {re.sub(r"_(bucket|sum|count|created)$", "", one) for one in told()}
    for name in NAMES:  # each is counted, or measured
        both = {f"murder_{name}_total", f"murder_{name}_duration_seconds"}
        assert any(one in text for one in both), name
        shown -= both
    shown -= {f"{name}{kind}" for name in FORMER.values() for kind in ("", "_total")}
    assert {one for one in shown if one not in text} == set()


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    dashboard = json.loads(said("metrics", "dashboard"))
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        mine = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not mine & cells and max(x for x, _ in mine) < 24, panel["title"]
        cells |= mine
        for target in panel.get("targets", ()):
            assert target["expr"].count("{") == target["expr"].count("}")
            assert "{{{" not in target["expr"] and "{c}" not in target["expr"]
    assert {one["name"] for one in dashboard["templating"]["list"]} == {"datasource", "instance"}


def rules_taken(file: Path) -> str:
    """What Prometheus' own judge says of a file of rules that it takes."""
    if shutil.which("promtool") is None:
        cannot_run("promtool (package prometheus) is not installed")
    done = subprocess.run(
        ["promtool", "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(said("metrics", "rules", "--job", 'a"b{}'))
    assert f"{len(RULES)} rules found" in rules_taken(file)


def test_prometheus_takes_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    panels = json.loads(said("metrics", "dashboard"))["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    filled = [  # as Grafana fills them in
        re.sub(r"\$\{?\w+\}?", "x", one.replace("$__rate_interval", "5m")) for one in asked
    ]
    rules = [{"record": f"panel:{at}", "expr": one} for at, one in enumerate(filled)]
    file = tmp_path / "rules.yml"  # JSON is YAML, too
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(asked)} rules found" in rules_taken(file)


@contextmanager
def prometheus(folder: Path, demo: Demo) -> Iterator[str]:
    """Where a Prometheus answers that scrapes a murder, with our rules."""
    (folder / "rules.yml").write_text(format_rules("murder"))
    nodes = [demo.info["mupdate"], demo.frontend, *demo.backends]
    targets = [f"127.0.0.1:{node['metrics']}" for node in nodes]
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        "rule_files: [rules.yml]\nscrape_configs: [{job_name: murder, static_configs: "
        f"[{{targets: {json.dumps(targets)}}}]}}]\n"
    )
    with ports_held(1) as port, (folder / "log").open("w") as log:
        where = f"127.0.0.1:{port}"
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={where}",
            ],
            stderr=log,
            stdout=log,
        )
        try:
            yield f"http://{where}/api/v1/"
        finally:
            process.terminate()
            process.wait(60)


def asked(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]
    except ConnectionError:
        return {}
    except urllib.error.HTTPError as error:
        if error.code == 503:  # it is starting
            return {}
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionError):
            return {}
        raise


def test_a_real_prometheus_scrapes_a_murder_and_computes_all_of_it(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        cannot_run("prometheus is not installed")
    with (
        running_demo("--users", "2", "--no-tls-required") as demo,
        prometheus(tmp_path, demo) as api,
    ):

        def healths(kind: str, key: str) -> list[Mapping[str, Any]]:
            return list(asked(api + kind).get(key, ()))

        until(
            lambda: [one["health"] for one in healths("targets", "activeTargets")] == ["up"] * 4,
            "all nodes are scraped",
        )

        def rules() -> list[Mapping[str, Any]]:
            return [one for group in healths("rules", "groups") for one in group["rules"]]

        until(lambda: {one["health"] for one in rules()} == {"ok"}, rules)
        assert {one["name"] for one in rules()} == {rule.name for rule in RULES}

        def rows(expression: str) -> list[Any]:
            text = expression.replace("$instance", ".*").replace("$__rate_interval", "1m")
            found = asked(f"{api}query?{urllib.parse.urlencode({'query': text})}")
            return list(found["result"])

        with demo.imap(demo.frontend, "user1") as client:
            client.select("INBOX")
        assert "saved" in demo.deliver(demo.frontend, "user1", b"Subject: x\r\n\r\nx\r\n")
        panels = [panel for panel in make_dashboard()["panels"] if panel["type"] != "row"]
        quiet = {"Failures of backends", "Spans of traces", "Backends that somebody cannot reach"}
        for panel in panels:
            for target in panel["targets"]:
                if panel["title"] in quiet:
                    assert rows(target["expr"]) == []
                else:
                    until(lambda: rows(target["expr"]), panel["title"])  # noqa: B023 - called here
        calls = {one["name"]: one["alerts"] for one in rules()}
        assert not calls["MurderNodeAway"] and not calls["MurderListBehind"]
        demo.node("kill", "be2")
        until(
            lambda: next(one for one in rules() if one["name"] == "MurderNodeAway")["alerts"],
            "somebody is called for a node that is away",
        )
