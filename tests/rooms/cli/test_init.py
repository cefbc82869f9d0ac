"""`murder init`: folders that are ready to copy, which a second call completes and never spoils.

That three hosts serve mail from them is in tests/install/test_three_hosts.py.
"""

import json
import os
import pty
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
import tomli

import murder.pki.authority
from murder.admin.cli import main
from murder.admin.cli.site import site_from
from murder.admin.manual.pages import page
from murder.config import ConfigError
from murder.config.load import read_table
from murder.pki.authority import issue, names_of, read_certificate, roles_of
from tests.kit.process import ROOT, murder_command, run_murder

THREE = ("m.example.org=mupdate", "be1.example.org=backend", "fe1.example.org=frontend")


def init(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    own = "--dir", folder / "site", "--ca", folder / "ca"
    return run_murder("init", *own, *words, code=code)


def with_hosts(*hosts: str) -> list[str]:
    return [word for host in hosts for word in ("--host", host)]


def octets_below(folder: Path) -> dict[str, bytes]:
    return {
        str(it.relative_to(folder)): it.read_bytes() for it in folder.rglob("*") if it.is_file()
    }


def changed(folder: Path, *words: str) -> dict[str, list[str]]:
    """What a call says it has written, by host."""
    done = init(folder, "--json", *words)
    rows = json.loads(done.stdout)["hosts"]
    return {row["name"]: row["changed"] for row in rows if row["changed"]}


def test_each_host_has_what_it_needs_and_secrets_are_for_nobody_else(tmp_path: Path) -> None:
    done = init(tmp_path, *with_hosts(*THREE))
    assert done.stderr == ""
    site = tmp_path / "site"
    for host in THREE:
        name, _, role = host.partition("=")
        files = {"ca.pem", "crl.pem", f"{name}.pem", f"{name}.key", "murder.toml", "murder.service"}
        assert {file.name for file in (site / name).iterdir()} == files
        assert roles_of(read_certificate(site / name / f"{name}.pem")) == {role}
        assert f"scp {site / name}/* root@{name}:/etc/murder/" in done.stdout
    for key in (*site.rglob("*.key"), tmp_path / "ca" / "ca.key"):
        assert key.stat().st_mode & 0o777 == 0o600
        assert key.parent.stat().st_mode & 0o777 == 0o700
    assert not list(site.rglob("ca.key"))
    operator = tomli.loads((site / "operator" / "murder.toml").read_text())
    assert operator["servers"] == {"be1.example.org": {}}
    # `--as admin`, and the page, ask all
    for name in ("m.example.org", "be1.example.org", "fe1.example.org"):
        node = tomli.loads((site / name / "murder.toml").read_text())
        assert next(part["admins"] for part in node.values() if "admins" in part) == ["admin"]
    assert "users to the others, the master too." in done.stdout


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    init(tmp_path, *with_hosts(*THREE))
    before = octets_below(tmp_path)
    done = init(tmp_path)
    assert "Nothing has changed for any host." in done.stdout
    assert octets_below(tmp_path) == before


def test_what_has_expired_is_renewed_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path, *with_hosts(*THREE))
    site = tmp_path / "site"
    monkeypatch.setattr(murder.pki.authority, "BACKDATED", timedelta(days=9))
    for name, role in (("be1.example.org", "backend"), ("operator", "operator")):
        issue(tmp_path / "ca", name, [role], out=site / name, days=-2)
    config = site / "operator/murder.toml"
    config.write_text(config.read_text().replace('"m.example.org"', '"127.0.0.1:1"'))
    words = ["ctl", "mailbox", "find", "user/anna", "--config", str(config)]
    assert main(words) != 0
    said = capsys.readouterr().err
    assert f"murder: {site}/operator/operator.pem: expired on " in said and "`murder init`" in said
    done = init(tmp_path)
    assert f"scp {site}/be1.example.org/be1.example.org.pem " in done.stdout
    assert "fe1.example.org.pem" not in done.stdout
    assert f"The certificate of operator is new, too: {site}/operator/operator.pem" in done.stdout
    assert main(words) != 0 and "operator.pem" not in capsys.readouterr().err


def test_a_host_comes_in_and_nobody_gets_another_authority_or_key(tmp_path: Path) -> None:
    init(tmp_path, *with_hosts(*THREE))
    before = octets_below(tmp_path)
    new = changed(tmp_path, "--host", "be2.example.org=backend@10.0.0.4")
    assert set(new.pop("be2.example.org")) >= {"be2.example.org.key", "ca.pem", "murder.toml"}
    assert new == {
        "be1.example.org": ["murder.toml"],
        "fe1.example.org": ["murder.toml"],
        "operator": ["murder.toml"],
    }
    after = octets_below(tmp_path)
    for file in before:
        assert after[file] == before[file] or file.endswith((".toml", "issued.jsonl")), file
    made = tomli.loads((tmp_path / "site/fe1.example.org/murder.toml").read_text())
    assert made["servers"]["be2.example.org"] == {"address": "10.0.0.4"}
    operator = tomli.loads((tmp_path / "site/operator/murder.toml").read_text())
    asked = [*(host.partition("=")[0] for host in THREE), "10.0.0.4"]
    assert operator["operator"]["nodes"] == asked  # be2's name need not be in DNS
    certificate = tmp_path / "site/be2.example.org/be2.example.org.pem"
    assert set(names_of(read_certificate(certificate))) == {"be2.example.org", "10.0.0.4"}


