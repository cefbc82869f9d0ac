"""`murder auth`, as an operator types it."""

import io
import json
import sys
from pathlib import Path

import pytest

from murder.admin.cli.program import main
from murder.api.auth import LoginAttempt
from murder.auth.app_passwords import AppPasswords
from tests.kit.toml import Sections, write_config
from tests.plugins.auth.test_auth_oauth import provider
from tests.rooms.cli.test_commands import config, murder

Capture = pytest.CaptureFixture[str]
__all__ = ["config"]


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_groups_from_the_command_line(config: str, capsys: Capture) -> None:
    for user in ("anna", "ben"):
        assert murder("auth", "add", user, "-c", config, typed="secret\n").returncode == 0
    assert main(["auth", "group", "add", "staff", "anna", "ben", "-c", config]) == 0
    assert "group:staff: anna, ben added" in capsys.readouterr().out
    assert main(["auth", "group", "add", "staff", "carl", "-c", config]) == 1
    assert "there is no user carl; nothing was changed" in capsys.readouterr().err
    assert main(["auth", "group", "remove", "staff", "ben", "-c", config]) == 0
    capsys.readouterr()
    assert main(["auth", "group", "list", "-c", config, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"group": "staff", "users": ["anna"]}]


def test_a_trial_says_who_decides(
    config: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert murder("auth", "add", "anna", "-c", config, typed="secret\n").returncode == 0
    typed(monkeypatch, "secret\n")
    assert main(["auth", "test", "anna", "-c", config, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["decided"] == "auth_file"
    assert told["answers"][0]["said"] == "right"
    assert told["identity"]["user"] == "anna"
    typed(monkeypatch, "wrong\n")
    assert main(["auth", "test", "anna", "-c", config]) == 1
    said = capsys.readouterr().out
    assert "auth_file: knows the user; wrong password" in said
    assert "secret" not in said
    typed(monkeypatch, "wrong\n")
    assert main(["auth", "test", "nobody", "-c", config]) == 1
    assert "no plugin knows them" in capsys.readouterr().out
    assert main(["auth", "disable", "anna", "-c", config]) == 0
    typed(monkeypatch, "secret\n")
    assert main(["auth", "test", "anna", "-c", config]) == 1
    assert "disabled" in capsys.readouterr().err
    assert main(["auth", "test", "anna", "--lookup", "-c", config]) == 1


def test_a_trial_of_a_token_says_why_it_is_not_taken(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "murder.toml"
    with provider() as issuer:
        keys = {"issuer": issuer.url, "audience": ["mail"], "user": "preferred_username"}
        sections: Sections = {
            "node": {"name": "fe1.test", "data": "data", "roles": ["frontend"]},
            "auth": {"plugins": ["auth_oauth"]},
            "plugins.auth_oauth": {**keys, "domains": ["example.org"]},
        }
        write_config(file, sections)
        typed(monkeypatch, issuer.token() + "\n")
        assert main(["auth", "test", "--token", "-c", str(file)]) == 0
        assert "auth_oauth: accepts the login" in capsys.readouterr().out
        typed(monkeypatch, issuer.token(exp=1) + "\n")
        assert main(["auth", "test", "--token", "-c", str(file)]) == 1
        said = capsys.readouterr()
        assert "murder: a token is not taken: it has expired" in said.err
        assert "the token: not taken by any plugin" in said.out


def test_a_flush_leaves_its_mark_in_the_data_folder(
    config: str, tmp_path: Path, capsys: Capture
) -> None:
    mark = tmp_path / "data" / "auth.flushed"
    assert main(["auth", "flush", "-c", config]) == 0
    first = mark.stat().st_mtime_ns
    assert main(["auth", "flush", "-c", config]) == 0
    second = mark.stat().st_mtime_ns
    assert second > first
    run = f"{sys.executable} -m murder auth flush -c {config}"
    there = ["auth", "flush", "fe1", "fe2", "--via", "sh -c '\"$@\"'", "--run", run]
    capsys.readouterr()
    assert main([*there, "-c", str(tmp_path / "none.toml")]) == 0  # not this node's
    done = "remembered passwords were dropped"
    assert capsys.readouterr().out == f"fe1: {done}\nfe2: {done}\n"
    assert mark.stat().st_mtime_ns > second
    assert main([*there[:3], "--via", "/no/such/ssh", "-c", config]) == 1
    assert "fe1: /no/such/ssh" in capsys.readouterr().err


def test_without_an_audit_trail_users_are_kept_all_the_same(config: str) -> None:
    with open(config, "a", encoding="utf-8") as file:
        file.write("\n[log]\naudit_keep_bytes = 0\n")
    added = murder("auth", "add", "anna", "-c", config, typed="secret\n")
    assert (added.returncode, added.stderr) == (0, "")


def test_who_is_removed_leaves_no_application_password_to_a_namesake(
    config: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert murder("auth", "add", "anna", "-c", config, typed="secret\n").returncode == 0
    assert main(["auth", "app", "add", "Anna", "--name", "phone", "-c", config]) == 0
    password = capsys.readouterr().out.strip()
    assert main(["auth", "remove", "anna", "--yes", "-c", config]) == 0
    assert capsys.readouterr().out == "anna: removed, and 1 application password\n"
    assert murder("auth", "add", "anna", "-c", config, typed="another\n").returncode == 0
    typed(monkeypatch, password + "\n")
    assert main(["auth", "test", "anna", "-c", config]) == 1


def test_application_passwords_from_the_command_line(
    config: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert murder("auth", "add", "anna", "-c", config, typed="secret\n").returncode == 0
    assert main(["auth", "app", "add", "nobody", "--name", "phone", "-c", config]) == 1
    assert "no plugin knows nobody" in capsys.readouterr().err
    words = ["auth", "app", "add", "anna", "--name", "phone", "--only", "imap", "--expires", "90"]
    assert main([*words, "-c", config]) == 0
    password = capsys.readouterr().out.strip()
    typed(monkeypatch, password + "\n")
    assert main(["auth", "test", "anna", "-c", config]) == 0
    assert "application password phone: accepts the login" in capsys.readouterr().out
    assert main(["auth", "app", "list", "anna", "-c", config, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["only"]) == ("phone", ["imap"])
    assert row["used_at"] is None  # a trial is no use

    other = tmp_path / "other"
    other.mkdir()
    (other / "murder.toml").write_text('[node]\nname = "b"\ndata = "data"\n')
    run = f"{sys.executable} -m murder auth app take -c {other / 'murder.toml'}"
    via = "sh -c '\"$@\"'"  # the host is its $0
    push = ["auth", "app", "push", "fe2", "--via", via, "--run", run, "-c", config]
    assert main(push) == 0
    assert capsys.readouterr().out == "fe2: has them\n"
    assert main(["auth", "app", "list", "-c", str(other / "murder.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["user"] == "anna"
    file = str(other / "murder.toml")
    attempt = LoginAttempt("imap", "b", "127.0.0.1", is_tls=True)
    used = AppPasswords(other / "data").find(attempt, "anna", password.encode())
    assert used is not None
    AppPasswords(other / "data").note_use(used)
    asked = ["auth", "app", "list", "--json", "-c"]
    run = f"{sys.executable} -m murder {' '.join(asked)} {file}"
    listed = [*asked, config, "--at", "fe2", "--via", via, "--run"]
    assert main([*listed, run]) == 0  # here it was not used, there it was
    (row,) = json.loads(capsys.readouterr().out)
    (there,) = AppPasswords(other / "data").all()
    assert row["used_at"] == AppPasswords(other / "data").used_at(there)
    for line, problem in (("echo no", "no such list"), ("murder-is-not-there", "not found")):
        assert main([*listed, line]) == 1
        said = capsys.readouterr()
        assert "fe2: " in said.err and problem in said.err
        assert json.loads(said.out)[0]["used_at"] is None
    assert main([*push[:4], "--via", "/no/such/ssh", "-c", config]) == 1
    assert "fe2: /no/such/ssh" in capsys.readouterr().err

    assert main(["auth", "app", "revoke", "anna", "-c", config]) == 2
    assert main(["auth", "app", "revoke", "anna", "phone", "-c", config]) == 0
    trails = {
        name: "".join(file.read_text() for file in folder.rglob("trail/audit-node-auth-*"))
        for name, folder in (("here", Path(config).parent / "data"), ("there", other / "data"))
    }
    acts = {
        name: [(one["event"], one["arguments"]) for one in map(json.loads, text.splitlines())]
        for name, text in trails.items()
    }
    assert [act for act in acts["here"] if "app" in act[0]] == [
        ("murder auth app add", "anna phone --only imap --expires 90"),
        ("murder auth app revoke", "anna phone"),
    ]
    assert acts["there"] == [("murder auth app take", "all there are: 1")]
    assert password not in "".join(trails.values())
    typed(monkeypatch, password + "\n")
    assert main(["auth", "test", "anna", "-c", config]) == 1
