"""The small commands: help, version, ca, auth, plugin; and what usage errors look like."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from murder import __version__
from murder.admin.cli import main
from murder.admin.cli.program import COMMANDS
from murder.api.kinds.table import BY_NAME
from tests.conftest import cannot_run
from tests.kit.toml import Sections, write_config

ROOT = Path(__file__).parent.parent.parent.parent
Capture = pytest.CaptureFixture[str]


def test_every_command_has_help(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name}" in overview
        assert main([name, "--help"]) == 0
        assert f"Usage: murder {name}" in capsys.readouterr().out


def test_version(capsys: Capture) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"murder {__version__}\n"


def test_a_unit_hides_home_unless_mail_is_there(capsys: Capture) -> None:
    """systemd opens no folder below one that it hides."""
    for folder, is_hidden, named in (
        ("/var/vmail", "true", "/var/vmail"),
        ("/homes/mail", "true", "/homes/mail"),
        ("/home/vmail", "false", "/home/vmail"),
        ("/root", "false", "/root"),
        ("/srv/%h mail", "true", "'/srv/%%h mail'"),  # a % has a meaning there
    ):
        assert main(["system-unit", "backend", "--writes", folder]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert f"ProtectHome={is_hidden}" in lines and f"ReadWritePaths={named}" in lines, folder


def test_a_usage_error_is_code_2(capsys: Capture) -> None:
    assert main(["no-such-command"]) == 2
    assert main(["serve", "--role", "king"]) == 2
    assert main(["demo", "--users", "0"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_serve_without_its_file_is_code_2_in_one_line(tmp_path: Path, capsys: Capture) -> None:
    assert main(["serve", "--config", str(tmp_path / "none.toml")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_quick_commands_import_no_more_than_they_need() -> None:
    code = (
        "import sys; from murder.admin.cli import main; main(['version']); "
        "print(sorted({'cryptography', 'lmdb', 'uvloop', 'structlog', 'tomli'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "[]"


def test_certificates_are_made_by_two_commands(tmp_path: Path, capsys: Capture) -> None:
    folder = str(tmp_path / "ca")
    assert main(["ca", "init", "--dir", folder]) == 0
    issue = ["ca", "issue", "be1.example.org", "--role", "backend", "--dir", folder, "--json"]
    assert main(issue) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert Path(made["certificate"]).name == "be1.example.org.pem"
    assert main(["ca", "init", "--dir", folder]) == 1
    assert "never replaced" in capsys.readouterr().err


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "murder.toml"
    file.write_text(
        '[node]\nname = "a"\ndata = "data"\n'
        "[plugins.auth_file]\nlog2_cost = 4\nscram_iterations = 4096\n"
    )
    return str(file)


def murder(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "murder", *arguments],
        cwd=ROOT,
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_users_are_kept_from_the_command_line(config: str, capsys: Capture) -> None:
    added = murder("auth", "add", "anna", "--config", config, typed="secret\n")
    assert (added.returncode, added.stdout, added.stderr) == (0, "anna: made\n", "")
    again = murder("auth", "add", "anna", "--config", config, typed="secret\n")
    assert again.returncode == 1
    assert "anna exists" in again.stderr
    assert murder("auth", "passwd", "anna", "--config", config, typed="new\n").returncode == 0
    assert murder("auth", "passwd", "bert", "--config", config, typed="new\n").returncode == 1
    kept = "".join(path.read_text() for path in Path(config).parent.rglob("audit-node-auth-*"))
    acts = [json.loads(line) for line in kept.splitlines()]
    assert [one["event"].split()[-1] for one in acts] == ["add", "passwd"]
    assert {one["arguments"] for one in acts} == {"anna"} and "secret" not in kept
    assert murder("auth", "add", "bert", "--config", config, typed="\n").returncode == 1
    assert main(["auth", "list", "--config", config, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"user": "anna", "groups": [], "disabled": False}
    ]
    assert main(["auth", "remove", "anna", "--config", config]) == 2
    assert main(["auth", "remove", "anna", "--config", config, "--yes"]) == 0
    assert main(["auth", "remove", "anna", "--config", config]) == 1


def test_what_root_makes_belongs_to_the_owner_of_the_data(config: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        cannot_run("giving files away needs root")
    data, nobody = tmp_path / "data", 65534
    data.mkdir()
    os.chown(data, nobody, nobody)
    assert murder("auth", "add", "anna", "--config", config, typed="secret\n").returncode == 0
    rows = tmp_path / "rows"
    rows.write_text("")
    load = ("ctl", "list", "load", str(rows), "--role", "mupdate", "--config", config)
    assert murder(*load).returncode == 0
    made = [path for path in data.rglob("*") if path.name != "lost"]
    assert {"users", "data.mdb"} <= {path.name for path in made}
    assert {path.stat().st_uid for path in made} == {nobody}


def test_the_file_of_a_list_that_masters_share_is_not_loaded_into(
    tmp_path: Path, capsys: Capture
) -> None:
    sections: Sections = {
        "node": {"name": "m1.test", "data": tmp_path / "data", "roles": ["mupdate"]},
        "mupdate": {"listen": ["127.0.0.1:3905"], "engine": "etcd"},
    }
    config = write_config(tmp_path / "murder.toml", sections)
    (tmp_path / "rows").write_text("")
    words = ["ctl", "list", "load", str(tmp_path / "rows"), "--config", str(config)]
    assert main(words) == 1
    assert "changed through a master" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("kind", list(BY_NAME))
def test_a_new_plugin_keeps_its_contract_as_it_is(
    tmp_path: Path, capsys: Capture, kind: str
) -> None:
    assert main(["plugin", "new", kind, "mine", "--dir", str(tmp_path)]) == 0
    file = tmp_path / f"{kind}_mine.py"
    assert main(["plugin", "check", str(file)]) == 0
    assert "FAILED" not in capsys.readouterr().out
    assert main(["plugin", "new", kind, "mine", "--dir", str(tmp_path)]) == 1
    assert "was not touched" in capsys.readouterr().err


def test_a_new_plugin_is_not_called_as_one_that_murder_brings(
    tmp_path: Path, capsys: Capture
) -> None:
    """Two of one name stop the start, long after it was written."""
    assert main(["plugin", "new", "auth", "ldap", "--dir", str(tmp_path)]) == 1
    assert "auth_ldap comes with murder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_plugins_may_use_is_printed_where_there_are_no_sources(
    tmp_path: Path, capsys: Capture
) -> None:
    assert main(["plugin", "api"]) == 0
    assert "def make_auth_backend(" in capsys.readouterr().out
    for kind in BY_NAME:  # whatever a new plugin imports can be looked up
        assert main(["plugin", "new", kind, "mine", "--dir", str(tmp_path)]) == 0
        text = (tmp_path / f"{kind}_mine.py").read_text()
        for module in re.findall(r"^from murder\.([\w.]+) import", text, re.M):
            assert main(["plugin", "api", module if module != "api" else "hookspecs"]) == 0, module
    capsys.readouterr()
    assert main(["plugin", "api", "murder.api.auth", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["module"], "class AuthBackend" in answer["text"]) == ("auth", True)
    assert main(["plugin", "api", "model.entri"]) == 1
    assert "did you mean `model.entry`?" in capsys.readouterr().err


def test_a_plugin_that_breaks_its_contract_is_told_where(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "placement_bad.py"
    file.write_text(
        "from murder.api import hookimpl\nfrom murder.model.entry import Location\n\n"
        "@hookimpl\ndef choose_backend(candidates):\n    return Location('nowhere')\n"
    )
    assert main(["plugin", "check", str(file), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    broken = [check["promise"] for check in answer["checks"] if check["problem"]]
    assert "A placement is one of the candidates, or None." in broken
    assert main(["plugin", "check", str(file)]) == 1
    assert "--config FILE takes them" in capsys.readouterr().out  # it may want settings


def test_a_plugin_that_does_not_load_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "auth_bad.py"
    file.write_text("1 / 0\n")
    assert main(["plugin", "check", str(file)]) == 2
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown
    assert "Traceback" not in shown


def test_the_list_names_kind_and_purpose(capsys: Capture) -> None:
    assert main(["plugin", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["auth_file"]["kinds"] == "auth"
    assert rows["placement_emptiest"]["about"].startswith("Placement: ")


def test_a_directory_that_is_away_is_one_line(tmp_path: Path) -> None:
    assert murder("plugin", "new", "auth", "far", "--dir", str(tmp_path)).returncode == 0
    file = tmp_path / "auth_far.py"
    text = file.read_text().replace(
        "        if await asyncio.to_thread(",
        "        await asyncio.sleep(0.01)\n"
        '        raise UpstreamFailure(UpstreamKind.CONNECT, "ldap.example.org", "refused")\n'
        "        if await asyncio.to_thread(",
    )
    file.write_text(
        text.replace(
            "from murder.api import",
            "from murder.errors import UpstreamFailure, UpstreamKind\nfrom murder.api import",
        )
    )
    done = murder("plugin", "check", str(file))
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("murder: ldap.example.org")
    assert len(done.stderr.splitlines()) == 1