def test_a_configuration_that_was_changed_by_hand_stays(tmp_path: Path) -> None:
    init(tmp_path, *with_hosts(*THREE))
    file = tmp_path / "site/fe1.example.org/murder.toml"
    mine = file.read_text() + '\n[log]\nlevel = "debug"\n'
    file.write_text(mine)
    assert changed(tmp_path) == {}  # nothing new for anybody
    done = init(tmp_path, "--host", "be2.example.org=backend")
    assert file.read_text() == mine
    assert "be2.example.org" in file.with_name("murder.toml.new").read_text()
    assert f"{file} was changed by hand and stays" in done.stdout


def test_users_of_domains_are_users_of_domains_on_all_nodes_and_for_the_operator(
    tmp_path: Path,
) -> None:
    init(tmp_path, "--domains", *with_hosts(*THREE))
    init(tmp_path, "--host", "be2.example.org=backend")  # what was said stays said
    files = sorted((tmp_path / "site").glob("*/murder.toml"))
    assert len(files) == 5
    for file in files:
        assert tomli.loads(file.read_text())["namespace"] == {"domains": True}, file
    plan = tmp_path / "site/site.toml"
    plan.write_text(plan.read_text().replace("domains = true", 'domains = "yes"'))
    assert "domains: must be true or false" in init(tmp_path, code=2).stderr


def test_what_was_revoked_gets_another_certificate_and_all_are_told(tmp_path: Path) -> None:
    init(tmp_path, *with_hosts(*THREE))
    run_murder("ca", "revoke", "fe1.example.org", "--dir", tmp_path / "ca")
    new = changed(tmp_path)
    assert new.pop("fe1.example.org") == ["fe1.example.org.pem", "fe1.example.org.key", "crl.pem"]
    assert set(new) == {"m.example.org", "be1.example.org", "operator"}
    assert all(files == ["crl.pem"] for files in new.values())
    assert changed(tmp_path) == {}


def test_a_plan_is_read_from_a_file(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'admins = ["root"]\noperator = "anna"\n[hosts.m]\nrole = "mupdate"\n[hosts.b]\nrole = "backend"\n'
        '[hosts.f]\nrole = "frontend"\nnames = ["imap.example.org"]\n'
    )
    init(tmp_path, "--from", str(plan))
    made = tomli.loads((tmp_path / "site/f/murder.toml").read_text())
    assert made["frontend"]["admins"] == ["root"] and made["mupdate"]["master"] == "m"
    assert "imap.example.org" in names_of(read_certificate(tmp_path / "site/f/f.pem"))
    assert (tmp_path / "site/anna/anna.key").exists()
    before = octets_below(tmp_path / "site")
    init(tmp_path, "--from", str(tmp_path / "site/site.toml"))
    assert octets_below(tmp_path / "site") == before


def test_several_masters_and_machines_that_do_everything(tmp_path: Path) -> None:
    """What was written has been checked as `murder serve` checks it."""
    hosts = ("m1=mupdate", "m2=mupdate@10.0.0.2", "n1=unified", "n2=unified")
    init(tmp_path, *with_hosts(*hosts), "--etcd", "https://e1:2379", "--etcd", "https://e2:2379")
    made = {
        name: tomli.loads((tmp_path / "site" / name / "murder.toml").read_text())
        for name in ("m1", "m2", "n1", "n2", "operator")
    }
    assert made["m1"]["mupdate"]["engine"] == made["m2"]["mupdate"]["engine"] == "etcd"
    endpoints = ["https://e1:2379", "https://e2:2379"]
    assert made["m1"]["plugins"]["list_etcd"]["endpoints"] == endpoints
    for name in ("n1", "n2", "operator"):
        assert made[name]["mupdate"]["master"] == ["m1", "10.0.0.2"]
        assert made[name]["servers"] == {"n1": {}, "n2": {}}
    certificate = read_certificate(tmp_path / "site" / "n1" / "n1.pem")
    assert roles_of(certificate) == {"frontend", "backend"}


def test_three_equal_machines(tmp_path: Path) -> None:
    """Each asks its own master and its own etcd first."""
    names = ["n1.example.org", "n2.example.org", "n3.example.org"]
    etcd = [f"https://{name}:2379" for name in names]
    words = [word for url in etcd for word in ("--etcd", url)]
    init(tmp_path, *with_hosts(*(f"{name}=mupdate+unified" for name in names)), *words)
    made = tomli.loads((tmp_path / "site" / names[1] / "murder.toml").read_text())
    assert made["node"]["roles"] == ["mupdate", "unified"]
    assert made["mupdate"]["master"] == [names[1], names[0], names[2]]
    assert made["plugins"]["list_etcd"]["endpoints"] == [etcd[1], etcd[0], etcd[2]]
    assert made["servers"].keys() == set(names) and "imaps" in made["frontend"]
    certificate = read_certificate(tmp_path / "site" / names[1] / f"{names[1]}.pem")
    assert roles_of(certificate) == {"mupdate", "frontend", "backend"}
    assert changed(tmp_path) == {}


def test_where_etcd_has_certificates_three_lines_name_them(tmp_path: Path) -> None:
    """As `murder help masters` calls the files; until they are there, they are comments."""
    init(tmp_path, *with_hosts("n1=mupdate+unified"), "--etcd", "https://n1:2379")
    text = (tmp_path / "site/n1/murder.toml").read_text()
    assert "ca" not in tomli.loads(text)["plugins"]["list_etcd"]
    for key, file in (("ca", "etcd-ca.pem"), ("certificate", "etcd.pem"), ("key", "etcd.key")):
        text = text.replace(f'\n#{key} = "{file}"\n', f'\n{key} = "{file}"\n')
        assert tomli.loads(text)["plugins"]["list_etcd"][key] == file
        assert f'= "/etc/murder/{file}"' in page("masters")


def test_one_machine_may_be_all_of_a_murder_and_others_join_it(tmp_path: Path) -> None:
    init(tmp_path, *with_hosts("n1=mupdate+unified", "n2=unified"))
    made = tomli.loads((tmp_path / "site" / "n1" / "murder.toml").read_text())
    assert made["mupdate"] == {"listen": ["*:3905"], "admins": ["admin"]}


@pytest.mark.parametrize(
    "words, problem",
    [
        ([], "name the hosts: --host NAME=ROLE, or --from FILE"),
        (
            with_hosts("a=master"),
            "want NAME=ROLE or NAME=ROLE@ADDRESS, ROLE one of mupdate, frontend, backend, unified, mupdate+unified",
        ),
        (with_hosts("../../etc=backend"), 'hosts."../../etc": is no host name'),
        (with_hosts("-oProxyCommand=backend"), "is no host name"),
        (with_hosts("m=mupdate", "b=backend"), "a frontend is missing: a host of role frontend"),
        (with_hosts("m=mupdate", "b=backend@no where", "f=frontend"), "neither a host name nor an"),
        (with_hosts("m=mupdate", "n=mupdate", "b=backend", "f=frontend"), "share their list"),
        (
            [*with_hosts("m=mupdate", "b=backend", "f=frontend"), "--operator", "../x"],
            "no name for",
        ),
    ],
)
def test_what_makes_no_murder_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    own = ["--dir", str(tmp_path / "site"), "--ca", str(tmp_path / "ca")]
    assert main(["init", *own, *words]) == 2
    said = capsys.readouterr().err
    assert problem in said and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text, problem",
    [
        ("hosts = 1", "a master is missing"),
        ('[hosts.a]\nrole = "x"', "'x' is none of mupdate, frontend, backend, unified"),
        ("[hosts.a]\n", "must have a role"),
        ('[hosts.a]\nrole = "backend"\nnames = 3', "must be a list of texts"),
        ('[hosts.a]\nrole = "backend"\naddres = "b"', "is no key of a host"),
        ("admin = []", "is no key of a site"),
        ("[hosts", "plan.toml"),
    ],
)
def test_a_plan_that_is_wrong_says_where(tmp_path: Path, text: str, problem: str) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(text)
    with pytest.raises(ConfigError, match=problem):
        site_from(read_table(plan), plan)


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        ("be_1.example.org, be2.example.org", 'hosts."be_1.example.org": is no host name'),
        ("be2.example.org m.example.org", "m.example.org: has another role already"),
        ("operator", "operator: 'operator' is no name for an operator"),
    ],
)
def test_a_name_that_is_wrong_is_asked_for_again(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    problem: str,
) -> None:
    answers = iter(["m.example.org n.example.org", "m.example.org", first, "be1", "fe1"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _question: next(answers))
    own = ["--dir", str(tmp_path / "site"), "--ca", str(tmp_path / "ca")]
    assert main(["init", *own]) == 0
    said = capsys.readouterr().err
    assert said.count("once more, please") == 2
    assert f"  {problem}; once more, please" in said
    assert "etcd: several masters share their list through etcd" in said
    site = site_from(read_table(tmp_path / "site/site.toml"), tmp_path)
    assert list(site.hosts) == ["m.example.org", "be1", "fe1"]


def test_on_a_terminal_it_asks(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = ["init", "--dir", str(tmp_path / "site"), "--ca", str(tmp_path / "ca")]
    with subprocess.Popen(
        [*murder_command(), *words],
        stdin=theirs,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        os.write(ours, b"m.example.org\n\nbe1.example.org, be2.example.org\nfe1.example.org\n")
        said, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0
    assert "Backends, which keep mail" in said
    made = {folder.name for folder in (tmp_path / "site").iterdir() if folder.is_dir()}
    assert made == {
        "m.example.org",
        "be1.example.org",
        "be2.example.org",
        "fe1.example.org",
        "operator",
    }
